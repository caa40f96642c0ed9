"""What each player of a game is worth: power indices, exact or estimated.

A scorer is a `PowerIndexScorer`: an index states the weight of a coalition, for exact
values, and how to draw a marginal, for estimates; budgets, standard errors and
stopping are shared. All other ways to estimate are a `Sampling` (``_sampling.py``).
"""

from skprune.scorers._banzhaf import BanzhafScorer, BiasedBanzhafScorer
from skprune.scorers._base import PlayerScores, PowerIndexScorer
from skprune.scorers._shapley import ShapleyScorer

__all__ = [
    "BanzhafScorer",
    "BiasedBanzhafScorer",
    "PlayerScores",
    "PowerIndexScorer",
    "ShapleyScorer",
]
