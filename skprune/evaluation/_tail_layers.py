"""Compiled steps that every game on a tail shares: list, pack, multiply, activate.

Absent units are neither computed nor read. Each sum takes its terms in the order of the
list of present columns, starting from the bias, and no term is ever taken away again: a
coalition whose units all answer 0 has logits that are exactly the biases, and ties stay
ties.
"""

import numpy as np

from skprune.evaluation._lane_math import ACTIVATIONS, activate_rows
from skprune.evaluation._lane_passes import plain_pass, rectified_pass
from skprune.evaluation._lane_payoffs import block_payoff
from skprune.evaluation._lane_tiles import load_tile, store_tile, tile_fma
from skprune.evaluation._lanes import load, splat, store
from skprune.evaluation._pointers import entry_point, kernel_part
from skprune.evaluation._tail import read_tail
from skprune.evaluation._tail_workspace import read_workspace

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


@kernel_part
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
    rectifies,
):
    """out[u] = base[u] + the sum over start <= j < stop of weight * rows[j].

    `weights` holds from `at` on a layer of `n_slots` columns in tiles of 8 outputs;
    rows beyond the last output, up to a multiple of 8, may be overwritten. `rectifies`
    reads negative rows as 0.
    """
    n, step = stop - start, 8 * n_slots
    at, inputs = at + 8 * start, (rows, row + start)
    for u in range(0, n_out, 8):
        to, of = out_row + u, base_row + u
        # Fewer than eight sums side by side would be no faster: each waits for the one
        # before it.
        if 8 < n_out - u <= 10:
            wide = load_tile(base, of, 10)
            if rectifies:
                wide = rectified_pass(wide, weights, at, step, n, inputs)
            else:
                wide = plain_pass(wide, weights, at, step, n, inputs)
            store_tile(out, to, wide)
            break
        tile = load_tile(base, of, 8)
        if rectifies:
            tile = rectified_pass(tile, weights, at, step, n, inputs)
        else:
            tile = plain_pass(tile, weights, at, step, n, inputs)
        store_tile(out, to, tile)
        at += step


@kernel_part
def feed(tail, work, layer, rows, out):
    """Pre-activations that `layer` makes of those before it, both at their rows.

    May overwrite the rows that it reads with their activations.
    """
    n_in, first = work.n_present[layer], tail.first_row[layer]
    units, n_out = tail.first_row[layer + 1], n_outputs(tail, work, layer)
    at, n_slots = tail.weight_start[layer], tail.widths[layer]
    weights, bias = work.weights, work.bias
    kind = tail.activations[layer - 1] if layer > 0 else 0
    if kind > _RELU:
        activate_rows(rows, first, n_in, kind, tail.slopes[layer - 1])
    accumulate(
        weights,
        at,
        n_slots,
        0,
        n_in,
        rows,
        first,
        bias,
        units,
        out,
        units,
        n_out,
        kind == _RELU,
    )


@kernel_part
def n_outputs(tail, work, layer):
    """How many outputs of a layer are present."""
    if layer == tail.n_layers - 1:
        return tail.widths[layer + 1]
    return work.n_present[layer + 1]


@kernel_part
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


@kernel_part
def pack_layer(tail, work, layer):
    """Copy the weights between present units, and the biases of the outputs."""
    n_slots, stride = tail.widths[layer], tail.stride[layer]
    start = tail.weight_start[layer]
    columns, units = tail.first_row[layer], tail.first_row[layer + 1]
    is_last = layer == tail.n_layers - 1
    n_in = work.n_present[layer]
    n_out = n_outputs(tail, work, layer)
    for u in range(n_out):
        unit = u if is_last else work.columns[units + u]
        store(work.bias, units + u, splat(tail.biases[units + unit]))
    for j in range(n_in):
        of = start + work.columns[columns + j] * stride
        for u in range(n_out):
            unit = u if is_last else work.columns[units + u]
            work.weights[start + ((u // 8) * n_slots + j) * 8 + u % 8] = tail.weights[
                of + unit
            ]


@kernel_part
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


@kernel_part
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


@kernel_part
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


@kernel_part
def finish(tail, work, layer, block):
    """Payoff of a block where `trial` holds the pre-activations of `layer`."""
    for following in range(layer + 1, tail.n_layers):
        feed(tail, work, following, work.trial, work.trial)
    return output_payoff(tail, work.trial, block)


@entry_point
def compute_prefix(tail_table, work_table, coalition, n_layers, out):
    """Write the inputs of layer `n_layers` in one coalition to `out`."""
    tail, work = read_tail(tail_table), read_workspace(work_table)
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


@entry_point
def play_coalitions(tail_table, work_table, coalitions, out):
    """Payoff of each coalition, summed over the samples, block after block."""
    tail, work = read_tail(tail_table), read_workspace(work_table)
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
