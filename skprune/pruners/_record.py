"""What happened in a training, epoch by epoch."""

from __future__ import annotations

import numpy as np
import torch
from skorch.callbacks import Callback

from skprune.networks import Participation

__all__ = ["EquilibriumRecord"]


class EquilibriumRecord(Callback):
    """Writes down participations, and condition numbers where asked for.

    Parameters
    ----------
    play : MarketPlay
        The market.
    condition_numbers : bool
        Whether to take condition numbers of the effective weights.
    """

    def __init__(self, play, condition_numbers):
        self.play, self.condition_numbers = play, condition_numbers
        self.n_players = len(play.winner.kept)
        self.participations, self.conditions = [], []

    def on_epoch_end(self, net, **kwargs):
        """Add a row to each history."""
        contender = self.play.winner
        row = np.zeros(self.n_players)
        gates = contender.gates
        row[contender.kept] = 1.0 if gates is None else gates.values
        self.participations.append(row)
        if self.condition_numbers:
            self.conditions.append(_condition_numbers(contender, row[contender.kept]))

    def last_epoch(self, net):
        """The last epoch in words."""
        contender = self.play.winner
        return f"{len(contender.kept)} players, training loss {contender.mean_loss:.4f}"


def _condition_numbers(contender, participations):
    """Largest over smallest singular value of each layer's effective weights.

    Rows are the players' parameters times their participations; of a matrix of lower
    rank it is infinite.
    """
    with Participation(contender.net.module_, contender.players) as gates:
        thetas = gates.thetas()
    numbers = []
    for group, theta in enumerate(thetas):
        mine = participations[contender.players.group_of == group]
        rows = torch.as_tensor(mine, dtype=theta.dtype, device=theta.device)[:, None]
        numbers.append(float(torch.linalg.cond(rows * theta)))
    return np.array(numbers)
