"""Compiled games of classes in which only inputs of the last layer come and go.

See `_tail_steps` for how a step is played, `_tail_hits` for walks that only count.
"""

import numpy as np

from skprune.evaluation._lane_payoffs import (
    FEW_CLASSES,
    MAX_CLASSES,
    counts_hits,
    folded_value,
    folds_outputs,
)
from skprune.evaluation._lane_tiles import load_tile, store_tile, tile_add, zero_tile
from skprune.evaluation._lanes import (
    LANES,
    bits,
    count_bits,
    first_lanes,
    gather,
    load,
    select,
    splat,
    store,
    sum_lanes,
)
from skprune.evaluation._pointers import (
    entry_point,
    inlined_part,
    kernel_part,
    pointer,
    shifted,
)
from skprune.evaluation._tail import read_tail
from skprune.evaluation._tail_hits import count_walks, counting_walk
from skprune.evaluation._tail_layers import compute_all, list_columns
from skprune.evaluation._tail_steps import (
    in_passes,
    join_column,
    list_steps,
    make_note,
    make_walk,
    sources,
    widths_of,
)
from skprune.evaluation._tail_workspace import LAG, read_workspace

__all__ = ["play_output_flips", "play_output_walks"]

# The bits of a mask of all lanes.
_ALL = (1 << LANES) - 1


def _make_flips(width, folds):
    """Compile the flips of single columns for the outputs of `width` classes.

    Leaving a column out is the sum of what comes before it and of what comes after it:
    nothing is subtracted, so nothing cancels.
    """
    note = make_note(folds)

    @kernel_part
    def flips(tail, work, block, first_class, columns, n_steps, n_present, right):
        kind, wanted = tail.payoff, load(tail.targets, block)
        outputs = load_tile(work.sums, first_class, width)
        truth = load(work.bias, 0)
        read_from = sources(tail, work, block, first_class)
        for step in range(n_present):
            store_tile(work.stack, step * (width + 1), outputs)
            store(work.stack, step * (width + 1) + width, truth)
            outputs, truth = join_column(
                read_from, width, columns[step], outputs, truth
            )
        note(kind, work, wanted, first_class, n_steps, outputs, truth, right)
        for step in range(n_present, n_steps):
            more, own = join_column(read_from, width, columns[step], outputs, truth)
            note(kind, work, wanted, first_class, step, more, own, right)
        after, own_after = zero_tile(width), splat(0.0)
        for step in range(n_present - 1, -1, -1):
            less = tile_add(load_tile(work.stack, step * (width + 1), width), after)
            own = load(work.stack, step * (width + 1) + width) + own_after
            note(kind, work, wanted, first_class, step, less, own, right)
            after, own_after = join_column(
                read_from, width, columns[step], after, own_after
            )

    return flips


_walk = in_passes(widths_of(make_walk, folds=True))
_flips = in_passes(widths_of(_make_flips, folds=True))
_counting_flips = in_passes(widths_of(_make_flips, folds=False))
_note = make_note(folds=True)


@inlined_part
def _value(tail, work, lanes, step):
    """What a step's state earns, summed over the samples of the block."""
    kind, earned = tail.payoff, 0.0
    if counts_hits(kind):
        earned += count_bits(work.right[step])
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
    named_columns = np.empty(n_free, dtype=np.int32)
    column_of, steps = pointer(named_columns), shifted(work.listed, LAG)
    counts = not folds_outputs(tail.payoff)
    gains = np.zeros((len(orders), tail.widths[0] + 1), dtype=np.int32)
    payoffs = np.zeros((len(orders), tail.widths[0]))
    _pack_weights(tail, work)
    for block in range(tail.n_blocks):
        own = block if orders.shape[1] > 1 else 0
        named = names[block if len(names) > 1 else 0]
        lanes = first_lanes(tail.n_lanes[block])
        _settle_block(tail, work, block, n_free)
        for place in range(n_free):
            column = columns[named[place]]
            named_columns[place] = column if work.is_alive[column] else -1
        before = _settle_coalition(tail, work, block, lanes, start, is_free)
        if counts and tail.widths[1] <= MAX_CLASSES:
            count_walks(tail, work, block, orders[:, own], column_of, gains)
            continue
        for index in range(len(orders)):
            order, gained = pointer(orders[index, own]), pointer(payoffs[index])
            n_steps = list_steps(order, column_of, n_free, steps)
            if counts:
                counting_walk(tail, work, block, steps, n_steps, 0)
            else:
                _walk(tail, work, block, steps, n_steps, 0)
            payoff = before
            for step in range(n_steps):
                joined = _value(tail, work, lanes, step)
                gained[steps[step]] += joined - payoff
                payoff = joined
    _hand_out(gains, payoffs, columns, out)


