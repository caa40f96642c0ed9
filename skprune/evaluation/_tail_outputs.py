"""Compiled games of classes in which only inputs of the last layer come and go.

The outputs of up to ten classes stay in registers for a whole walk, and so does each
sample's output of its own class, whose row among the others is minus infinity; more
classes come in passes, which fold what they find into a state of each step. All numbers
must be finite: the caller sees to that.
"""

import numpy as np

from skprune.evaluation._lane_payoffs import (
    FEW_CLASSES,
    MAX_CLASSES,
    counts_hits,
    fold_outputs,
    fold_start,
    folded_value,
    folds_outputs,
    tile_wins,
)
from skprune.evaluation._lane_tiles import (
    load_tile,
    store_tile,
    tile_add,
    tile_fma,
    zero_tile,
)
from skprune.evaluation._lanes import (
    LANES,
    bits,
    count_bits,
    first_lanes,
    fma,
    load,
    select,
    splat,
    store,
    sum_lanes,
)
from skprune.evaluation._pointers import entry_point, inlined_part, kernel_part, pointer
from skprune.evaluation._tail import read_tail
from skprune.evaluation._tail_layers import compute_all, list_columns
from skprune.evaluation._tail_workspace import read_workspace

__all__ = ["play_output_flips", "play_output_walks"]


@inlined_part
def _join(tail, work, inputs, first_class, column, outputs, truth):
    """Outputs of a tile of classes, and the own ones, with one column more."""
    value = load(tail.inputs, inputs + column)
    weights = column * tail.widths[1] + first_class
    outputs = tile_fma(outputs, work.weights, weights, value)
    return outputs, fma(load(work.packed, column), value, truth)


def _make_note(folds):
    """Compile how a tile of outputs enters the state of a step.

    That is a bit for each sample that is right and, where a payoff `folds`, the rows
    best, total and truth of `work.states`.
    """

    @inlined_part
    def note(kind, work, wanted, first_class, step, outputs, truth, right):
        if not folds or counts_hits(kind):
            right[step] &= bits(tile_wins(outputs, truth, wanted, first_class))
        if folds:
            row = 3 * step
            if first_class == 0:
                best, total = fold_start(kind, truth)
                store(work.states, row + 2, truth)
            else:
                best, total = load(work.states, row), load(work.states, row + 1)
            best, total = fold_outputs(kind, outputs, best, total)
            store(work.states, row, best)
            store(work.states, row + 1, total)

    return note


def _make_walk(width, folds):
    """Compile a walk for the outputs of `width` classes."""
    note = _make_note(folds)

    @kernel_part
    def walk(
        tail, work, block, first_class, column_of, order, n_steps, n_present, right
    ):
        kind, wanted = tail.payoff, load(tail.targets, block)
        outputs = load_tile(work.sums, first_class, width)
        truth = load(work.bias, 0)
        inputs = block * tail.widths[0]
        for step in range(n_steps):
            column = column_of[order[step]]
            outputs, truth = _join(
                tail, work, inputs, first_class, column, outputs, truth
            )
            note(kind, work, wanted, first_class, step, outputs, truth, right)

    return walk


def _make_flips(width, folds):
    """Compile the flips of single columns for the outputs of `width` classes.

    Leaving a column out is the sum of what comes before it and of what comes after it:
    nothing is subtracted, so nothing cancels.
    """
    note = _make_note(folds)

    @kernel_part
    def flips(
        tail, work, block, first_class, column_of, order, n_steps, n_present, right
    ):
        kind, wanted = tail.payoff, load(tail.targets, block)
        outputs = load_tile(work.sums, first_class, width)
        truth = load(work.bias, 0)
        inputs = block * tail.widths[0]
        for step in range(n_present):
            store_tile(work.stack, step * (width + 1), outputs)
            store(work.stack, step * (width + 1) + width, truth)
            outputs, truth = _join(
                tail, work, inputs, first_class, column_of[order[step]], outputs, truth
            )
        note(kind, work, wanted, first_class, n_steps, outputs, truth, right)
        for step in range(n_present, n_steps):
            more, own = _join(
                tail, work, inputs, first_class, column_of[order[step]], outputs, truth
            )
            note(kind, work, wanted, first_class, step, more, own, right)
        after, own_after = zero_tile(width), splat(0.0)
        for step in range(n_present - 1, -1, -1):
            less = tile_add(load_tile(work.stack, step * (width + 1), width), after)
            own = load(work.stack, step * (width + 1) + width) + own_after
            note(kind, work, wanted, first_class, step, less, own, right)
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


