"""Triton walks and flips where only inputs of the last layer come and go.

The outputs of a block stay in registers for a whole walk. Otherwise as in `_triton`.
"""

import triton
import triton.language as tl

from skprune.evaluation._triton import sibling
from skprune.evaluation._triton_layers import open_block
from skprune.evaluation._triton_math import ROWS, block_payoff
from skprune.evaluation._triton_net import (
    DEPTH,
    N_MEMBERS,
    PLAYER_FIELDS,
    PRESENT,
    STRIDE,
)

__all__ = ["play_output_flips", "play_output_walks"]


@triton.jit
def _join(block, player, outputs, classes, stride):
    """Outputs with the columns of one player more."""
    net = block.net
    span = net.players + player * PLAYER_FIELDS
    for i in range(tl.load(span + 1), tl.load(span + 2)):
        column = tl.load(net.players + i)
        value = tl.load(block.inputs + column * ROWS + tl.arange(0, ROWS))
        weight = net.weights + column * stride + classes
        weight = tl.load(weight, mask=classes < block.n_classes, other=0.0)
        outputs += value[:, None] * weight[None, :]
    return outputs


@triton.jit
def _join_present(block, codes, members, low, high, outputs, classes, stride):
    """Outputs with the present members from `low` to `high`."""
    for at in range(low, high):
        player = tl.load(members + at)
        if tl.load(codes + player) >= PRESENT:
            outputs = _join(block, player, outputs, classes, stride)
    return outputs


@triton.jit
def _earned(block, outputs, PAYOFF: tl.constexpr, CLASSES: tl.constexpr):
    """What a block earns with its outputs."""
    return block_payoff(
        outputs, block.goal, block.n_classes, block.n_lanes, PAYOFF, CLASSES
    )


@triton.jit
def _first_outputs(block, classes):
    """Outputs (16, n_classes) without the players of the game."""
    at = classes[None, :] * ROWS + tl.arange(0, ROWS)[:, None]
    return tl.load(
        block.base + at, mask=(classes < block.n_classes)[None, :], other=0.0
    )


@triton.jit(do_not_specialize=["n_items", "own", "n_free"])
def play_output_walks(
    net,
    free,
    orders,
    values,
    n_items,
    own,
    n_free,
    PAYOFF: tl.constexpr,
    CLASSES: tl.constexpr,
):
    """As `play_walks`, for one layer."""
    n_blocks = tl.cdiv(net.n_samples, ROWS)
    # Items and programs times sizes may be large numbers.
    program = tl.program_id(0).to(tl.int64)
    classes, stride = tl.arange(0, CLASSES), tl.load(net.layers + STRIDE)
    for item in range(program, n_items, tl.num_programs(0)):
        block = open_block(net, item % n_blocks, PAYOFF, CLASSES)
        order = orders + tl.where(own > 0, item, item // n_blocks) * n_free
        out = values + item * (n_free + 1)
        outputs = _first_outputs(block, classes)
        payoff = _earned(block, outputs, PAYOFF, CLASSES)
        tl.store(out + n_free, payoff)
        for step in range(n_free):
            at = tl.load(order + step)
            outputs = _join(block, tl.load(free + at), outputs, classes, stride)
            joined = _earned(block, outputs, PAYOFF, CLASSES)
            tl.store(out + at, joined - payoff)
            payoff = joined


@triton.jit
def _leave_out(block, codes, members, at, last, outputs, stack, classes, stride):
    """Outputs without the member `at`; see `_triton._leave_out`."""
    depth = tl.load(block.net.layers + DEPTH)
    n_members = tl.load(block.net.layers + N_MEMBERS)
    step = block.net.n_wide * ROWS
    tile = classes[None, :] * ROWS + tl.arange(0, ROWS)[:, None]
    is_class = (classes < block.n_classes)[None, :]
    for level in range(1, depth + 1):
        differs, low, high = sibling(at, last, depth - level, n_members)
        here = stack + level * step + tile
        if differs:
            outputs = _join_present(
                block, codes, members, low, high, outputs, classes, stride
            )
            tl.store(here, outputs, mask=is_class)
            # Other threads may read it. The leaf is always written, so that no thread
            # is more than one member ahead.
            tl.debug_barrier()
        else:
            outputs = tl.load(here, mask=is_class, other=0.0)
    return outputs


@triton.jit(do_not_specialize=["n_items", "own", "n_free", "n_members"])
def play_output_flips(
    net,
    members,
    positions,
    coalitions,
    values,
    scratch,
    n_items,
    own,
    n_free,
    n_members,
    PAYOFF: tl.constexpr,
    CLASSES: tl.constexpr,
):
    """As `play_flips`, for one layer."""
    n_blocks = tl.cdiv(net.n_samples, ROWS)
    # Items and programs times sizes may be large numbers.
    program = tl.program_id(0).to(tl.int64)
    classes, stride = tl.arange(0, CLASSES), tl.load(net.layers + STRIDE)
    stack = scratch + program * net.n_stack * ROWS
    n_present = tl.load(net.layers + N_MEMBERS)
    for item in range(program, n_items, tl.num_programs(0)):
        block = open_block(net, item % n_blocks, PAYOFF, CLASSES)
        row = tl.where(own > 0, item, item // n_blocks)
        codes = coalitions + row * net.n_players
        out = values + item * (n_free + 1)
        nobody = _first_outputs(block, classes)
        full = _join_present(
            block, codes, members, 0, n_present, nobody, classes, stride
        )
        center = _earned(block, full, PAYOFF, CLASSES)
        tl.store(out + n_free, center)
        last = -1
        for at in range(n_members):
            player = tl.load(members + at)
            position = tl.load(positions + player)
            if tl.load(codes + player) >= PRESENT:
                outputs = _leave_out(
                    block, codes, members, at, last, nobody, stack, classes, stride
                )
                last = at
                sign = -1.0
            else:
                outputs = _join(block, player, full, classes, stride)
                sign = 1.0
            gain = sign * (_earned(block, outputs, PAYOFF, CLASSES) - center)
            tl.store(out + position, gain, mask=position >= 0)
