"""Searching the reconstruction games of all layers, and the split between them."""

from __future__ import annotations

import numpy as np
from sklearn.base import clone

from skprune.scorers import PlayerScores
from skprune.strategies import search_allocation

__all__ = ["LayerSearch", "layer_scores"]

_SPLITS = 20
# Fewer validation samples than this tell one split from another badly; training samples
# then help, for a split has too few degrees of freedom to overfit them.
_FEWEST_JUDGED = 1024


class LayerSearch:
    """Coalitions of a total size, each layer searched in its own game.

    Parameters
    ----------
    stage : Stage
        The net with its samples.
    games : LayerGames
        The games of its layers.
    search : Search
        How a coalition of one layer is found.
    scorer : PowerIndexScorer or None
        What ranks players, where the search needs it.
    refinement : Refinement or None
        Improves the coalition of each layer in its game.
    min_per_layer : int
        Players that stay in each layer.
    """

    def __init__(self, stage, games, search, scorer, refinement, min_per_layer):
        self.stage, self.games = stage, games
        self.search, self.scorer, self.refinement = search, scorer, refinement
        self.min_per_layer = min_per_layer
        valid, missing = stage.valid, _FEWEST_JUDGED - len(stage.valid)
        if missing > 0 and stage.train is not valid:
            valid = valid.joined(stage.train.subset(missing))
        self._judged = valid

    def best(self, size):
        """The coalition of a size whose repaired network earns most.

        Parameters
        ----------
        size : int
            Number of players.

        Returns
        -------
        keep : ndarray of bool of shape (n_players,)
        """
        capacities = np.bincount(self.stage.players.group_of)
        if capacities.size == 1:
            return self.games.select([size], self._pick)
        counts = search_allocation(
            self._payoff,
            size,
            capacities,
            floors=self.min_per_layer,
            max_evaluations=_SPLITS,
        )
        return self.games.select(counts, self._pick)

    def _payoff(self, counts):
        """What the network earns with so many players in each layer, repaired."""
        keep = self.games.select(counts, self._pick)
        return self.stage.judge(self.stage.quick_repairer.repaired(keep), self._judged)

    def _pick(self, game, count):
        """The coalition of one layer."""
        mask = self.search.search(game, self.scorer, [count]).masks[0]
        if self.refinement is not None:
            mask, _ = self.refinement.refine(game, mask)
        return mask


def layer_scores(games, keep, scorer):
    """Power indices of all players, each layer in its own game.

    Parameters
    ----------
    games : LayerGames
        The games of the layers.
    keep : ndarray of bool of shape (n_players,)
        Who stays: a layer's game is about what the survivors behind it need.
    scorer : PowerIndexScorer
        The index.

    Returns
    -------
    scores : PlayerScores
        In units of explained variance: the players of a layer share what the whole
        layer explains, nearly 1.
    """
    parts = []
    for group in range(len(games.players.groups)):
        game, own = games.game(group, keep), scorer
        if scorer.n_evaluations == "auto":
            # A walk is one factorisation, so that hundreds take a second at most.
            n_walks = int(np.clip(4e9 / game.n_players**3, 16, 512))
            own = clone(scorer).set_params(n_evaluations=n_walks * game.n_players + 2)
        parts.append(own.estimate(game))
    reasons = ("budget", "ranking", "tolerance", "exact")
    return PlayerScores(
        values=np.concatenate([part.values for part in parts]),
        standard_errors=np.concatenate([part.standard_errors for part in parts]),
        n_evaluations=sum(part.n_evaluations for part in parts),
        n_samples=min(part.n_samples for part in parts),
        converged=all(part.converged for part in parts),
        stop_reason=next(r for r in reasons if r in {p.stop_reason for p in parts}),
    )
