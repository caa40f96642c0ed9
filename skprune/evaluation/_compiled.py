"""Payoffs on a tail of Linear layers, by the compiled kernels."""

from __future__ import annotations

import numpy as np
import torch

from skprune.evaluation._graph import linear_chain
from skprune.evaluation._kernels import (
    coalition_payoffs,
    flip_marginals,
    prepare_tail,
    walk_marginals,
)

__all__ = ["CompiledBackend"]


class CompiledBackend:
    """Walks, flips and payoffs by rank-one updates; see `_kernels`.

    Parameters
    ----------
    tail : TailProblem
        The tail and its samples.
    offset : float
        Added to every payoff.
    n_threads : int
        Number of threads; results do not depend on it.
    """

    name = "compiled"

    def __init__(self, tail, offset, n_threads):
        self.tail, self.offset, self.n_threads = tail, offset, n_threads
        self.n_blocks = tail.n_blocks

    @classmethod
    def fitting(cls, split, features, targets, task, payoff, n_threads):
        """The backend for a module, or None where it is no tail of Linear layers."""
        links, players = linear_chain(split), split.players
        if payoff.per_sample is None or not _fits(links, players, features, task):
            return None
        layers = [split.rest.get_submodule(link.name) for link in links]
        weights = [layer.weight.detach().numpy() for layer in layers]
        biases = [
            None if layer.bias is None else layer.bias.detach().numpy()
            for layer in layers
        ]
        owners = [
            players.consumers.get(link.name, np.full(layer.in_features, -1))
            for link, layer in zip(links, layers, strict=True)
        ]
        y, name, offset = targets.numpy(), payoff.name, 0.0
        if name == "r2":
            # R² is a negative squared error of outputs in units of their spread.
            name = "neg_mean_squared_error"
            spread = np.where(np.ptp(y, axis=0) > 0, y.std(axis=0, dtype=float), 0)
            offset = float((spread > 0).mean())
            scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
            weights[-1] = weights[-1] * scale[:, None]
            biases[-1] = None if biases[-1] is None else biases[-1] * scale
            y = y * scale
        activations = [link.activation for link in links[:-1]]
        tail = prepare_tail(
            features[0].numpy(),
            weights,
            biases,
            activations,
            owners,
            players.n_players,
            y,
            name,
        )
        return cls(tail, offset, n_threads)

    def payoffs(self, coalitions):
        """Payoffs (m,) of coalitions (m, n_players)."""
        played = coalition_payoffs(self.tail, coalitions, n_threads=self.n_threads)
        return played + self.offset

    def walk(self, start, free, orders):
        """Marginals (m, k) of free players along orders (m, n_blocks or 1, k)."""
        return walk_marginals(self.tail, start, free, orders, n_threads=self.n_threads)

    def flip(self, free, coalitions):
        """Marginals (m, k) around coalitions (m, n_blocks or 1, n_players)."""
        return flip_marginals(self.tail, free, coalitions, n_threads=self.n_threads)


def _fits(links, players, features, task):
    """Whether the kernels know such a tail, its players and its task."""
    if links is None or players.normalizations:
        return False
    feature = features[0]
    # Every player owns columns of one layer: no residual sums.
    owned = [np.unique(owners[owners >= 0]) for owners in players.consumers.values()]
    alone = np.concatenate(owned).size == players.n_players
    return (
        alone
        and feature.ndim == 2
        and feature.device.type == "cpu"
        and feature.dtype in (torch.float32, torch.float64)
        and set(players.consumers) <= {link.name for link in links}
    )
