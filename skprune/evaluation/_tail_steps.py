"""Steps of compiled games in which only inputs of the last layer come and go.

The outputs of up to ten classes stay in registers for a whole walk, and so does each
sample's output of its own class, whose row among the others is minus infinity; more
classes come in passes, which fold what they find into a state of each step. Columns
that are 0 in all samples of a block are left out of its walks and flips: they change
nothing. All numbers must be finite: the caller sees to that.
"""

from skprune.evaluation._lane_payoffs import (
    FEW_CLASSES,
    MAX_CLASSES,
    counts_hits,
    fold_outputs,
    fold_start,
    tile_wins,
)
from skprune.evaluation._lane_tiles import load_tile, tile_fma
from skprune.evaluation._lanes import LANES, bits, fma, load, store
from skprune.evaluation._pointers import inlined_part, kernel_part, shifted

__all__ = [
    "in_passes",
    "join_column",
    "list_steps",
    "make_note",
    "make_walk",
    "sources",
    "widths_of",
]


@inlined_part
def sources(tail, work, block, first_class):
    """Where the inputs of a block, and the weights of its classes and own ones, lie."""
    n_columns = tail.widths[0]
    inputs = shifted(tail.inputs, block * n_columns * LANES)
    return inputs, shifted(work.weights, first_class * n_columns), work.packed


@inlined_part
def join_column(read_from, width, column, outputs, truth):
    """Outputs of a tile of classes, and the own ones, with one column more."""
    inputs, weights, own_weights = read_from
    value = load(inputs, column)
    outputs = tile_fma(outputs, weights, column * width, value)
    return outputs, fma(load(own_weights, column), value, truth)


def make_note(folds):
    """Compile how a tile of outputs enters the state of a step.

    That is a bit for each sample that is right and, where a payoff `folds`, the rows
    best, total and truth of `work.states`.
    """

    @inlined_part
    def note(kind, work, wanted, first_class, step, outputs, truth, right):
        if not folds or counts_hits(kind):
            right[step] = bits(tile_wins(outputs, truth, wanted, first_class))
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


def make_walk(width, folds):
    """Compile a walk for the outputs of `width` classes."""
    note = make_note(folds)

    @kernel_part
    def walk(tail, work, block, first_class, columns, n_steps, n_present, right):
        kind, wanted = tail.payoff, load(tail.targets, block)
        outputs = load_tile(work.sums, first_class, width)
        truth = load(work.bias, 0)
        read_from = sources(tail, work, block, first_class)
        for step in range(n_steps):
            outputs, truth = join_column(
                read_from, width, columns[step], outputs, truth
            )
            note(kind, work, wanted, first_class, step, outputs, truth, right)

    return walk


def widths_of(make, folds):
    """Compile kernels for a few classes and for many, see `in_passes`."""
    return tuple(make(width, folds) for width in (FEW_CLASSES, MAX_CLASSES))


def in_passes(kernels):
    """Compile a kernel for any number of classes from kernels for a few and for many.

    Parameters
    ----------
    kernels : pair of functions of compiled code
        From `widths_of`.
    """
    play_few, play_many = kernels

    @kernel_part
    def all_classes(tail, work, block, columns, n_steps, n_present):
        for first in range(0, tail.widths[1], MAX_CLASSES):
            right = work.right if first == 0 else work.marks
            play = (tail, work, block, first, columns, n_steps, n_present, right)
            if tail.widths[1] - first <= FEW_CLASSES:
                play_few(*play)
            else:
                play_many(*play)
            if first > 0:
                for step in range(n_steps + 1):
                    work.right[step] &= work.marks[step]

    return all_classes


@kernel_part
def list_steps(order, column_of, n_free, columns):
    """List the columns of an order but for those that are negative; how many."""
    n_listed = 0
    for step in range(n_free):
        column = column_of[order[step]]
        columns[n_listed] = column
        # Without a branch: -1 has the bits of all ones, what is not negative none.
        n_listed += 1 + (int(column) >> 31)
    return n_listed
