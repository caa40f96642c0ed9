"""Games whose power indices have a closed form."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from math import comb, fsum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skprune.games._base import Game

__all__ = [
    "AirportGame",
    "GloveGame",
    "UnanimityGame",
    "WeightedVotingGame",
    "un_security_council",
]


class _SwingGame(Game):
    """A game of marginals 0 and 1: indices follow from counts of the swings."""

    @abstractmethod
    def _swings(self, player: int) -> Counter[int]:
        """Number of coalitions of the others that the player makes win, by size."""

    def shapley_values(self) -> NDArray[np.float64]:
        """Return the exact Shapley values, shape (n_players,)."""
        n = self.n_players
        return self._expected_swings([1 / (n * comb(n - 1, s)) for s in range(n)])

    def banzhaf_values(self, inclusion_probability: float = 0.5) -> NDArray[np.float64]:
        """Return the exact (biased) Banzhaf values, shape (n_players,)."""
        d, n = inclusion_probability, self.n_players
        return self._expected_swings([d**s * (1 - d) ** (n - 1 - s) for s in range(n)])

    def _expected_swings(self, weights: Sequence[float]) -> NDArray[np.float64]:
        """Sum of each player's swings, weighted by the size of the coalition."""
        return np.array(
            [
                fsum(count * weights[size] for size, count in self._swings(i).items())
                for i in range(self.n_players)
            ]
        )


class WeightedVotingGame(_SwingGame):
    """A vote that passes when the weights of those in favour reach the quota.

    Parameters
    ----------
    weights : array-like of shape (n_players,)
        Non-negative weight of each player.
    quota : float
        A coalition earns 1 when its weights sum to at least this, 0 otherwise.

    Notes
    -----
    The exact indices count coalitions by size and weight: quick for integer weights,
    exponential in the number of different sums otherwise.

    Examples
    --------
    >>> from skprune.games import WeightedVotingGame
    >>> WeightedVotingGame([2, 1, 1], quota=3).shapley_values().round(3)
    array([0.667, 0.167, 0.167])
    """

    def __init__(self, weights: ArrayLike, quota: float) -> None:
        self.weights = np.asarray(weights, dtype=np.float64)
        self.quota = quota
        if self.weights.ndim != 1 or not self.weights.size or (self.weights < 0).any():
            raise ValueError(
                f"weights={weights!r} must be a non-empty list of numbers that are "
                "not negative."
            )
        self.n_players = self.weights.size

    def _payoffs(self, coalitions: NDArray[np.bool_]) -> ArrayLike:
        return coalitions @ self.weights >= self.quota

    def _swings(self, player: int) -> Counter[int]:
        coalitions: Counter[tuple[int, float]] = Counter({(0, 0.0): 1})
        for weight in np.delete(self.weights, player).tolist():
            joined = {(s + 1, w + weight): c for (s, w), c in coalitions.items()}
            coalitions.update(joined)
        swings: Counter[int] = Counter()
        for (size, weight), count in coalitions.items():
            if weight < self.quota <= weight + self.weights[player]:
                swings[size] += count
        return swings


def un_security_council() -> WeightedVotingGame:
    """Return the vote of the United Nations Security Council.

    Nine of fifteen votes pass a motion, among them those of all five permanent
    members, who are players 0 to 4.

    Returns
    -------
    game : WeightedVotingGame
        Shapley values: 421/2145 for a permanent member, 4/2145 for another one.

    Examples
    --------
    >>> from skprune.games import un_security_council
    >>> un_security_council().banzhaf_values()[[0, 14]] * [1024, 4096]
    array([53., 21.])
    """
    return WeightedVotingGame([7] * 5 + [1] * 10, quota=39)


