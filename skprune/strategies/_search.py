"""From a game and a scorer to coalitions of the sizes asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, RealNotInt

from skprune.base import Documented
from skprune.games import Game, as_game
from skprune.scorers import PowerIndexScorer
from skprune.strategies._path import CompressionPath
from skprune.strategies._selection import (
    check_groups,
    group_floors,
    keep_best,
    scaled_split,
)

__all__ = ["IteratedBuilding", "IteratedPruning", "Search", "TopN"]

# A number of players, or a share of them.
_STEP = [
    Interval(Integral, 1, None, closed="left"),
    Interval(RealNotInt, 0, 1, closed="neither"),
]


class Search(Documented, BaseEstimator, ABC):
    """Base class: a rule that finds a coalition for each of several sizes."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {}

    def search(
        self,
        game: Game,
        scorer: PowerIndexScorer | None,
        sizes: ArrayLike,
        *,
        groups: ArrayLike | None = None,
        min_per_group: int | ArrayLike = 1,
        ties: ArrayLike | None = None,
    ) -> CompressionPath:
        """Search a game.

        Parameters
        ----------
        game : Game
            What coalitions earn.
        scorer : PowerIndexScorer or None
            What players are worth; None where the search can do without.
        sizes : array-like of int of shape (n_sizes,)
            Numbers of players to keep.
        groups : array-like of int of shape (n_players,), default=None
            Group (layer) of each player.
        min_per_group : int or array-like of int of shape (n_groups,), default=1
            Players that stay in each group at least.
        ties : array-like of shape (n_players,), default=None
            Among players of equal score the one with the smaller value leaves first.
            A game with a `greedy_order` of its own asks nobody.

        Returns
        -------
        path : CompressionPath
            A coalition for each size.

        Raises
        ------
        ValueError
            If a parameter of the search is out of its range, or a size is above the
            number of players or below the floors.
        """
        self._validate_params()
        game = as_game(game)
        group_of = check_groups(groups, game.n_players)
        floors = group_floors(group_of, min_per_group)
        wanted = _check_sizes(sizes, floors, game)
        masks = self._masks(game, scorer, wanted, group_of, floors, ties)
        return CompressionPath.of(game, masks)

    def budget(
        self, scorer: PowerIndexScorer | None, n_players: int, sizes: ArrayLike
    ) -> int | None:
        """Payoffs that `search` spends at most.

        Parameters
        ----------
        scorer : PowerIndexScorer or None
            What players are worth.
        n_players : int
            Number of players of the game.
        sizes : array-like of int of shape (n_sizes,)
            Numbers of players to keep.

        Returns
        -------
        n_payoffs : int or None
            None where the search does not say: a subclass need not.
        """
        return None

    @abstractmethod
    def _masks(
        self,
        game: Game,
        scorer: PowerIndexScorer | None,
        sizes: NDArray[np.intp],
        group_of: NDArray[np.intp],
        floors: NDArray[np.intp],
        ties: ArrayLike | None,
    ) -> Iterator[NDArray[np.bool_]]:
        """One mask for each of the ascending sizes, in any order."""


