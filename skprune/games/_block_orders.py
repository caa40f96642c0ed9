"""Orders of many blocks of samples, held as what they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["BlockOrders"]


class BlockOrders:
    """Orders of blocks: those of each sample, with the players renamed in each block.

    Block b plays ``names[b][shared[m]]`` in sample m. If both are drawn uniformly, so
    is every order, and any two of them are independent: means over samples and blocks
    vary as those of independent orders do. But they take no memory for each block and
    no time to draw. An array of all orders is made where one is asked for.

    Parameters
    ----------
    shared : array-like of int of shape (n_samples, n_players)
        Permutations of the players.
    names : array-like of int of shape (n_blocks, n_players)
        A permutation of the players for each block.

    Attributes
    ----------
    shape : tuple of int
        (n_samples, n_blocks, n_players), that of the array.

    Raises
    ------
    ValueError
        If the shapes do not fit together or a row is no permutation.

    Examples
    --------
    >>> import numpy as np
    >>> from skprune.games import BlockOrders
    >>> np.asarray(BlockOrders([[2, 0, 1]], [[0, 1, 2], [1, 2, 0]]))
    array([[[2, 0, 1],
            [0, 1, 2]]])
    """

    ndim = 3
    dtype = np.dtype(np.intp)

    def __init__(self, shared: ArrayLike, names: ArrayLike) -> None:
        self.shared = _permutations("shared", shared)
        self.names = _permutations("names", names)
        if self.shared.shape[1] != self.names.shape[1]:
            raise ValueError(
                f"shared and names must have as many columns as there are players; got "
                f"{self.shared.shape[1]} and {self.names.shape[1]}."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the array of all orders."""
        return (*self.shared.shape[:1], *self.names.shape)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.shared)

    def __getitem__(self, key: Any) -> NDArray[np.intp] | BlockOrders:
        """Part of the array of all orders; a slice of samples are block orders."""
        if isinstance(key, slice):
            return BlockOrders(self.shared[key], self.names)
        first, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(first, (int, np.integer)):
            return self.names[:, self.shared[first]][tuple(rest)]
        return np.asarray(self)[key]

    def __iter__(self) -> Iterator[NDArray[np.intp]]:
        """The orders of all blocks, sample by sample."""
        return (self.names[:, shared] for shared in self.shared)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All orders, shape (n_samples, n_blocks, n_players)."""
        if copy is False:
            raise ValueError("an array of block orders is always a new one.")
        orders = np.empty(self.shape, dtype=dtype or np.intp)
        for block, names in enumerate(self.names):
            orders[:, block] = names[self.shared]
        return orders


def _permutations(name: str, rows: ArrayLike) -> NDArray[np.intp]:
    """Rows of whole numbers that hold each from 0 up once."""
    array = np.asarray(rows)
    n_players = array.shape[-1] if array.ndim else 0
    whole = np.issubdtype(array.dtype, np.integer)
    if array.ndim != 2 or not whole or (np.sort(array) != np.arange(n_players)).any():
        raise ValueError(
            f"{name} must hold a permutation of the players in each row; got dtype "
            f"{array.dtype} and shape {array.shape}."
        )
    return array.astype(np.intp, copy=False)
