"""Activations and payoffs of sixteen samples at once.

Everything is computed in float32 to within a few units in the last place (absolute
error below 1e-6 for arguments of order one) and passes NaN on.
"""

import math

import numpy as np
from numba import njit

from skprune.evaluation._lanes import (
    LANES,
    bits,
    count_bits,
    first_lanes,
    fma,
    load,
    maximum,
    polynomial,
    power_of_two,
    select,
    splat,
    split_exponent,
    store,
    sum_lanes,
)

__all__ = ["ACTIVATIONS", "PAYOFFS", "SMOOTHING", "activate_rows", "block_payoff"]

ACTIVATIONS = {
    "identity": 0,
    "relu": 1,
    "leaky_relu": 2,
    "elu": 3,
    "gelu": 4,
    "silu": 5,
    "tanh": 6,
    "sigmoid": 7,
}
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

_RELU, _LEAKY_RELU, _ELU, _GELU = 1, 2, 3, 4
_SILU, _TANH, _SIGMOID = 5, 6, 7
_ACCURACY, _LOG_LIKELIHOOD, _PROBABILITY, _MARGIN, _ERROR = 0, 1, 2, 3, 4

_ALL_LANES = (1 << LANES) - 1
_LOG2_E = 1 / math.log(2.0)
_ROUNDER = 1.5 * 2.0**23
# log(2) in two parts, the first with few bits, so that n * _LN2_HIGH is exact.
_LN2_HIGH = 0.693359375
_LN2_LOW = math.log(2.0) - _LN2_HIGH
_LARGEST = float(np.finfo(np.float32).max)
_LOWEST = -_LARGEST

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


@njit(nogil=True)
def _clamp(x, low, high):
    """The nearest number in [low, high]; NaN stays NaN."""
    x = select(x < splat(low), splat(low), x)
    return select(splat(high) < x, splat(high), x)


@njit(nogil=True)
def _exp(x):
    """e to the power of each lane, between 1.2e-38 and 2.4e38."""
    x = _clamp(x, -87.3, 88.3)
    shifted = fma(x, splat(_LOG2_E), splat(_ROUNDER))
    whole = shifted - splat(_ROUNDER)
    rest = fma(whole, splat(-_LN2_HIGH), x)
    rest = fma(whole, splat(-_LN2_LOW), rest)
    series = fma(polynomial(rest, _EXP), rest * rest, rest + splat(1.0))
    return series * power_of_two(shifted)


@njit(nogil=True)
def _log(x):
    """Natural logarithm of positive normal lanes; infinity and NaN stay."""
    mantissa, exponent = split_exponent(x)
    high = splat(math.sqrt(2.0)) < mantissa
    mantissa = select(high, mantissa * splat(0.5), mantissa)
    exponent = select(high, exponent + splat(1.0), exponent)
    rest = mantissa - splat(1.0)
    square = rest * rest
    series = polynomial(rest, _LOG) * (rest * square)
    series = fma(exponent, splat(_LN2_LOW), series)
    series = fma(square, splat(-0.5), series)
    result = fma(exponent, splat(_LN2_HIGH), rest + series)
    return select(x <= splat(_LARGEST), result, x)


@njit(nogil=True)
def _tanh(x):
    """Hyperbolic tangent of each lane."""
    x = _clamp(x, -7.90531110763549805, 7.90531110763549805)
    square = x * x
    return x * polynomial(square, _TANH_TOP) / polynomial(square, _TANH_BOTTOM)


@njit(nogil=True)
def _erf(x):
    """Error function of each lane."""
    x = _clamp(x, -4.0, 4.0)
    square = x * x
    return x * polynomial(square, _ERF_TOP) / polynomial(square, _ERF_BOTTOM)


@njit(nogil=True)
def _sigmoid(x):
    """Logistic function of each lane."""
    return splat(1.0) / (splat(1.0) + _exp(splat(0.0) - x))


@njit(nogil=True)
def _curved(x, kind, slope):
    """The activations that need an exponential or a rational function."""
    if kind == _ELU:
        return select(splat(0.0) < x, x, splat(slope) * (_exp(x) - splat(1.0)))
    if kind == _GELU:
        half = x * splat(0.5)
        return fma(half, _erf(x * splat(math.sqrt(0.5))), half)
    if kind == _SILU:
        return x * _sigmoid(x)
    if kind == _TANH:
        return _tanh(x)
    return _sigmoid(x)