def _make_all_classes(make, folds):
    """Compile a kernel for any number of classes from kernels for a few."""
    play_few, play_many = make(FEW_CLASSES, folds), make(MAX_CLASSES, folds)

    @kernel_part
    def all_classes(tail, work, block, column_of, order, n_steps, n_present, right):
        for first in range(0, tail.widths[1], MAX_CLASSES):
            play = (tail, work, block, first, column_of, order)
            rest = (n_steps, n_present, right)
            if tail.widths[1] - first <= FEW_CLASSES:
                play_few(*play, *rest)
            else:
                play_many(*play, *rest)

    return all_classes


_counting_walk, _walk = (_make_all_classes(_make_walk, f) for f in (False, True))
_counting_flips, _flips = (_make_all_classes(_make_flips, f) for f in (False, True))
_note = _make_note(True)


@inlined_part
def _value(tail, work, lanes, step, right):
    """What a step's state earns, summed over the samples of the block."""
    kind, earned = tail.payoff, 0.0
    if counts_hits(kind):
        earned += count_bits(right[step])
    if folds_outputs(kind):
        row = 3 * step
        value = folded_value(
            kind,
            load(work.states, row + 2),
            load(work.states, row),
            load(work.states, row + 1),
        )
        earned += sum_lanes(select(lanes, value, splat(0.0)))
    return earned


@entry_point
def play_output_walks(tail_table, work_table, start, free, orders, names, out):
    """As `play_walks`, for classes, one layer and players of one column."""
    tail, work = read_tail(tail_table), read_workspace(work_table)
    is_free, columns = _column_of_each(tail, free)
    n_free = len(free)
    counts, named_columns = np.empty((2, n_free + 1), dtype=np.int64)
    right, column_of = pointer(counts), pointer(named_columns)
    _pack_weights(tail, work)
    for block in range(tail.n_blocks):
        own = block if orders.shape[1] > 1 else 0
        named = pointer(names[block if len(names) > 1 else 0])
        for place in range(n_free):
            named_columns[place] = columns[named[place]]
        lanes = first_lanes(tail.n_lanes[block])
        _settle_block(tail, work, block, len(free))
        before = _settle_coalition(tail, work, block, lanes, start, is_free, right)
        for index in range(len(orders)):
            order, marginals = pointer(orders[index, own]), pointer(out[index])
            counts[:] = bits(lanes)
            if not folds_outputs(tail.payoff):
                _counting_walk(tail, work, block, column_of, order, n_free, 0, right)
                hits = int(before)
                for step in range(n_free):
                    now = count_bits(right[step])
                    marginals[named[order[step]]] += now - hits
                    hits = now
                continue
            _walk(tail, work, block, column_of, order, n_free, 0, right)
            payoff = before
            for step in range(n_free):
                joined = _value(tail, work, lanes, step, right)
                marginals[named[order[step]]] += joined - payoff
                payoff = joined


