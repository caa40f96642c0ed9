"""Compiled walks on a tail: players join one by one.

A player that joins is one rank-one update of the layer that reads it; only what follows
is computed anew. A unit that is absent is not computed at all: its sum over the present
inputs is formed when it joins.
"""

import numpy as np

from skprune.evaluation._lane_math import activate_rows
from skprune.evaluation._lanes import fma, load, splat, store
from skprune.evaluation._pointers import entry_point, kernel_part
from skprune.evaluation._tail import read_tail
from skprune.evaluation._tail_joins import add_column, feeds_at_once, join_for_good
from skprune.evaluation._tail_layers import (
    accumulate,
    n_outputs,
    output_payoff,
    settle,
)
from skprune.evaluation._tail_workspace import read_workspace

__all__ = ["play_walks"]


@entry_point
def play_walks(tail_table, work_table, start, free, orders, names, out):
    """Add the marginals of the free players to `out` (m, n_free).

    `orders` has the shape (m, n_blocks, n_free) and `names`, by which they are read,
    (n_blocks, n_free), each or 1 in place of n_blocks.
    """
    tail, work = read_tail(tail_table), read_workspace(work_table)
    coalition = start.copy()
    for player in free:
        coalition[player] = False
    is_free = np.zeros(len(start), dtype=np.bool_)
    n_fixed = np.zeros(tail.n_layers, dtype=np.int64)
    for block in range(tail.n_blocks):
        own = block if orders.shape[1] > 1 else 0
        named = names[block if len(names) > 1 else 0]
        for index in range(len(orders)):
            payoff = settle(tail, work, block, coalition, is_free, n_fixed)
            for place in orders[index, own]:
                at = named[place]
                _join(tail, work, free[at])
                joined = output_payoff(tail, work.sums, block)
                out[index, at] += joined - payoff
                payoff = joined


@kernel_part
def _join(tail, work, player):
    """Let one player join the state in the workspace."""
    layer = tail.player_layer[player]
    first, last = tail.player_start[player], tail.player_start[player + 1]
    following = layer + 1
    for at in range(first, last):
        column, slot = tail.player_columns[at], work.n_present[layer]
        if layer > 0:
            _wake_unit(tail, work, layer, column)
            _append_weights(tail, work, layer, column)
        else:
            store(work.packed, slot, load(work.full, column))
        work.columns[tail.first_row[layer] + slot] = column
        work.n_present[layer] += 1
        value = load(work.packed, tail.first_row[layer] + slot)
        if last - first == 1 and feeds_at_once(tail, work, layer):
            join_for_good(tail, work, layer, column, value)
            following = layer + 2
        else:
            add_column(tail, work, layer, column, value, work.sums, work.sums)
    for later in range(following, tail.n_layers):
        _refresh(tail, work, later)


@kernel_part
def _wake_unit(tail, work, layer, unit):
    """Compute a unit that joins the inputs of `layer`, from the inputs present."""
    before = layer - 1
    columns, units = tail.first_row[before], tail.first_row[layer]
    slot, n_present = work.n_present[layer], work.n_present[before]
    start, stride = tail.weight_start[before] + unit, tail.stride[before]
    # Four sums side by side: each would wait for its last addition.
    sums = (splat(tail.biases[units + unit]), splat(0.0), splat(0.0), splat(0.0))
    store(work.bias, units + slot, sums[0])
    for j in range(0, n_present - n_present % 4, 4):
        sums = (
            _with_input(tail, work, start, stride, columns + j, sums[0]),
            _with_input(tail, work, start, stride, columns + j + 1, sums[1]),
            _with_input(tail, work, start, stride, columns + j + 2, sums[2]),
            _with_input(tail, work, start, stride, columns + j + 3, sums[3]),
        )
    total = (sums[0] + sums[1]) + (sums[2] + sums[3])
    for j in range(n_present - n_present % 4, n_present):
        total = _with_input(tail, work, start, stride, columns + j, total)
    if before > 0:
        to = tail.weight_start[before]
        to += (slot // 8) * tail.widths[before] * 8 + slot % 8
        for j in range(n_present):
            weight = tail.weights[start + work.columns[columns + j] * stride]
            work.weights[to + j * 8] = weight
    store(work.sums, units + slot, total)
    store(work.packed, units + slot, total)
    kind, slope = tail.activations[before], tail.slopes[before]
    activate_rows(work.packed, units + slot, 1, kind, slope)


@kernel_part
def _with_input(tail, work, start, stride, row, total):
    """A unit's sum and what one present input adds to it."""
    weight = tail.weights[start + work.columns[row] * stride]
    return fma(splat(weight), load(work.packed, row), total)


@kernel_part
def _append_weights(tail, work, layer, column):
    """Pack a column's weights behind those of the columns present."""
    units, slot = tail.first_row[layer + 1], work.n_present[layer]
    is_last = layer == tail.n_layers - 1
    start, n_slots = tail.weight_start[layer], tail.widths[layer]
    row = start + column * tail.stride[layer]
    for u in range(n_outputs(tail, work, layer)):
        weight = tail.weights[row + (u if is_last else work.columns[units + u])]
        work.weights[start + ((u // 8) * n_slots + slot) * 8 + u % 8] = weight


@kernel_part
def _refresh(tail, work, layer):
    """Compute a layer anew, because the units before it have changed."""
    first = tail.first_row[layer]
    for row in range(first, first + work.n_present[layer]):
        store(work.packed, row, load(work.sums, row))
    kind, slope = tail.activations[layer - 1], tail.slopes[layer - 1]
    activate_rows(work.packed, first, work.n_present[layer], kind, slope)
    units = tail.first_row[layer + 1]
    accumulate(
        work.weights,
        tail.weight_start[layer],
        tail.widths[layer],
        0,
        work.n_present[layer],
        work.packed,
        first,
        work.bias,
        units,
        work.sums,
        units,
        n_outputs(tail, work, layer),
        False,
    )
