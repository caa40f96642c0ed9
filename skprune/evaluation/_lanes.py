"""Sixteen float32 lanes as one value of compiled code.

Numba compiles scalar loops and leaves it to LLVM to vectorise them, which it does badly
where the loop over samples is short and accumulators should stay in registers. Here
`<16 x float>` is a Numba type of its own, so that a kernel reads like scalar code and
every operation in it acts on sixteen samples at once. LLVM splits a vector where the
processor has narrower registers. No fast-math flag is set: NaN, infinities and ties
behave as IEEE 754 says, and sums keep the order in which they are written.

The functions here can only be called from compiled code. An array of rows has the shape
(n_rows, 16), is C-contiguous and float32.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import (
    intrinsic,
    models,
    overload,
    register_model,
)

from skprune.evaluation._pointers import address_of

__all__ = [
    "FLOATS",
    "LANES",
    "MASK",
    "VECTOR",
    "bits",
    "broadcast",
    "count_bits",
    "emit_call",
    "first_lanes",
    "fma",
    "gather",
    "load",
    "row_address",
    "select",
    "splat",
    "store",
    "sum_lanes",
]

LANES = 16
_FLOAT = ir.FloatType()
_DOUBLE = ir.DoubleType()
_INT32 = ir.IntType(32)
VECTOR = ir.VectorType(_FLOAT, LANES)
_INT_VECTOR = ir.VectorType(_INT32, LANES)
_BOOL_VECTOR = ir.VectorType(ir.IntType(1), LANES)


class _LanesType(types.Type):
    """Sixteen float32 or sixteen booleans."""

    def __init__(self, kind, vector):
        super().__init__(name=f"lanes_{kind}")
        self.vector = vector


FLOATS = _LanesType("float32", VECTOR)
MASK = _LanesType("bool", _BOOL_VECTOR)


@register_model(_LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, fe_type.vector)


def broadcast(builder, scalar, vector):
    """Emit a vector whose lanes all hold `scalar`."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, _INT32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_INT_VECTOR, None))


def row_address(context, builder, array_type, array, row):
    """Emit the address of row `row` of an array of rows."""
    data = address_of(context, builder, array_type, array)
    start = builder.mul(row, ir.Constant(row.type, LANES))
    return builder.bitcast(builder.gep(data, [start]), VECTOR.as_pointer())


def emit_call(builder, name, arguments, returns=VECTOR):
    """Emit a call of an LLVM intrinsic function."""
    kind = ir.FunctionType(returns, [value.type for value in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, arguments)


@intrinsic
def load(typingctx, rows, row):
    """Row `row` of an array of rows."""

    def codegen(context, builder, signature, args):
        address = row_address(context, builder, signature.args[0], *args)
        return builder.load(address, align=4)

    return FLOATS(rows, types.intp), codegen


@intrinsic
def gather(typingctx, numbers, start, offsets):
    """The numbers at ``start`` plus each lane's offset, a whole number as a float."""

    def codegen(context, builder, signature, args):
        _, start, offsets = args
        data = address_of(context, builder, signature.args[0], args[0])
        offsets = builder.fptosi(offsets, _INT_VECTOR)
        gathered = ir.Constant(VECTOR, ir.Undefined)
        for lane in map(_INT32, range(LANES)):
            offset = builder.sext(builder.extract_element(offsets, lane), start.type)
            address = builder.gep(data, [builder.add(start, offset)])
            number = builder.load(address, align=4)
            gathered = builder.insert_element(gathered, number, lane)
        return gathered

    return FLOATS(numbers, types.intp, FLOATS), codegen


@intrinsic
def store(typingctx, rows, row, value):
    """Write `value` to row `row`."""

    def codegen(context, builder, signature, args):
        address = row_address(context, builder, signature.args[0], *args[:2])
        builder.store(args[2], address, align=4)
        return context.get_dummy_value()

    return types.void(rows, types.intp, FLOATS), codegen


@intrinsic
def splat(typingctx, scalar):
    """Lanes that all hold one number."""

    def codegen(context, builder, signature, args):
        return broadcast(builder, args[0], VECTOR)

    return FLOATS(types.float32), codegen


@intrinsic
def fma(typingctx, left, right, summand):
    """left * right + summand, rounded once where the processor can."""

    def codegen(context, builder, signature, args):
        return emit_call(builder, "llvm.fmuladd.v16f32", args)

    return FLOATS(FLOATS, FLOATS, FLOATS), codegen


@intrinsic
def select(typingctx, mask, chosen, other):
    """`chosen` where the mask is True, `other` elsewhere."""

    def codegen(context, builder, signature, args):
        return builder.select(*args)

    return FLOATS(MASK, FLOATS, FLOATS), codegen


@intrinsic
def first_lanes(typingctx, n_lanes):
    """Mask of the first `n_lanes` lanes."""

    def codegen(context, builder, signature, args):
        numbers = ir.Constant(_INT_VECTOR, list(range(LANES)))
        limit = builder.trunc(args[0], _INT32)
        return builder.icmp_signed("<", numbers, broadcast(builder, limit, _INT_VECTOR))

    return MASK(types.intp), codegen


@intrinsic
def bits(typingctx, mask):
    """A mask as a whole number of sixteen bits: bit i is lane i."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(LANES))

    return types.uint16(MASK), codegen


@intrinsic
def count_bits(typingctx, number):
    """How many bits of a whole number are set."""

    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.int64(types.int64), codegen


@intrinsic
def sum_lanes(typingctx, value):
    """Sum of the lanes in float64, always in the same order: halves, quarters, ..."""

    def codegen(context, builder, signature, args):
        total = builder.fpext(args[0], ir.VectorType(_DOUBLE, LANES))
        width = LANES // 2
        while width:
            halves = (
                builder.shuffle_vector(
                    total,
                    ir.Constant(total.type, ir.Undefined),
                    ir.Constant(
                        ir.VectorType(_INT32, width), list(range(at, at + width))
                    ),
                )
                for at in (0, width)
            )
            total = builder.fadd(*halves)
            width //= 2
        return builder.extract_element(total, _INT32(0))

    return types.float64(FLOATS), codegen


@intrinsic
def invert(typingctx, mask):
    """The lanes that are not in a mask."""

    def codegen(context, builder, signature, args):
        return builder.not_(args[0])

    return MASK(MASK), codegen


def _operator(function, kinds, returns, emit):
    """Give one of Python's operators a meaning for lanes."""

    @intrinsic
    def operation(typingctx, left, right):
        def codegen(context, builder, signature, args):
            return emit(builder, *args)

        return returns(*kinds), codegen

    @overload(function, inline="always")
    def typed(left, right):
        if (left, right) == kinds:
            return lambda left, right: operation(left, right)
        return None


for _function, _emit in (
    (operator.add, ir.IRBuilder.fadd),
    (operator.sub, ir.IRBuilder.fsub),
    (operator.mul, ir.IRBuilder.fmul),
    (operator.truediv, ir.IRBuilder.fdiv),
):
    _operator(_function, (FLOATS, FLOATS), FLOATS, _emit)
for _function, _sign in (
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.eq, "=="),
):

    def _compare(builder, left, right, sign=_sign):
        return builder.fcmp_ordered(sign, left, right)

    _operator(_function, (FLOATS, FLOATS), MASK, _compare)
for _function, _emit in (
    (operator.and_, ir.IRBuilder.and_),
    (operator.or_, ir.IRBuilder.or_),
):
    _operator(_function, (MASK, MASK), MASK, _emit)


@overload(operator.invert, inline="always")
def _not(mask):
    if mask is MASK:
        return lambda mask: invert(mask)
    return None
