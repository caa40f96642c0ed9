"""Activations of sixteen samples at once."""

from numba import types
from numba.extending import intrinsic

from skprune.evaluation import _lane_formulas as formulas
from skprune.evaluation._lane_formulas import Lanes
from skprune.evaluation._lanes import FLOATS, broadcast, load, select, splat, store
from skprune.evaluation._pointers import kernel_part

__all__ = ["ACTIVATIONS", "activate_rows"]

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
_RELU, _LEAKY_RELU, _ELU, _GELU = 1, 2, 3, 4
_SILU, _TANH = 5, 6


def _compiled(formula):
    """A formula of one variable as a function of compiled code."""

    @intrinsic
    def function(typingctx, value):
        def codegen(context, builder, signature, args):
            return formula(Lanes(builder, args[0])).value

        return FLOATS(FLOATS), codegen

    return function


_gelu, _silu = _compiled(formulas.gelu), _compiled(formulas.silu)
_tanh, _sigmoid = _compiled(formulas.tanh), _compiled(formulas.sigmoid)


@intrinsic
def _elu(typingctx, value, alpha):
    """Exponential linear unit of each lane."""

    def codegen(context, builder, signature, args):
        factor = Lanes(builder, broadcast(builder, args[1], FLOATS.vector))
        return formulas.elu(Lanes(builder, args[0]), factor).value

    return FLOATS(FLOATS, types.float32), codegen


@kernel_part
def activate_rows(rows, start, n_rows, kind, slope):
    """Apply an activation (a value of ACTIVATIONS) to rows, in place."""
    for row in range(start, start + n_rows):
        x = load(rows, row)
        if kind <= _LEAKY_RELU:
            low = splat(slope) * x if kind == _LEAKY_RELU else splat(0.0)
            x = select(x < splat(0.0), low, x) if kind else x
        elif kind == _ELU:
            x = _elu(x, slope)
        elif kind == _GELU:
            x = _gelu(x)
        elif kind == _SILU:
            x = _silu(x)
        elif kind == _TANH:
            x = _tanh(x)
        else:
            x = _sigmoid(x)
        store(rows, row, x)
