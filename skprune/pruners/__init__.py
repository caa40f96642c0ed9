"""Pruners as scikit-learn estimators.

`_base` is what all pruners share: data in, labels encoded, predictions out. `_data`
checks and splits the data, `_stage` holds a trained net with its players and samples
and finishes a choice of players (surgery, repair, transplant, retraining). A pruner
itself, such as `_gtap`, only decides who stays.
"""

from skprune.pruners._equilibrium import EquilibriumPruner
from skprune.pruners._equilibrium_mlp import (
    EquilibriumPrunedMLP,
    EquilibriumPrunedMLPRegressor,
)
from skprune.pruners._gtap import GTAPPruner

__all__ = [
    "EquilibriumPrunedMLP",
    "EquilibriumPrunedMLPRegressor",
    "EquilibriumPruner",
    "GTAPPruner",
]
