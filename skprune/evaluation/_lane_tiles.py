"""Several rows of lanes as one tuple, so that a kernel keeps them in registers."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from skprune.evaluation._lanes import (
    FLOATS,
    VECTOR,
    address_of,
    broadcast,
    emit_call,
    row_address,
)

__all__ = [
    "load_tile",
    "store_tile",
    "tile_add",
    "tile_fma",
    "zero_tile",
]

_INT32 = ir.IntType(32)


@intrinsic(prefer_literal=True)
def load_tile(typingctx, rows, row, width):
    """`width` (a constant) rows from `row` on, as a tuple."""
    n_rows = width.literal_value

    def codegen(context, builder, signature, args):
        address = row_address(context, builder, signature.args[0], *args[:2])
        values = [
            builder.load(builder.gep(address, [_INT32(i)]), align=4)
            for i in range(n_rows)
        ]
        return cgutils.pack_array(builder, values, VECTOR)

    return types.UniTuple(FLOATS, n_rows)(rows, types.intp, width), codegen


@intrinsic
def store_tile(typingctx, rows, row, tile):
    """Write a tuple of lanes to the rows from `row` on."""

    def codegen(context, builder, signature, args):
        address = row_address(context, builder, signature.args[0], *args[:2])
        for i, value in enumerate(cgutils.unpack_tuple(builder, args[2])):
            builder.store(value, builder.gep(address, [_INT32(i)]), align=4)
        return context.get_dummy_value()

    return types.void(rows, types.intp, tile), codegen


@intrinsic
def tile_fma(typingctx, tile, weights, start, value):
    """Add weights[start + i] * value to row i of a tile, for each i."""

    def codegen(context, builder, signature, args):
        rows, weights, start, value = args
        address = builder.gep(
            address_of(context, builder, signature.args[1], weights), [start]
        )
        sums = []
        for i, row in enumerate(cgutils.unpack_tuple(builder, rows)):
            weight = builder.load(builder.gep(address, [_INT32(i)]), align=4)
            factor = broadcast(builder, weight, VECTOR)
            sums.append(emit_call(builder, "llvm.fmuladd.v16f32", [factor, value, row]))
        return cgutils.pack_array(builder, sums, VECTOR)

    return tile(tile, weights, types.intp, FLOATS), codegen


@intrinsic(prefer_literal=True)
def zero_tile(typingctx, width):
    """`width` (a constant) rows of zeros, as a tuple."""

    def codegen(context, builder, signature, args):
        zeros = [ir.Constant(VECTOR, None)] * width.literal_value
        return cgutils.pack_array(builder, zeros, VECTOR)

    return types.UniTuple(FLOATS, width.literal_value)(width), codegen


@intrinsic
def tile_add(typingctx, left, right):
    """Sum of two tiles, row by row."""

    def codegen(context, builder, signature, args):
        pairs = zip(
            *(cgutils.unpack_tuple(builder, tile) for tile in args), strict=True
        )
        return cgutils.pack_array(
            builder, [builder.fadd(*pair) for pair in pairs], VECTOR
        )

    return left(left, right), codegen