class UnanimityGame(_SwingGame):
    """A game that is won when all of some players are present.

    Parameters
    ----------
    n_players : int
        Number of players.
    carrier : sequence of int
        The players that are needed; the others are null players.

    Examples
    --------
    >>> from skprune.games import UnanimityGame
    >>> UnanimityGame(4, carrier=[0, 2]).shapley_values()
    array([0.5, 0. , 0.5, 0. ])
    """

    def __init__(self, n_players: int, carrier: Sequence[int]) -> None:
        self.n_players = n_players
        self.carrier = np.unique(np.asarray(carrier, dtype=np.intp))
        if not self.carrier.size or not 0 <= self.carrier[0] <= self.carrier[-1] < (
            n_players
        ):
            raise ValueError(
                f"carrier={carrier!r} must name at least one of the players 0 to "
                f"{n_players - 1}."
            )

    def _payoffs(self, coalitions: NDArray[np.bool_]) -> ArrayLike:
        return coalitions[:, self.carrier].all(axis=1)

    def _swings(self, player: int) -> Counter[int]:
        if player not in self.carrier:
            return Counter()
        needed, free = self.carrier.size - 1, self.n_players - self.carrier.size
        return Counter({needed + s: comb(free, s) for s in range(free + 1)})


class GloveGame(_SwingGame):
    """Owners of left and of right gloves; each pair of gloves earns 1.

    Parameters
    ----------
    n_left, n_right : int
        Number of owners of one left glove (the first players) and of one right glove.

    Examples
    --------
    >>> from skprune.games import GloveGame
    >>> GloveGame(1, 2).shapley_values().round(3)
    array([0.667, 0.167, 0.167])
    """

    def __init__(self, n_left: int, n_right: int) -> None:
        if n_left < 1 or n_right < 1:
            raise ValueError(
                f"n_left={n_left} and n_right={n_right} must both be at least 1."
            )
        self.n_left = n_left
        self.n_right = n_right
        self.n_players = n_left + n_right

    def _payoffs(self, coalitions: NDArray[np.bool_]) -> ArrayLike:
        left = coalitions[:, : self.n_left].sum(axis=1)
        return np.minimum(left, coalitions[:, self.n_left :].sum(axis=1))

    def _swings(self, player: int) -> Counter[int]:
        same, other = self.n_left, self.n_right
        if player >= self.n_left:
            same, other = other, same
        swings: Counter[int] = Counter()
        for others in range(other + 1):
            for own in range(min(same, others)):
                swings[own + others] += comb(same - 1, own) * comb(other, others)
        return swings


class AirportGame(Game):
    """Users of one runway; a coalition earns the cost of its most expensive member.

    Parameters
    ----------
    costs : array-like of shape (n_players,)
        Non-negative cost of the runway that each player needs.

    References
    ----------
    S. C. Littlechild and G. Owen, "A simple expression for the Shapley value in a
    special case", Management Science 20 (1973).

    Examples
    --------
    >>> from skprune.games import AirportGame
    >>> AirportGame([3.0, 6.0, 8.0]).shapley_values()
    array([1. , 2.5, 4.5])
    """

    def __init__(self, costs: ArrayLike) -> None:
        self.costs = np.asarray(costs, dtype=np.float64)
        if self.costs.ndim != 1 or not self.costs.size or (self.costs < 0).any():
            raise ValueError(
                f"costs={costs!r} must be a non-empty list of numbers that are not "
                "negative."
            )
        self.n_players = self.costs.size

    def _payoffs(self, coalitions: NDArray[np.bool_]) -> ArrayLike:
        return np.where(coalitions, self.costs, 0.0).max(axis=1)

    def shapley_values(self) -> NDArray[np.float64]:
        """Return the exact Shapley values, shape (n_players,)."""
        # Each stretch of the runway is shared evenly by all who need it.
        return self._sum_stretches(1 / np.arange(self.n_players, 0, -1))

    def banzhaf_values(self, inclusion_probability: float = 0.5) -> NDArray[np.float64]:
        """Return the exact (biased) Banzhaf values, shape (n_players,)."""
        # A player adds a stretch when nobody else who needs it is present.
        others = np.arange(self.n_players - 1, -1, -1)
        absent = np.full(self.n_players, 1.0 - inclusion_probability)
        return self._sum_stretches(absent**others)

    def _sum_stretches(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum over each player's stretches of length times share."""
        order = np.argsort(self.costs, kind="stable")
        stretches = np.diff(self.costs[order], prepend=0.0)
        values = np.empty(self.n_players)
        values[order] = np.cumsum(stretches * shares)
        return values
