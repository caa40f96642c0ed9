"""One network on its way to an equilibrium: who plays, what staying is worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from skorch.dataset import unpack_data

from skprune.evaluation import shrink, twin_of
from skprune.networks import (
    column_means,
    curvature_benefits,
    evaluating,
    weight_norms,
)
from skprune.pruners._gates import Gates, shares
from skprune.strategies import keep_best

__all__ = ["BENEFITS", "Contender", "Departure", "clearing_prices", "probe_loss"]


@dataclass(frozen=True)
class Departure:
    """Who left in one removal, and at what price.

    Parameters
    ----------
    step : int
        Steps of the optimizer done.
    prices : ndarray of shape (n_groups,)
        The price at which each layer's market clears: between what the last player
        that leaves and the first one that stays gain by staying.
    counts : ndarray of int of shape (n_groups,)
        Players of each layer afterwards.
    """

    step: int
    prices: np.ndarray
    counts: np.ndarray


class Contender:
    """A net in training whose players leave.

    Parameters
    ----------
    net : skorch.NeuralNet
        An initialized net.
    players : Players
        The players of its module.
    benefit : str
        A key of `BENEFITS`.
    noise : float
        Standard deviation of what is added to the logarithm of a benefit: players
        respond to what they perceive.
    rng : numpy.random.Generator
        Draws the noise.
    alpha : float, default=1.0
        What a unit of the benefit is worth to a player.
    """

    def __init__(self, net, players, benefit, noise, rng, alpha=1.0):
        self.net, self.players = net, players
        self.benefit, self.noise, self.rng = benefit, noise, rng
        self.alpha = alpha
        self.kept = np.arange(players.n_players)
        self.departures, self.gates = [], None
        self.scores, self.last_utilities = None, None
        self._gone_weights = {}
        self.forget()

    def fork(self, seed, noise):
        """A rival that goes its own way from here, by what it perceives."""
        rng = np.random.default_rng(seed)
        twin = twin_of(self.net)
        rival = Contender(twin, self.players, self.benefit, noise, rng, self.alpha)
        rival.kept, rival.departures = self.kept, list(self.departures)
        rival._gone_weights = self._gone_weights
        return rival

    @property
    def counts(self):
        """Players of each layer."""
        n_groups = len(self.players.groups)
        return np.bincount(self.players.group_of, minlength=n_groups)

    @property
    def prices(self):
        """What the players of each layer paid last; 0 before anybody left."""
        if self.departures:
            return self.departures[-1].prices
        return np.zeros(len(self.players.groups))

    def hold_zeros(self):
        """Keep single weights that left at 0, where the optimizer moved them."""
        for name, gone in self._gone_weights.items():
            with torch.no_grad():
                self.net.module_.get_submodule(name).weight.masked_fill_(gone, 0)

    def note(self, loss, window):
        """Take note of the loss of a batch before its step.

        Parameters
        ----------
        loss : tensor of shape ()
            The loss.
        window : int
            Number of batches over which `mean_loss` runs, about.
        """
        self._n_losses = min(self._n_losses + 1, window)
        self.mean_loss += (float(loss) - self.mean_loss) / self._n_losses

    def forget(self):
        """Begin the mean loss anew."""
        self.mean_loss, self._n_losses = 0.0, 0

    def open_gates(self, game, optimizer, learning_rate):
        """Let players choose how far they take part, see `Gates`."""
        module = self.net.module_
        self.gates = Gates(module, self.players, game, optimizer, learning_rate)

    def come_to_rest(self):
        """Put the participations into the weights: the game is over."""
        if self.gates is not None:
            self.last_utilities = self.gates.last_utilities
            self.gates.fold()
            self.gates = None

    def leave_to(self, counts, step, batch):
        """Those to whom staying is worth least leave, until `counts` are left.

        Parameters
        ----------
        counts : ndarray of int of shape (n_groups,)
            Players that stay in each layer.
        step : int
            Steps done, for the record.
        batch : tuple of tensors
            Training samples, on which benefits and means are taken.
        """
        if np.array_equal(counts, self.counts):
            return
        benefits = BENEFITS[self.benefit](self, batch)
        noise = self.noise * self.rng.normal(size=len(benefits))
        perceived = np.log(np.maximum(benefits, 1e-30)) + noise
        keep = keep_best(
            perceived,
            int(counts.sum()),
            groups=self.players.group_of,
            min_per_group=counts,
        )
        stakes = self.alpha * benefits
        if self.gates is not None:
            stakes = self.gates.marginal_benefits
        clearing = clearing_prices(stakes, counts, self.players.group_of)
        # Where nobody leaves the last price holds, and staying is never paid for.
        prices = np.where(counts < self.counts, np.maximum(clearing, 0), self.prices)
        if self.gates is not None:
            self.gates.set_prices(prices)
        self._drop(~keep, step, prices, batch)

    def leave_below(self, share, floors, step, batch):
        """Those who contribute less than a share of the most in their layer leave.

        Parameters
        ----------
        share : float
            The share.
        floors : ndarray of int of shape (n_groups,)
            Players that stay in each layer at least.
        step : int
            Steps done, for the record.
        batch : tuple of tensors
            Training samples.
        """
        given = shares(self.net.module_, self.players, unpack_data(batch)[0])
        n_stay = np.bincount(
            self.players.group_of[given >= share], minlength=len(floors)
        )
        counts = np.maximum(n_stay, floors)
        if np.array_equal(counts, self.counts):
            return
        keep = keep_best(
            given,
            int(counts.sum()),
            groups=self.players.group_of,
            min_per_group=counts,
        )
        self._drop(~keep, step, self.gates.prices, batch)

    def _drop(self, drop, step, prices, batch):
        """Remove players, their mean folded into the next layer's bias."""
        inputs, _ = unpack_data(batch)
        fill = column_means(self.net.module_, self.players, inputs)
        self.players = shrink(self.net, self.players, drop, fill)
        self.kept = self.kept[~drop]
        self.departures.append(Departure(step, prices, self.counts))
        self._gone_weights = {
            name: torch.from_numpy(owners < 0).to(self.net.device)
            for name, owners in self.players.weights.items()
        }
        if self.gates is not None:
            self.gates.move(self.net.module_, self.players, ~drop)


