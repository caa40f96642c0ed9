"""Elementary functions of sixteen lanes, written in Python and emitted as LLVM code.

A formula is a plain function of `Lanes`. It runs once, when a kernel is compiled: each
operator then appends one vector instruction, so that what the kernel gets is straight
code without a call. Everything is computed in float32 to within a few units in the last
place (absolute error below 1e-6 for arguments of order one) and passes NaN on.
"""

import math

import numpy as np
from llvmlite import ir

from skprune.evaluation._lanes import LANES, VECTOR, emit_call

__all__ = [
    "Lanes",
    "any_of",
    "elu",
    "exp",
    "exp_below",
    "gelu",
    "log",
    "sigmoid",
    "silu",
    "tanh",
]

_INTS = ir.VectorType(ir.IntType(32), LANES)
_LOG2_E = 1 / math.log(2.0)
_ROUNDER = 1.5 * 2.0**23
# log(2) in two parts, the first with few bits, so that n * _LN2_HIGH is exact.
_LN2_HIGH = 0.693359375
_LN2_LOW = math.log(2.0) - _LN2_HIGH
_LARGEST = float(np.finfo(np.float32).max)

# Minimax coefficients: exp and log are those of the Cephes library, tanh and erf
# (rational functions on a clamped range) those of Eigen.
_EXP = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)
# Fitted here, with 1 at 0: relative error 9e-8.
_EXP2 = (
    1.3264726907e-3,
    9.6715126604e-3,
    5.5507337442e-2,
    2.4022242085e-1,
    6.9314697760e-1,
    1.0,
)
_LOG = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
_TANH_TOP = (
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
_TANH_BOTTOM = (
    1.19825839466702e-06,
    1.18534705686654e-04,
    2.26843463243900e-03,
    4.89352518554385e-03,
)
_ERF_TOP = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_BOTTOM = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)


class Lanes:
    """Sixteen numbers of a formula: what its operators do is emitted.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
        Where instructions are appended.
    value : llvmlite.ir.Value
        The vector.
    """

    def __init__(self, builder, value):
        self.builder, self.value = builder, value

    def constant(self, number):
        """Lanes that all hold one number."""
        vector = ir.Constant(VECTOR, [float(np.float32(number))] * LANES)
        return Lanes(self.builder, vector)

    def _apply(self, emit, *others):
        values = [
            other.value if isinstance(other, Lanes) else self.constant(other).value
            for other in others
        ]
        return Lanes(self.builder, emit(self.value, *values))

    def __add__(self, other):
        return self._apply(self.builder.fadd, other)

    def __sub__(self, other):
        return self._apply(self.builder.fsub, other)

    def __mul__(self, other):
        return self._apply(self.builder.fmul, other)

    def __truediv__(self, other):
        return self._apply(self.builder.fdiv, other)

    def times_plus(self, factor, summand):
        """Self * factor + summand, rounded once where the processor can."""

        def emit(*values):
            return emit_call(self.builder, "llvm.fmuladd.v16f32", values)

        return self._apply(emit, factor, summand)

    def at_least(self, bound):
        """The larger of both; a NaN of self stays, one of `bound` does not."""
        return self._pick("<", bound, bound)

    def at_most(self, bound):
        """The smaller of both; a NaN of self stays, one of `bound` does not."""
        return self._pick(">", bound, bound)

    def where(self, condition, bound, other):
        """Self in the lanes of `condition` that are above `bound`, else `other`."""
        limit = self.constant(bound).value
        is_above = self.builder.fcmp_ordered(">", condition.value, limit)
        return self._apply(lambda x, y: self.builder.select(is_above, x, y), other)

    def any_above(self, bound):
        """Whether any lane is above a number, as an LLVM bit."""
        is_above = self.builder.fcmp_ordered(
            ">", self.value, self.constant(bound).value
        )
        return any_of(self.builder, is_above)

    def _pick(self, sign, bound, other):
        def emit(value, bound, other):
            is_beyond = self.builder.fcmp_ordered(sign, value, bound)
            return self.builder.select(is_beyond, other, value)

        return self._apply(emit, bound, other)

    def as_ints(self):
        """The bits of each lane as an LLVM vector of 32-bit integers."""
        return self.builder.bitcast(self.value, _INTS)

    def from_ints(self, ints):
        """Lanes with the given bits."""
        return Lanes(self.builder, self.builder.bitcast(ints, VECTOR))


