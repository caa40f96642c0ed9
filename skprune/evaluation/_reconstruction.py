"""The layers of a net as reconstruction games, from the output backwards."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from skprune.evaluation._memory import free_memory
from skprune.evaluation._moments import (
    Moments,
    columns_of,
    rows_of,
    watch_layers,
)
from skprune.evaluation._trace import trace_layers
from skprune.exceptions import UnsupportedNetworkError
from skprune.games import ReconstructionGame
from skprune.networks import evaluating
from skprune.strategies import keep_best

__all__ = ["LayerGames", "check_reconstructible"]

_MEMORY = 2**29


class LayerGames:
    """One reconstruction game for each layer of players.

    A coalition of a layer earns the share of the variance of what is wanted from the
    layer that it still explains after linear repair: the pre-activations of the next
    layers, of the units that stay there, and the outputs of the network (centred over
    classes), which say what of them matters in the end.

    Parameters
    ----------
    split : SplitModule
        The module, cut in front of its first layer that reads players.
    players : Players
        Its players.
    samples : Samples
        The samples that the moments are taken on, in one pass; of more than half a
        gigabyte of what the layers read and give, a random choice.
    task : Task
        What the outputs mean.
    ridge : float, default=1e-3
        See `skprune.games.ReconstructionGame`.
    output_weight : float, default=1.0
        Variance of the outputs in a hidden layer's targets, where that of the next
        pre-activations is 1.

    Raises
    ------
    UnsupportedNetworkError
        If single weights or whole layers are players: nothing reads them.
    """

    def __init__(self, split, players, samples, task, ridge=1e-3, output_weight=1.0):
        check_reconstructible(players)
        self.players, self.task = players, task
        self.ridge, self.output_weight = ridge, output_weight
        trace = trace_layers(split, samples)
        samples = samples.subset(max(256, _MEMORY // trace.bytes_per_sample))
        # As arrays, once: a search asks for them again and again.
        self.moments = {
            name: tuple(
                part.cpu().numpy()
                for part in (own.gram, own.cross, own.target_variances)
            )
            for name, own in self._collect(split, samples, trace.names).items()
        }
        self._last = trace.output
        self._chosen = {}

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

    def allocate(self, total, min_per_group=1):
        """Split a total over the groups so that most passes through all layers.

        What passes is taken for the product of what the layers explain. All games are
        built greedily, each with everybody behind it, and whoever raises the product
        most is next.

        Parameters
        ----------
        total : int
            Number of players that stay.
        min_per_group : int, default=1
            Players that stay in each group at least.

        Returns
        -------
        counts : tuple of int of length n_groups
        """
        group_of = self.players.group_of
        floors = {"groups": group_of, "min_per_group": min_per_group}
        kept = keep_best(self._growth, total, **floors)
        return tuple(np.bincount(group_of[kept]).tolist())

    @cached_property
    def _growth(self):
        """What the logarithm of a layer's explained share grows by, player by player.

        In the order in which they join, and not of the group's members.
        """
        everybody = np.ones(self.players.n_players, dtype=bool)
        growth = np.empty(self.players.n_players)
        for group in range(len(self.players.groups)):
            game = self.game(group, everybody)
            gains = game.greedy_order(game.n_players)[1]
            explained = np.maximum(gains.cumsum(), np.finfo(float).tiny)
            grown = np.diff(np.log(explained), prepend=-np.inf)
            growth[self.players.group_of == group] = grown
        return growth

    def _picked(self, group, members, keep, count, pick):
        """Mask over the members of one group, remembered as long as it holds."""
        key = pick, group, count, keep[self._decided(group)].tobytes()
        if key not in self._chosen:
            self._chosen[key] = pick(self.game(group, keep), count)
        return self._chosen[key]

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
        sizes = [len(gram) for gram, *_ in parts]
        widths = [cross.shape[1] for _, cross, *_ in parts]
        gram = np.zeros((sum(sizes), sum(sizes)))
        cross = np.zeros((sum(sizes), sum(widths)))
        row = column = 0
        for (own, targets, *_), n, q in zip(parts, sizes, widths, strict=True):
            gram[row : row + n, row : row + n] = own
            cross[row : row + n, column : column + q] = targets
            row, column = row + n, column + q
        owners = np.concatenate([owners for _, _, owners, _ in parts])
        # Each layer that reads the group counts for as much as the others.
        total = sum(total for *_, total in parts)
        return ReconstructionGame(gram, cross, total, owners=owners, ridge=self.ridge)

    def _part(self, name, number, stays):
        """Moments, owners and total variance of what one layer reads and wants."""
        gram, cross, variances = self.moments[name]
        owners = np.repeat(self.players.consumers[name], self._columns_per_input[name])
        columns = np.flatnonzero(stays[owners])
        gram, cross = gram[np.ix_(columns, columns)], cross[columns]
        n_own = self._n_own[name]
        made = self.players.producers.get(name)
        own = np.arange(n_own) if made is None else np.flatnonzero(stays[made])
        targets, total = [], 0.0
        if name != self._last:
            targets.append(_scaled(cross[:, own], variances[own], 1.0))
            total += 1.0
        outputs = slice(n_own, None)
        weight = 1.0 if name == self._last else self.output_weight
        targets.append(_scaled(cross[:, outputs], variances[outputs], weight))
        return gram, np.hstack(targets), number[owners[columns]], total + weight

    def _collect(self, split, samples, names):
        """Moments of the named layers, in one pass."""
        moments: dict[str, Moments] = {}
        seen = {}

        def see(name, layer, inputs, output):
            # A copy: a ReLU behind it may work in place.
            seen[name] = columns_of(layer, inputs), rows_of(layer, output).clone()

        watched = watch_layers(split.rest, names, see)
        with watched, evaluating(split.rest), torch.no_grad():
            for features, _ in samples.batches():
                outputs = self._outputs(split, features)
                for name, (columns, rows) in seen.items():
                    wanted = outputs.repeat_interleave(len(rows) // len(outputs), 0)
                    moments.setdefault(name, Moments()).update(
                        columns, torch.cat([rows, wanted], 1)
                    )
        inputs = self.players.consumers
        self._n_own = {name: rows.shape[1] for name, (_, rows) in seen.items()}
        self._columns_per_input = {
            name: columns.shape[1] // len(inputs[name])
            for name, (columns, _) in seen.items()
        }
        return moments

    def _outputs(self, split, features):
        """Logits or values of a batch; logits count up to a constant of the sample."""
        outputs = split.run(features)
        outputs = outputs.reshape(len(outputs), -1)
        if not split.logits:
            outputs = self.task.logits(outputs)
        if self.task.kind != "multiclass":
            return outputs
        return outputs - outputs.mean(1, keepdim=True)


def check_reconstructible(players):
    """Refuse players that have no reconstruction game.

    Parameters
    ----------
    players : Players
        The players.

    Raises
    ------
    UnsupportedNetworkError
        If single weights or whole layers are players: they are no columns of what a
        layer reads.
    ValueError
        If memory cannot hold the moments of all pairs of a layer's columns.
    """
    for kind, layers in (("weights", players.weights), ("layers", players.layers)):
        if layers:
            raise UnsupportedNetworkError(
                f"players of kind {kind!r} ({list(layers)}) have no reconstruction "
                "game, which is about what the next layer reads; use another payoff, "
                "such as payoff='accuracy', or give neurons, filters or inputs alone."
            )
    widths = {name: len(owners) for name, owners in players.consumers.items()}
    widest = max(widths, key=widths.get, default=None)
    # Sums, moments and what is solved, in double precision.
    needed = 24 * widths.get(widest, 0) ** 2
    if needed > free_memory():
        raise ValueError(
            f"payoff='reconstruction' needs the moments of all pairs of the "
            f"{widths[widest]} columns that layer {widest!r} reads, which take "
            f"{needed / 2**30:.0f} GiB; use a payoff that is played on samples, such "
            "as payoff='log_likelihood', or fewer columns."
        )


def _scaled(cross, variances, weight):
    """Cross moments of targets whose variances are scaled to sum to `weight`."""
    total = max(float(variances.sum()), np.finfo(np.float64).tiny)
    return cross * np.sqrt(weight / total)
