"""Better coalitions of the same size: swaps, and a local search that escapes them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from skprune.games import Game, as_game
from skprune.strategies._selection import check_groups, group_floors

__all__ = ["IteratedLocalSearch", "Refinement", "SwapRefinement"]

# A gain below this is rounding, not a better coalition.
_MIN_GAIN = 1e-12


class Refinement(BaseEstimator, ABC):
    """Base class: a rule that betters a coalition without changing its size."""

    def refine(
        self,
        game: Game,
        keep: NDArray[np.bool_],
        *,
        groups: ArrayLike | None = None,
        min_per_group: int | ArrayLike = 1,
    ) -> tuple[NDArray[np.bool_], float]:
        """Improve a coalition.

        Parameters
        ----------
        game : Game
            What coalitions earn.
        keep : ndarray of bool of shape (n_players,)
            The coalition to start from; it is not changed.
        groups : array-like of int of shape (n_players,), default=None
            Group (layer) of each player.
        min_per_group : int or array-like of int of shape (n_groups,), default=1
            Players that stay in each group at least.

        Returns
        -------
        keep : ndarray of bool of shape (n_players,)
            A coalition of the same size that earns at least as much.
        payoff : float
            What it earns.
        """
        game = as_game(game)
        group_of = check_groups(groups, game.n_players)
        keep = np.array(keep, dtype=bool)
        payoff = float(game(keep[None])[0])
        if keep.all() or not keep.any():
            return keep, payoff
        floors = group_floors(group_of, min_per_group)
        return self._improve(game, keep, payoff, group_of, floors)

    @abstractmethod
    def _improve(
        self,
        game: Game,
        keep: NDArray[np.bool_],
        payoff: float,
        group_of: NDArray[np.intp],
        floors: NDArray[np.intp],
    ) -> tuple[NDArray[np.bool_], float]:
        """Improve a coalition with somebody inside and somebody outside."""


class SwapRefinement(Refinement):
    """Exchange a present player for an absent one while the payoff rises.

    One flip around the coalition says which present players are missed least; for
    each of these, one flip around the coalition without it says who replaces it best.
    The best exchanges are then tried together, best first.

    Parameters
    ----------
    n_candidates : int, default=8
        Present players whose exchange is tried in each round, those missed least.
    max_rounds : int, default=50
        Rounds at most; each costs `n_candidates` + 1 flips.

    Examples
    --------
    >>> import numpy as np
    >>> from skprune.games import un_security_council
    >>> from skprune.strategies import SwapRefinement
    >>> start = (np.arange(15) < 4) | (np.arange(15) > 9)
    >>> keep, payoff = SwapRefinement().refine(un_security_council(), start)
    >>> payoff, int(keep.sum())
    (1.0, 9)
    """

    def __init__(self, n_candidates: int = 8, max_rounds: int = 50) -> None:
        self.n_candidates = n_candidates
        self.max_rounds = max_rounds

    def _improve(
        self,
        game: Game,
        keep: NDArray[np.bool_],
        payoff: float,
        group_of: NDArray[np.intp],
        floors: NDArray[np.intp],
    ) -> tuple[NDArray[np.bool_], float]:
        for _ in range(self.max_rounds):
            swaps = self._best_swaps(game, keep, group_of, floors)
            better, new_payoff = _apply(game, keep, payoff, swaps, group_of, floors)
            if new_payoff <= payoff + _MIN_GAIN:
                break
            keep, payoff = better, new_payoff
        return keep, payoff

    def _best_swaps(
        self,
        game: Game,
        keep: NDArray[np.bool_],
        group_of: NDArray[np.intp],
        floors: NDArray[np.intp],
    ) -> list[tuple[int, int]]:
        """Promising (leaves, joins) pairs, best first."""
        losses = np.where(keep, game.flip(keep[None])[0], np.inf)
        leavers = np.argsort(losses, kind="stable")
        leavers = leavers[: min(self.n_candidates, int(keep.sum()))]
        around = np.repeat(keep[None], leavers.size, axis=0)
        around[np.arange(leavers.size), leavers] = False
        gains = np.where(keep, -np.inf, game.flip(around))
        for row, leaver in enumerate(leavers):
            group = group_of[leaver]
            if np.count_nonzero(keep & (group_of == group)) <= floors[group]:
                gains[row, group_of != group] = -np.inf
        joiners = gains.argmax(axis=1)
        net = gains[np.arange(leavers.size), joiners] - losses[leavers]
        order = np.argsort(-net, kind="stable")
        return [(int(leavers[i]), int(joiners[i])) for i in order if net[i] > _MIN_GAIN]


def _apply(
    game: Game,
    keep: NDArray[np.bool_],
    payoff: float,
    swaps: list[tuple[int, int]],
    group_of: NDArray[np.intp],
    floors: NDArray[np.intp],
) -> tuple[NDArray[np.bool_], float]:
    """Try the swaps one after the other and keep those that raise the payoff."""
    for leaves, joins in swaps:
        if keep[joins]:
            continue
        trial = keep.copy()
        trial[leaves], trial[joins] = False, True
        if (np.bincount(group_of[trial], minlength=floors.size) < floors).any():
            continue
        value = float(game(trial[None])[0])
        if value > payoff + _MIN_GAIN:
            keep, payoff = trial, value
    return keep, payoff


class IteratedLocalSearch(Refinement):
    """Swap, disturb the best coalition at random, swap again; keep the best.

    Parameters
    ----------
    refinement : Refinement, default=None
        The local search; None for ``SwapRefinement()``.
    n_restarts : int, default=10
        How often the best coalition is disturbed.
    kick : float, default=0.05
        Share of the present players exchanged at random (two at least).
    random_state : int, RandomState instance or None, default=None
        Draws the exchanges.

    Examples
    --------
    >>> import numpy as np
    >>> from skprune.games import un_security_council
    >>> from skprune.strategies import IteratedLocalSearch
    >>> search = IteratedLocalSearch(n_restarts=3, random_state=0)
    >>> start = (np.arange(15) < 4) | (np.arange(15) > 9)
    >>> keep, payoff = search.refine(un_security_council(), start)
    >>> payoff
    1.0
    """

    def __init__(
        self,
        refinement: Refinement | None = None,
        n_restarts: int = 10,
        kick: float = 0.05,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.refinement = refinement
        self.n_restarts = n_restarts
        self.kick = kick
        self.random_state = random_state

    def _improve(
        self,
        game: Game,
        keep: NDArray[np.bool_],
        payoff: float,
        group_of: NDArray[np.intp],
        floors: NDArray[np.intp],
    ) -> tuple[NDArray[np.bool_], float]:
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        rng = np.random.default_rng(seed)
        local = self.refinement or SwapRefinement()
        best, payoff = local._improve(game, keep, payoff, group_of, floors)
        for _ in range(self.n_restarts):
            start = _disturbed(best, self.kick, group_of, rng)
            earned = float(game(start[None])[0])
            trial, value = local._improve(game, start, earned, group_of, floors)
            if value > payoff + _MIN_GAIN:
                best, payoff = trial, value
        return best, payoff


def _disturbed(
    keep: NDArray[np.bool_],
    kick: float,
    group_of: NDArray[np.intp],
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Exchange some players for others of their own group, so that floors hold."""
    keep = keep.copy()
    inside = np.flatnonzero(keep)
    n_swaps = min(inside.size, max(2, round(kick * inside.size)))
    for leaves in rng.choice(inside, n_swaps, replace=False):
        absent = np.flatnonzero(~keep & (group_of == group_of[leaves]))
        if absent.size:
            keep[leaves], keep[rng.choice(absent)] = False, True
    return keep
