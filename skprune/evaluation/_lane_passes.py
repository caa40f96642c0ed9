"""Loops over columns that sum up a tile of outputs in registers.

Written as LLVM code, so that a turn of the loop is one input, one multiplication and
addition for each output, and nothing else.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from skprune.evaluation._lane_formulas import Lanes
from skprune.evaluation._lanes import VECTOR, broadcast, emit_call, row_address
from skprune.evaluation._pointers import address_of

__all__ = ["joined_pass", "kept_pass", "plain_pass", "rectified_pass"]

_INT = ir.IntType(64)


def _make_pass(emit_input, n_parts):
    """A function of compiled code that adds weighted inputs to a tile.

    Parameters
    ----------
    emit_input : callable
        Takes (context, builder, types, values, j) of the inputs and emits the j-th.
    n_parts : int
        How many arguments the inputs are.
    """

    def codegen(context, builder, signature, args):
        tile, weights, at, step, n_columns = args[:5]
        parts = signature.args[5], cgutils.unpack_tuple(builder, args[5])
        data = address_of(context, builder, signature.args[1], weights)
        starts = [builder.gep(data, [at]), builder.gep(data, [builder.add(at, step)])]
        rows = cgutils.unpack_tuple(builder, tile)
        before = builder.block
        loop = builder.append_basic_block("pass")
        after = builder.append_basic_block("passed")
        is_some = builder.icmp_signed(">", n_columns, _INT(0))
        builder.cbranch(is_some, loop, after)
        builder.position_at_end(loop)
        j = builder.phi(_INT)
        sums = [builder.phi(VECTOR) for _ in rows]
        value = emit_input(context, builder, *parts, j)
        more = []
        for i, total in enumerate(sums):
            offset = builder.add(builder.mul(j, _INT(8)), _INT(i % 8))
            weight = builder.load(builder.gep(starts[i // 8], [offset]), align=4)
            terms = [broadcast(builder, weight, VECTOR), value, total]
            more.append(emit_call(builder, "llvm.fmuladd.v16f32", terms))
        following = builder.add(j, _INT(1))
        end = builder.block
        builder.cbranch(builder.icmp_signed("<", following, n_columns), loop, after)
        j.add_incoming(_INT(0), before)
        j.add_incoming(following, end)
        for total, row, new in zip(sums, rows, more, strict=True):
            total.add_incoming(row, before)
            total.add_incoming(new, end)
        builder.position_at_end(after)
        results = []
        for row, new in zip(rows, more, strict=True):
            result = builder.phi(VECTOR)
            result.add_incoming(row, before)
            result.add_incoming(new, end)
            results.append(result)
        return cgutils.pack_array(builder, results, VECTOR)

    @intrinsic
    def add_columns(typingctx, tile, weights, at, step, n_columns, inputs):
        if len(inputs) != n_parts:
            return None
        integers = (types.intp,) * 3
        return tile(tile, weights, *integers, inputs), codegen

    return add_columns


def _read(context, builder, kinds, values, j):
    """Row `row + j` of `rows`, for inputs (rows, row)."""
    row = builder.add(values[1], j)
    address = row_address(context, builder, kinds[0], values[0], row)
    return builder.load(address, align=4)


def _read_rectified(context, builder, kinds, values, j):
    """As `_read`, but 0 where the row is negative."""
    row = _read(context, builder, kinds, values, j)
    return Lanes(builder, row).at_least(0.0).value


def _join(context, builder, kinds, values, j):
    """Row j of (base, at), with a column more: its weights, their order, its value.

    The inputs are (base, at, weights, start, order, first, value): the weight of row j
    is ``weights[start + order[first + j]]``.
    """
    _, _, weights, start, order, first, value = values
    at = builder.load(builder.gep(order, [builder.add(first, j)]))
    address = builder.gep(weights, [builder.add(start, at)])
    weight = broadcast(builder, builder.load(address, align=4), VECTOR)
    base = _read(context, builder, kinds, values, j)
    return emit_call(builder, "llvm.fmuladd.v16f32", [weight, value, base])


def _join_rectified(context, builder, kinds, values, j):
    total = _join(context, builder, kinds, values, j)
    return Lanes(builder, total).at_least(0.0).value


def _join_for_good(context, builder, kinds, values, j):
    """As `_join_rectified`, and writes the sums to `base` and what is read to `kept`.

    The last of the inputs is `kept`, with the rows of `base`.
    """
    total = _join(context, builder, kinds, values[:7], j)
    read = Lanes(builder, total).at_least(0.0).value
    row = builder.add(values[1], j)
    for kind, rows, value in (
        (kinds[0], values[0], total),
        (kinds[7], values[7], read),
    ):
        address = row_address(context, builder, kind, rows, row)
        builder.store(value, address, align=4)
    return read


plain_pass = _make_pass(_read, 2)
rectified_pass = _make_pass(_read_rectified, 2)
joined_pass = _make_pass(_join_rectified, 7)
kept_pass = _make_pass(_join_for_good, 8)
