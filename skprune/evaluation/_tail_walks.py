"""Compiled walks on a tail: players join one by one.

A player that joins is one rank-one update of the layer that reads it; only what follows
is computed anew. A unit that is absent is not computed at all: its sum over the present
inputs is formed when it joins.
"""

import numpy as np
from numba import njit

from skprune.evaluation._lane_math import activate_rows
from skprune.evaluation._lanes import fma, load, splat, store
from skprune.evaluation._pointers import borrow
from skprune.evaluation._tail_layers import (
    accumulate,
    n_outputs,
    output_payoff,
    settle,
)

__all__ = ["play_walks"]


@njit(nogil=True, cache=True)
def play_walks(
    tail_arrays, work_arrays, start, free, orders, first_block, last_block, out
):
    """Add the marginals of the free players in some blocks to `out` (m, n_free).

    `orders` has the shape (m, n_blocks, n_free), or 1 in place of n_blocks.
    """
    tail, work = borrow(tail_arrays), borrow(work_arrays)
    coalition = start.copy()
    for player in free:
        coalition[player] = False
    is_free = np.zeros(len(start), dtype=np.bool_)
    n_fixed = np.zeros(tail.n_layers, dtype=np.int64)
    for block in range(first_block, last_block):
        own = block if orders.shape[1] > 1 else 0
        for index in range(len(orders)):
            payoff = settle(tail, work, block, coalition, is_free, n_fixed)
            for at in orders[index, own]:
                _join(tail, work, free[at])
                joined = output_payoff(tail, work.sums, block)
                out[index, at] += joined - payoff
                payoff = joined


@njit(nogil=True)
def _join(tail, work, player):
    """Let one player join the state in the workspace."""
    layer = tail.player_layer[player]
    for at in range(tail.player_start[player], tail.player_start[player + 1]):
        column = tail.player_columns[at]
        if layer > 0:
            _wake_unit(tail, work, layer, column)
        else:
            store(work.packed, work.n_present[0], load(work.full, column))
        _add_column(tail, work, layer, column)
    for following in range(layer + 1, tail.n_layers):
        _refresh(tail, work, following)


@njit(nogil=True)
def _wake_unit(tail, work, layer, unit):
    """Compute a unit that joins the inputs of `layer`, from the inputs present."""
    before = layer - 1
    columns, units = tail.first_row[before], tail.first_row[layer]
    slot = work.n_present[layer]
    start, stride = tail.weight_start[before], tail.stride[before]
    to = start + (slot // 8) * tail.widths[before] * 8 + slot % 8
    total = splat(tail.biases[units + unit])
    store(work.bias, units + slot, total)
    for j in range(work.n_present[before]):
        weight = tail.weights[start + work.columns[columns + j] * stride + unit]
        work.weights[to + j * 8] = weight
        total = fma(splat(weight), load(work.packed, columns + j), total)
    store(work.sums, units + slot, total)
    store(work.packed, units + slot, total)
    kind, slope = tail.activations[before], tail.slopes[before]
    activate_rows(work.packed, units + slot, 1, kind, slope)


@njit(nogil=True)
def _add_column(tail, work, layer, column):
    """Append a column to a layer's list and add what it gives to the sums."""
    first, units = tail.first_row[layer], tail.first_row[layer + 1]
    slot = work.n_present[layer]
    work.columns[first + slot] = column
    work.n_present[layer] += 1
    value = load(work.packed, first + slot)
    is_last = layer == tail.n_layers - 1
    start = tail.weight_start[layer]
    row = start + column * tail.stride[layer]
    for u in range(n_outputs(tail, work, layer)):
        weight = tail.weights[row + (u if is_last else work.columns[units + u])]
        to = start + ((u // 8) * tail.widths[layer] + slot) * 8 + u % 8
        work.weights[to] = weight
        total = fma(splat(weight), value, load(work.sums, units + u))
        store(work.sums, units + u, total)


@njit(nogil=True)
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
    )
