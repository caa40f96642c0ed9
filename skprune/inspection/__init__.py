"""Why a neuron stayed: displays of what a fitted pruner learned.

A display holds arrays; its `from_estimator` reads them off a fitted pruner, and `plot`
draws them. No game is played again. `_survivors` is the table of those who stayed,
`_opening` finds the pruner inside a pipeline or search and brings X to where it stands,
`_drivers` says which features move a unit, by gradients of its activation towards the
entries of X that are not 0, which `_features` holds for a batch.
"""

from skprune.inspection._survivors import SurvivorsDisplay

__all__ = ["SurvivorsDisplay"]
