"""Pruners as scikit-learn estimators.

`_base` is what all pruners share: data in, labels encoded, predictions out. `_data`
checks and splits the data, `_stage` holds a trained net with its players and samples
and finishes a choice of players (surgery, repair, transplant, retraining). `_gtap`
decides who stays, `_shapley_bucket` which network still holds its score: `_descent` is
the way down, `_worth` what players are worth. In `_equilibrium` players leave while the
net trains: `_course` says when, `_play` is the market and the rivalry, `_contender` one
network in it, `_gates` the participations, `_record` what is written down. `_selector`
keeps columns of X by what they are worth, as players of `_features`.
"""

from skprune.pruners._equilibrium_mlp import EquilibriumPrunedMLP
from skprune.pruners._equilibrium_pruner import EquilibriumPruner
from skprune.pruners._equilibrium_regressor import EquilibriumPrunedMLPRegressor
from skprune.pruners._gtap import GTAPPruner
from skprune.pruners._selector import PowerIndexSelector
from skprune.pruners._shapley_bucket import ShapleyBucketPruner

__all__ = [
    "EquilibriumPrunedMLP",
    "EquilibriumPrunedMLPRegressor",
    "EquilibriumPruner",
    "GTAPPruner",
    "PowerIndexSelector",
    "ShapleyBucketPruner",
]
