"""Triton steps that every game on a tail shares: add columns, feed layers, finish.

A program is a group of threads that exchange rows of 16 numbers through memory, so
whatever writes rows starts and ends with a barrier. Sums start from the bias, in
float32, and an absent unit gives them nothing but zeros.
"""

import triton
import triton.language as tl

from skprune.evaluation._triton_math import ROWS, activated, block_payoff, load_goals
from skprune.evaluation._triton_net import (
    FIELDS,
    FIXED,
    IN_ROW,
    KIND,
    N_IN,
    N_OUT,
    OUT_ROW,
    PLAYER_FIELDS,
    PRESENT,
    SLOPE,
    STRIDE,
    WEIGHTS,
    Block,
)

__all__ = ["UNITS", "add_members", "feed", "finish", "open_block"]

# Units and inputs that one tile takes together.
UNITS = tl.constexpr(64)
_INPUTS = tl.constexpr(16)


@triton.jit
def _value(block, rows, layer, column):
    """What a layer reads in a column, shape (16,)."""
    lanes = tl.arange(0, ROWS)
    if layer == 0:
        value = tl.load(block.inputs + column * ROWS + lanes)
    else:
        table = block.net.layers + layer * FIELDS
        slope = tl.load(table + SLOPE).to(tl.float32, bitcast=True)
        row = tl.load(table + IN_ROW) + column
        unit = tl.load(rows + row * ROWS + lanes)
        value = activated(unit, tl.load(table + KIND), slope)
    return value


@triton.jit
def add_members(block, rows, codes, members, layer, low, high, least, source, target):
    """Write the rows at `source` with the columns of some members to `target`.

    They are those from `low` to `high` whose code is at least `least`.
    """
    tl.debug_barrier()
    net, table = block.net, block.net.layers + layer * FIELDS
    n_out = tl.load(table + N_OUT)
    start, stride = tl.load(table + WEIGHTS), tl.load(table + STRIDE)
    for first in range(0, n_out, UNITS):
        units = first + tl.arange(0, UNITS)
        is_unit = units < n_out
        at = units[None, :] * ROWS + tl.arange(0, ROWS)[:, None]
        sums = tl.load(source + at, mask=is_unit[None, :], other=0.0)
        for place in range(low, high):
            player = tl.load(members + place)
            if tl.load(codes + player) >= least:
                span = net.players + player * PLAYER_FIELDS
                for i in range(tl.load(span + 1), tl.load(span + 2)):
                    column = tl.load(net.players + i)
                    value = _value(block, rows, layer, column)
                    weight = net.weights + start + column * stride + units
                    weight = tl.load(weight, mask=is_unit, other=0.0)
                    sums += value[:, None] * weight[None, :]
        tl.store(target + at, sums, mask=is_unit[None, :])
    tl.debug_barrier()


@triton.jit
def feed(net, rows, codes, layer, least, target, WIDTH: tl.constexpr):
    """Write to `target` what a layer makes of its inputs in `rows`."""
    tl.debug_barrier()
    table, lanes = net.layers + layer * FIELDS, tl.arange(0, ROWS)[:, None]
    n_in, n_out = tl.load(table + N_IN), tl.load(table + N_OUT)
    start, stride = tl.load(table + WEIGHTS), tl.load(table + STRIDE)
    in_row, out_row = tl.load(table + IN_ROW), tl.load(table + OUT_ROW)
    kind, slope = tl.load(table + KIND), tl.load(table + SLOPE)
    slope = slope.to(tl.float32, bitcast=True)
    for first in range(0, n_out, WIDTH):
        units = first + tl.arange(0, WIDTH)
        is_unit = units < n_out
        bias = tl.load(net.biases + out_row + units, mask=is_unit, other=0.0)
        sums = tl.zeros((ROWS, WIDTH), dtype=tl.float32) + bias[None, :]
        for left in range(0, n_in, _INPUTS):
            columns = left + tl.arange(0, _INPUTS)
            is_in = columns < n_in
            owner = tl.load(net.owners + in_row + columns, mask=is_in, other=-1)
            code = tl.load(codes + owner, mask=owner >= 0, other=FIXED)
            at = (in_row + columns)[None, :] * ROWS + lanes
            value = tl.load(rows + at, mask=is_in[None, :], other=0.0)
            keep = is_in & (code >= least)
            # Chosen, not multiplied: an absent unit may be infinite.
            value = tl.where(keep[None, :], activated(value, kind, slope), 0.0)
            weight = start + columns[:, None] * stride + units[None, :]
            is_weight = is_in[:, None] & is_unit[None, :]
            weight = tl.load(net.weights + weight, mask=is_weight, other=0.0)
            sums = tl.dot(value, weight, sums, input_precision="ieee")
        at = units[None, :] * ROWS + lanes
        tl.store(target + at, sums, mask=is_unit[None, :])
    tl.debug_barrier()


@triton.jit
def finish(block, rows, codes, first, PAYOFF: tl.constexpr, CLASSES: tl.constexpr):
    """Compute the layers from `first` on, and what their outputs earn."""
    net, last = block.net, block.net.n_layers - 1
    for layer in range(first, last):
        target = rows + tl.load(net.layers + layer * FIELDS + OUT_ROW) * ROWS
        feed(net, rows, codes, layer, PRESENT, target, UNITS)
    outputs = rows + tl.load(net.layers + last * FIELDS + OUT_ROW) * ROWS
    WIDTH: tl.constexpr = CLASSES if CLASSES < UNITS else UNITS
    if first <= last:
        feed(net, rows, codes, last, PRESENT, outputs, WIDTH)
    classes = tl.arange(0, CLASSES)[None, :]
    at = classes * ROWS + tl.arange(0, ROWS)[:, None]
    logits = tl.load(outputs + at, mask=classes < block.n_classes, other=0.0)
    return block_payoff(
        logits, block.goal, block.n_classes, block.n_lanes, PAYOFF, CLASSES
    )


@triton.jit
def open_block(net, at, PAYOFF: tl.constexpr, CLASSES: tl.constexpr):
    """Where a block's samples lie, and what it should answer."""
    n_classes = tl.load(net.layers + (net.n_layers - 1) * FIELDS + N_OUT)
    return Block(
        net=net,
        inputs=net.inputs + at * tl.load(net.layers + N_IN) * ROWS,
        base=net.base + at * tl.load(net.layers + N_OUT) * ROWS,
        goal=load_goals(net.goals, at, n_classes, PAYOFF, CLASSES),
        n_lanes=net.n_samples - at * ROWS,
        n_classes=n_classes,
    )