@njit(nogil=True)
def activate_rows(rows, start, n_rows, kind, slope):
    """Apply an activation (a value of ACTIVATIONS) to rows, in place."""
    zero = splat(0.0)
    if kind == _RELU:
        for row in range(start, start + n_rows):
            x = load(rows, row)
            store(rows, row, select(x < zero, zero, x))
    elif kind == _LEAKY_RELU:
        for row in range(start, start + n_rows):
            x = load(rows, row)
            store(rows, row, select(x < zero, splat(slope) * x, x))
    elif kind >= _ELU:
        for row in range(start, start + n_rows):
            store(rows, row, _curved(load(rows, row), kind, slope))


@njit(nogil=True)
def block_payoff(kind, rows, start, n_rows, targets, goal, n_lanes):
    """Sum over the first `n_lanes` samples of a block of what their outputs earn.

    `kind` is a value of PAYOFFS; the outputs are the `n_rows` rows from `start` on;
    `targets` holds from row `goal` on the classes as numbers, or what a regression
    should have answered.
    """
    lanes = first_lanes(n_lanes)
    if kind == _ACCURACY:
        right = _is_right(rows, start, n_rows, targets, goal)
        return np.float64(count_bits(bits(right & lanes)))
    if kind == _MARGIN:
        value = _margin(rows, start, n_rows, targets, goal)
    elif kind == _ERROR:
        value = _squared_error(rows, start, n_rows, targets, goal)
    else:
        value = _log_likelihood(rows, start, n_rows, targets, goal)
        if kind != _LOG_LIKELIHOOD:
            value = _exp(value)
        if kind > _ERROR:
            right = _is_right(rows, start, n_rows, targets, goal)
            hit = select(right, splat(1.0), splat(0.0))
            value = fma(splat(SMOOTHING), value, hit)
    return sum_lanes(select(lanes, value, splat(0.0)))


@njit(nogil=True)
def _true_output(rows, start, n_rows, targets, goal):
    """Each sample's output of its own class."""
    truth = load(rows, start)
    wanted = load(targets, goal)
    for row in range(1, n_rows):
        truth = select(wanted == splat(row), load(rows, start + row), truth)
    return truth


@njit(nogil=True)
def _is_right(rows, start, n_rows, targets, goal):
    """Mask of the samples whose class wins; of equal outputs the lowest class wins."""
    wanted = load(targets, goal)
    own = int(targets[goal * LANES])
    if bits(wanted == splat(own)) == _ALL_LANES:
        return _is_right_in_class(rows, start, n_rows, own)
    truth = _true_output(rows, start, n_rows, targets, goal)
    right = truth == truth
    for row in range(n_rows):
        output = load(rows, start + row)
        tied = (output == truth) & (wanted <= splat(row))
        right = right & ((output < truth) | tied)
    return right


@njit(nogil=True)
def _is_right_in_class(rows, start, n_rows, own):
    """As `_is_right`, for samples that are all of one class."""
    truth = load(rows, start + own)
    right = truth == truth
    for row in range(start, start + own):
        right = right & (load(rows, row) < truth)
    for row in range(start + own + 1, start + n_rows):
        right = right & (load(rows, row) <= truth)
    return right


@njit(nogil=True)
def _log_likelihood(rows, start, n_rows, targets, goal):
    """Log softmax of each sample's own class."""
    truth = _true_output(rows, start, n_rows, targets, goal)
    largest = load(rows, start)
    for row in range(1, n_rows):
        largest = maximum(largest, load(rows, start + row))
    total = splat(0.0)
    for row in range(n_rows):
        total = total + _exp(load(rows, start + row) - largest)
    return (truth - largest) - _log(total)


@njit(nogil=True)
def _margin(rows, start, n_rows, targets, goal):
    """Output of the own class minus the best of the other outputs."""
    truth = _true_output(rows, start, n_rows, targets, goal)
    wanted = load(targets, goal)
    lowest = splat(-np.inf)
    best = lowest
    for row in range(n_rows):
        rival = select(wanted == splat(row), lowest, load(rows, start + row))
        best = maximum(best, rival)
    return truth - best


@njit(nogil=True)
def _squared_error(rows, start, n_rows, targets, goal):
    """Minus the mean squared error of each sample's outputs."""
    total = splat(0.0)
    for row in range(n_rows):
        error = load(rows, start + row) - load(targets, goal + row)
        total = fma(error, error, total)
    return splat(-1.0 / n_rows) * total