def any_of(builder, mask):
    """Whether a mask holds for any lane, as an LLVM bit."""
    bits = builder.bitcast(mask, ir.IntType(LANES))
    return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))


def _ints(number):
    return ir.Constant(_INTS, [number] * LANES)


def _polynomial(x, coefficients):
    """Polynomial in x, coefficients from the highest power down."""
    total = x.constant(coefficients[0])
    for coefficient in coefficients[1:]:
        total = total.times_plus(x, coefficient)
    return total


def exp(x):
    """e to the power of each lane, between 1.2e-38 and 2.4e38."""
    x = x.at_least(-87.3).at_most(88.3)
    shifted = x.times_plus(_LOG2_E, _ROUNDER)
    whole = shifted - _ROUNDER
    rest = whole.times_plus(-_LN2_HIGH, x)
    rest = whole.times_plus(-_LN2_LOW, rest)
    series = _polynomial(rest, _EXP).times_plus(rest * rest, rest + 1.0)
    # The lowest bits of `shifted` are those of a whole number: they become the
    # exponent.
    exponent = x.builder.shl(shifted.as_ints(), _ints(23))
    power = x.from_ints(x.builder.add(exponent, _ints(127 << 23)))
    return series * power


def exp_below(x):
    """e to the power of each lane, for lanes of at most 80; at least 2**-125."""
    x = (x * _LOG2_E).at_least(-125.0)
    shifted = x + _ROUNDER
    series = _polynomial(x - (shifted - _ROUNDER), _EXP2)
    # The lowest bits of `shifted` are those of a whole number, which is added to the
    # exponent.
    exponent = x.builder.shl(shifted.as_ints(), _ints(23))
    return x.from_ints(x.builder.add(series.as_ints(), exponent))


def log(x):
    """Natural logarithm of positive normal lanes; infinity and NaN stay."""
    builder, bits = x.builder, x.as_ints()
    # Mantissa from sqrt(1/2) to sqrt(2), so that the series is short.
    shifted = builder.sub(bits, _ints(_bits_of(math.sqrt(0.5))))
    exponent = Lanes(builder, builder.sitofp(builder.ashr(shifted, _ints(23)), VECTOR))
    fraction = builder.and_(shifted, _ints((1 << 23) - 1))
    mantissa = x.from_ints(builder.add(fraction, _ints(_bits_of(math.sqrt(0.5)))))
    rest = mantissa - 1.0
    square = rest * rest
    series = _polynomial(rest, _LOG) * (rest * square)
    series = exponent.times_plus(_LN2_LOW, series)
    series = square.times_plus(-0.5, series)
    result = exponent.times_plus(_LN2_HIGH, rest + series)
    is_finite = builder.fcmp_ordered("<=", x.value, x.constant(_LARGEST).value)
    return Lanes(builder, builder.select(is_finite, result.value, x.value))


def _bits_of(number):
    return int(np.float32(number).view(np.int32))


def _rational(x, limit, top, bottom):
    """Odd rational function of x, clamped to [-limit, limit]."""
    x = x.at_least(-limit).at_most(limit)
    square = x * x
    return x * _polynomial(square, top) / _polynomial(square, bottom)


def tanh(x):
    """Hyperbolic tangent of each lane."""
    return _rational(x, 7.90531110763549805, _TANH_TOP, _TANH_BOTTOM)


def sigmoid(x):
    """Logistic function of each lane."""
    zero, one = x.constant(0.0), x.constant(1.0)
    value = one / (exp(zero - x) + one)
    # 0, as where the exponential overflows, and not a trace: silent units are silent.
    return zero.where(zero - x, 88.0, value)


def silu(x):
    """x times its logistic function."""
    return x * sigmoid(x)


def gelu(x):
    """x times the standard normal distribution function."""
    half = x * 0.5
    error = _rational(x * math.sqrt(0.5), 4.0, _ERF_TOP, _ERF_BOTTOM)
    return half.times_plus(error, half)


def elu(x, alpha):
    """x where it is positive, alpha * (exp(x) - 1) elsewhere."""
    return x.where(x, 0.0, alpha * (exp(x) - 1.0))