@entry_point
def play_output_flips(tail_table, work_table, free, coalitions, out):
    """As `play_flips`, for classes, one layer and players of one column."""
    tail, work = read_tail(tail_table), read_workspace(work_table)
    is_free, columns = _column_of_each(tail, free)
    n_free = len(free)
    order, absent = np.empty((2, n_free + 1), dtype=np.int64)
    counts = np.empty(n_free + 1, dtype=np.int64)
    right, column_of, ordered = pointer(counts), pointer(columns), pointer(order)
    _pack_weights(tail, work)
    for block in range(tail.n_blocks):
        own = block if coalitions.shape[1] > 1 else 0
        lanes = first_lanes(tail.n_lanes[block])
        _settle_block(tail, work, block, len(free))
        for index in range(len(coalitions)):
            coalition, marginals = coalitions[index, own], pointer(out[index])
            _settle_coalition(tail, work, block, lanes, coalition, is_free, right)
            n_present = _present_first(coalition, free, order, absent)
            counts[:] = bits(lanes)
            if not folds_outputs(tail.payoff):
                _counting_flips(
                    tail, work, block, column_of, ordered, n_free, n_present, right
                )
                hits = count_bits(right[n_free])
                for step in range(n_free):
                    change = count_bits(right[step]) - hits
                    marginals[order[step]] += change if step >= n_present else -change
                continue
            _flips(tail, work, block, column_of, ordered, n_free, n_present, right)
            payoff = _value(tail, work, lanes, n_free, right)
            for step in range(n_free):
                gain = _value(tail, work, lanes, step, right) - payoff
                marginals[order[step]] += gain if step >= n_present else -gain


@kernel_part
def _column_of_each(tail, free):
    """Mask of the free players, and the column of each."""
    is_free = np.zeros(tail.n_players, dtype=np.bool_)
    is_free[free] = True
    columns = np.empty(len(free), dtype=np.int64)
    for at in range(len(free)):
        columns[at] = tail.player_columns[tail.player_start[free[at]]]
    return is_free, columns


@kernel_part
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


@kernel_part
def _pack_weights(tail, work):
    """Copy the weights without gaps between columns: a cache holds more of them."""
    n_outputs, stride = tail.widths[1], tail.stride[0]
    for column in range(tail.widths[0]):
        for c in range(n_outputs):
            weight = tail.weights[column * stride + c]
            work.weights[column * n_outputs + c] = weight


@kernel_part
def _settle_block(tail, work, block, n_free):
    """Fill `packed` with weights to the own classes, and load fixed inputs."""
    n_columns = tail.widths[0]
    if n_free < n_columns:
        for column in range(n_columns):
            store(work.full, column, load(tail.inputs, block * n_columns + column))
    goal = block * LANES
    for lane in range(LANES):
        work.columns[lane] = int(tail.targets[goal + lane])
    for column in range(n_columns):
        of, to = column * tail.widths[1], column * LANES
        for lane in range(LANES):
            work.packed[to + lane] = work.weights[of + work.columns[lane]]


@kernel_part
def _settle_coalition(tail, work, block, lanes, coalition, is_free, right):
    """Fill `sums` with the rivals' outputs that do not depend on free players.

    Row 0 of `bias` gets those of the own classes. Returns what the block earns, summed
    over its samples.
    """
    n_outputs, kind = tail.widths[1], tail.payoff
    work.n_present[0] = 0
    if np.sum(is_free) < tail.widths[0]:
        work.n_present[0] = list_columns(tail, work, 0, coalition, is_free)
    compute_all(tail, work, 0)
    first, truth = tail.first_row[1], splat(0.0)
    wanted = load(tail.targets, block)
    for c in range(n_outputs):
        output = load(work.full_sums, first + c)
        is_own = wanted == splat(c)
        truth = select(is_own, output, truth)
        store(work.sums, c, select(is_own, splat(-np.inf), output))
    for c in range(n_outputs, n_outputs + MAX_CLASSES):
        store(work.sums, c, splat(-np.inf))
    store(work.bias, 0, truth)
    right[0] = bits(lanes)
    for c in range(0, n_outputs, 2):
        rivals = load_tile(work.sums, c, 2)
        _note(kind, work, wanted, c, 0, rivals, truth, right)
    return _value(tail, work, lanes, 0, right)
