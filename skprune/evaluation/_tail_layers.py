"""Compiled steps that every game on a tail shares: list, pack, multiply, activate.

Absent units are neither computed nor read. Each sum takes its terms in the order of the
list of present columns, starting from the bias, and no term is ever taken away again: a
coalition whose units all answer 0 has logits that are exactly the biases, and ties stay
ties.
"""

import numpy as np
from numba import njit

from skprune.evaluation._lane_math import ACTIVATIONS, activate_rows, block_payoff
from skprune.evaluation._lane_tiles import load_tile, store_tile, tile_fma
from skprune.evaluation._lanes import load, select, splat, store
from skprune.evaluation._pointers import borrow

__all__ = [
    "accumulate",
    "compute_all",
    "feed",
    "finish",
    "list_columns",
    "n_outputs",
    "pack_layer",
    "settle",
]


_RELU = ACTIVATIONS["relu"]


def _make_passes(rectifies):
    """Compile passes over the inputs that sum up 8 and 10 outputs in registers.

    Fewer would be no faster: each sum waits for the one before it, and it takes eight
    of them side by side to keep the processor busy. `rectifies` reads negative rows as
    0.
    """

    @njit(nogil=True)
    def read(rows, row):
        value = load(rows, row)
        if rectifies:
            return select(value < splat(0.0), splat(0.0), value)
        return value

    @njit(nogil=True)
    def pass_8(weights, at, n_columns, rows, row, base, base_row, out, out_row):
        tile = load_tile(base, base_row, 8)
        for j in range(n_columns):
            tile = tile_fma(tile, weights, at + 8 * j, read(rows, row + j))
        store_tile(out, out_row, tile)

    @njit(nogil=True)
    def pass_10(weights, at, step, n_columns, rows, row, base, base_row, out, out_row):
        tile, rest = load_tile(base, base_row, 8), load_tile(base, base_row + 8, 2)
        for j in range(n_columns):
            value = read(rows, row + j)
            tile = tile_fma(tile, weights, at + 8 * j, value)
            rest = tile_fma(rest, weights, at + step + 8 * j, value)
        store_tile(out, out_row, tile)
        store_tile(out, out_row + 8, rest)

    return pass_8, pass_10


def _make_accumulate(rectifies):
    """Compile a product of weights and rows."""
    pass_8, pass_10 = _make_passes(rectifies)

    @njit(nogil=True)
    def accumulate(
        weights,
        at,
        n_slots,
        start,
        stop,
        rows,
        row,
        base,
        base_row,
        out,
        out_row,
        n_out,
    ):
        """out[u] = base[u] + the sum over start <= j < stop of weight * rows[j].

        `weights` holds from `at` on a layer of `n_slots` columns in tiles of 8 outputs;
        rows beyond the last output, up to a multiple of 8, may be overwritten.
        """
        row += start
        n, step = stop - start, 8 * n_slots
        at += 8 * start
        for u in range(0, n_out, 8):
            to, of = out_row + u, base_row + u
            if 8 < n_out - u <= 10:
                pass_10(weights, at, step, n, rows, row, base, of, out, to)
                break
            pass_8(weights, at, n, rows, row, base, of, out, to)
            at += step

    return accumulate


accumulate = _make_accumulate(False)
_accumulate_rectified = _make_accumulate(True)


@njit(nogil=True)
def feed(tail, work, layer, rows, out):
    """Pre-activations that `layer` makes of those before it, both at their rows.

    May overwrite the rows that it reads with their activations.
    """
    n_in, first = work.n_present[layer], tail.first_row[layer]
    units, n_out = tail.first_row[layer + 1], n_outputs(tail, work, layer)
    at, n_slots = tail.weight_start[layer], tail.widths[layer]
    weights, bias = work.weights, work.bias
    kind = tail.activations[layer - 1] if layer > 0 else 0
    if kind == _RELU:
        _accumulate_rectified(
            weights, at, n_slots, 0, n_in, rows, first, bias, units, out, units, n_out
        )
        return
    if kind:
        activate_rows(rows, first, n_in, kind, tail.slopes[layer - 1])
    accumulate(
        weights, at, n_slots, 0, n_in, rows, first, bias, units, out, units, n_out
    )


@njit(nogil=True)
def n_outputs(tail, work, layer):
    """How many outputs of a layer are present."""
    if layer == tail.n_layers - 1:
        return tail.widths[layer + 1]
    return work.n_present[layer + 1]


@njit(nogil=True)
def list_columns(tail, work, layer, coalition, is_free):
    """List a layer's present columns, those of free players last and player by player.

    Returns how many columns are there whatever the free players do.
    """
    first = tail.first_row[layer]
    n_present = 0
    for column in range(tail.widths[layer]):
        owner = tail.owners[first + column]
        if owner < 0 or (coalition[owner] and not is_free[owner]):
            work.columns[first + n_present] = column
            n_present += 1
    n_fixed = n_present
    for player in range(tail.n_players):
        if tail.player_layer[player] == layer and is_free[player] and coalition[player]:
            for at in range(tail.player_start[player], tail.player_start[player + 1]):
                work.columns[first + n_present] = tail.player_columns[at]
                n_present += 1
    work.n_present[layer] = n_present
    return n_fixed