class TopN(Search):
    """Score once and keep the best: Top-n Pruning.

    Parameters
    ----------
    layerwise : bool, default=False
        Whether each group keeps the same share of its players, so that only scores
        within a group are compared.

    References
    ----------
    .. [1] M. Diaz-Ortiz et al., "Using Cooperative Game Theory to Prune Neural
       Networks", arXiv:2311.10468, section III-B.

    Examples
    --------
    >>> from skprune.games import un_security_council
    >>> from skprune.scorers import ShapleyScorer
    >>> from skprune.strategies import TopN
    >>> path = TopN().search(un_security_council(), ShapleyScorer(), [5, 9])
    >>> path.payoffs
    array([0., 1.])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {"layerwise": ["boolean"]}

    def __init__(self, layerwise: bool = False) -> None:
        self.layerwise = layerwise

    def budget(
        self, scorer: PowerIndexScorer | None, n_players: int, sizes: ArrayLike
    ) -> int | None:
        """Payoffs of one estimate and of the coalitions found; see `Search.budget`."""
        return _needed(scorer, self).budget(n_players) + np.unique(sizes).size

    def _masks(
        self,
        game: Game,
        scorer: PowerIndexScorer | None,
        sizes: NDArray[np.intp],
        group_of: NDArray[np.intp],
        floors: NDArray[np.intp],
        ties: ArrayLike | None,
    ) -> Iterator[NDArray[np.bool_]]:
        values = _needed(scorer, self).estimate(game).values
        everybody = np.ones(values.size, dtype=bool)
        for size in sizes:
            least = _floors_at(size, everybody, group_of, floors, self.layerwise)
            yield keep_best(
                values, size, groups=group_of, min_per_group=least, ties=ties
            )


class IteratedPruning(Search):
    """Drop the worst players, score the rest again, and so on: Iterated Pruning.

    Parameters
    ----------
    step : int or float, default=0.03
        Players dropped between two scorings: a number, or a share of those left.
    layerwise : bool, default=False
        Whether each group keeps the same share of its players, so that only scores
        within a group are compared.

    References
    ----------
    .. [1] M. Diaz-Ortiz et al., "Using Cooperative Game Theory to Prune Neural
       Networks", arXiv:2311.10468, section III-B.

    Examples
    --------
    >>> from skprune.games import un_security_council
    >>> from skprune.scorers import ShapleyScorer
    >>> from skprune.strategies import IteratedPruning
    >>> search = IteratedPruning(step=2)
    >>> search.search(un_security_council(), ShapleyScorer(), [9, 11]).payoffs
    array([1., 1.])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "step": _STEP,
        "layerwise": ["boolean"],
    }

    def __init__(self, step: int | float = 0.03, layerwise: bool = False) -> None:
        self.step = step
        self.layerwise = layerwise

    def budget(
        self, scorer: PowerIndexScorer | None, n_players: int, sizes: ArrayLike
    ) -> int | None:
        """Payoffs of all estimates and of the coalitions found; see `Search.budget`."""
        scorer, wanted, left = _needed(scorer, self), np.unique(sizes), n_players
        spent = wanted.size
        for size in wanted[::-1].tolist():
            while left > size:
                spent += scorer.budget(left)
                left = max(size, left - _step_size(self.step, left))
        return int(spent)

    def _masks(
        self,
        game: Game,
        scorer: PowerIndexScorer | None,
        sizes: NDArray[np.intp],
        group_of: NDArray[np.intp],
        floors: NDArray[np.intp],
        ties: ArrayLike | None,
    ) -> Iterator[NDArray[np.bool_]]:
        scorer, step = _needed(scorer, self), _number(self.step)
        keep = np.ones(game.n_players, dtype=bool)
        for size in sizes[::-1]:
            while keep.sum() > size:
                left = int(keep.sum())
                target = max(size, left - _step_size(step, left))
                values = np.full(keep.size, -np.inf)
                values[keep] = scorer.estimate(_without(game, ~keep)).values
                least = _floors_at(target, keep, group_of, floors, self.layerwise)
                keep = keep_best(
                    values, target, groups=group_of, min_per_group=least, ties=ties
                )
            yield keep.copy()


