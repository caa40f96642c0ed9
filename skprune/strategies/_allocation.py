"""How many players each layer keeps: a search over splits of a total."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skprune.strategies._selection import scaled_split

__all__ = ["search_allocation"]


def search_allocation(
    payoff: Callable[[tuple[int, ...]], float],
    total: int,
    capacities: ArrayLike,
    *,
    floors: ArrayLike = 1,
    starts: Sequence[ArrayLike] = (),
    max_evaluations: int = 60,
) -> tuple[int, ...]:
    """Split a total over groups so that a payoff is high.

    A pattern search: move a share of the total from one group to another, keep the
    move if the payoff rises, and halve the share when no move does.

    Parameters
    ----------
    payoff : callable
        Takes a tuple of counts, one for each group, and returns what it earns.
    total : int
        Sum of the counts.
    capacities : array-like of int of shape (n_groups,)
        Largest count of each group.
    floors : int or array-like of int of shape (n_groups,), default=1
        Smallest count of each group.
    starts : sequence of array-like of shape (n_groups,), default=()
        Splits to start from (weights, scaled to the total). The share that each group
        has of all players, and of their square roots, are tried besides.
    max_evaluations : int, default=60
        Splits played at most.

    Returns
    -------
    counts : tuple of int of length n_groups
        The best split that was played.

    Raises
    ------
    ValueError
        If floors and capacities leave no split of the total.

    Examples
    --------
    >>> from skprune.strategies import search_allocation
    >>> search_allocation(lambda s: -abs(s[0] - 7), 10, [20, 20])
    (7, 3)
    """
    high = np.asarray(capacities, dtype=np.intp)
    low = np.minimum(np.broadcast_to(np.asarray(floors, np.intp), high.shape), high)
    if not low.sum() <= total <= high.sum():
        raise ValueError(
            f"total={total} cannot be split: the floors sum to {low.sum()} and the "
            f"capacities to {high.sum()}."
        )
    played: dict[tuple[int, ...], float] = {}

    def play(counts: NDArray[np.intp]) -> float:
        key = tuple(int(count) for count in counts)
        if key not in played:
            earned = float(payoff(key))
            played[key] = -math.inf if math.isnan(earned) else earned
        return played[key]

    weights = [np.sqrt(high), high, *(np.asarray(start, float) for start in starts)]
    for weight in weights[: max(1, max_evaluations)]:
        play(scaled_split(weight, total, low, high))
    step = max(1, total // 6)
    best = max(played, key=played.__getitem__)
    while step and len(played) < max_evaluations:
        before = best
        for giver, taker in itertools.permutations(range(high.size), 2):
            moved = np.array(best)
            moved[giver] -= step
            moved[taker] += step
            inside = moved[giver] >= low[giver] and moved[taker] <= high[taker]
            if inside and len(played) < max_evaluations and play(moved) > played[best]:
                best = tuple(int(count) for count in moved)
        if best == before:
            step //= 2
    return best
