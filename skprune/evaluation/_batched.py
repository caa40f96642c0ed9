"""Payoffs on any module: many masked forward passes at once."""

from __future__ import annotations

import numpy as np
import torch

from skprune.evaluation._lanes import LANES
from skprune.evaluation._payoffs import Payoff
from skprune.networks import MaskedModule, evaluating, map_tensors, tensors_in

__all__ = ["BLOCK_SIZE", "BatchedBackend"]

# Samples that play one order or coalition together: the lanes of the compiled kernels,
# so that results do not depend on the backend.
BLOCK_SIZE = LANES


class BatchedBackend:
    """Masked forward passes of the rest of a module, batched over coalitions.

    Parameters
    ----------
    split : SplitModule
        The module, cut in front of its first layer that reads players.
    features : tensor, list or dict of tensors
        What the rest reads, for all samples.
    targets : tensor of shape (n_samples, ...)
        What it should answer.
    task : Task
        What its outputs mean.
    payoff : Payoff
        What a coalition earns.
    memory_budget : int
        Bytes that one pass may take, roughly.
    """

    name = "batched"

    def __init__(self, split, features, targets, task, payoff, memory_budget):
        self.split, self.task = split, task
        self.payoff: Payoff = payoff
        self.features, self.targets = features, targets
        self.n_samples = len(targets)
        self.n_blocks = -(-self.n_samples // BLOCK_SIZE)
        self._rows = max(BLOCK_SIZE, memory_budget // self._bytes_per_row())

    def payoffs(self, coalitions):
        """Payoffs (m,) of coalitions (m, n_players)."""
        if self.payoff.metric is None:
            return self._block_payoffs(coalitions[:, None])[:, 0] / self.n_samples
        targets = self.targets.cpu().numpy()
        out = np.empty(len(coalitions))
        for i, coalition in enumerate(coalitions):
            logits = self.logits(coalition[None])[0].double().cpu().numpy()
            out[i] = self.payoff.metric(logits, targets)
        return out

    def logits(self, coalitions):
        """Logits (m, n_samples, n_outputs) of coalitions (m, n_players), a tensor."""
        parts = [part for part, _ in self._play(coalitions[:, None])]
        n = len(coalitions)
        return torch.cat([part.reshape(n, -1, part.shape[-1]) for part in parts], 1)

    def walk(self, start, free, orders):
        """Marginals (m, k) of free players along orders (m, n_blocks or 1, k)."""
        n_orders, n_blocks, k = orders.shape
        coalitions = np.broadcast_to(start, (n_orders, n_blocks, start.size)).copy()
        coalitions[..., free] = False
        marginals = np.zeros((n_orders, k))
        before = self._block_payoffs(coalitions)
        rows, columns = np.ogrid[:n_orders, :n_blocks]
        for position in range(k):
            joins = orders[:, :, position]
            coalitions[rows, columns, free[joins]] = True
            after = self._block_payoffs(coalitions)
            np.add.at(marginals, (rows, joins), after - before)
            before = after
        return marginals / self.n_samples

    def flip(self, free, coalitions):
        """Marginals (m, k) around coalitions (m, n_blocks or 1, n_players)."""
        center = self._block_payoffs(coalitions)
        marginals = np.empty((len(coalitions), len(free)))
        for column, player in enumerate(free):
            flipped = coalitions.copy()
            flipped[..., player] ^= True
            gain = self._block_payoffs(flipped) - center
            sign = np.where(coalitions[..., player], -1.0, 1.0)
            marginals[:, column] = (sign * gain).sum(axis=1)
        return marginals / self.n_samples

    def _block_payoffs(self, coalitions):
        """Summed payoffs (m, n_blocks or 1) of coalitions (m, n_blocks or 1, n)."""
        n, n_blocks, _ = coalitions.shape
        sums = np.zeros((n, n_blocks))
        if not n:
            return sums
        for logits, start in self._play(coalitions):
            rows = logits.reshape(n, -1, logits.shape[-1])
            stop = min(start + rows.shape[1], self.n_samples)
            rows, y = rows[:, : stop - start], self.targets[start:stop]
            values = self.payoff.per_sample(rows, y).double().cpu().numpy()
            if n_blocks == 1:
                sums[:, 0] += values.sum(axis=1)
            else:
                first, edges = (
                    start // BLOCK_SIZE,
                    np.arange(0, stop - start, BLOCK_SIZE),
                )
                part = np.add.reduceat(values, edges, axis=1)
                sums[:, first : first + part.shape[1]] += part
        return sums

    def _play(self, coalitions):
        """Yield (logits, first sample) for chunks of the samples."""
        n, start = len(coalitions), 0
        while start < self.n_samples:
            # A chunk of samples is whole blocks, and one coalition always fits.
            size = max(BLOCK_SIZE, self._rows // n // BLOCK_SIZE * BLOCK_SIZE)
            size = min(size, self.n_blocks * BLOCK_SIZE - start)
            try:
                logits = self._run(coalitions, start, size)
            except torch.OutOfMemoryError:
                if self._rows <= BLOCK_SIZE:
                    raise
                self._rows //= 2
                torch.cuda.empty_cache()
                continue
            yield logits, start
            start += size

    def _run(self, coalitions, start, size):
        """Logits of `size` samples from `start` on, in every coalition."""
        n, n_blocks, n_players = coalitions.shape
        step = max(1, self._rows // size)
        once = map_tensors(
            lambda x: _padded(x[start : start + size], size), self.features
        )
        parts = []
        for first in range(0, n, step):
            chunk = coalitions[first : first + step]
            if n_blocks == 1:
                keep = chunk[:, 0]
            else:
                blocks = slice(start // BLOCK_SIZE, (start + size) // BLOCK_SIZE)
                keep = chunk[:, blocks].reshape(-1, n_players)
            parts.append(self._masked_logits(keep, _repeated(once, len(chunk))))
        whole = torch.cat(parts)
        real = min(size, self.n_samples - start)
        if n_blocks == 1 and real < size:
            whole = whole.reshape(n, size, -1)[:, :real].flatten(0, 1)
        return whole

    def _masked_logits(self, keep, rows):
        """Logits of the rest, under masks, as a matrix."""
        with (
            MaskedModule(self.split.rest, self.split.players) as masks,
            torch.no_grad(),
        ):
            masks.set_masks(keep)
            outputs = self.split.run(rows)
        outputs = outputs.reshape(len(outputs), -1)
        return outputs if self.split.logits else self.task.logits(outputs)

    def _bytes_per_row(self):
        """Bytes of all that the layers of the rest give for one sample, twice."""
        total = []
        handles = [
            layer.register_forward_hook(lambda _, __, out: total.append(_size(out)))
            for layer in self.split.rest.modules()
            if not any(True for _ in layer.children())
        ]
        try:
            with evaluating(self.split.rest), torch.no_grad():
                # A copy: a module may work in place on what it reads.
                self.split.run(map_tensors(lambda x: x[:1].clone(), self.features))
        finally:
            for handle in handles:
                handle.remove()
        total.append(
            sum(x[0].numel() * x.element_size() for x in tensors_in(self.features))
        )
        return 3 * sum(total)


def _size(outputs):
    """Bytes of a layer's outputs."""
    return sum(x.numel() * x.element_size() for x in tensors_in(outputs))


def _repeated(features, times):
    """Features with their rows repeated, batch by batch."""
    return map_tensors(lambda x: x.repeat(times, *(1,) * (x.ndim - 1)), features)


def _padded(rows, size):
    """Rows filled up with copies of the first one, to whole blocks."""
    missing = size - len(rows)
    return (
        torch.cat([rows, rows[:1].expand(missing, *rows.shape[1:])])
        if missing
        else rows
    )
