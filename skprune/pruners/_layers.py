"""Searching the reconstruction games of all layers, and the split between them."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from sklearn.base import clone

from skprune.evaluation import clear_gain
from skprune.pruners._replacements import Replacements, n_replacements
from skprune.scorers import PlayerScores
from skprune.strategies import search_allocation

__all__ = ["LayerSearch", "layer_scores", "n_tried", "scores_budget"]

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
    refinement : Refinement or bool
        Improves the coalition of each layer in its game; True are replacements of
        few survivors, judged after repair.
    min_per_layer : int
        Players that stay in each layer.
    step : Task, default=None
        What is told of each split between layers that is tried.
    """

    def __init__(
        self, stage, games, search, scorer, refinement, min_per_layer, step=None
    ):
        self.stage, self.games = stage, games
        self.search, self.scorer, self.refinement = search, scorer, refinement
        self.min_per_layer, self.step, self._n_tried = min_per_layer, step, 0
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
        self._n_tried = 0
        counts = self._split(size) if len(self.stage.players.groups) > 1 else (size,)
        keep = self.games.select(counts, self._pick)
        # The search may have settled before it had tried all that it may.
        self._tell(_n_splits(self.stage.players) - self._n_tried)
        if self.refinement is True:
            replacements = Replacements(self.games, self._worth, self._tell)
            keep = replacements.improved(keep)
        return keep

    def _split(self, size):
        """Players of each layer: as the games give them, or clearly better."""
        start = self.games.allocate(size, self.min_per_layer)
        before = self._earned(start)

        def gain(counts):
            # The best of twenty on few validation samples would be best by chance.
            return 0.0 if counts == start else clear_gain(self._earned(counts), before)

        return search_allocation(
            gain,
            size,
            np.bincount(self.stage.players.group_of),
            floors=self.min_per_layer,
            starts=[start],
            max_evaluations=_SPLITS,
        )

    def _earned(self, counts):
        """What the network earns with so many players in each layer, repaired."""
        keep = self.games.select(counts, self._pick)
        opened = self.stage.are_few(sum(counts))
        repaired = self.stage.quick_repairer.repaired(keep, opened=opened)
        self._n_tried += 1
        self._tell(1)
        return self.stage.earned(repaired, self._judged)

    def _worth(self, keep):
        """The same of given survivors, on training samples too.

        The best of so many on few validation samples would be best by chance.
        """
        repaired = self.stage.quick_repairer.repaired(keep, opened=True)
        return self.stage.judge(repaired, self._all_judged)

    @cached_property
    def _all_judged(self):
        return self.stage.valid.joined(self.stage.quick_repairer.samples)

    def _tell(self, n_tried):
        if self.step is not None:
            self.step.spend(n_tried)

    def _pick(self, game, count):
        """The coalition of one layer."""
        mask = self.search.search(game, self.scorer, [count]).masks[0]
        if not isinstance(self.refinement, bool):
            mask, _ = self.refinement.refine(game, mask)
        return mask


def n_tried(players, size, refinement):
    """Splits between layers, and replacements, that are tried for a size at most."""
    n_replaced = n_replacements(size) if refinement is True else 0
    return _n_splits(players) + n_replaced


def _n_splits(players):
    """Splits between layers that are tried for a size at most."""
    return _SPLITS if len(players.groups) > 1 else 1


def scores_budget(players, scorer):
    """Payoffs that `layer_scores` plays at most."""
    sizes = np.bincount(players.group_of).tolist()
    return sum(_scorer_of(n, scorer).budget(n) for n in sizes)


def layer_scores(games, keep, scorer, step=None):
    """Power indices of all players, each layer in its own game.

    Parameters
    ----------
    games : LayerGames
        The games of the layers.
    keep : ndarray of bool of shape (n_players,)
        Who stays: a layer's game is about what the survivors behind it need.
    scorer : PowerIndexScorer
        The index.
    step : Task, default=None
        What the payoffs are told to.

    Returns
    -------
    scores : PlayerScores
        In units of explained variance: the players of a layer share what the whole
        layer explains, nearly 1.
    """
    parts = []
    for group in range(len(games.players.groups)):
        game = games.game(group, keep)
        own = _scorer_of(game.n_players, scorer)
        parts.append(own.estimate(game if step is None else step.watched(game)))
    reasons = ("budget", "ranking", "tolerance", "exact")
    return PlayerScores(
        values=np.concatenate([part.values for part in parts]),
        standard_errors=np.concatenate([part.standard_errors for part in parts]),
        n_evaluations=sum(part.n_evaluations for part in parts),
        n_samples=min(part.n_samples for part in parts),
        converged=all(part.converged for part in parts),
        stop_reason=next(r for r in reasons if r in {p.stop_reason for p in parts}),
    )


def _scorer_of(n_players, scorer):
    """The scorer for a layer, with a budget where it has none of its own."""
    if scorer.n_evaluations != "auto":
        return scorer
    # A walk is one factorisation, so that hundreds take a second at most.
    n_walks = int(np.clip(4e9 / n_players**3, 16, 512))
    return clone(scorer).set_params(n_evaluations=n_walks * n_players + 2)
