"""Which orders and coalitions to ask a game for.

Plain functions of a shape and a `numpy.random.Generator`; nothing is kept between
calls. With `n_blocks` each sample holds one order or coalition per block of samples.
"""

from skprune.samplers._coalitions import (
    bernoulli_coalitions,
    complement_pairs,
    fixed_size_coalitions,
)
from skprune.samplers._orders import antithetic_orders, sobol_orders, uniform_orders

__all__ = [
    "antithetic_orders",
    "bernoulli_coalitions",
    "complement_pairs",
    "fixed_size_coalitions",
    "sobol_orders",
    "uniform_orders",
]
