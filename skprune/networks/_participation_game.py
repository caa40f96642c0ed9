"""The participation game: what each player gains and pays for taking part."""

from dataclasses import dataclass, replace

import torch

__all__ = ["ParticipationGame", "PlayerUtilities"]

_UTILITIES = ("descent", "joint", "ascent")


@dataclass(frozen=True, eq=False)
class ParticipationGame:
    """Rules of the game that players of a network play with their participations.

    Player i chooses its participation s_i in [0, 1], by which what it gives to the
    network is multiplied, and seeks to maximize its utility: a benefit less a cost.

    Parameters
    ----------
    alpha : float, default=1.0
        Weight of the benefit.
    beta : float, default=0.0
        Price of s_i², times ‖θ_i‖² where the squared norms are given.
    gamma : float or tensor of shape (n_players,), default=0.0
        Price of abs(s_i), for all players or for each of them.
    eta : float, default=0.0
        Price of competition, Σ_{j≠i} s_i s_j ⟨θ_i, θ_j⟩.
    utility : {"descent", "joint", "ascent"}, default="descent"
        What the benefit is. "descent" and "joint": -alpha times the slope ∂L/∂s_i, so
        that taking part pays where it lowers the loss; "joint" is meant for squared
        norms of 1, where going uphill on all utilities is going downhill on L +
        beta Σ s_i² + gamma Σ abs(s_i). "ascent": +alpha ⟨∇_{θ_i}L, θ_i⟩ as it is
        printed, which rewards players that raise the loss.

    Raises
    ------
    ValueError
        If `utility` is none of these, or a weight is negative.

    See Also
    --------
    PlayerUtilities : The utilities at one profile of participations.
    Participation : Gates on a network, which give the slopes.

    Notes
    -----
    With θ fixed, "descent" is an exact potential game: where one player alone changes
    its participation, its utility (with the exact benefit, of which (9) is the
    linearization at s) changes by as much as `potential`. So each projected step (17)
    is a projected gradient step uphill on one function, and whatever is a maximum of
    it with respect to each participation alone is a Nash equilibrium.

    References
    ----------
    Shah and Khan, "Pruning as a Game", sections 4 to 6, equations (8) to (18).

    Examples
    --------
    >>> import torch
    >>> from skprune.networks import ParticipationGame
    >>> game = ParticipationGame(gamma=0.5)
    >>> slope = torch.tensor([-2.0, -0.1])
    >>> utilities = game.at(torch.ones(2), slope)
    >>> utilities.best_response()
    tensor([1., 0.])
    >>> utilities.is_dominated()
    tensor([False,  True])
    """

    alpha: float = 1.0
    beta: float = 0.0
    gamma: float | torch.Tensor = 0.0
    eta: float = 0.0
    utility: str = "descent"

    def __post_init__(self):
        """Check the rules."""
        if self.utility not in _UTILITIES:
            raise ValueError(
                f"utility must be one of {_UTILITIES}; got {self.utility!r}."
            )
        for name in ("alpha", "beta", "gamma", "eta"):
            value = getattr(self, name)
            if not isinstance(value, torch.Tensor) and value < 0:
                raise ValueError(f"{name} must not be negative; got {value!r}.")

    def at(self, s, slope, squared_norms=1.0, competition=0.0):
        """Players' utilities around one profile of participations.

        Parameters
        ----------
        s : tensor of shape (n_players,)
            Participations, in [0, 1].
        slope : tensor of shape (n_players,)
            ∂L/∂s_i at `s`; for "ascent" ⟨∇_{θ_i}L, θ_i⟩.
        squared_norms : float or tensor of shape (n_players,), default=1.0
            ‖θ_i‖²; 1 for a cost that does not look at the parameters.
        competition : float or tensor of shape (n_players,), default=0.0
            Σ_{j≠i} s_j ⟨θ_i, θ_j⟩, from `competition`; only looked at if eta > 0.

        Returns
        -------
        PlayerUtilities
            Each player's utility as a function of its own participation.
        """
        sign = 1.0 if self.utility == "ascent" else -1.0
        return PlayerUtilities(
            s=s,
            marginal_benefit=sign * self.alpha * slope,
            curvature=self.beta * squared_norms,
            price=self.gamma,
            rivalry=self.eta * competition,
        )

    def potential(self, loss, s, squared_norms=1.0, competition=0.0):
        """Potential of the game: what all players together go uphill on.

        Parameters
        ----------
        loss : tensor of shape ()
            L at `s`.
        s : tensor of shape (n_players,)
            Participations.
        squared_norms, competition : float or tensor of shape (n_players,)
            As in `at`.

        Returns
        -------
        tensor of shape ()
            -alpha L - Σ_i (beta ‖θ_i‖² s_i² + gamma abs(s_i)) - eta Σ_{i<j} s_i s_j
            ⟨θ_i, θ_j⟩.

        Raises
        ------
        ValueError
            For "ascent", whose benefit is the derivative of no common function.
        """
        if self.utility == "ascent":
            raise ValueError(
                "utility='ascent' has no potential; use 'descent' or 'joint'."
            )
        # Each pair stands in the competition of both of its players.
        costs = self.beta * squared_norms * s.square() + self.gamma * s.abs()
        pairs = 0.5 * self.eta * competition * s
        return -self.alpha * loss - (costs + pairs).sum()


