"""Triton walks and flips on a tail of Linear layers.

One program plays one order or coalition in one block of 16 samples, then the next, so
that its scratch memory stays in the cache. The scratch holds a row of 16 numbers for
each unit before its activation. As in `_tail_walks` and `_tail_flips` a player that
joins is a rank-one update of the layer that reads it, what follows is computed anew, no
term is ever taken away again, and sums that leave one player out come from a tree.

Kernels must run with ``num_stages=1``: Triton's pipelining of loads knows nothing of
the stores between them.
"""

import triton
import triton.language as tl

from skprune.evaluation._triton_layers import (
    UNITS,
    add_members,
    feed,
    finish,
    open_block,
)
from skprune.evaluation._triton_math import ROWS
from skprune.evaluation._triton_net import (
    ABSENT,
    DEPTH,
    FIELDS,
    FIRST_MEMBER,
    FIXED,
    N_MEMBERS,
    OUT_ROW,
    PLAYER_FIELDS,
    PRESENT,
    Net,
)

__all__ = ["Net", "add_blocks", "play_flips", "play_walks", "sibling"]


@triton.jit
def _copy(source, target, size):
    """Copy small numbers."""
    tl.debug_barrier()
    for first in range(0, size, UNITS):
        at = first + tl.arange(0, UNITS)
        tl.store(target + at, tl.load(source + at, mask=at < size), mask=at < size)
    tl.debug_barrier()


