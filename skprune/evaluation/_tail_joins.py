"""Compiled joins: a column is added to a layer's sums, and the next layer reads them.

Where the units between are rectified and the next layer has ten outputs at most, one
pass over the units does both, and no sum is written only to be read again.
"""

from skprune.evaluation._lane_math import ACTIVATIONS
from skprune.evaluation._lane_passes import joined_pass, kept_pass
from skprune.evaluation._lane_tiles import load_tile, store_tile
from skprune.evaluation._lanes import fma, load, splat, store
from skprune.evaluation._pointers import kernel_part
from skprune.evaluation._tail_layers import n_outputs

__all__ = ["add_column", "feeds_at_once", "join_column", "join_for_good"]

_RELU = ACTIVATIONS["relu"]
_WIDEST = 10


@kernel_part
def feeds_at_once(tail, work, layer):
    """Whether `join_column` knows how the units that a layer feeds are read."""
    return (
        layer + 1 < tail.n_layers
        and tail.activations[layer] == _RELU
        and n_outputs(tail, work, layer + 1) <= _WIDEST
    )


@kernel_part
def join_column(tail, work, layer, column, value, base, at, out):
    """Feed rows `at` on of `base`, with a column more, into the next layer.

    Writes the pre-activations that the next layer makes of them to its rows of `out`.
    """
    units, outputs = tail.first_row[layer + 1], tail.first_row[layer + 2]
    weights = tail.weight_start[layer] + column * tail.stride[layer]
    inputs = (base, at, tail.weights, weights, work.columns, units, value)
    start, step = tail.weight_start[layer + 1], 8 * tail.widths[layer + 1]
    n_units = work.n_present[layer + 1]
    if n_outputs(tail, work, layer + 1) <= 8:
        tile = load_tile(work.bias, outputs, 8)
        tile = joined_pass(tile, work.weights, start, step, n_units, inputs)
        store_tile(out, outputs, tile)
    else:
        wide = load_tile(work.bias, outputs, 10)
        wide = joined_pass(wide, work.weights, start, step, n_units, inputs)
        store_tile(out, outputs, wide)


@kernel_part
def join_for_good(tail, work, layer, column, value):
    """As `join_column`, for a column that stays: `sums` and `packed` have it too."""
    units, outputs = tail.first_row[layer + 1], tail.first_row[layer + 2]
    weights = tail.weight_start[layer] + column * tail.stride[layer]
    inputs = (
        work.sums,
        units,
        tail.weights,
        weights,
        work.columns,
        units,
        value,
        work.packed,
    )
    start, step = tail.weight_start[layer + 1], 8 * tail.widths[layer + 1]
    n_units = work.n_present[layer + 1]
    if n_outputs(tail, work, layer + 1) <= 8:
        tile = load_tile(work.bias, outputs, 8)
        tile = kept_pass(tile, work.weights, start, step, n_units, inputs)
        store_tile(work.sums, outputs, tile)
    else:
        wide = load_tile(work.bias, outputs, 10)
        wide = kept_pass(wide, work.weights, start, step, n_units, inputs)
        store_tile(work.sums, outputs, wide)


@kernel_part
def add_column(tail, work, layer, column, value, base, out):
    """Write a layer's sums in `base`, with a column of `value` more, to `out`."""
    units, is_last = tail.first_row[layer + 1], layer == tail.n_layers - 1
    weights = tail.weight_start[layer] + column * tail.stride[layer]
    for u in range(n_outputs(tail, work, layer)):
        unit = u if is_last else work.columns[units + u]
        weight = splat(tail.weights[weights + unit])
        store(out, units + u, fma(weight, value, load(base, units + u)))
