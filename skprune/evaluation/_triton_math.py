"""Activations and payoffs of sixteen samples at once, in Triton.

A tile has the shape (16 samples, units). NaN passes through all of them, except that it
is never right.
"""

import triton
import triton.language as tl

from skprune.evaluation import _lane_math, _lane_payoffs, _lanes

__all__ = ["ROWS", "activated", "block_payoff", "load_goals"]

# Samples of a block: the rows of every tile.
ROWS = tl.constexpr(_lanes.LANES)

_RELU = tl.constexpr(_lane_math.ACTIVATIONS["relu"])
_LEAKY_RELU = tl.constexpr(_lane_math.ACTIVATIONS["leaky_relu"])
_ELU = tl.constexpr(_lane_math.ACTIVATIONS["elu"])
_GELU = tl.constexpr(_lane_math.ACTIVATIONS["gelu"])
_SILU = tl.constexpr(_lane_math.ACTIVATIONS["silu"])
_TANH = tl.constexpr(_lane_math.ACTIVATIONS["tanh"])
_SIGMOID = tl.constexpr(_lane_math.ACTIVATIONS["sigmoid"])

_ACCURACY = tl.constexpr(_lane_payoffs.PAYOFFS["accuracy"])
_LOG_LIKELIHOOD = tl.constexpr(_lane_payoffs.PAYOFFS["log_likelihood"])
_MARGIN = tl.constexpr(_lane_payoffs.PAYOFFS["margin"])
_ERROR = tl.constexpr(_lane_payoffs.PAYOFFS["neg_mean_squared_error"])
_SMOOTHED = tl.constexpr(_lane_payoffs.PAYOFFS["smoothed_accuracy"])
_SMOOTHING = tl.constexpr(_lane_payoffs.SMOOTHING)

_ROOT_HALF = tl.constexpr(0.7071067811865476)


@triton.jit
def _sigmoid(x):
    """Logistic function."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def activated(x, kind, slope):
    """A tile after the activation whose code is `kind`."""
    if kind == _RELU:
        x = tl.where(x < 0, 0.0, x)
    elif kind == _LEAKY_RELU:
        x = tl.where(x < 0, slope * x, x)
    elif kind == _ELU:
        x = tl.where(x < 0, slope * (tl.exp(tl.where(x < 0, x, 0.0)) - 1.0), x)
    elif kind == _GELU:
        x = 0.5 * x * (1.0 + tl.erf(x * _ROOT_HALF))
    elif kind == _SILU:
        x = x * _sigmoid(x)
    elif kind == _TANH:
        x = 2.0 * _sigmoid(2.0 * x) - 1.0
    elif kind == _SIGMOID:
        x = _sigmoid(x)
    return x


@triton.jit
def load_goals(goals, block, n_classes, PAYOFF: tl.constexpr, CLASSES: tl.constexpr):
    """What a block should answer: classes (16,), or values (16, CLASSES)."""
    lanes = tl.arange(0, ROWS)
    if PAYOFF == _ERROR:
        classes = tl.arange(0, CLASSES)[None, :]
        at = (block * n_classes + classes) * ROWS + lanes[:, None]
        goal = tl.load(goals + at, mask=classes < n_classes, other=0.0)
    else:
        goal = tl.load(goals + block * ROWS + lanes).to(tl.int32)
    return goal


@triton.jit
def block_payoff(
    outputs, goal, n_classes, n_lanes, PAYOFF: tl.constexpr, CLASSES: tl.constexpr
):
    """Sum over the first `n_lanes` samples of what their outputs (16, CLASSES) earn."""
    classes = tl.arange(0, CLASSES)[None, :]
    outside = classes >= n_classes
    if PAYOFF == _ERROR:
        error = tl.where(outside, 0.0, outputs - goal)
        value = tl.sum(error * error, axis=1) / (-1.0 * n_classes)
    else:
        wanted = goal[:, None]
        own = classes == wanted
        truth = tl.sum(tl.where(own, outputs, 0.0), axis=1)
        if PAYOFF == _ACCURACY:
            value = _is_right(outputs, truth, classes, wanted, outside)
        elif PAYOFF == _MARGIN:
            value = _margin(outputs, truth, own, outside)
        else:
            value = _log_likelihood(outputs, truth, outside)
            if PAYOFF != _LOG_LIKELIHOOD:
                value = tl.exp(value)
            if PAYOFF == _SMOOTHED:
                right = _is_right(outputs, truth, classes, wanted, outside)
                value = right + _SMOOTHING * value
    return tl.sum(tl.where(tl.arange(0, ROWS) < n_lanes, value, 0.0), axis=0)


@triton.jit
def _is_right(outputs, truth, classes, wanted, outside):
    """1 where the own class wins; of equal outputs the lowest class wins."""
    tied = (outputs == truth[:, None]) & (classes >= wanted)
    beaten = (outputs < truth[:, None]) | tied | outside
    return tl.min(beaten.to(tl.int32), axis=1).to(tl.float32)


@triton.jit
def _margin(outputs, truth, own, outside):
    """Output of the own class minus the best of the other outputs."""
    best = tl.max(tl.where(own | outside, -float("inf"), outputs), axis=1)
    # The maximum drops NaN on a GPU; the sum does not.
    return truth - best + tl.sum(tl.where(outside, 0.0, 0.0 * outputs), axis=1)


@triton.jit
def _log_likelihood(outputs, truth, outside):
    """Log softmax of the own class."""
    shown = tl.where(outside, -float("inf"), outputs)
    top = tl.max(shown, axis=1)
    total = tl.sum(tl.exp(shown - top[:, None]), axis=1)
    return truth - top - tl.log(total)