def clearing_prices(benefits, counts, group_of):
    """Prices at which so many players of each layer want to stay.

    Parameters
    ----------
    benefits : ndarray of shape (n_players,)
        What staying brings each player.
    counts : ndarray of int of shape (n_groups,)
        Players that are to stay in each layer.
    group_of : ndarray of int of shape (n_players,)
        Each player's layer.

    Returns
    -------
    prices : ndarray of shape (n_groups,)
        In the middle between the last one who stays and the first one who leaves; 0
        where everybody stays.
    """
    prices = np.zeros(len(counts))
    for group, count in enumerate(counts):
        dearest_first = np.sort(benefits[group_of == group])[::-1]
        if count < len(dearest_first):
            prices[group] = dearest_first[count - 1 : count + 1].mean()
    return prices


def probe_loss(net, batch):
    """Loss of a batch beside the training, unweighted."""
    inputs, targets = unpack_data(batch)
    with evaluating(net.module_), evaluating(net.criterion_):
        return net.get_loss(net.infer(inputs), targets, X=inputs, training=False)


def _curvature(contender, batch):
    net, players = contender.net, contender.players
    benefits = curvature_benefits(net.module_, players, lambda: probe_loss(net, batch))
    return benefits.double().cpu().numpy()


def _weight_norm(contender, batch):
    norms = weight_norms(contender.net.module_, contender.players)
    return norms.double().cpu().numpy()


def _participation(contender, batch):
    module, players = contender.net.module_, contender.players
    return shares(module, players, unpack_data(batch)[0])


# What staying is worth to each player of a contender, from a batch of samples.
BENEFITS = {
    "curvature": _curvature,
    "participation": _participation,
    "weight_norm": _weight_norm,
}
