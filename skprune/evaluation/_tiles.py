"""Work cut into tiles of coalitions and blocks of samples, and shared by threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch

__all__ = ["Tile", "share_out", "tiles_of"]


@dataclass(frozen=True)
class Tile:
    """Coalitions or orders, by their numbers, on a range of blocks of samples.

    Parameters
    ----------
    games : ndarray of int of shape (n_games,)
        Numbers of the coalitions or orders.
    blocks : slice
        The blocks.
    compact : bool, default=False
        Whether its one coalition plays on smaller layers.
    """

    games: np.ndarray
    blocks: slice
    compact: bool = False

    @property
    def n_blocks(self):
        """Number of blocks."""
        return self.blocks.stop - self.blocks.start

    @property
    def n_rows(self):
        """Number of rows of one block under one coalition."""
        return len(self.games) * self.n_blocks

    def halves(self):
        """Two smaller tiles, or this one again where it is a block of one coalition."""
        if self.n_blocks > 1:
            middle = (self.blocks.start + self.blocks.stop) // 2
            yield replace(self, blocks=slice(self.blocks.start, middle))
            yield replace(self, blocks=slice(middle, self.blocks.stop))
        else:
            for games in np.array_split(self.games, min(2, len(self.games))):
                yield replace(self, games=games)

    def rows(self, samples):
        """Orders or coalitions (m, n_blocks or 1, k), row by row of a line-up."""
        own = samples[self.games]
        if samples.shape[1] > 1:
            own = own[:, self.blocks]
        shape = (len(own), self.n_blocks, own.shape[-1])
        return np.broadcast_to(own, shape).reshape(-1, own.shape[-1])

    def row_blocks(self):
        """The block of each row."""
        return np.tile(np.arange(self.blocks.start, self.blocks.stop), len(self.games))


def tiles_of(games, n_blocks, capacity):
    """Yield tiles that cover all games and blocks.

    Parameters
    ----------
    games : ndarray of int of shape (n_games,)
        Numbers of coalitions or orders.
    n_blocks : int
        Number of blocks of samples.
    capacity : int
        Rows of one block that a tile may have.

    Yields
    ------
    Tile
    """
    n_games, n_own = max(1, capacity // n_blocks), min(capacity, n_blocks)
    for first in range(0, len(games), n_games):
        for start in range(0, n_blocks, n_own):
            blocks = slice(start, min(start + n_own, n_blocks))
            yield Tile(games[first : first + n_games], blocks)


def share_out(play, tiles, n_threads):
    """Play tiles, in threads where that is asked for.

    Parameters
    ----------
    play : callable
        Takes a tile.
    tiles : iterable of Tile
        The work.
    n_threads : int or None
        Number of threads, each with one thread of torch's; None to play in this one,
        with all of torch's.
    """
    if n_threads is None:
        for tile in tiles:
            play(tile)
        return
    before = torch.get_num_threads()
    pinned = {"initializer": torch.set_num_threads, "initargs": (1,)}
    try:
        with ThreadPoolExecutor(n_threads, **pinned) as pool:
            list(pool.map(play, list(tiles)))
    finally:
        # Threads that are made later start with the number that was set last.
        torch.set_num_threads(before)