@njit(nogil=True)
def pack_layer(tail, work, layer):
    """Copy the weights between present units, and the biases of the outputs."""
    n_slots, stride = tail.widths[layer], tail.stride[layer]
    start = tail.weight_start[layer]
    columns, units = tail.first_row[layer], tail.first_row[layer + 1]
    is_last = layer == tail.n_layers - 1
    n_in = work.n_present[layer]
    for u in range(n_outputs(tail, work, layer)):
        unit = u if is_last else work.columns[units + u]
        store(work.bias, units + u, splat(tail.biases[units + unit]))
        to = start + (u // 8) * n_slots * 8 + u % 8
        for j in range(n_in):
            work.weights[to + j * 8] = tail.weights[
                start + work.columns[columns + j] * stride + unit
            ]


@njit(nogil=True)
def compute_all(tail, work, layer):
    """Compute every unit that a layer feeds, present or not, before and after."""
    stride, columns = tail.stride[layer], tail.first_row[layer]
    start, units = tail.weight_start[layer], tail.first_row[layer + 1]
    for u in range(0, stride, 8):
        for i in range(u, u + 8):
            store(work.full_sums, units + i, splat(tail.biases[units + i]))
        tile = load_tile(work.full_sums, units + u, 8)
        for j in range(work.n_present[layer]):
            column = work.columns[columns + j]
            value = load(work.full, columns + column)
            tile = tile_fma(tile, tail.weights, start + column * stride + u, value)
        store_tile(work.full_sums, units + u, tile)
    for i in range(units, units + tail.widths[layer + 1]):
        store(work.full, i, load(work.full_sums, i))
    kind, slope = tail.activations[layer], tail.slopes[layer]
    activate_rows(work.full, units, tail.widths[layer + 1], kind, slope)


@njit(nogil=True)
def settle(tail, work, block, coalition, is_free, n_fixed):
    """Fill the workspace with the state of one block in one coalition.

    Writes to `n_fixed` how many columns of each layer do not depend on free players,
    and returns the block's payoff.
    """
    for row in range(tail.widths[0]):
        store(work.full, row, load(tail.inputs, block * tail.widths[0] + row))
    n_layers = tail.n_layers
    for layer in range(n_layers):
        n_fixed[layer] = list_columns(tail, work, layer, coalition, is_free)
        compute_all(tail, work, layer)
    for layer in range(n_layers):
        pack_layer(tail, work, layer)
        first = tail.first_row[layer]
        for j in range(work.n_present[layer]):
            column = work.columns[first + j]
            store(work.packed, first + j, load(work.full, first + column))
        units = tail.first_row[layer + 1]
        for u in range(n_outputs(tail, work, layer)):
            unit = u if layer == n_layers - 1 else work.columns[units + u]
            store(work.sums, units + u, load(work.full_sums, units + unit))
    return output_payoff(tail, work.sums, block)


@njit(nogil=True)
def output_payoff(tail, rows, block):
    """What a block earns with the outputs in `rows`, summed over its samples."""
    n_layers = tail.n_layers
    return block_payoff(
        tail.payoff,
        rows,
        tail.first_row[n_layers],
        tail.widths[n_layers],
        tail.targets,
        block * tail.n_targets,
        tail.n_lanes[block],
    )


@njit(nogil=True)
def finish(tail, work, layer, block):
    """Payoff of a block where `trial` holds the pre-activations of `layer`."""
    for following in range(layer + 1, tail.n_layers):
        feed(tail, work, following, work.trial, work.trial)
    return output_payoff(tail, work.trial, block)


@njit(nogil=True, cache=True)
def compute_prefix(tail_arrays, work_arrays, coalition, n_layers, out):
    """Write the inputs of layer `n_layers` in one coalition to `out`."""
    tail, work = borrow(tail_arrays), borrow(work_arrays)
    is_free = np.zeros(len(coalition), dtype=np.bool_)
    for layer in range(n_layers):
        list_columns(tail, work, layer, coalition, is_free)
    first = tail.first_row[n_layers]
    for block in range(tail.n_blocks):
        for row in range(tail.widths[0]):
            store(work.full, row, load(tail.inputs, block * tail.widths[0] + row))
        for layer in range(n_layers):
            compute_all(tail, work, layer)
        for row in range(tail.widths[n_layers]):
            store(
                out, block * tail.widths[n_layers] + row, load(work.full, first + row)
            )


@njit(nogil=True, cache=True)
def play_coalitions(tail_arrays, work_arrays, coalitions, out):
    """Payoff of each coalition, summed over the samples, block after block."""
    tail, work = borrow(tail_arrays), borrow(work_arrays)
    is_free = np.zeros(tail.n_players, dtype=np.bool_)
    for index in range(len(coalitions)):
        for layer in range(tail.n_layers):
            list_columns(tail, work, layer, coalitions[index], is_free)
        for layer in range(tail.n_layers):
            pack_layer(tail, work, layer)
        for block in range(tail.n_blocks):
            for j in range(work.n_present[0]):
                row = block * tail.widths[0] + work.columns[j]
                store(work.trial, j, load(tail.inputs, row))
            feed(tail, work, 0, work.trial, work.trial)
            out[index] += finish(tail, work, 0, block)