@entry_point
def play_output_flips(tail_table, work_table, free, coalitions, out):
    """As `play_flips`, for classes, one layer and players of one column."""
    tail, work = read_tail(tail_table), read_workspace(work_table)
    is_free, columns = _column_of_each(tail, free)
    present_columns, absent_columns = np.empty((2, len(free) + 1), dtype=np.int32)
    steps = pointer(present_columns)
    counts = not folds_outputs(tail.payoff)
    gains = np.zeros((len(coalitions), tail.widths[0]), dtype=np.int32)
    payoffs = np.zeros((len(coalitions), tail.widths[0]))
    _pack_weights(tail, work)
    for block in range(tail.n_blocks):
        own = block if coalitions.shape[1] > 1 else 0
        lanes = first_lanes(tail.n_lanes[block])
        _settle_block(tail, work, block, len(free))
        for index in range(len(coalitions)):
            coalition = coalitions[index, own]
            _settle_coalition(tail, work, block, lanes, coalition, is_free)
            n_present, n_steps = _present_first(
                work, coalition, free, columns, present_columns, absent_columns
            )
            if counts:
                _counting_flips(tail, work, block, steps, n_steps, n_present)
                won, hits = pointer(gains[index]), count_bits(work.right[n_steps])
                for step in range(n_present):
                    won[steps[step]] += hits - count_bits(work.right[step])
                for step in range(n_present, n_steps):
                    won[steps[step]] += count_bits(work.right[step]) - hits
                continue
            _flips(tail, work, block, steps, n_steps, n_present)
            gained = pointer(payoffs[index])
            payoff = _value(tail, work, lanes, n_steps)
            for step in range(n_present):
                gained[steps[step]] += payoff - _value(tail, work, lanes, step)
            for step in range(n_present, n_steps):
                gained[steps[step]] += _value(tail, work, lanes, step) - payoff
    _hand_out(gains, payoffs, columns, out)


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
def _hand_out(hits, payoffs, columns, out):
    """Add what columns brought, in hits or in payoffs, to their players."""
    for index in range(len(out)):
        for place in range(len(columns)):
            column = columns[place]
            out[index, place] += hits[index, column] + payoffs[index, column]


@kernel_part
def _present_first(work, coalition, free, columns, listed, absent):
    """List columns of the present players, then the others'; how many of them, and all.

    Columns that are 0 in the whole block are left out. Without branches: coalitions are
    random, and no processor foresees them.
    """
    n_present, n_absent = 0, 0
    for at in range(len(free)):
        column, is_present = columns[at], int(coalition[free[at]])
        is_alive = work.is_alive[column]
        listed[n_present] = column
        n_present += is_present & is_alive
        absent[n_absent] = column
        n_absent += (1 - is_present) & is_alive
    for at in range(n_absent):
        listed[n_present + at] = absent[at]
    return n_present, n_present + n_absent


@kernel_part
def _pack_weights(tail, work):
    """Copy the weights pass by pass, without gaps: a cache holds more of them."""
    n_columns, n_outputs, stride = tail.widths[0], tail.widths[1], tail.stride[0]
    for first in range(0, n_outputs, MAX_CLASSES):
        width = FEW_CLASSES if n_outputs - first <= FEW_CLASSES else MAX_CLASSES
        for column in range(n_columns):
            to = first * n_columns + column * width
            for c in range(width):
                weight = tail.weights[column * stride + first + c]
                work.weights[to + c] = weight if first + c < n_outputs else 0.0


@kernel_part
def _settle_block(tail, work, block, n_free):
    """Fill `packed` with weights to the own classes, and load fixed inputs.

    Notes in `is_alive` which columns are not 0 in all samples.
    """
    n_columns = tail.widths[0]
    if n_free < n_columns:
        for column in range(n_columns):
            store(work.full, column, load(tail.inputs, block * n_columns + column))
    wanted, zero = load(tail.targets, block), splat(0.0)
    for column in range(n_columns):
        value = load(tail.inputs, block * n_columns + column)
        work.is_alive[column] = int(bits(value == zero) != _ALL)
        weights = column * tail.stride[0]
        store(work.packed, column, gather(tail.weights, weights, wanted))


@kernel_part
def _settle_coalition(tail, work, block, lanes, coalition, is_free):
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
    # Lanes without a sample never win.
    truth = select(lanes, truth, splat(-np.inf))
    store(work.bias, 0, truth)
    wins = _ALL
    for c in range(0, n_outputs, 2):
        rivals = load_tile(work.sums, c, 2)
        _note(kind, work, wanted, c, 0, rivals, truth, work.right)
        wins &= work.right[0]
    work.right[0] = wins
    return _value(tail, work, lanes, 0)
