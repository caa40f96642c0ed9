"""The layers of a net as reconstruction games, from the output backwards."""

from __future__ import annotations

import numpy as np
import torch

from skprune.evaluation._moments import (
    Moments,
    columns_of,
    is_linear_map,
    rows_of,
    watch_layers,
)
from skprune.exceptions import UnsupportedNetworkError
from skprune.games import ReconstructionGame
from skprune.networks import evaluating

__all__ = ["LayerGames"]


class LayerGames:
    """One reconstruction game for each layer of players.

    A coalition of a layer earns the share of the variance of what the layer tells the
    next ones (their pre-activations, of the units that stay there; centred logits at
    the end) that it still explains after linear repair.

    Parameters
    ----------
    split : SplitModule
        The module, cut in front of its first layer that reads players.
    players : Players
        Its players.
    samples : Samples
        The samples that the moments are taken on, in one pass.
    task : Task
        What the outputs mean.
    ridge : float, default=1e-3
        See `skprune.games.ReconstructionGame`.
    """

    def __init__(self, split, players, samples, task, ridge=1e-3):
        self.players, self.ridge = players, ridge
        self._columns_per_input = {}
        self.moments = self._collect(split, samples)
        self._last = list(self.moments)[-1]
        self._centre = task.kind == "multiclass"
        self._orders = {}

    def select(self, counts, pick):
        """Choose players layer by layer, the last layer first.

        Parameters
        ----------
        counts : sequence of int of length n_groups
            How many players of each group stay.
        pick : callable
            Takes a game and a count, and returns a mask of the players that stay.

        Returns
        -------
        keep : ndarray of bool of shape (n_players,)
        """
        keep = np.ones(self.players.n_players, dtype=bool)
        for group in range(len(self.players.groups) - 1, -1, -1):
            members = np.flatnonzero(self.players.group_of == group)
            if counts[group] < members.size:
                keep[members] = self._picked(group, members, keep, counts[group], pick)
        return keep

    def _picked(self, group, members, keep, count, pick):
        """Mask over the members of one group, remembered as long as it holds."""
        key = group, count, keep[self._decided(group)].tobytes()
        if key not in self._orders:
            self._orders[key] = pick(self.game(group, keep), count)
        return self._orders[key]

    def _decided(self, group):
        """Players of the groups behind."""
        return self.players.group_of > group

    def game(self, group, keep):
        """The game of one group, once the players of later groups were chosen.

        Parameters
        ----------
        group : int
            Index of the group.
        keep : ndarray of bool of shape (n_players,)
            Who stays; only the groups behind `group` count, the others are there.

        Returns
        -------
        game : ReconstructionGame
            Its players are the members of the group, in their order.
        """
        stays = np.append(keep | ~self._decided(group), True)
        number = np.full(stays.size, -1)
        members = np.flatnonzero(self.players.group_of == group)
        number[members] = np.arange(members.size)
        parts = [
            self._part(name, number, stays)
            for name, owners in self.players.consumers.items()
            if name in self.moments and np.isin(owners, members).any()
        ]
        if not parts:
            raise UnsupportedNetworkError(
                f"the players of layer {self.players.groups[group]!r} are read by no "
                "Linear layer or plain convolution, so they have no reconstruction "
                "game; use another payoff, such as payoff='accuracy'."
            )
        sizes = [len(gram) for gram, _, _ in parts]
        widths = [cross.shape[1] for _, cross, _ in parts]
        gram = np.zeros((sum(sizes), sum(sizes)))
        cross = np.zeros((sum(sizes), sum(widths)))
        row = column = 0
        for (own, targets, _), n, q in zip(parts, sizes, widths, strict=True):
            gram[row : row + n, row : row + n] = own
            cross[row : row + n, column : column + q] = targets
            row, column = row + n, column + q
        owners = np.concatenate([owners for _, _, owners in parts])
        # Each layer that reads the group counts for as much as the others.
        return ReconstructionGame(
            gram, cross, float(len(parts)), owners=owners, ridge=self.ridge
        )

    def _part(self, name, number, stays):
        """Gram, cross moments and owners of one layer, in units of its targets."""
        moments = self.moments[name]
        owners = np.repeat(self.players.consumers[name], self._columns_per_input[name])
        columns = np.flatnonzero(stays[owners])
        made = self.players.producers.get(name)
        targets = slice(None) if made is None else np.flatnonzero(stays[made])
        gram = moments.gram.cpu().numpy()[np.ix_(columns, columns)]
        cross = moments.cross.cpu().numpy()[columns][:, targets]
        variances = moments.target_variances.cpu().numpy()[targets]
        if name == self._last and self._centre and cross.shape[1] > 1:
            cross = cross - cross.mean(axis=1, keepdims=True)
        # Layers of several kinds of columns have several scales; correlations do not.
        total = max(float(variances.sum()), np.finfo(np.float64).tiny)
        return gram, cross / np.sqrt(total), number[owners[columns]]

    def _collect(self, split, samples):
        """Moments of every layer that reads players, in forward order."""
        moments: dict[str, Moments] = {}
        names = [
            name
            for name in self.players.consumers
            if is_linear_map(split.rest.get_submodule(name))
        ]

        def add(name, layer, inputs, output):
            columns, rows = columns_of(layer, inputs), rows_of(layer, output)
            self._columns_per_input[name] = columns.shape[1] // len(
                self.players.consumers[name]
            )
            moments.setdefault(name, Moments()).update(columns, rows)

        watched = watch_layers(split.rest, names, add)
        with watched, evaluating(split.rest), torch.no_grad():
            for features, _ in samples.batches():
                split.run(features)
        return moments