class IteratedBuilding(Search):
    """Start empty, add the best players, score the rest again: Iterated Building.

    Parameters
    ----------
    step : int or float, default=0.05
        Players added between two scorings: a number, or a share of those kept (one
        player at least). Without a scorer one player is added at a time.
    layerwise : bool, default=False
        Whether each group keeps the same share of its players, so that only scores
        within a group are compared.

    References
    ----------
    .. [1] M. Diaz-Ortiz et al., "Using Cooperative Game Theory to Prune Neural
       Networks", arXiv:2311.10468, section III-B.

    Examples
    --------
    >>> from skprune.games import un_security_council
    >>> from skprune.scorers import BanzhafScorer
    >>> from skprune.strategies import IteratedBuilding
    >>> search = IteratedBuilding(step=3)
    >>> search.search(un_security_council(), BanzhafScorer(), [9]).payoffs
    array([1.])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "step": _STEP,
        "layerwise": ["boolean"],
    }

    def __init__(self, step: int | float = 0.05, layerwise: bool = False) -> None:
        self.step = step
        self.layerwise = layerwise

    def budget(
        self, scorer: PowerIndexScorer | None, n_players: int, sizes: ArrayLike
    ) -> int | None:
        """Payoffs of all estimates and of the coalitions found; see `Search.budget`."""
        wanted, kept = np.unique(sizes), 0
        spent = wanted.size
        if scorer is None:
            return int(spent + wanted[-1] * n_players)
        for size in wanted.tolist():
            while kept < size:
                spent += scorer.budget(n_players - kept)
                kept = min(size, kept + _step_size(self.step, kept))
        return int(spent)

    def _masks(
        self,
        game: Game,
        scorer: PowerIndexScorer | None,
        sizes: NDArray[np.intp],
        group_of: NDArray[np.intp],
        floors: NDArray[np.intp],
        ties: ArrayLike | None,
    ) -> Iterator[NDArray[np.bool_]]:
        everybody = np.ones(game.n_players, dtype=bool)
        floors_at = [floors] * len(sizes)
        if self.layerwise:
            floors_at = _growing_quotas(sizes, group_of, floors)
        if scorer is None:
            yield from _greedy_masks(game, sizes, group_of, floors_at, ties)
            return
        step = _number(self.step)
        keep = ~everybody
        for size, least in zip(sizes, floors_at, strict=True):
            while keep.sum() < size:
                target = min(size, keep.sum() + _step_size(step, int(keep.sum())))
                rest = game if not keep.any() else game.restrict(always_in=keep)
                values = np.full(keep.size, np.inf)
                values[~keep] = scorer.estimate(rest).values
                keep = _add_best(values, keep, target, size, group_of, least, ties)
            yield keep.copy()


def _add_best(
    values: NDArray[np.float64],
    keep: NDArray[np.bool_],
    target: int,
    size: int,
    group_of: NDArray[np.intp],
    floors: NDArray[np.intp],
    ties: ArrayLike | None,
) -> NDArray[np.bool_]:
    """Add the best players up to `target`, leaving room for the floors at `size`."""
    for _ in range(target - int(keep.sum())):
        counts = np.bincount(group_of[keep], minlength=floors.size)
        missing = np.maximum(floors - counts, 0)
        allowed = ~keep
        if missing.sum() >= size - keep.sum():
            allowed &= missing[group_of] > 0
        candidates = np.where(allowed, values, -np.inf)
        second = np.zeros(keep.size) if ties is None else np.asarray(ties, float)
        best = np.lexsort((-np.arange(keep.size), second, candidates, allowed))[-1]
        keep = keep.copy()
        keep[best] = True
    return keep


def _greedy_masks(
    game: Game,
    sizes: NDArray[np.intp],
    group_of: NDArray[np.intp],
    floors_at: list[NDArray[np.intp]],
    ties: ArrayLike | None,
) -> Iterator[NDArray[np.bool_]]:
    """Add the player that earns most now, one at a time."""
    keep = np.zeros(game.n_players, dtype=bool)
    if floors_at[0].size == 1 and (game.builds_natively or ties is None):
        order, _ = game.greedy_order(int(sizes[-1]))
        for size in sizes:
            mask = keep.copy()
            mask[order[:size]] = True
            yield mask
        return
    for size, least in zip(sizes, floors_at, strict=True):
        while keep.sum() < size:
            values = game.flip(keep[None])[0]
            keep = _add_best(
                values, keep, int(keep.sum()) + 1, int(size), group_of, least, ties
            )
        yield keep.copy()


def _without(game: Game, out: NDArray[np.bool_]) -> Game:
    """The game without some players; itself where none left."""
    return game.restrict(always_out=out) if out.any() else game


def _floors_at(
    size: int,
    present: NDArray[np.bool_],
    group_of: NDArray[np.intp],
    floors: NDArray[np.intp],
    layerwise: bool,
) -> NDArray[np.intp]:
    """Players that each group keeps at a size: its floor, or its share as a quota."""
    if not layerwise:
        return floors
    left = np.bincount(group_of[present], minlength=floors.size)
    return scaled_split(np.bincount(group_of).astype(float), size, floors, left)


def _growing_quotas(
    sizes: NDArray[np.intp], group_of: NDArray[np.intp], floors: NDArray[np.intp]
) -> list[NDArray[np.intp]]:
    """Each group's share of the players at each size, none of which ever shrinks.

    A player that was added stays, and what is built must not depend on the sizes that
    were asked for on the way.
    """
    members = np.bincount(group_of, minlength=floors.size)
    quotas, least = {}, floors
    for size in range(int(floors.sum()), int(sizes[-1]) + 1):
        quotas[size] = least = scaled_split(members, size, least, members)
    return [quotas[int(size)] for size in sizes]


def _step_size(step: int | float, players: int) -> int:
    """Players that move in one step: a count, or a share of `players`."""
    if isinstance(step, Integral):
        return int(step)
    return max(1, int(step * players))


def _number(step: int | float) -> int | float:
    """A step, which is no bool, though bools are integers to Python."""
    if isinstance(step, bool):
        raise TypeError(f"step must be an int or a float; got {step!r}.")
    return step


def _needed(scorer: PowerIndexScorer | None, search: Search) -> PowerIndexScorer:
    """The scorer, which this search cannot do without."""
    if scorer is None:
        raise ValueError(
            f"scorer=None: {type(search).__name__} needs one, such as ShapleyScorer()."
        )
    return scorer


def _check_sizes(
    sizes: ArrayLike, floors: NDArray[np.intp], game: Game
) -> NDArray[np.intp]:
    """Distinct sizes, ascending, between the floors and all players."""
    wanted = np.unique(np.asarray(sizes))
    if not wanted.size or not np.issubdtype(wanted.dtype, np.integer):
        raise ValueError(f"sizes must be one or more integers; got {sizes!r}.")
    low, high = max(1, int(floors.sum())), game.n_players
    if wanted[0] < low or wanted[-1] > high:
        raise ValueError(
            f"sizes={wanted.tolist()} must lie between {low} (the floors of "
            f"{floors.size} groups) and the {high} players; change the sizes or "
            "min_per_group."
        )
    return wanted.astype(np.intp)
