"""Prune neural networks by game theory, as scikit-learn estimators.

A network's units are players, what a subset of them still achieves is a payoff,
and power indices say what each unit is worth. The subpackages, each of which only
imports those before it: `games`, `samplers`, `scorers`, `strategies` (without torch),
`networks`, `evaluation`, `pruners`, `metrics`, `inspection` (torch). The names below
are loaded on first use, so that the game theory can be used without importing torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0.dev0"

__all__ = [
    "CoalitionEvaluator",
    "EquilibriumPrunedMLP",
    "EquilibriumPrunedMLPRegressor",
    "EquilibriumPruner",
    "GTAPPruner",
    "PowerIndexSelector",
    "ShapleyBucketPruner",
    "mlp_classifier",
    "mlp_regressor",
]

_HOMES = {
    "CoalitionEvaluator": "skprune.evaluation",
    "EquilibriumPrunedMLP": "skprune.pruners",
    "EquilibriumPrunedMLPRegressor": "skprune.pruners",
    "EquilibriumPruner": "skprune.pruners",
    "GTAPPruner": "skprune.pruners",
    "PowerIndexSelector": "skprune.pruners",
    "ShapleyBucketPruner": "skprune.pruners",
    "mlp_classifier": "skprune.evaluation",
    "mlp_regressor": "skprune.evaluation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'skprune' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
