"""Columns of sparse samples as players: what is not stored never plays.

A column that a sample does not store adds nothing to it, present or absent. So a walk
changes a sample only where one of its m stored columns joins: the sums of its first
layer are a cumulative sum of m columns of the weight, in the order in which these join,
and only what lies behind that layer runs, on m + 1 rows. A walk or a flip costs one row
for each stored entry, however many columns there are.
"""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import torch

from skprune.evaluation._input_tail import InputTail, reading_layer
from skprune.evaluation._lineup import BLOCK_SIZE
from skprune.evaluation._memory import (
    default_budget,
    is_out_of_memory,
    release_memory,
)
from skprune.evaluation._sparse_rows import SparseRows
from skprune.evaluation._stored_entries import StoredEntries
from skprune.evaluation._tiles import share_out
from skprune.networks import MaskedModule, agree, map_tensors

__all__ = ["SparseInputsBackend"]

# Numbers of an array of orders or coalitions of all blocks, and bytes of what is kept
# for each entry or sample before it is summed.
_BLOCK_ELEMENTS, _RESULT_BYTES = 2**22, 2**26


class SparseInputsBackend:
    """Payoffs of the columns of sparse samples, read by a Linear layer.

    Parameters
    ----------
    tail : InputTail
        What lies behind the layer.
    layer : torch.nn.Linear
        The layer.
    rows : SparseRows
        What it reads, for all samples.
    targets : tensor of shape (n_samples, ...)
        What the module should answer.
    task : Task
        What its outputs mean.
    payoff : Payoff
        What a coalition earns.
    memory_budget : int, default=None
        Bytes that one pass of one thread may take, roughly; None for a share of the
        free memory.
    n_threads : int, default=None
        Threads, each with one thread of torch's; None for one with all of torch's.
    """

    name = "sparse"

    def __init__(
        self,
        tail,
        layer,
        rows,
        targets,
        task,
        payoff,
        memory_budget=None,
        n_threads=None,
    ):
        self.split, self.task, self.payoff = tail.split, task, payoff
        self.targets, self.n_threads = targets, n_threads
        self.memory_budget = memory_budget or default_budget(targets.device)
        self.n_samples, n_columns = rows.shape
        self.block_size = _block_size(self.n_samples, n_columns)
        self.n_blocks = -(-self.n_samples // self.block_size)
        weight = layer.weight.detach()
        # Columns are summed in double precision, in which no order of theirs tells.
        self._exact = torch.float32 if weight.device.type == "mps" else torch.float64
        self._dtype, self._table = weight.dtype, weight.T.contiguous()
        bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias
        self._bias = bias.detach().to(self._exact)
        self._stored, self._last = StoredEntries.of(rows), (None, None)
        self._tail, self._free_seats = tail, [tail]
        with torch.no_grad():
            outputs = tail.measure(self._bias.to(self._dtype).expand(2, -1).clone())
            self._no_logits = self._logits_of(outputs)[:0]
        each = self._bias.element_size() * len(self._bias)
        self._row_bytes = tail.bytes_per_row + 3 * each

    @classmethod
    def fitting(cls, split, features, *args):
        """The backend for a module and its samples, or None where it does not fit.

        Parameters
        ----------
        split : SplitModule
            A module cut in front of its first layer that reads players.
        features : SparseRows, list or dict of tensors
            What it reads.
        *args : tuple
            Targets, task, payoff, memory budget and threads; see the class.

        Returns
        -------
        backend : SparseInputsBackend or None
        """
        rows = features[0] if isinstance(features, list) else features
        alone = not isinstance(features, list) or len(features) == 1
        name = reading_layer(split)
        if not alone or name is None or not isinstance(rows, SparseRows):
            return None
        layer = split.rest.get_submodule(name)
        if layer.in_features != rows.shape[1]:
            return None
        backend = cls(InputTail(split, name), layer, rows, *args)
        return backend if backend._agrees(features) else None

    def payoffs(self, coalitions):
        """Payoffs (m,) of coalitions (m, n_players)."""
        if self.payoff.metric is not None:
            return np.array([self._metric(coalition) for coalition in coalitions])
        out = np.empty(len(coalitions))
        for games in self._batches(len(coalitions), self.n_samples):
            earned = np.empty((games.stop - games.start, self.n_samples))

            def put(own, samples, logits, earned=earned):
                earned[own, samples] = self._earn(logits, samples)

            self._play(coalitions[games], put)
            out[games] = earned.sum(axis=1)
        return out / self.n_samples

    def logits(self, coalitions):
        """Logits (m, n_samples, n_outputs) of coalitions (m, n_players), a tensor."""
        shape = len(coalitions), self.n_samples, self._no_logits.shape[1]
        out = self._no_logits.new_empty(shape)

        def put(games, samples, logits):
            out[games, torch.from_numpy(samples).to(out.device)] = logits

        self._play(coalitions, put)
        return out

    def walk(self, start, free, orders):
        """Marginals (m, k) of free players along orders (m, n_blocks or 1, k)."""
        stored, fixed = self._divided(start, free)

        def ranks_of(games):
            return stored.ranks(orders[games], self.block_size)

        def play(seat, samples, entries, ranks):
            # By rank, each sample's entries in the order in which they join.
            entries = entries.gather(-1, ranks.argsort(-1))
            sums = self._increments(stored, entries)
            base = self._base(fixed, samples)[:, None]
            sums = torch.cat([base, sums], dim=1).cumsum(dim=1)
            return entries, np.diff(self._climb(seat, sums, samples))

        return self._marginals(stored, len(orders), len(free), ranks_of, play)

    def flip(self, free, coalitions):
        """Marginals (m, k) around coalitions (m, n_blocks or 1, n_players)."""
        # Who is fixed is so in all of them.
        start = coalitions[:1, 0].any(axis=0)
        start[free] = False
        stored, fixed = self._divided(start, free)

        def presence_of(games):
            return stored.present(coalitions[games], self.block_size)

        def play(seat, samples, entries, present):
            sums = self._increments(stored, entries)
            around = self._base(fixed, samples) + (sums * present[..., None]).sum(1)
            sign = torch.where(present, -1, 1).to(self._exact)
            around, sums = around[:, None], sums * sign[..., None]
            payoffs = self._climb(seat, torch.cat([around, around + sums], 1), samples)
            change = payoffs[:, 1:] - payoffs[:, :1]
            return entries, change * sign.cpu().numpy()

        return self._marginals(stored, len(coalitions), len(free), presence_of, play)

    def _marginals(self, stored, n_games, k, facts_of, play):
        """Marginals (n_games, k) from what each entry of each sample earns.

        They are added up entry after entry, so that no cut changes a bit.
        """
        out = np.empty((n_games, k))
        for games in self._batches(n_games, stored.n_entries + 1):
            facts = facts_of(games)
            gains = np.zeros(facts.shape)
            facts = torch.from_numpy(facts).to(self.targets.device)

            def play_tile(seat, tile, facts=facts, gains=gains):
                entries = stored.padded(tile.samples)
                shape = (tile.games.stop - tile.games.start, *entries.shape)
                own = facts[tile.games][:, entries].flatten(0, 1)
                entries = entries.expand(shape).flatten(0, 1)
                samples = np.tile(tile.samples, shape[0])
                entries, earned = play(seat, samples, entries, own)
                rows = np.arange(tile.games.start, tile.games.stop)
                rows = np.repeat(rows, len(tile.samples))
                gains[rows[:, None], entries.cpu().numpy()] = earned

            tiles = stored.tiles(len(facts), self._capacity(), with_empty=False)
            self._share(tiles, play_tile)
            for game, own in zip(range(games.start, games.stop), gains, strict=True):
                out[game] = np.bincount(stored.players, own[:-1], minlength=k)
        return out / self.n_samples

    def _play(self, coalitions, put):
        """Give `put` the logits of every coalition, some samples at a time."""
        stored = self._stored

        def play(seat, tile, present):
            entries = stored.padded(tile.samples)
            sums = self._increments(stored, entries)
            present = present[:, entries].to(self._exact).transpose(0, 1)
            sums = self._bias + torch.bmm(present, sums).transpose(0, 1)
            logits = self._logits_of(seat(sums.flatten(0, 1).to(self._dtype)))
            return logits.unflatten(0, sums.shape[:2])

        for games in self._batches(len(coalitions), stored.n_entries + 1):
            present = stored.present(coalitions[games, None], self.block_size)
            present = torch.from_numpy(present).to(self.targets.device)

            def play_tile(seat, tile, present=present, first=games.start):
                own = slice(first + tile.games.start, first + tile.games.stop)
                with torch.no_grad():
                    put(own, tile.samples, play(seat, tile, present[tile.games]))

            tiles = stored.tiles(len(present), self._capacity(), with_empty=True)
            self._share(tiles, play_tile)

    def _increments(self, stored, entries):
        """What entries (n, length) add to the sums, (n, length, n_units)."""
        weights = torch.nn.functional.embedding(
            stored.columns_there[entries], self._table
        )
        return weights * stored.values[entries].to(self._exact)[..., None]

    def _base(self, fixed, samples):
        """Sums (n, n_units) of samples before anybody plays."""
        base = self._bias.expand(len(samples), -1)
        if not fixed.n_entries:
            return base
        return base + self._increments(fixed, fixed.padded(samples)).sum(1)

    def _climb(self, seat, sums, samples):
        """Payoffs (n, n_rows) of sums (n, n_rows, n_units) of samples."""
        payoffs = np.empty(sums.shape[:2])
        step = max(1, self._capacity() // len(sums))
        for first in range(0, sums.shape[1], step):
            part = sums[:, first : first + step].to(self._dtype)
            with torch.no_grad():
                logits = self._logits_of(seat(part.flatten(0, 1)))
            logits = logits.unflatten(0, part.shape[:2]).transpose(0, 1)
            payoffs[:, first : first + step] = self._earn(logits, samples).T
        return payoffs

    def _earn(self, logits, samples):
        """Payoffs (..., n) of logits (..., n, n_outputs) of samples."""
        index = torch.from_numpy(samples).to(self.targets.device)
        values = self.payoff.per_sample(logits, self.targets[index])
        return values.double().cpu().numpy()

    def _logits_of(self, outputs):
        """Outputs as logits."""
        return outputs if self.split.logits else self.task.logits(outputs)

    def _metric(self, coalition):
        """A metric of all predictions of one coalition."""
        logits = self.logits(coalition[None])[0].double().cpu().numpy()
        return self.payoff.metric(logits, self.targets.cpu().numpy())

    def _divided(self, start, free):
        """Entries of the free players, and of those that are always present."""
        key = start.tobytes(), free.tobytes()
        if self._last[0] != key:
            numbers, always = np.full((2, len(start)), -1)
            numbers[free], always[start] = np.arange(len(free)), 0
            everybody = len(free) == len(start)
            stored = self._stored if everybody else self._stored.among(numbers)
            self._last = key, (stored, self._stored.among(always))
        return self._last[1]

    def _agrees(self, features):
        """Whether some masked samples get the outputs that the module gives them."""
        players = self.split.players
        keep = np.random.default_rng(0).random((1, players.n_players)) < 0.5
        whole = self._free_seats[0].whole()
        try:
            with torch.no_grad(), MaskedModule(whole.rest, players) as masks:
                masks.set_masks(keep)
                outputs = whole.run(map_tensors(lambda x: x[:2], features))
                expected = self._logits_of(outputs.reshape(len(outputs), -1))
                found = self.logits(keep)[0][: len(expected)]
        except (RuntimeError, ValueError, IndexError):
            # Something else reads the features too.
            return False
        return agree(found, expected)

    def _batches(self, n_games, each):
        """Cut games so that what they earn by entry or sample can be kept."""
        step = max(1, _RESULT_BYTES // (8 * each))
        return [slice(i, min(i + step, n_games)) for i in range(0, n_games, step)]

    def _capacity(self):
        """Rows that run through the tail at once."""
        return max(1, self.memory_budget // self._row_bytes)

    def _share(self, tiles, play):
        """Play tiles, each by a thread on a tail of its own."""

        def play_one(tile):
            with self._seat() as seat:
                self._within_memory(play, seat, tile)

        share_out(play_one, tiles, self.n_threads)

    @contextmanager
    def _seat(self):
        """A tail that no other thread plays on."""
        try:
            seat = self._free_seats.pop()
        except IndexError:
            seat = self._tail.replica()
        try:
            yield seat
        finally:
            self._free_seats.append(seat)

    def _within_memory(self, play, seat, tile):
        """Play a tile; where memory is short, its halves within half of the budget."""
        try:
            return play(seat, tile)
        except (RuntimeError, MemoryError) as error:
            alone = len(list(tile.halves())) == 1
            smallest = alone and self.memory_budget <= self._row_bytes
            if smallest or not is_out_of_memory(error):
                raise
        # Not while the exception is handled: it holds what was to be released.
        release_memory()
        self.memory_budget = max(self._row_bytes, self.memory_budget // 2)
        for part in tile.halves():
            self._within_memory(play, seat, part)
        return None


def _block_size(n_samples, n_players):
    """Samples of a block: so many that an order for each block stays small."""
    most = max(1, _BLOCK_ELEMENTS // n_players)
    size = BLOCK_SIZE
    while -(-n_samples // size) > most:
        size *= 2
    return size
