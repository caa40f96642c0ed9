"""Scores in, masks out: who stays, with a floor in every group."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["check_groups", "group_floors", "keep_best", "rank", "scaled_split"]


def keep_best(
    values: ArrayLike,
    n_keep: int,
    *,
    groups: ArrayLike | None = None,
    min_per_group: int | ArrayLike = 1,
    ties: ArrayLike | None = None,
) -> NDArray[np.bool_]:
    """Keep the best players, with a floor or a quota in every group.

    Parameters
    ----------
    values : array-like of shape (n_players,)
        Scores, larger is better.
    n_keep : int
        Number of players to keep.
    groups : array-like of int of shape (n_players,), default=None
        Group (layer) of each player; all in one by default.
    min_per_group : int or array-like of int of shape (n_groups,), default=1
        Players that stay in each group at least; a smaller group stays whole. Floors
        that sum to `n_keep` are quotas.
    ties : array-like of shape (n_players,), default=None
        Decides among equal scores: the smaller leaves first, and the later of two
        players where these are equal too.

    Returns
    -------
    keep : ndarray of bool of shape (n_players,)
        True for the players that stay.

    Raises
    ------
    ValueError
        If `n_keep` is above the number of players or below what the floors need, or a
        floor is negative.

    Examples
    --------
    >>> from skprune.strategies import keep_best
    >>> keep_best([3.0, 2.0, 1.0], 2, groups=[0, 0, 1])
    array([ True, False,  True])
    >>> keep_best([3.0, 2.0, 1.0, 0.0], 2, groups=[0, 0, 1, 1], min_per_group=[0, 2])
    array([False, False,  True,  True])
    """
    values = np.asarray(values, dtype=np.float64)
    group_of = check_groups(groups, values.size)
    floors = group_floors(group_of, min_per_group)
    if not floors.sum() <= n_keep <= values.size:
        raise ValueError(
            f"n_keep={n_keep} is not between the floor of {floors.sum()} players "
            f"(min_per_group={min_per_group!r}) and all {values.size}; change n_keep "
            "or min_per_group."
        )
    best_first = rank(values, ties)[::-1]
    keep = np.zeros(values.size, dtype=bool)
    for group, floor in enumerate(floors):
        members = best_first[group_of[best_first] == group]
        keep[members[:floor]] = True
    rest = best_first[~keep[best_first]]
    keep[rest[: n_keep - keep.sum()]] = True
    return keep


def rank(values: NDArray[np.float64], ties: ArrayLike | None) -> NDArray[np.intp]:
    """Players from the first to leave to the last: stable, ties by the second key."""
    second = np.zeros(values.size) if ties is None else np.asarray(ties, np.float64)
    return np.lexsort((-np.arange(values.size), second, values))


def check_groups(groups: ArrayLike | None, n_players: int) -> NDArray[np.intp]:
    """Groups as integers 0 to n_groups - 1 for each player.

    Parameters
    ----------
    groups : array-like of int of shape (n_players,) or None
        Group of each player; None puts all in one.
    n_players : int
        Number of players.

    Returns
    -------
    group_of : ndarray of int of shape (n_players,)
        The groups, renumbered without gaps.

    Raises
    ------
    ValueError
        If there is not one group for each player.
    """
    if groups is None:
        return np.zeros(n_players, dtype=np.intp)
    group_of = np.asarray(groups)
    if group_of.shape != (n_players,):
        raise ValueError(
            f"groups must hold one group for each of the {n_players} players; got "
            f"shape {group_of.shape}."
        )
    return np.unique(group_of, return_inverse=True)[1]


def group_floors(
    group_of: NDArray[np.intp], min_per_group: int | ArrayLike
) -> NDArray[np.intp]:
    """How many players have to stay in each group."""
    counts = np.bincount(group_of)
    floors = np.asarray(min_per_group)
    if (
        not np.issubdtype(floors.dtype, np.integer)
        or floors.shape not in ((), counts.shape)
        or (floors < 0).any()
    ):
        raise ValueError(
            f"min_per_group={min_per_group!r} must be a number of players, 0 at least, "
            f"or one for each of the {counts.size} groups."
        )
    return np.minimum(counts, floors)


def scaled_split(
    weights: ArrayLike, total: int, low: ArrayLike, high: ArrayLike
) -> NDArray[np.intp]:
    """Counts in proportion to weights, within bounds, that sum to a total.

    Parameters
    ----------
    weights : array-like of shape (n_groups,)
        What each count is proportional to.
    total : int
        Sum of the counts, between the sums of the bounds.
    low, high : array-like of int of shape (n_groups,)
        Smallest and largest counts.

    Returns
    -------
    counts : ndarray of int of shape (n_groups,)

    Examples
    --------
    >>> from skprune.strategies import scaled_split
    >>> scaled_split([512, 256], 15, [1, 1], [512, 256])
    array([10,  5])
    """
    low, high = np.asarray(low, np.intp), np.asarray(high, np.intp)
    share = np.maximum(weights, 1e-12) / np.maximum(weights, 1e-12).sum()
    counts = np.clip(np.floor(share * total).astype(np.intp), low, high)
    while counts.sum() != total:
        short = counts.sum() < total
        room = counts < high if short else counts > low
        gap = np.where(room, (share * total - counts) * (1 if short else -1), -np.inf)
        counts[gap.argmax()] += 1 if short else -1
    return counts
