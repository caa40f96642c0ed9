"""Blocks of samples that each play a coalition of their own, and what they keep."""

from __future__ import annotations

import numpy as np
import torch

from skprune.evaluation._lanes import LANES
from skprune.networks import map_tensors

__all__ = ["BLOCK_SIZE", "Lineup", "dealt_rows", "rows_of", "samples_of"]

# Samples that play one order or coalition together: the lanes of the compiled kernels,
# so that results do not depend on the backend.
BLOCK_SIZE = LANES


def dealt_rows(targets):
    """Rows of samples, dealt to the blocks like sorted cards to players.

    Each block gets every class in proportion (or the whole range of a regression).
    Samples of one class gain and lose by the same players, so that a block that plays
    its own orders tells more if its samples differ: on MNIST the variance of a Shapley
    value is a third of that with blocks of one class each.

    Parameters
    ----------
    targets : tensor of shape (n_samples, ...)
        Class indices or values.

    Returns
    -------
    rows : tensor of int of shape (n_samples,)
        The samples in their new order.
    """
    values = targets.reshape(len(targets), -1)[:, 0].cpu().numpy()
    order = np.argsort(values, kind="stable")
    n_blocks = -(-len(order) // BLOCK_SIZE)
    hands = [order[first::n_blocks] for first in range(n_blocks)]
    return torch.from_numpy(np.concatenate(hands))


class Lineup:
    """Rows of one block of samples under one coalition.

    Parameters
    ----------
    staged : StagedModule
        What they play on.
    masks : MaskedModule
        Hooks on its `rest`.
    features : tensor, list or dict of tensors
        What it reads, for all samples.
    blocks : ndarray of int of shape (n_rows,)
        The block of each row.
    n_samples : int
        Number of samples; those that the last block lacks repeat the last one.
    earn : callable
        From outputs and blocks to payoffs (n_rows,), summed over samples.
    budget : int
        Bytes that one pass may take, roughly.

    Attributes
    ----------
    slots : list of tensors
        What the rows keep: the tensors between the stages.
    """

    def __init__(self, staged, masks, features, blocks, n_samples, earn, budget):
        self.staged, self.masks, self.features = staged, masks, features
        self.blocks, self.n_samples = blocks, n_samples
        self.earn, self.budget = earn, budget
        self.slots = [None] * len(staged.whole.writes)

    def start(self, keep):
        """Payoffs (n_rows,) of all rows under coalitions (n_rows, n_players)."""
        rows = np.arange(len(keep))
        return self.play(self.staged.whole, rows, keep, rows, store=True)

    def play(self, stage, rows, keep, movers, *, store=False):
        """Payoffs of some rows after one player of each came or went.

        Parameters
        ----------
        stage : Stage
            The stage of all these players; the one for leavers, if they went.
        rows : ndarray of int of shape (n_plays,)
            The rows; one may come several times unless `store`.
        keep : ndarray of bool of shape (n_plays, n_players)
            Who is present now.
        movers : ndarray of int of shape (n_plays,)
            Who came or went.
        store : bool, default=False
            Whether the rows stay in these coalitions.

        Returns
        -------
        payoffs : ndarray of shape (n_plays,)
            Summed over the samples of a block.
        """
        step, payoffs = self.step(stage), np.empty(len(rows))
        for first in range(0, len(rows), step):
            part = slice(first, first + step)
            outputs = self._run(stage, rows[part], keep[part], movers[part], store)
            payoffs[part] = self.earn(outputs, self.blocks[rows[part]])
        return payoffs

    def step(self, stage):
        """Number of rows that a stage runs at once."""
        return max(1, self.budget // (BLOCK_SIZE * stage.bytes_per_sample))

    def _run(self, stage, rows, keep, movers, store):
        """Outputs of a stage for some rows."""
        samples = samples_of(self.blocks[rows]).clip(max=self.n_samples - 1)
        lanes = samples_of(rows)
        self.masks.set_masks(keep)
        with torch.no_grad():
            features = rows_of(stage.features_in(self.features), samples)
            slots = rows_of([self.slots[i] for i in stage.reads], lanes)
            for entry in stage.entries:
                slot = slots[stage.reads.index(entry.slot)]
                self._update(entry, slot, samples, lanes, movers)
                # Kept before the module may work on it in place.
                if store:
                    self._store(entry.slot, lanes, slot)
            outputs, written = stage.run(features, slots)
            if store:
                for number, tensor in zip(stage.writes, written, strict=True):
                    self._store(number, lanes, tensor)
        return outputs

    def _update(self, entry, outputs, samples, lanes, movers):
        """Let players come to the layer in front of a stage."""
        if entry.from_features:
            inputs, index = self.features[entry.source], samples
        else:
            inputs, index = self.slots[entry.source], lanes
        index, movers = (
            torch.from_numpy(x).to(inputs.device)
            for x in (index.reshape(-1, BLOCK_SIZE), movers)
        )
        entry.update(outputs, inputs, index, movers)

    def _store(self, number, lanes, tensor):
        """Keep a tensor in a slot, at some lanes."""
        if self.slots[number] is None:
            n_rows = len(self.blocks) * BLOCK_SIZE
            self.slots[number] = tensor.new_empty((n_rows, *tensor.shape[1:]))
        slot = self.slots[number]
        slot.index_copy_(0, torch.from_numpy(lanes).to(slot.device), tensor)


def samples_of(blocks):
    """Numbers of the samples in blocks, or of the lanes in rows."""
    return (blocks[:, None] * BLOCK_SIZE + np.arange(BLOCK_SIZE)).ravel()


def rows_of(tensors, index):
    """Copies of some rows of every tensor; a module may work in place on them."""
    index = torch.as_tensor(index)
    return map_tensors(lambda x: x.index_select(0, index.to(x.device)), tensors)
