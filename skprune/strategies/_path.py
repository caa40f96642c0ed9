"""What a search found: a coalition for every size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skprune.games import Game

__all__ = ["CompressionPath"]


@dataclass(frozen=True)
class CompressionPath:
    """Coalitions by size, from one search.

    Parameters
    ----------
    sizes : ndarray of int of shape (n_sizes,)
        Number of players kept, ascending and distinct.
    masks : ndarray of bool of shape (n_sizes, n_players)
        True where a player stays; nested or not.
    payoffs : ndarray of float64 of shape (n_sizes,)
        What each coalition earns in the game that was searched.

    Examples
    --------
    >>> import numpy as np
    >>> from skprune.games import un_security_council
    >>> from skprune.strategies import CompressionPath
    >>> masks = np.arange(15) < np.array([[5], [9]])
    >>> path = CompressionPath.of(un_security_council(), masks)
    >>> path.payoffs
    array([0., 1.])
    """

    sizes: NDArray[np.intp]
    masks: NDArray[np.bool_]
    payoffs: NDArray[np.float64]

    @classmethod
    def of(cls, game: Game, masks: Iterable[NDArray[np.bool_]]) -> CompressionPath:
        """Play masks in a game and sort them by size.

        Parameters
        ----------
        game : Game
            The game that says what they earn.
        masks : iterable of ndarray of bool of shape (n_players,)
            One or more coalitions; of two of one size the better one is kept.

        Returns
        -------
        path : CompressionPath
        """
        coalitions = np.array(list(masks), dtype=bool)
        return cls.sorted(coalitions, game(coalitions))

    @classmethod
    def sorted(
        cls, masks: NDArray[np.bool_], payoffs: NDArray[np.float64]
    ) -> CompressionPath:
        """Sort masks by size; the better of two of one size is kept.

        Parameters
        ----------
        masks : ndarray of bool of shape (n_masks, n_players)
            Coalitions in any order.
        payoffs : ndarray of float64 of shape (n_masks,)
            What they earn.

        Returns
        -------
        path : CompressionPath
        """
        sizes = masks.sum(axis=1)
        order = np.lexsort((-payoffs, sizes))
        first = np.unique(sizes[order], return_index=True)[1]
        best = order[first]
        return cls(sizes[best], masks[best], payoffs[best])

    def mask_at(self, size: int) -> NDArray[np.bool_]:
        """The players kept at one size.

        Parameters
        ----------
        size : int
            One of `sizes`.

        Returns
        -------
        keep : ndarray of bool of shape (n_players,)

        Raises
        ------
        ValueError
            If the path holds no such size; the message lists those it holds.
        """
        found = np.flatnonzero(self.sizes == size)
        if not found.size:
            raise ValueError(
                f"size={size} is not on the path; it holds {self.sizes.tolist()}."
            )
        return self.masks[found[0]]
