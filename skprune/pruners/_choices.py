"""From what a user names to the objects that do it: searches, indices, sizes."""

from __future__ import annotations

from numbers import Integral

import numpy as np
from sklearn.base import clone
from sklearn.utils._param_validation import (
    Interval,
    RealNotInt,
    validate_parameter_constraints,
)

from skprune.base import Documented
from skprune.evaluation import BLOCK_SIZE
from skprune.scorers import BanzhafScorer, BiasedBanzhafScorer, ShapleyScorer
from skprune.strategies import (
    BelowShare,
    Bottom,
    Bucket,
    IteratedBuilding,
    IteratedPruning,
    SwapRefinement,
    TopN,
)

__all__ = [
    "POWER_INDICES",
    "SEARCHES",
    "SEARCH_SAMPLES",
    "SIZE",
    "STRATEGIES",
    "as_count",
    "as_refinement",
    "as_search",
    "check_parts",
    "builds",
    "index_of",
    "is_reconstruction",
    "named_scorer",
    "score_budget",
    "seeded",
    "step_budget",
]

SEARCHES = {
    "top_n": TopN,
    "iterated_pruning": IteratedPruning,
    "iterated_building": IteratedBuilding,
}
STRATEGIES = {"bucket": Bucket, "below_share": BelowShare, "bottom": Bottom}
POWER_INDICES = {
    "shapley": ShapleyScorer,
    "banzhaf": BanzhafScorer,
    "biased_banzhaf": BiasedBanzhafScorer,
}
SIZE = [
    Interval(Integral, 1, None, closed="left"),
    Interval(RealNotInt, 0, 1, closed="right"),
]
# Samples on which searches play; swaps play on all. LeNet5 of a tenth of the players
# lost a point with 2,048, and networks of all sizes gained none with 4,096.
SEARCH_SAMPLES = 3072
# Orders or coalitions that score the players, counted over all blocks of samples, and
# bounds on those that each block plays.
_PER_SCORE, _FEWEST, _MOST = 2048, 4, 64
# Blocks from which on one coalition each is enough for a step of building.
_ENOUGH_BLOCKS = 192


def is_reconstruction(payoff):
    """Whether the layers play reconstruction games."""
    return isinstance(payoff, str) and payoff == "reconstruction"


def builds(search):
    """Whether a search, or that of a name, adds players."""
    return search == "iterated_building" or isinstance(search, IteratedBuilding)


def index_of(power_index, search, payoff):
    """What a search ranks players by: a name, a scorer, or None if it needs none."""
    if power_index is not None:
        return power_index
    if not builds(search):
        return "shapley"
    return None if is_reconstruction(payoff) else "biased_banzhaf"


def check_parts(estimator):
    """Refuse parameters of searches, strategies and scorers before any compute."""
    for part in estimator.get_params().values():
        if isinstance(part, Documented) and hasattr(part, "_parameter_constraints"):
            part._validate_params()


def seeded(part, seed):
    """A clone that draws by the pruner's seed wherever it has none of its own."""
    part = clone(part)
    unset = {
        name: seed
        for name, value in part.get_params().items()
        if value is None and name.rpartition("__")[2] == "random_state"
    }
    return part.set_params(**unset)


def as_search(search, seed):
    """A search of its own, from an object or its name."""
    return SEARCHES[search]() if isinstance(search, str) else seeded(search, seed)


def as_refinement(refine, seed):
    """A refinement of its own, or None for False."""
    if isinstance(refine, (bool, np.bool_)):
        return SwapRefinement() if refine else None
    return seeded(refine, seed)


def named_scorer(name, bias, n_evaluations, seed):
    """A scorer by its name; `bias` is for the biased Banzhaf index alone."""
    parameters = {"n_evaluations": n_evaluations, "random_state": seed}
    if name == "biased_banzhaf":
        parameters["inclusion_probability"] = bias
    return POWER_INDICES[name](**parameters)


def score_budget(n_players, n_samples):
    """Payoffs that score the players once: fewer where more blocks play."""
    n_blocks = -(-n_samples // BLOCK_SIZE)
    return int(np.clip(_PER_SCORE // n_blocks, _FEWEST, _MOST)) * n_players + 2


def step_budget(n_players, n_samples):
    """Payoffs that score the players in one of the many steps of building.

    Steps forgive each other's errors where samples are many; few samples are cheap to
    play, and a step needs them all (digits: 2 points from four times the coalitions).
    """
    n_blocks = -(-n_samples // BLOCK_SIZE)
    n_flips = int(np.clip((_ENOUGH_BLOCKS / n_blocks) ** 2, 1, _MOST))
    return n_flips * n_players + 2


def as_count(name, value, n_players, floor, owner="GTAPPruner"):
    """A number of players from a count or a fraction."""
    validate_parameter_constraints({name: SIZE}, {name: value}, owner)
    count = int(value) if isinstance(value, Integral) else round(value * n_players)
    if not isinstance(value, Integral):
        count = max(count, floor)
    if not floor <= count <= n_players:
        raise ValueError(
            f"{name}={value!r} asks for {count} of {n_players} players, and at least "
            f"{floor} must stay (min_per_layer in each layer); choose a number from "
            f"{floor} to {n_players}."
        )
    return count
