"""Payoffs of sixteen samples at once, folded up from tiles of their outputs.

What a payoff needs to know of the outputs of the other classes is their maximum
(`best`); for likelihoods the sum of their exponentials (`total`) relative to one of
them that is not far below it, which is kept in its place.
Tiles of a few classes update both, so that any number of classes streams by while a
tile stays in registers. A sample's output of its own class (`truth`) is kept apart, and
its row among the others is minus infinity.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from skprune.evaluation import _lane_formulas as formulas
from skprune.evaluation._lane_formulas import Lanes
from skprune.evaluation._lane_tiles import load_tile
from skprune.evaluation._lanes import (
    FLOATS,
    LANES,
    MASK,
    VECTOR,
    bits,
    broadcast,
    count_bits,
    first_lanes,
    fma,
    load,
    select,
    splat,
    sum_lanes,
)
from skprune.evaluation._pointers import inlined_part, kernel_part

__all__ = [
    "FEW_CLASSES",
    "MAX_CLASSES",
    "PAYOFFS",
    "SMOOTHING",
    "block_payoff",
    "counts_hits",
    "fold_outputs",
    "fold_start",
    "folded_value",
    "folds_outputs",
    "tile_best",
    "tile_wins",
]

PAYOFFS = {
    "accuracy": 0,
    "log_likelihood": 1,
    "true_class_probability": 2,
    "margin": 3,
    "neg_mean_squared_error": 4,
    "smoothed_accuracy": 5,
}
# Share of the true class's probability in "smoothed_accuracy".
SMOOTHING = 0.05
# How far a rival may lie above a row of reference: e^64, a thousand times, is finite.
_FAR = 64.0
# Classes of the two widths of tiles.
FEW_CLASSES, MAX_CLASSES = 4, 10

_ACCURACY, _LOG_LIKELIHOOD, _MARGIN, _ERROR, _SMOOTHED = 0, 1, 3, 4, 5


@inlined_part
def counts_hits(kind):
    """Whether a payoff counts the samples whose class wins."""
    return kind in (_ACCURACY, _SMOOTHED)


@inlined_part
def folds_outputs(kind):
    """Whether a payoff is more than a count."""
    return kind != _ACCURACY


def _rows(builder, tile):
    return [Lanes(builder, value) for value in cgutils.unpack_tuple(builder, tile)]


def _reduced(rows, combine):
    """Combine neighbours again and again: a chain as short as can be."""
    while len(rows) > 1:
        left, right, *rows = rows
        rows.append(combine(left, right))
    return rows[0]


def _either(builder, block, value, other_block, other):
    """The value of the block that was run."""
    result = builder.phi(value.type)
    result.add_incoming(value, block)
    result.add_incoming(other, other_block)
    return result


def _packed(builder, lanes):
    return cgutils.pack_array(builder, [one.value for one in lanes], VECTOR)


@intrinsic
def tile_best(typingctx, tile):
    """The largest of the rows of a tile."""

    def codegen(context, builder, signature, args):
        return _reduced(_rows(builder, args[0]), Lanes.at_least).value

    return FLOATS(tile), codegen


@intrinsic
def _fold_best(typingctx, tile, best):
    """The larger of `best` and the rows of a tile."""

    def codegen(context, builder, signature, args):
        rows = [*_rows(builder, args[0]), Lanes(builder, args[1])]
        return _reduced(rows, Lanes.at_least).value

    return FLOATS(tile, FLOATS), codegen


@intrinsic
def _fold_exponentials(typingctx, tile, best, total):
    """A row of reference, and the sum of exponentials relative to it.

    It stays what it is until a row exceeds it by so much that the sum might overflow:
    then the largest row takes its place.
    """

    def codegen(context, builder, signature, args):
        rows = _rows(builder, args[0])
        base, total = Lanes(builder, args[1]), Lanes(builder, args[2])
        top = _reduced([*rows, base], Lanes.at_least)
        is_far = (top - base).any_above(_FAR)
        before = builder.block
        with builder.if_then(is_far, likely=False):
            rescaled = formulas.exp_below(base - top) * total
            inside = builder.block
        base, total = (
            Lanes(builder, _either(builder, before, near, inside, far))
            for near, far in ((base.value, top.value), (total.value, rescaled.value))
        )
        terms = [formulas.exp_below(row - base) for row in rows]
        return _packed(builder, [base, _reduced([*terms, total], Lanes.__add__)])

    return types.UniTuple(FLOATS, 2)(tile, FLOATS, FLOATS), codegen


@intrinsic
def _log(typingctx, value):
    """Natural logarithm of each lane."""

    def codegen(context, builder, signature, args):
        return formulas.log(Lanes(builder, args[0])).value

    return FLOATS(FLOATS), codegen


@intrinsic
def _exp(typingctx, value):
    """e to the power of each lane."""

    def codegen(context, builder, signature, args):
        return formulas.exp(Lanes(builder, args[0])).value

    return FLOATS(FLOATS), codegen


@inlined_part
def fold_outputs(kind, tile, best, total):
    """`best` and `total` with a tile of rivals more."""
    if kind == _MARGIN:
        return _fold_best(tile, best), total
    return _fold_exponentials(tile, best, total)


@inlined_part
def fold_start(kind, truth):
    """What `fold_outputs` starts from."""
    if kind == _MARGIN:
        return splat(-np.inf), splat(0.0)
    return truth, splat(1.0)


@inlined_part
def folded_value(kind, truth, best, total):
    """What each sample earns, but for the hits that a payoff counts."""
    if kind == _MARGIN:
        return truth - best
    value = (truth - best) - _log(total)
    if kind == _LOG_LIKELIHOOD:
        return value
    value = _exp(value)
    return splat(SMOOTHING) * value if kind == _SMOOTHED else value


@intrinsic
def _split_tile(typingctx, tile, wanted, first_class, n_classes, truth):
    """Rivals of a tile of classes, own outputs, and where a rival is NaN.

    The row of a sample's own class, and rows beyond the last class, become minus
    infinity.
    """
    types_out = types.Tuple([tile, FLOATS, MASK])

    def codegen(context, builder, signature, args):
        rows = cgutils.unpack_tuple(builder, args[0])
        _, wanted, first, n_classes, truth = args
        lowest = ir.Constant(VECTOR, [float("-inf")] * LANES)
        rivals, is_nan = [], None
        for i, row in enumerate(rows):
            number = builder.add(first, ir.Constant(first.type, i))
            label = broadcast(builder, builder.sitofp(number, ir.FloatType()), VECTOR)
            is_own = builder.fcmp_ordered("==", wanted, label)
            truth = builder.select(is_own, row, truth)
            is_padding = builder.icmp_signed(">=", number, n_classes)
            rival = builder.select(is_own, lowest, row)
            rivals.append(builder.select(is_padding, lowest, rival))
        for left, right in zip(rivals[::2], rivals[1::2] + rivals[:1], strict=False):
            unordered = builder.fcmp_unordered("uno", left, right)
            is_nan = unordered if is_nan is None else builder.or_(is_nan, unordered)
        packed = cgutils.pack_array(builder, rivals, VECTOR)
        return context.make_tuple(builder, types_out, [packed, truth, is_nan])

    integers = types.intp, types.intp
    return types_out(tile, FLOATS, *integers, FLOATS), codegen


@intrinsic
def tile_wins(typingctx, tile, truth, wanted, first_class):
    """Mask of the lanes whose own output beats the rivals in a tile.

    Of equal outputs the lowest class wins, as in `torch.argmax`. No NaN, please.
    """

    def codegen(context, builder, signature, args):
        rows = _rows(builder, args[0])
        _, truth, wanted, first = args
        best = _reduced(list(rows), Lanes.at_least).value
        wins = builder.fcmp_ordered("<", best, truth)
        ties = builder.fcmp_ordered("==", best, truth)
        before = builder.block
        with builder.if_then(formulas.any_of(builder, ties), likely=False):
            # A tie is won where no rival of a lower class reaches the maximum.
            lost = ir.Constant(ties.type, None)
            for i, row in enumerate(rows):
                number = builder.add(first, ir.Constant(first.type, i))
                label = broadcast(
                    builder, builder.sitofp(number, ir.FloatType()), VECTOR
                )
                is_lower = builder.fcmp_ordered("<", label, wanted)
                reaches = builder.fcmp_ordered("==", row.value, truth)
                lost = builder.or_(lost, builder.and_(is_lower, reaches))
            broken = builder.or_(wins, builder.and_(ties, builder.not_(lost)))
            inside = builder.block
        return _either(builder, before, wins, inside, broken)

    return MASK(tile, FLOATS, FLOATS, types.intp), codegen


def _make_payoff(width):
    """Compile a payoff whose outputs are read in tiles of `width` classes."""

    @kernel_part
    def payoff(kind, rows, start, n_rows, wanted, lanes):
        truth = splat(0.0)
        if n_rows > width:
            for row in range(n_rows):
                own = wanted == splat(row)
                truth = select(own, load(rows, start + row), truth)
        right = lanes
        best, total = splat(-np.inf), splat(0.0)
        for first in range(0, n_rows, width):
            tile = load_tile(rows, start + first, width)
            tile, truth, is_nan = _split_tile(tile, wanted, first, n_rows, truth)
            if counts_hits(kind):
                right = right & ~is_nan & tile_wins(tile, truth, wanted, first)
            if folds_outputs(kind):
                if first == 0:
                    best, total = fold_start(kind, truth)
                best, total = fold_outputs(kind, tile, best, total)
        earned = 0.0
        if counts_hits(kind):
            earned += count_bits(bits(right))
        if folds_outputs(kind):
            value = folded_value(kind, truth, best, total)
            earned += sum_lanes(select(lanes, value, splat(0.0)))
        return earned

    return payoff


_payoff_of_few, _payoff_of_many = map(_make_payoff, (FEW_CLASSES, MAX_CLASSES))


@kernel_part
def block_payoff(kind, rows, start, n_rows, targets, goal, n_lanes):
    """Sum over the first `n_lanes` samples of a block of what their outputs earn.

    `kind` is a value of PAYOFFS; the outputs are the `n_rows` rows from `start` on, of
    an array with MAX_CLASSES rows more; `targets` holds from row `goal` on the classes
    as numbers, or what a regression should have answered.
    """
    lanes = first_lanes(n_lanes)
    if kind == _ERROR:
        total = splat(0.0)
        for row in range(n_rows):
            error = load(rows, start + row) - load(targets, goal + row)
            total = fma(error, error, total)
        return -sum_lanes(select(lanes, total, splat(0.0))) / n_rows
    wanted = load(targets, goal)
    if n_rows <= FEW_CLASSES:
        return _payoff_of_few(kind, rows, start, n_rows, wanted, lanes)
    return _payoff_of_many(kind, rows, start, n_rows, wanted, lanes)
