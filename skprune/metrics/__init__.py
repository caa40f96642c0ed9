"""Searching for small networks, by the searches of scikit-learn.

The factories give callables for `scoring`: larger is better, so small networks get high
scores. `_scorers` has those of size alone, `_penalized` a score that pays for size.
They read the size reports of fitted pruners, which `_pruners` finds: alone, or inside a
Pipeline or a search; where there are several, their networks are added up. The rule of
one standard error, for `refit`, is in `_refit`.
"""

from skprune.metrics._penalized import size_penalized_scorer
from skprune.metrics._refit import smallest_within_one_standard_error
from skprune.metrics._scorers import (
    flops_scorer,
    latency_scorer,
    parameters_scorer,
    sparsity_scorer,
)

__all__ = [
    "flops_scorer",
    "latency_scorer",
    "parameters_scorer",
    "size_penalized_scorer",
    "smallest_within_one_standard_error",
    "sparsity_scorer",
]
