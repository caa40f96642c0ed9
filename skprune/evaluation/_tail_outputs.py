"""Compiled accuracies where only inputs of the last layer come and go.

The outputs of up to ten classes stay in registers for a whole walk, and so does each
sample's output of its own class, whose row among the others is minus infinity. A sample
is right where the largest other output is smaller; only where they are equal it matters
which class wins the tie. All numbers must be finite: the caller sees to that.
"""

import numpy as np
from numba import njit

from skprune.evaluation._lane_tiles import (
    load_tile,
    store_tile,
    tile_add,
    tile_at_most,
    tile_fma,
    tile_max,
    zero_tile,
)
from skprune.evaluation._lanes import (
    bits,
    count_bits,
    first_lanes,
    fma,
    load,
    select,
    splat,
    store,
)
from skprune.evaluation._pointers import borrow, pointer
from skprune.evaluation._tail_layers import compute_all, list_columns
from skprune.evaluation._tail_workspace import MAX_CLASSES

__all__ = ["play_output_flips", "play_output_walks"]

# Bound of "output minus own output" for the classes that win ties against the own one.
_BELOW_ZERO = float(-np.finfo(np.float32).smallest_subnormal)


@njit(nogil=True)
def _wins(outputs, truth, bounds):
    """Bits of the lanes whose own class beats the classes of a tile."""
    best = tile_max(outputs)
    if bits(best == truth):
        return bits(tile_at_most(outputs, truth, bounds))
    return bits(best < truth)


@njit(nogil=True)
def _join(tail, work, inputs, first_class, column, outputs, truth):
    """Outputs of a tile of classes, and the own ones, with one column more."""
    value = load(tail.inputs, inputs + column)
    weights = column * tail.stride[0] + first_class
    outputs = tile_fma(outputs, tail.weights, weights, value)
    return outputs, fma(load(work.packed, column), value, truth)


def _make_walk(width):
    """Compile a walk for the outputs of `width` classes."""

    @njit(nogil=True)
    def walk(
        tail, work, inputs, first_class, column_of, order, n_steps, n_present, right
    ):
        outputs = load_tile(work.sums, first_class, width)
        bounds = load_tile(work.trial, first_class, width)
        truth = load(work.bias, 0)
        for step in range(n_steps):
            column = column_of[order[step]]
            outputs, truth = _join(
                tail, work, inputs, first_class, column, outputs, truth
            )
            right[step] &= _wins(outputs, truth, bounds)

    return walk


def _make_flips(width):
    """Compile the flips of single columns for the outputs of `width` classes.

    Leaving a column out is the sum of what comes before it and of what comes after it:
    nothing is subtracted, so nothing cancels.
    """

    @njit(nogil=True)
    def flips(
        tail, work, inputs, first_class, column_of, order, n_steps, n_present, right
    ):
        outputs = load_tile(work.sums, first_class, width)
        bounds = load_tile(work.trial, first_class, width)
        truth = load(work.bias, 0)
        for step in range(n_present):
            store_tile(work.stack, step * (width + 1), outputs)
            store(work.stack, step * (width + 1) + width, truth)
            outputs, truth = _join(
                tail, work, inputs, first_class, column_of[order[step]], outputs, truth
            )
        right[n_steps] &= _wins(outputs, truth, bounds)
        for step in range(n_present, n_steps):
            more, own = _join(
                tail, work, inputs, first_class, column_of[order[step]], outputs, truth
            )
            right[step] &= _wins(more, own, bounds)
        after, own_after = zero_tile(width), splat(0.0)
        for step in range(n_present - 1, -1, -1):
            less = tile_add(load_tile(work.stack, step * (width + 1), width), after)
            own = load(work.stack, step * (width + 1) + width) + own_after
            right[step] &= _wins(less, own, bounds)
            after, own_after = _join(
                tail,
                work,
                inputs,
                first_class,
                column_of[order[step]],
                after,
                own_after,
            )

    return flips


def _make_all_classes(make):
    """Compile a kernel for any number of classes from kernels for a few."""
    pass_2, pass_5, pass_10 = make(2), make(5), make(MAX_CLASSES)

    @njit(nogil=True)
    def all_classes(tail, work, block, column_of, order, n_steps, n_present, right):
        inputs, first = block * tail.widths[0], 0
        while first < tail.widths[1]:
            left = tail.widths[1] - first
            if left <= 2:
                pass_2(
                    tail,
                    work,
                    inputs,
                    first,
                    column_of,
                    order,
                    n_steps,
                    n_present,
                    right,
                )
            elif left <= 5:
                pass_5(
                    tail,
                    work,
                    inputs,
                    first,
                    column_of,
                    order,
                    n_steps,
                    n_present,
                    right,
                )
            else:
                pass_10(
                    tail,
                    work,
                    inputs,
                    first,
                    column_of,
                    order,
                    n_steps,
                    n_present,
                    right,
                )
            first += MAX_CLASSES

    return all_classes


_walk = _make_all_classes(_make_walk)
_flips = _make_all_classes(_make_flips)


