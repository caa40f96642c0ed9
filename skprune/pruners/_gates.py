"""Participations that follow their utilities while the network trains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from skprune.networks import (
    Participation,
    competition,
    contributions,
    squared_norms,
)

__all__ = ["PARTICIPATION_OPTIMIZERS", "Gates", "shares"]

PARTICIPATION_OPTIMIZERS = ("adam", "sgd")
# Weight of the last batch in the mean benefit.
_FORGETTING = 0.05


class Gates:
    """Gates on the players of a net, and the dynamics of their values.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    players : Players
        Its players.
    game : ParticipationGame
        What they gain and pay.
    optimizer : {"adam", "sgd"}
        "sgd": a projected gradient step on each utility, equation (17). "adam": a step
        of Adam, projected.
    learning_rate : float
        Of the participations.
    """

    def __init__(self, module, players, game, optimizer, learning_rate):
        self.game, self.optimizer, self.learning_rate = game, optimizer, learning_rate
        self._begin(module, players, np.ones(players.n_players), {})
        self._mean_benefit = torch.zeros_like(self.gates.values.detach())
        self.last_utilities = None
        self.prices = np.full(len(players.groups), float(game.gamma))

    @property
    def values(self):
        """Participations, as an array of shape (n_players,)."""
        return self.gates.values.detach().cpu().numpy().astype(np.float64)

    def update(self):
        """One step of every player, by the gradients of the last backward pass."""
        values = self.gates.values
        utilities = self.last_utilities = self.utilities()
        with torch.no_grad():
            self._mean_benefit.lerp_(utilities.marginal_benefit, _FORGETTING)
            if self.optimizer == "sgd":
                values.copy_(utilities.projected_step(self.learning_rate))
            else:
                values.grad = -utilities.gradient()
                self._adam.step()
                values.clamp_(0, 1)
            values.grad = None

    @property
    def marginal_benefits(self):
        """What a unit of participation has lately brought each player."""
        return self._mean_benefit.cpu().numpy().astype(np.float64)

    def set_prices(self, prices):
        """Set the price of a unit of participation of each layer, at least 0."""
        values = self.gates.values
        self.prices = np.maximum(prices, 0)
        gamma = self.prices[self.gates.players.group_of]
        gamma = torch.as_tensor(gamma, dtype=values.dtype, device=values.device)
        self.game = replace(self.game, gamma=gamma)

    def utilities(self):
        """The players' utilities, by the gradients of the last backward pass."""
        gates, game = self.gates, self.game
        values = gates.values.detach()
        if game.utility == "ascent":
            slope = gates.theta_gradient_products()
        else:
            slope = gates.values.grad
        norms, rivalry = 1.0, 0.0
        if (game.beta and game.utility != "joint") or game.eta:
            thetas = gates.thetas()
            norms = 1.0 if game.utility == "joint" else squared_norms(thetas)
            rivalry = competition(values, thetas) if game.eta else 0.0
        return game.at(values, slope, norms, rivalry)

    def move(self, module, players, keep):
        """Go on with the players that stay, in the smaller module."""
        kept = torch.from_numpy(np.flatnonzero(keep)).to(self.gates.values.device)
        state = {
            key: value[kept] if value.ndim else value
            for key, value in self._adam.state.get(self.gates.values, {}).items()
        }
        values = self.gates.values.detach()[kept]
        self._mean_benefit = self._mean_benefit[kept]
        if self.last_utilities is not None:
            self.last_utilities = self.last_utilities.of(kept)
        gamma = self.game.gamma
        if isinstance(gamma, torch.Tensor):
            self.game = replace(self.game, gamma=gamma[kept])
        self.gates.close()
        self._begin(module, players, values, state)

    def fold(self):
        """Put the participations into the weights, and take the gates away."""
        self.gates.fold_().close()

    def close(self):
        """Take the gates away."""
        self.gates.close()

    def _begin(self, module, players, values, state):
        self.gates = Participation(module, players, values=values)
        self._adam = torch.optim.Adam([self.gates.values], lr=self.learning_rate)
        if state:
            self._adam.state[self.gates.values] = state


def shares(module, players, inputs):
    """What each player contributes, as a share of the most in its layer.

    A participation that shrinks while the weights behind it grow means nothing: this is
    what stays the same.
    """
    given = contributions(module, players, inputs).double().cpu().numpy()
    # Of a network that diverged, which is said at the end.
    given = np.nan_to_num(given)
    most = np.zeros(len(players.groups))
    np.maximum.at(most, players.group_of, given)
    return given / np.maximum(most, 1e-30)[players.group_of]