@triton.jit(do_not_specialize=["n_items", "own", "n_free"])
def play_walks(
    net,
    free,
    start,
    orders,
    values,
    codes,
    scratch,
    n_items,
    own,
    n_free,
    PAYOFF: tl.constexpr,
    CLASSES: tl.constexpr,
):
    """Marginals of players that join one by one.

    An item is an order and a block; `orders` has a row for each item where `own` is 1,
    else for each order. `values` (n_items, n_free + 1) gets the marginals, and what the
    start is worth.
    """
    n_blocks = tl.cdiv(net.n_samples, ROWS)
    # Items and programs times sizes may be large numbers.
    program = tl.program_id(0).to(tl.int64)
    rows = scratch + program * net.n_rows * ROWS
    codes += program * net.n_players
    for item in range(program, n_items, tl.num_programs(0)):
        block = open_block(net, item % n_blocks, PAYOFF, CLASSES)
        order = orders + tl.where(own > 0, item, item // n_blocks) * n_free
        out = values + item * (n_free + 1)
        _copy(start, codes, net.n_players)
        add_members(block, rows, codes, free, 0, 0, 0, PRESENT, block.base, rows)
        payoff = 0.0
        # One step more, in front, finishes the start: code is compiled once for both.
        for step in range(-1, n_free):
            at, layer = n_free, -1
            if step >= 0:
                at = tl.load(order + step)
                player = tl.load(free + at)
                layer = tl.load(net.players + player * PLAYER_FIELDS)
                target = rows + tl.load(net.layers + layer * FIELDS + OUT_ROW) * ROWS
                tl.store(codes + player, 1)
                add_members(
                    block, rows, codes, free, layer, at, at + 1, ABSENT, target, target
                )
            first = tl.maximum(layer, 0) + 1
            joined = finish(block, rows, codes, first, PAYOFF, CLASSES)
            tl.store(out + at, joined - payoff)
            payoff = joined


@triton.jit
def sibling(at, last, shift, size):
    """Where the path to leaf `at` of a tree leaves the path to leaf `last`.

    Returns whether their nodes above 2**shift leaves differ, and the range of leaves
    below the sibling of the node above `at`, among `size` leaves.
    """
    low = ((at >> shift) ^ 1) << shift
    return (at >> shift) != (last >> shift), low, tl.minimum(low + (1 << shift), size)


@triton.jit
def _leave_out(block, rows, codes, members, layer, at, last, stack, target):
    """Write the sums of a layer without its member `at` to `target`.

    Level l of the stack holds the sums without the leaves below the node of level l
    above the member `last`; level 0 those without any member.
    """
    table = block.net.layers + layer * FIELDS
    depth, n_members = tl.load(table + DEPTH), tl.load(table + N_MEMBERS)
    members += tl.load(table + FIRST_MEMBER)
    step = block.net.n_wide * ROWS
    for level in range(1, depth + 1):
        differs, low, high = sibling(at, last, depth - level, n_members)
        if differs:
            above, here = stack + (level - 1) * step, stack + level * step
            if level == depth:
                here = target
            add_members(
                block, rows, codes, members, layer, low, high, PRESENT, above, here
            )


@triton.jit
def _try_member(block, full, trial, stack, codes, members, place, last):
    """Fill `trial` with the sums around one member: without it, or with it.

    Returns its layer, and the last member that the stack is up to date for.
    """
    net, player = block.net, tl.load(members + place)
    layer = tl.load(net.players + player * PLAYER_FIELDS)
    table = net.layers + layer * FIELDS
    at = place - tl.load(table + FIRST_MEMBER)
    offset = tl.load(table + OUT_ROW) * ROWS
    if at == 0:
        last = -1
        if layer == 0:
            add_members(
                block, full, codes, members, 0, 0, 0, PRESENT, block.base, stack
            )
        else:
            feed(net, full, codes, layer, FIXED, stack, UNITS)
    if tl.load(codes + player) >= PRESENT:
        _leave_out(block, full, codes, members, layer, at, last, stack, trial + offset)
        last = at
    else:
        add_members(
            block,
            full,
            codes,
            members,
            layer,
            place,
            place + 1,
            ABSENT,
            full + offset,
            trial + offset,
        )
    return layer, last


@triton.jit(do_not_specialize=["n_items", "own", "n_free", "n_members"])
def play_flips(
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
    """Marginals of members around coalitions.

    An item is a coalition and a block; `coalitions` has a row of codes for each item
    where `own` is 1, else for each coalition. `values` (n_items, n_free + 1) gets the
    marginals, at the players' `positions` (-1 where none is asked for), and payoffs.
    """
    n_blocks = tl.cdiv(net.n_samples, ROWS)
    # Items and programs times sizes may be large numbers.
    program = tl.program_id(0).to(tl.int64)
    full = scratch + program * (2 * net.n_rows + net.n_stack) * ROWS
    trial, stack = full + net.n_rows * ROWS, full + 2 * net.n_rows * ROWS
    for item in range(program, n_items, tl.num_programs(0)):
        block = open_block(net, item % n_blocks, PAYOFF, CLASSES)
        row = tl.where(own > 0, item, item // n_blocks)
        codes, out = coalitions + row * net.n_players, values + item * (n_free + 1)
        center, last = 0.0, -1
        # One step more, in front, plays the coalition itself.
        for place in range(-1, n_members):
            layer, rows, position, sign = 0, trial, n_free, 1.0
            if place < 0:
                end = tl.load(net.layers + N_MEMBERS)
                rows = full
                add_members(
                    block, full, codes, members, 0, 0, end, PRESENT, block.base, full
                )
            else:
                layer, last = _try_member(
                    block, full, trial, stack, codes, members, place, last
                )
                player = tl.load(members + place)
                position = tl.load(positions + player)
                sign = tl.where(tl.load(codes + player) >= PRESENT, -1.0, 1.0)
            payoff = finish(block, rows, codes, layer + 1, PAYOFF, CLASSES)
            tl.store(out + position, sign * (payoff - center), mask=position >= 0)
            center = tl.where(place < 0, payoff, center)


@triton.jit(do_not_specialize=["n_blocks", "n_values"])
def add_blocks(values, totals, n_blocks, n_values, SIZE: tl.constexpr):
    """Sums (m, n_values) in float64 over the blocks of values (m, n_blocks, n_values).

    In the order of the blocks, so that no chunk size changes a bit.
    """
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    total = tl.zeros((SIZE,), dtype=tl.float64)
    for block in range(n_blocks):
        value = values + (row * n_blocks + block) * n_values + at
        total += tl.load(value, mask=at < n_values, other=0.0).to(tl.float64)
    tl.store(totals + row * n_values + at, total, mask=at < n_values)
