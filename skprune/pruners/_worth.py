"""What the players of a network are worth: a power index, or a score without a game."""

from __future__ import annotations

import numpy as np
from sklearn.utils import check_random_state

from skprune.evaluation import (
    LayerGames,
    critical_size,
    random_scores,
    resolve_payoff,
)
from skprune.networks import weight_norms
from skprune.pruners._choices import (
    SEARCH_SAMPLES,
    is_reconstruction,
    named_scorer,
    score_budget,
    seeded,
)
from skprune.pruners._layers import layer_scores
from skprune.scorers import PlayerScores

__all__ = ["GAMELESS", "PlayerIndex", "critical_size_of", "n_played"]

# Scores that need no game.
GAMELESS = ("random", "weight_norm")
# MCUE averages over instances; more of them leave the spread between sub-networks.
_CRITICAL_SAMPLES = 256


class PlayerIndex:
    """Scores the players of one stage after another.

    Parameters
    ----------
    power_index : str or PowerIndexScorer
        "shapley", "banzhaf", "random", "weight_norm" or a scorer.
    payoff : str or callable
        What coalitions earn; "reconstruction" for the games of the layers.
    n_jobs : int or None
        Threads of the compiled backend.
    seed : int
        Draws samples and random scores.
    """

    def __init__(self, power_index, payoff, n_jobs, seed):
        self.power_index, self.payoff = power_index, payoff
        self.n_jobs, self.seed = n_jobs, seed
        self._rng = check_random_state(seed)

    def __call__(self, stage):
        """Score the players of a stage.

        Parameters
        ----------
        stage : Stage
            A net with its players and samples.

        Returns
        -------
        scores : PlayerScores
        """
        if self.power_index == "random":
            return _certain(random_scores(stage.players, self._rng))
        if self.power_index == "weight_norm":
            norms = weight_norms(stage.net.module_, stage.players)
            return _certain(norms.double().cpu().numpy())
        if is_reconstruction(self.payoff):
            games = LayerGames(stage.split, stage.players, stage.train, stage.task)
            everybody = np.ones(stage.players.n_players, dtype=bool)
            return layer_scores(games, everybody, self._scorer("auto"))
        n_samples = n_played(stage, self.payoff)
        game = stage.evaluator(self.payoff, n_samples, n_jobs=self.n_jobs)
        budget = score_budget(stage.players.n_players, n_samples)
        return self._scorer(budget).estimate(game)

    def _scorer(self, budget):
        """The scorer; one by its name is given a budget."""
        if isinstance(self.power_index, str):
            return named_scorer(self.power_index, None, budget, self.seed)
        return seeded(self.power_index, self.seed)


def critical_size_of(stage, seed, is_rough):
    """MCUE on the validation samples; roughly for a bias, which needs no more."""
    game = stage.evaluator(stage.task.default_payoff, _CRITICAL_SAMPLES)
    rough = {"grid": np.arange(0.05, 0.99, 0.05), "n_subnetworks": 16}
    return critical_size(game, random_state=seed, **(rough if is_rough else {}))


def n_played(stage, payoff):
    """Samples on which a game is played: all, where a payoff is no mean over them."""
    n_samples = len(stage.data.y_game)
    resolved = resolve_payoff(payoff, stage.task, stage.valid.targets)
    return n_samples if resolved.metric else min(n_samples, SEARCH_SAMPLES)


def _certain(values):
    """Scores that nothing was estimated for."""
    return PlayerScores(
        values=values,
        standard_errors=np.zeros(len(values)),
        n_evaluations=0,
        n_samples=0,
        converged=True,
        stop_reason="exact",
    )
