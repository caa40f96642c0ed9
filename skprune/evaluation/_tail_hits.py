"""Walks in the last hidden layer that count how many samples are right, at full speed.

Sixteen samples and ten classes take 22 vector instructions a step, of which a core does
two at once; what else there is must fit between them. So a step counts what a step some
way behind it has brought: that one's bits come from memory, past the vector units. No
step asks whether classes tie: it notes who wins, and who wins or ties. Where these
differ the walk, and all that follow in the block, are played with care.
"""

from skprune.evaluation._lane_payoffs import FEW_CLASSES, MAX_CLASSES, tile_best
from skprune.evaluation._lane_tiles import load_tile
from skprune.evaluation._lanes import bits, count_bits, load
from skprune.evaluation._pointers import kernel_part, pointer, shifted
from skprune.evaluation._tail_steps import (
    in_passes,
    join_column,
    list_steps,
    make_walk,
    sources,
    widths_of,
)
from skprune.evaluation._tail_workspace import LAG

__all__ = ["count_walks", "counting_walk"]


def _make_walk(width):
    """Compile a walk for the outputs of `width` classes."""

    @kernel_part
    def walk(tail, work, block, columns, n_steps, right, reached, gained):
        outputs = load_tile(work.sums, 0, width)
        truth = load(work.bias, 0)
        read_from, hits = sources(tail, work, block, 0), count_bits(right[0])
        for step in range(LAG, LAG + n_steps):
            outputs, truth = join_column(
                read_from, width, columns[step], outputs, truth
            )
            best = tile_best(outputs)
            right[step] = bits(best < truth)
            reached[step] = bits(best <= truth)
            now = count_bits(right[step - LAG])
            gained[columns[step - LAG]] += now - hits
            hits = now
        _count(columns, right, n_steps, n_steps + LAG, hits, gained, 1)

    return walk


@kernel_part
def _count(columns, right, start, stop, hits, gained, sign):
    """Add what each step has brought, times `sign`, to the columns."""
    for step in range(start, stop):
        now = count_bits(right[step])
        gained[columns[step]] += sign * (now - hits)
        hits = now


_walk_of_few, _walk_of_many = map(_make_walk, (FEW_CLASSES, MAX_CLASSES))
counting_walk = in_passes(widths_of(make_walk, folds=False))


@kernel_part
def count_walks(tail, work, block, orders, column_of, gains):
    """Add what each column brings in each order to `gains` (n_orders, n_columns + 1).

    `work.right[0]` holds the bits of the samples that are right before anybody joins.
    """
    n_orders, n_free = orders.shape
    columns, right, reached = work.listed, work.right, work.marks
    steps, bits_of_steps = shifted(columns, LAG), shifted(right, LAG)
    has_ties, hits = False, count_bits(right[0])
    # The steps before the first one change nothing, and belong to no column.
    for step in range(LAG):
        columns[step], right[step] = tail.widths[0], right[0]
    for index in range(n_orders):
        gained, order = pointer(gains[index]), pointer(orders[index])
        n_steps = list_steps(order, column_of, n_free, steps)
        if not has_ties:
            play = tail, work, block, columns, n_steps, right, reached, gained
            if tail.widths[1] <= FEW_CLASSES:
                _walk_of_few(*play)
            else:
                _walk_of_many(*play)
            has_ties = _differ(bits_of_steps, shifted(reached, LAG), n_steps)
            if not has_ties:
                continue
            _count(steps, bits_of_steps, 0, n_steps, hits, gained, -1)
        counting_walk(tail, work, block, steps, n_steps, 0)
        _count(steps, right, 0, n_steps, hits, gained, 1)


@kernel_part
def _differ(some, others, n):
    """Whether any of the first n numbers differ."""
    differences = 0
    for at in range(n):
        differences |= some[at] ^ others[at]
    return differences != 0
