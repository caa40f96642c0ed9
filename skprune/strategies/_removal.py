"""Scores in, masks out: who leaves next on a walk down."""

from __future__ import annotations

from abc import ABC, abstractmethod
from numbers import Integral, Real
from operator import index
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval

from skprune.base import Documented
from skprune.strategies._selection import check_groups, group_floors, rank

__all__ = ["BelowShare", "Bottom", "Bucket", "RemovalStrategy"]


class RemovalStrategy(Documented, BaseEstimator, ABC):
    """Base class: a rule that says from scores who leaves next.

    The lowest scores leave first; a subclass says how many do.

    Examples
    --------
    >>> from skprune.strategies import RemovalStrategy
    >>> class Half(RemovalStrategy):
    ...     def n_leaving(self, free_values, values):
    ...         return len(values) // 2
    >>> Half().leavers([0.1, 0.4, 0.3, 0.2])
    array([ True, False, False,  True])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {}

    def leavers(
        self,
        values: ArrayLike,
        *,
        groups: ArrayLike | None = None,
        min_per_group: int | ArrayLike = 1,
        ties: ArrayLike | None = None,
    ) -> NDArray[np.bool_]:
        """Choose who leaves.

        Parameters
        ----------
        values : array-like of shape (n_players,)
            Scores, larger is better.
        groups : array-like of int of shape (n_players,), default=None
            Group (layer) of each player; all in one by default.
        min_per_group : int or array-like of int of shape (n_groups,), default=1
            Players that stay in each group at least: its best.
        ties : array-like of shape (n_players,), default=None
            Decides among equal scores: the smaller leaves first, and the later of two
            players where these are equal too.

        Returns
        -------
        leave : ndarray of bool of shape (n_players,)
            True for the players that leave: one at least, as long as somebody may.

        Raises
        ------
        ValueError
            If a parameter of the strategy, or a floor, is out of its range.
        """
        self._validate_params()
        values = np.asarray(values, dtype=np.float64)
        worst_first = rank(values, ties)
        free = worst_first[~_secured(worst_first, groups, min_per_group)]
        leave = np.zeros(values.size, dtype=bool)
        if free.size:
            n = index(self.n_leaving(values[free], values))
            leave[free[: max(1, min(n, free.size))]] = True
        return leave

    @abstractmethod
    def n_leaving(
        self, free_values: NDArray[np.float64], values: NDArray[np.float64]
    ) -> int:
        """Say how many leave.

        Parameters
        ----------
        free_values : ndarray of float64 of shape (n_free,)
            Scores of the players that may leave, lowest first.
        values : ndarray of float64 of shape (n_players,)
            Scores of all players.

        Returns
        -------
        n : int
            How many of the lowest leave; one does at least, and all who may at most.
        """


class Bucket(RemovalStrategy):
    """The longest run of worst players that are worth less than a share: SVbucket(p).

    Parameters
    ----------
    share : float, default=0.2
        What the players that leave may be worth together, in units of the scores; of
        scores that sum to 1 a share of the total.

    Notes
    -----
    Sums are signed: players of negative value buy others a way out. The worst player
    leaves where nobody qualifies, or where the scores do not sum to a positive number.

    References
    ----------
    .. [1] J. Stier, G. Gianini, M. Granitzer and K. Ziegler, "Analysing neural network
       topologies: a game theoretic approach", 2018, Table 1.

    Examples
    --------
    >>> from skprune.strategies import Bucket
    >>> Bucket(0.2).leavers([0.05, 0.5, 0.1, 0.35])
    array([ True, False,  True, False])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "share": [Interval(Real, 0, None, closed="neither")]
    }

    def __init__(self, share: float = 0.2) -> None:
        self.share = share

    def n_leaving(
        self, free_values: NDArray[np.float64], values: NDArray[np.float64]
    ) -> int:
        """Length of the longest run of lowest scores whose sum is below the share."""
        # Signed sums may dip below the share again: the longest prefix counts.
        fits = np.flatnonzero(np.cumsum(free_values) < self.share)
        return int(fits[-1]) + 1 if fits.size and values.sum() > 0 else 0


class BelowShare(RemovalStrategy):
    """All players that are worth less than a share of the average: SVbottom(p).

    Parameters
    ----------
    factor : float, default=0.5
        Share of the mean score below which a player leaves.

    Notes
    -----
    The worst player leaves where no score is below, or where the scores do not sum to a
    positive number.

    References
    ----------
    .. [1] J. Stier, G. Gianini, M. Granitzer and K. Ziegler, "Analysing neural network
       topologies: a game theoretic approach", 2018, Table 1.

    Examples
    --------
    >>> from skprune.strategies import BelowShare
    >>> BelowShare(0.5).leavers([0.1, 0.5, 0.2, 0.4])
    array([ True, False, False, False])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "factor": [Interval(Real, 0, None, closed="neither")]
    }

    def __init__(self, factor: float = 0.5) -> None:
        self.factor = factor

    def n_leaving(
        self, free_values: NDArray[np.float64], values: NDArray[np.float64]
    ) -> int:
        """Number of scores below the share of the mean."""
        below = free_values < self.factor * values.mean()
        return int(below.sum()) if values.sum() > 0 else 0


class Bottom(RemovalStrategy):
    """The worst players, a fixed number of them: SVbottom(k).

    Parameters
    ----------
    n : int, default=1
        Number of players that leave.

    References
    ----------
    .. [1] J. Stier, G. Gianini, M. Granitzer and K. Ziegler, "Analysing neural network
       topologies: a game theoretic approach", 2018, Table 1.

    Examples
    --------
    >>> from skprune.strategies import Bottom
    >>> Bottom(2).leavers([0.3, 0.1, 0.2, 0.4])
    array([False,  True,  True, False])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n": [Interval(Integral, 1, None, closed="left")]
    }

    def __init__(self, n: int = 1) -> None:
        self.n = n

    def n_leaving(
        self, free_values: NDArray[np.float64], values: NDArray[np.float64]
    ) -> int:
        """The number that was given."""
        return self.n


def _secured(
    worst_first: NDArray[np.intp],
    groups: ArrayLike | None,
    min_per_group: int | ArrayLike,
) -> NDArray[np.bool_]:
    """Which of the ranked players are among the best that their group has to keep."""
    group_of = check_groups(groups, worst_first.size)
    floors = group_floors(group_of, min_per_group)
    ranked = group_of[worst_first]
    secured = np.zeros(worst_first.size, dtype=bool)
    for group, floor in enumerate(floors):
        members = np.flatnonzero(ranked == group)
        secured[members[members.size - floor :]] = True
    return secured