@dataclass(frozen=True, eq=False)
class PlayerUtilities:
    """Each player's utility as a function of its own participation t alone.

    With all others fixed it is U_i(t) = (marginal_benefit - rivalry) t - curvature t² -
    price abs(t), from which everything below follows in closed form.

    Attributes
    ----------
    s : tensor of shape (n_players,)
        Participations around which the benefit was linearized.
    marginal_benefit : tensor of shape (n_players,)
        Benefit of one unit of participation.
    curvature, price, rivalry : float or tensor of shape (n_players,)
        beta ‖θ_i‖², gamma, and eta Σ_{j≠i} s_j ⟨θ_i, θ_j⟩.

    See Also
    --------
    ParticipationGame.at : Makes these from the rules of the game.
    """

    s: torch.Tensor
    marginal_benefit: torch.Tensor
    curvature: float | torch.Tensor
    price: float | torch.Tensor
    rivalry: float | torch.Tensor

    def of(self, players):
        """The utilities of some of the players.

        Parameters
        ----------
        players : tensor of int
            Their numbers.

        Returns
        -------
        PlayerUtilities
        """
        own = {k: v for k, v in vars(self).items() if getattr(v, "ndim", 0)}
        return replace(self, **{k: v[players] for k, v in own.items()})

    def benefit(self, t=None):
        """Benefit of participation, equation (9).

        Parameters
        ----------
        t : tensor of shape (..., n_players), optional
            Own participations; `s` if None.

        Returns
        -------
        tensor of shape (..., n_players)
            Linear in `t`.
        """
        return self.marginal_benefit * (self.s if t is None else t)

    def cost(self, t=None):
        """Cost of participation, equation (10).

        Parameters
        ----------
        t : tensor of shape (..., n_players), optional
            Own participations; `s` if None.

        Returns
        -------
        tensor of shape (..., n_players)
            Of each player, with the others at `s`.
        """
        t = self.s if t is None else t
        return self.curvature * t.square() + self.price * t.abs() + self.rivalry * t

    def utility(self, t=None):
        """Benefit less cost, equation (8).

        Parameters
        ----------
        t : tensor of shape (..., n_players), optional
            Own participations; `s` if None.

        Returns
        -------
        tensor of shape (..., n_players)
            Of each player, with the others at `s`.
        """
        return self.benefit(t) - self.cost(t)

    def gradient(self):
        """Derivative of each utility by the own participation, equations (13), (18).

        Returns
        -------
        tensor of shape (n_players,)
            At `s`; where s_i = 0 from the right, the only side there is.
        """
        return self._net_benefit() - 2 * self.curvature * self.s

    def best_response(self):
        """Participation in [0, 1] that maximizes each utility, equation (14).

        Returns
        -------
        tensor of shape (n_players,)
            0 or 1 where the utility is linear; 0 where nothing is gained.
        """
        net = self._net_benefit()
        curvature = torch.as_tensor(self.curvature, dtype=net.dtype, device=net.device)
        # Without curvature the quotient is infinite, which the clamp makes 1.
        inner = (net / (2 * curvature)).clamp(0, 1)
        return torch.where(net > 0, inner, torch.zeros_like(net))

    def is_dominated(self):
        """Whether to leave is better than any participation, equation (15).

        Returns
        -------
        bool tensor of shape (n_players,)
            True where the first unit of participation costs more than it brings.
        """
        return self._net_benefit() < 0

    def projected_step(self, learning_rate):
        """One step uphill on each utility, projected to [0, 1], equation (17).

        Parameters
        ----------
        learning_rate : float
            η_s of the paper.

        Returns
        -------
        tensor of shape (n_players,)
            The new participations.
        """
        return (self.s + learning_rate * self.gradient()).clamp(0, 1)

    def unilateral_gains(self):
        """What each player would gain by its best response, the others unmoved.

        Returns
        -------
        tensor of shape (n_players,)
            Never negative, up to rounding.
        """
        return self.utility(self.best_response()) - self.utility()

    def exploitability(self):
        """Largest unilateral gain: 0 at a Nash equilibrium.

        Returns
        -------
        tensor of shape ()
            In units of utility.
        """
        return self.unilateral_gains().max()

    def _net_benefit(self):
        """Derivative of each utility at 0 from the right: numerator of (14)."""
        return self.marginal_benefit - self.price - self.rivalry
