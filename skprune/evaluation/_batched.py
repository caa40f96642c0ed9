"""Payoffs on any module: many masked forward passes at once, and no more of each.

Walks and flips run again only what the player that comes or goes can change
(`_stages`); a coalition that all samples play runs on smaller layers where that is
less work (`_compaction`). Work is cut into tiles of coalitions and blocks of samples,
which fit the memory budget and which threads share; a payoff depends on no cut.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import numpy as np
import torch

from skprune.evaluation._compaction import Compaction
from skprune.evaluation._division import staged
from skprune.evaluation._lineup import BLOCK_SIZE, Lineup, rows_of, samples_of
from skprune.evaluation._memory import (
    default_budget,
    is_out_of_memory,
    release_memory,
)
from skprune.evaluation._payoffs import Payoff
from skprune.evaluation._tiles import Tile, share_out, tiles_of
from skprune.networks import MaskedModule, tensors_in

__all__ = ["BLOCK_SIZE", "BatchedBackend"]

# Bytes of the marginals that are kept for each block before they are summed.
_RESULT_BYTES = 2**25


class _Seat:
    """A replica of the module, which one thread at a time plays on."""

    def __init__(self, prototype, features):
        self.staged = prototype.replica()
        self.compaction = Compaction(self.staged, features)


class BatchedBackend:
    """Masked forward passes of the rest of a module, batched over coalitions.

    Parameters
    ----------
    split : SplitModule
        The module, cut in front of its first layer that reads players. It is copied,
        but for its weights.
    features : tensor, list or dict of tensors
        What the rest reads, for all samples.
    targets : tensor of shape (n_samples, ...)
        What it should answer.
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

    name = "batched"

    def __init__(
        self, split, features, targets, task, payoff, memory_budget=None, n_threads=None
    ):
        self.split, self.task = split, task
        self.payoff: Payoff = payoff
        # A module takes a list as its arguments: one tensor is a list of one.
        features = [features] if isinstance(features, torch.Tensor) else features
        self.features, self.targets = features, targets
        self.n_samples = len(targets)
        self.n_blocks = -(-self.n_samples // BLOCK_SIZE)
        if memory_budget is None:
            memory_budget = default_budget(tensors_in(features)[0].device)
        self.memory_budget, self.n_threads = memory_budget, n_threads
        self._staged = staged(split, features)
        seat = _Seat(self._staged, features)
        self._free_seats, self._pays = [seat], seat.compaction.pays
        with torch.no_grad():
            outputs, _ = seat.staged.whole.run(rows_of(features, [0]), [])
        self._no_logits = self._logits_of(outputs)[:0]

    def payoffs(self, coalitions):
        """Payoffs (m,) of coalitions (m, n_players)."""
        if self.payoff.metric is not None:
            return np.array([self._metric(coalition) for coalition in coalitions])
        out = np.empty(len(coalitions))
        for games in self._batches(len(coalitions), 1):
            batch = coalitions[games]
            sums = np.empty((len(batch), self.n_blocks))

            def play(seat, tile, batch=batch, sums=sums):
                for blocks, logits in self._calls(seat, tile, batch):
                    rows = np.tile(np.arange(blocks.start, blocks.stop), len(logits))
                    earned = self._earn(logits.flatten(0, 1), rows)
                    sums[tile.games, blocks] = earned.reshape(len(logits), -1)

            self._share(self._tiles_of_calls(batch), play)
            out[games] = sums.sum(axis=1)
        return out / self.n_samples

    def logits(self, coalitions):
        """Logits (m, n_samples, n_outputs) of coalitions (m, n_players), a tensor."""
        shape = len(coalitions), self.n_blocks * BLOCK_SIZE, self._no_logits.shape[1]
        out = self._no_logits.new_empty(shape)

        def play(seat, tile):
            for blocks, logits in self._calls(seat, tile, coalitions):
                own = slice(blocks.start * BLOCK_SIZE, blocks.stop * BLOCK_SIZE)
                out[torch.from_numpy(tile.games), own] = logits

        self._share(self._tiles_of_calls(coalitions), play)
        return out[:, : self.n_samples]

    def walk(self, start, free, orders):
        """Marginals (m, k) of free players along orders (m, n_blocks or 1, k)."""

        def play(seat, tile, orders):
            return self._walk(seat, tile, start, free, orders)

        return self._marginals(orders, len(free), play)

    def flip(self, free, coalitions):
        """Marginals (m, k) around coalitions (m, n_blocks or 1, n_players)."""

        def play(seat, tile, coalitions):
            return self._flip(seat, tile, free, coalitions)

        return self._marginals(coalitions, len(free), play)

    def _marginals(self, samples, k, marginals_of):
        """Marginals (m, k) of all samples from those of each block."""
        out = np.empty((len(samples), k))
        for games in self._batches(len(samples), k):
            batch = samples[games]
            parts = np.empty((len(batch), self.n_blocks, k))

            def play(seat, tile, batch=batch, parts=parts):
                own = marginals_of(seat, tile, batch)
                parts[tile.games, tile.blocks] = own.reshape(-1, tile.n_blocks, k)

            self._share(self._tiles_of_lineups(len(batch), k), play)
            # Added up block after block, so that no cut changes a bit.
            out[games] = parts.sum(axis=1)
        return out / self.n_samples

    def _walk(self, seat, tile, start, free, orders):
        """Marginals (n_rows, k) of a tile, each block along its own order.

        Rows need not keep step: of all stages that rows wait for, the one that most
        wait for comes next.
        """
        orders = tile.rows(orders)
        keep = np.tile(start, (len(orders), 1))
        keep[:, free] = False
        position = np.zeros(len(orders), dtype=int)
        marginals = np.empty(orders.shape)
        with self._lineup(seat, tile) as lineup:
            before = lineup.start(keep)
            stages, stage_of = seat.staged.stages, seat.staged.stage_of[free]
            while len(rows := np.flatnonzero(position < len(free))):
                waiting = stage_of[orders[rows, position[rows]]]
                number = np.bincount(waiting).argmax()
                rows = rows[waiting == number]
                joins = orders[rows, position[rows]]
                keep[rows, free[joins]] = True
                after = lineup.play(
                    stages[number], rows, keep[rows], free[joins], store=True
                )
                marginals[rows, joins] = after - before[rows]
                before[rows] = after
                position[rows] += 1
        return marginals

    def _flip(self, seat, tile, free, coalitions):
        """Marginals (n_rows, k) of a tile, each block around its own coalition."""
        keep = tile.rows(coalitions).copy()
        marginals = np.empty((len(keep), len(free)))
        with self._lineup(seat, tile) as lineup:
            center = lineup.start(keep)
            for number, stage in enumerate(seat.staged.stages):
                own = seat.staged.stage_of[free] == number
                present = keep[:, free]
                for part, moves in [
                    (stage, np.nonzero(~present & own)),
                    (stage.for_leavers, np.nonzero(present & own)),
                ]:
                    step = lineup.step(part)
                    for first in range(0, len(moves[0]), step):
                        row, column = (x[first : first + step] for x in moves)
                        flipped, movers = keep[row], free[column]
                        flipped[np.arange(len(row)), movers] ^= True
                        after = lineup.play(part, row, flipped, movers)
                        marginals[row, column] = after - center[row]
        marginals[keep[:, free]] *= -1
        return marginals

    @contextmanager
    def _lineup(self, seat, tile):
        """The rows of a tile, ready to play."""
        with MaskedModule(seat.staged.rest, seat.staged.players) as masks:
            yield Lineup(
                seat.staged,
                masks,
                self.features,
                tile.row_blocks(),
                self.n_samples,
                lambda outputs, blocks: self._earn(self._logits_of(outputs), blocks),
                self.memory_budget,
            )

    def _calls(self, seat, tile, coalitions):
        """Yield blocks and their logits (n_games, n_rows, n_outputs)."""
        keep, whole = coalitions[tile.games], seat.staged.whole
        with MaskedModule(seat.staged.rest, seat.staged.players) as masks:
            playing = seat.compaction.shrunk(keep[0]) if tile.compact else nullcontext()
            masks.set_masks(None if tile.compact else keep)
            step = max(1, self._capacity() // len(keep))
            with playing, torch.no_grad():
                for first in range(tile.blocks.start, tile.blocks.stop, step):
                    blocks = slice(first, min(first + step, tile.blocks.stop))
                    index = samples_of(np.arange(blocks.start, blocks.stop))
                    index = np.tile(index.clip(max=self.n_samples - 1), len(keep))
                    features = rows_of(whole.features_in(self.features), index)
                    logits = self._logits_of(whole.run(features, [])[0])
                    yield blocks, logits.unflatten(0, (len(keep), -1))

    def _metric(self, coalition):
        """A metric of all predictions of one coalition."""
        logits = self.logits(coalition[None])[0].double().cpu().numpy()
        return self.payoff.metric(logits, self.targets.cpu().numpy())

    def _logits_of(self, outputs):
        """Outputs as logits."""
        return outputs if self.split.logits else self.task.logits(outputs)

    def _earn(self, logits, blocks):
        """Payoffs (n_rows,) of rows of blocks, summed over their samples."""
        samples = samples_of(blocks).reshape(-1, BLOCK_SIZE)
        y = rows_of(self.targets, samples.clip(max=self.n_samples - 1).ravel())
        y, logits = (x.unflatten(0, samples.shape) for x in (y, logits))
        values = self.payoff.per_sample(logits, y).double().cpu().numpy()
        return np.where(samples < self.n_samples, values, 0.0).sum(axis=1)

    def _batches(self, n_games, k):
        """Cut coalitions or orders so that what each block earns can be kept."""
        step = max(1, _RESULT_BYTES // (8 * self.n_blocks * max(1, k)))
        return [slice(i, i + step) for i in range(0, n_games, step)]

    def _tiles_of_calls(self, coalitions):
        """One tile for each coalition that plays alone, and tiles of the others."""
        alone = np.array(
            [self._pays(keep, self.n_samples) for keep in coalitions], dtype=bool
        )
        everywhere = slice(0, self.n_blocks)
        for game in np.flatnonzero(alone):
            yield Tile(np.array([game]), everywhere, compact=True)
        yield from self._tiles(np.flatnonzero(~alone), self._capacity())

    def _tiles_of_lineups(self, n_games, k):
        """Tiles whose rows can keep what they need."""
        n_players = self.split.players.n_players
        each = BLOCK_SIZE * self._staged.slot_bytes + 2 * n_players + 16 * k
        return self._tiles(np.arange(n_games), max(1, self.memory_budget // each))

    def _tiles(self, games, capacity):
        """Tiles of so many rows, and enough of them for all threads."""
        share = -(-len(games) * self.n_blocks // (self.n_threads or 1))
        return tiles_of(games, self.n_blocks, max(1, min(capacity, share)))

    def _capacity(self):
        """Rows of a block that run through the whole at once."""
        each = BLOCK_SIZE * self._staged.whole.bytes_per_sample
        return max(1, self.memory_budget // each)

    def _share(self, tiles, play):
        """Play tiles, each by a thread on a seat of its own."""

        def play_one(tile):
            with self._seat() as seat:
                self._within_memory(play, seat, tile)

        share_out(play_one, tiles, self.n_threads)

    @contextmanager
    def _seat(self):
        """A seat that no other thread sits on."""
        try:
            seat = self._free_seats.pop()
        except IndexError:
            seat = _Seat(self._staged, self.features)
        try:
            yield seat
        finally:
            self._free_seats.append(seat)

    def _within_memory(self, play, seat, tile):
        """Play a tile; where memory is short, its halves within half of the budget."""
        try:
            return play(seat, tile)
        except (RuntimeError, MemoryError) as error:
            least = BLOCK_SIZE * self._staged.whole.bytes_per_sample
            smallest = self.memory_budget <= least and tile.n_rows == 1
            if smallest or not is_out_of_memory(error):
                raise
        # Not while the exception is handled: it holds what was to be released.
        release_memory()
        self.memory_budget = max(least, self.memory_budget // 2)
        for part in tile.halves():
            self._within_memory(play, seat, part)
        return None