@njit(nogil=True, cache=True)
def play_output_walks(
    tail_arrays, work_arrays, start, free, orders, first_block, last_block, out
):
    """As `play_walks`, for accuracy, one layer and players of one column."""
    tail, work = borrow(tail_arrays), borrow(work_arrays)
    is_free, columns = _column_of_each(tail, free)
    counts = np.empty(len(free), dtype=np.int64)
    right, column_of = pointer(counts), pointer(columns)
    for block in range(first_block, last_block):
        own = block if orders.shape[1] > 1 else 0
        _settle_block(tail, work, block)
        before = _settle_coalition(tail, work, block, start, is_free)
        everyone = bits(first_lanes(tail.n_lanes[block]))
        for index in range(len(orders)):
            order, marginals = pointer(orders[index, own]), pointer(out[index])
            counts[:] = everyone
            _walk(tail, work, block, column_of, order, len(free), 0, right)
            payoff = before
            for step in range(len(free)):
                joined = count_bits(right[step])
                marginals[order[step]] += joined - payoff
                payoff = joined


@njit(nogil=True, cache=True)
def play_output_flips(
    tail_arrays, work_arrays, free, coalitions, first_block, last_block, out
):
    """As `play_flips`, for accuracy, one layer and players of one column."""
    tail, work = borrow(tail_arrays), borrow(work_arrays)
    is_free, columns = _column_of_each(tail, free)
    n_free = len(free)
    order, absent = np.empty((2, n_free + 1), dtype=np.int64)
    counts = np.empty(n_free + 1, dtype=np.int64)
    right, column_of, ordered = pointer(counts), pointer(columns), pointer(order)
    for block in range(first_block, last_block):
        own = block if coalitions.shape[1] > 1 else 0
        everyone = bits(first_lanes(tail.n_lanes[block]))
        _settle_block(tail, work, block)
        for index in range(len(coalitions)):
            coalition = coalitions[index, own]
            _settle_coalition(tail, work, block, coalition, is_free)
            n_present = _present_first(coalition, free, order, absent)
            counts[:] = everyone
            _flips(tail, work, block, column_of, ordered, n_free, n_present, right)
            payoff = count_bits(right[n_free])
            for step in range(n_free):
                gain = count_bits(right[step]) - payoff
                out[index, order[step]] += gain if step >= n_present else -gain


@njit(nogil=True)
def _column_of_each(tail, free):
    """Mask of the free players, and the column of each."""
    is_free = np.zeros(tail.n_players, dtype=np.bool_)
    is_free[free] = True
    columns = np.empty(len(free), dtype=np.int64)
    for at in range(len(free)):
        columns[at] = tail.player_columns[tail.player_start[free[at]]]
    return is_free, columns


@njit(nogil=True)
def _present_first(coalition, free, order, absent):
    """List the positions of the present free players, then the others'; how many.

    Without branches: coalitions are random, and no processor foresees them.
    """
    n_present, n_absent = 0, 0
    for at in range(len(free)):
        is_present = int(coalition[free[at]])
        order[n_present] = at
        n_present += is_present
        absent[n_absent] = at
        n_absent += 1 - is_present
    order[n_present : len(free)] = absent[:n_absent]
    return n_present


@njit(nogil=True)
def _settle_block(tail, work, block):
    """Fill `trial` with the bounds and `packed` with weights to the own classes."""
    stride, wanted = tail.stride[0], load(tail.targets, block)
    for c in range(stride + MAX_CLASSES):
        wins_ties = wanted <= splat(c)
        store(work.trial, c, select(wins_ties, splat(0.0), splat(_BELOW_ZERO)))
    for column in range(tail.widths[0]):
        value = load(tail.inputs, block * tail.widths[0] + column)
        store(work.full, column, value)
        store(work.packed, column, splat(0.0))
    for c in range(tail.widths[1]):
        is_own = wanted == splat(c)
        if bits(is_own):
            for column in range(tail.widths[0]):
                weight = splat(tail.weights[column * stride + c])
                other = load(work.packed, column)
                store(work.packed, column, select(is_own, weight, other))


@njit(nogil=True)
def _settle_coalition(tail, work, block, coalition, is_free):
    """Fill `sums` with the outputs that do not depend on free players.

    Row 0 of `bias` gets those of the own classes. Returns how many samples are right.
    """
    stride, wanted = tail.stride[0], load(tail.targets, block)
    work.n_present[0] = 0
    if np.sum(is_free) < tail.widths[0]:
        work.n_present[0] = list_columns(tail, work, 0, coalition, is_free)
    compute_all(tail, work, 0)
    truth, lowest = splat(0.0), splat(-np.inf)
    for c in range(stride, stride + MAX_CLASSES):
        store(work.sums, c, splat(-np.inf))
    for c in range(stride):
        output = load(work.full_sums, tail.first_row[1] + c)
        is_own = wanted == splat(c)
        truth = select(is_own, output, truth)
        rival = select(is_own, lowest, output)
        store(work.sums, c, rival if c < tail.widths[1] else lowest)
    store(work.bias, 0, truth)
    right = bits(first_lanes(tail.n_lanes[block]))
    for c in range(0, stride, 2):
        rivals, bounds = load_tile(work.sums, c, 2), load_tile(work.trial, c, 2)
        right &= _wins(rivals, truth, bounds)
    return count_bits(right)
