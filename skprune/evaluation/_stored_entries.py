"""What sparse samples store, cut into tiles of samples that store about as much."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from skprune.games import BlockOrders

__all__ = ["SampleTile", "StoredEntries", "inverse_orders"]


@dataclass(frozen=True)
class SampleTile:
    """Games on samples: each of the games is played on each of the samples.

    Parameters
    ----------
    games : slice
        Numbers of the games (orders or coalitions).
    samples : ndarray of int of shape (n_samples,)
        Numbers of the samples.
    """

    games: slice
    samples: np.ndarray

    def halves(self):
        """Two smaller tiles, or this one again where it is one game on one sample."""
        middle = (self.games.start + self.games.stop) // 2
        if len(self.samples) > 1:
            for samples in np.array_split(self.samples, 2):
                yield SampleTile(self.games, samples)
        elif middle > self.games.start:
            yield SampleTile(slice(self.games.start, middle), self.samples)
            yield SampleTile(slice(middle, self.games.stop), self.samples)
        else:
            yield self


class StoredEntries:
    """The entries that samples store of those columns that play.

    Parameters
    ----------
    values : tensor of shape (n_entries,)
        What is stored, sample after sample.
    columns : ndarray of int of shape (n_entries,)
        Column of each value.
    starts : ndarray of int of shape (n_samples + 1,)
        Where each sample begins among the values, and where the last one ends.
    players : ndarray of int of shape (n_entries,), default=None
        Number of each column among the players; the column itself by default.

    Attributes
    ----------
    n_entries, n_samples : int
        Numbers of values and of samples.
    counts : ndarray of int of shape (n_samples,)
        Number of values of each sample.
    """

    def __init__(self, values, columns, starts, players=None):
        self.n_entries, self.n_samples = len(columns), len(starts) - 1
        self.columns, self.starts = columns, starts
        self.players = columns if players is None else players
        self.counts = np.diff(starts)
        # One entry more, of value 0: it fills samples up to the length of a tile.
        self.values = torch.nn.functional.pad(values, (0, 1))
        self.columns_there = torch.from_numpy(np.append(columns, 0)).to(values.device)

    @classmethod
    def of(cls, rows):
        """Read sparse rows, without zeros, and with each column once in a row.

        Parameters
        ----------
        rows : SparseRows
            The samples; not changed.

        Returns
        -------
        entries : StoredEntries
        """
        values, columns, starts = rows.entries()
        parts = (x.cpu().numpy() for x in (values, columns, starts))
        matrix = sparse.csr_matrix(tuple(parts), shape=rows.shape)
        if not (matrix.has_canonical_format and matrix.data.all()):
            matrix = matrix.copy()
            matrix.sum_duplicates()
            matrix.eliminate_zeros()
        return cls(
            torch.from_numpy(matrix.data).to(values.device),
            matrix.indices.astype(np.int64),
            matrix.indptr.astype(np.int64),
        )

    def among(self, numbers):
        """The entries of some columns.

        Parameters
        ----------
        numbers : ndarray of int of shape (n_columns,)
            The number of each column among the players, or -1 for none.

        Returns
        -------
        entries : StoredEntries
        """
        players = numbers[self.columns]
        kept = players >= 0
        starts = np.append(0, np.cumsum(kept))[self.starts]
        values = self.values[:-1][torch.from_numpy(kept).to(self.values.device)]
        return StoredEntries(values, self.columns[kept], starts, players[kept])

    def padded(self, samples):
        """Numbers of the entries of some samples, filled up by the entry of value 0.

        Parameters
        ----------
        samples : ndarray of int of shape (n_samples,)
            Numbers of samples.

        Returns
        -------
        entries : int tensor of shape (n_samples, length)
        """
        counts = self.counts[samples]
        places = np.arange(counts.max(initial=0))
        entries = self.starts[samples][:, None] + places
        entries[places >= counts[:, None]] = self.n_entries
        return torch.from_numpy(entries).to(self.values.device)

    def tiles(self, n_games, capacity, *, with_empty):
        """Yield tiles that cover all games and samples.

        Parameters
        ----------
        n_games : int
            Number of games.
        capacity : int
            Rows that a tile may have: one for each entry of its longest sample, and one
            more, times samples and games.
        with_empty : bool
            Whether samples without entries play too.

        Yields
        ------
        SampleTile
        """
        order = np.argsort(self.counts, kind="stable")
        order = order if with_empty else order[self.counts[order] > 0]
        rows, first = self.counts[order] + 1, 0
        while first < len(order):
            # Rows that a tile from the first sample to each of the next would have.
            ahead = rows[first : first + capacity]
            filled = ahead * np.arange(1, len(ahead) + 1)
            n_own = max(1, int(np.searchsorted(filled, capacity, side="right")))
            step = max(1, capacity // int(filled[n_own - 1]))
            for game in range(0, n_games, step):
                games = slice(game, min(game + step, n_games))
                yield SampleTile(games, order[first : first + n_own])
            first += n_own

    def ranks(self, orders, block_size):
        """When the player of each entry joins.

        Parameters
        ----------
        orders : BlockOrders or ndarray of int of shape (m, n_blocks or 1, n_players)
            The orders of each block.
        block_size : int
            Samples of a block.

        Returns
        -------
        ranks : ndarray of int of shape (m, n_entries + 1)
            Positions in the orders; of the entry of value 0 a later one.
        """
        n_players = orders.shape[-1]
        ranks = np.full((len(orders), self.n_entries + 1), n_players, dtype=np.int32)
        if isinstance(orders, BlockOrders):
            names = inverse_orders(orders.names)
            slots = self._of_blocks(names, block_size)
            for game, shared in enumerate(inverse_orders(orders.shared)):
                ranks[game, :-1] = shared[slots]
        else:
            for game, own in enumerate(orders):
                ranks[game, :-1] = self._of_blocks(inverse_orders(own), block_size)
        return ranks

    def present(self, coalitions, block_size):
        """Whether the column of each entry is present.

        Parameters
        ----------
        coalitions : ndarray of bool of shape (m, n_blocks or 1, n_columns)
            True where a column is present, for each block.
        block_size : int
            Samples of a block.

        Returns
        -------
        present : ndarray of bool of shape (m, n_entries + 1)
        """
        present = np.zeros((len(coalitions), self.n_entries + 1), dtype=bool)
        for game, own in enumerate(coalitions):
            present[game, :-1] = own[self._blocks(len(own), block_size), self.columns]
        return present

    def _of_blocks(self, tables, block_size):
        """What the table of its block, (n_blocks or 1, n_players), says of an entry."""
        return tables[self._blocks(len(tables), block_size), self.players]

    def _blocks(self, n_blocks, block_size):
        """The block of each entry; all are in the first one where there is one."""
        if n_blocks == 1:
            return 0
        return np.repeat(np.arange(self.n_samples) // block_size, self.counts)


def inverse_orders(orders):
    """When each player joins, for each of some orders (m, n_players)."""
    ranks = np.empty(orders.shape, dtype=np.int32)
    places = np.arange(orders.shape[1], dtype=np.int32)
    for own, order in zip(ranks, orders, strict=True):
        own[order] = places
    return ranks
