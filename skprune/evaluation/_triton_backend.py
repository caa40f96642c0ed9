"""Payoffs on a tail of Linear layers on a GPU, by the Triton kernels."""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import cache
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import torch

from skprune.base import warn_user
from skprune.evaluation._graph import linear_chain
from skprune.evaluation._lanes import LANES
from skprune.evaluation._linear_tail import chain_fault, has_kernel, tail_of_chain
from skprune.evaluation._memory import (
    default_budget,
    is_out_of_memory,
    release_memory,
)
from skprune.evaluation._triton_tail import DeviceTail

__all__ = ["TritonBackend"]

_MAX_CLASSES = 1024
# Warps for each multiprocessor: enough programs to hide each other's waits.
_WARPS = 32
_SUM_SIZE = 128


class TritonBackend:
    """Walks, flips and payoffs by rank-one updates; see `_triton`.

    Parameters
    ----------
    tail : Tail
        The layers and their samples.
    offset : float
        Added to every payoff.
    device : torch.device
        A CUDA device, or the CPU in Triton's interpreter.
    memory_budget : int, default=None
        Bytes that the results of one launch may take, and the scratch memory; None for
        a share of the free memory.
    """

    name = "triton"

    def __init__(self, tail, offset, device, memory_budget=None):
        self.tail = DeviceTail(tail, device, _kernels().Net)
        self.offset, self.device = offset, device
        self.memory_budget = memory_budget or default_budget(device)
        self.n_blocks, self.n_samples = tail.n_blocks, tail.n_samples
        self.n_players = tail.n_players
        n_classes = int(tail.widths[-1])
        self._options = {
            "PAYOFF": int(tail.payoff),
            "CLASSES": max(16, 1 << (n_classes - 1).bit_length()),
            "num_stages": 1,
            # As on the CPU; what Triton does by itself changes with its version.
            "enable_fp_fusion": True,
        }
        self._warps = 2
        if device.type == "cuda":
            count = torch.cuda.get_device_properties(device).multi_processor_count
            self._warps = count * _WARPS

    @classmethod
    def fitting(
        cls, split, features, targets, payoff, plain, memory_budget=None, required=False
    ):
        """The backend for a module on a GPU, or None where another should play.

        Parameters
        ----------
        split : SplitModule
            The module, cut in front of its first layer that reads players.
        features : tensor, list or dict of tensors
            What the rest reads, for all samples.
        targets : tensor of shape (n_samples, ...)
            What it should answer.
        payoff : Payoff
            What a coalition earns.
        plain : BatchedBackend
            Plays the same game, for a comparison.
        memory_budget : int, default=None
            See above.
        required : bool, default=False
            Raise instead of returning None.

        Returns
        -------
        TritonBackend or None
            None with a `SkpruneWarning` where Linear layers on a GPU are in a row, and
            their units still cannot be played; None in silence for any other module,
            and for single weights and whole layers.

        Raises
        ------
        ValueError
            If it is required and cannot play, whatever the reason.
        """
        links = linear_chain(split)
        fault, backend = _fault(links, split, features, payoff), None
        if fault is None:
            tail, offset = tail_of_chain(links, split, features, targets, payoff)
            device = features[0].device
            backend, fault = cls._tried(plain, tail, offset, device, memory_budget)
        if fault and required:
            raise ValueError(
                f"backend='triton' cannot play this net with payoff={payoff.name!r}: "
                f"{fault}. Use backend='auto'."
            )
        units = not (split.players.weights or split.players.layers)
        expected = links is not None and has_kernel(payoff) and units
        if fault and expected and features[0].device.type == "cuda":
            warn_user(
                f"the net plays on {features[0].device} by masked forward passes, and "
                f"not by the faster Triton kernels: {fault}. With backend='batched' it "
                "does so in silence.",
            )
        return backend

    @classmethod
    def _tried(cls, plain, *args):
        """A backend and None, or None and why it does not work here."""
        try:
            backend = cls(*args)
            error = backend.largest_error(plain)
        except ImportError as exception:
            return None, f"Triton cannot be imported ({exception}); install it"
        except Exception as exception:
            # What a kernel that does not compile raises differs from one version of
            # Triton to the next, and so does what an old device makes of it.
            first = (str(exception).strip().splitlines() or [""])[0]
            return None, f"they fail here with {type(exception).__name__}: {first}"
        # Rounding may decide for another class in a sample or two.
        if error > 1e-3 + 3 / backend.n_samples:
            return None, f"their payoffs are wrong here by {error:.2g}"
        return backend, None

    def largest_error(self, plain):
        """Compile the kernels, and compare some payoffs with another backend's.

        Parameters
        ----------
        plain : backend
            What plays the same game.

        Returns
        -------
        error : float
            The largest difference, as a share of 1 plus the largest payoff.
        """
        everybody = np.arange(self.n_players)
        layers = self.tail.tail.player_layer
        start = everybody % 2 == 0
        played, expected = [], []
        # All layers, then the last one alone: it has kernels of its own.
        for free in (everybody, everybody[layers == layers.max()]):
            coalitions = np.tile(start, (5, 1))
            coalitions[0, free], coalitions[1, free] = False, True
            coalitions[2, free[0]], coalitions[3, free[0]] = False, True
            payoffs = plain.payoffs(coalitions)
            expected += [*payoffs, payoffs[1] - payoffs[0], payoffs[3] - payoffs[2]]
            order = np.arange(len(free))[None, None]
            played += [
                *self.payoffs(coalitions),
                self.walk(start, free, order).sum(),
                self.flip(free, start[None, None])[0, 0],
            ]
        return _difference(np.array(played), np.array(expected))

    def payoffs(self, coalitions):
        """Payoffs (m,) of coalitions (m, n_players)."""
        nobody = np.zeros(0, dtype=np.int64)
        return self._around(nobody, coalitions[:, None])[:, -1] + self.offset

    def walk(self, start, free, orders):
        """Marginals (m, k) of free players along orders (m, n_blocks or 1, k)."""
        moving = np.isin(np.arange(self.n_players), free)
        net, _ = self.tail.game(start, moving)
        players = self.tail.tensor(free, np.int32)
        codes = self.tail.tensor(np.where(moving, 0, 2 * start), np.uint8)
        if net.n_layers == 1:
            play, memory = _kernels().play_output_walks, (0, 0)
            given = (net, players)
        else:
            play, memory = _kernels().play_walks, (net.n_rows, self.n_players)
            given = (net, players, codes)

        def send(rows):
            return self.tail.tensor(rows, np.int32)

        return self._play(play, given, send, orders, memory, (len(free),))[:, :-1]

    def flip(self, free, coalitions):
        """Marginals (m, k) around coalitions (m, n_blocks or 1, n_players)."""
        return self._around(free, coalitions)[:, :-1]

    def _around(self, free, coalitions):
        """Marginals of free players around coalitions, and payoffs in a last column."""
        if not coalitions.size:
            return np.zeros((len(coalitions), len(free) + 1))
        reference = coalitions[0, 0]
        moving = (coalitions != reference).any(axis=(0, 1))
        moving[free] = True
        net, members = self.tail.game(reference, moving)
        positions = np.full(self.n_players, -1)
        positions[free] = np.arange(len(free))
        given = (net, members, self.tail.tensor(positions, np.int32))
        if net.n_layers == 1:
            play, n_rows = _kernels().play_output_flips, net.n_stack
        else:
            play, n_rows = _kernels().play_flips, 2 * net.n_rows + net.n_stack

        def send(rows):
            return self.tail.tensor(np.where(moving, rows, 2 * rows), np.uint8)

        sizes = (len(free), int(moving.sum()) if len(free) else 0)
        return self._play(play, given, send, coalitions, (n_rows, 0), sizes)

    def _play(self, play, given, send, samples, memory, counts):
        """Means over the samples of what a kernel gives, in chunks of its samples.

        Nothing waits for the device before the last chunk is on its way.
        """
        n_values = counts[0] + 1
        totals = torch.empty(
            (len(samples), n_values), dtype=torch.float64, device=self.device
        )
        per_sample = self.n_blocks * (4 * n_values + 4 * samples.shape[2])
        step = max(1, self.memory_budget // per_sample)
        own = int(samples.shape[1] > 1)
        options = self._options_for(given[0])
        n_programs, scratch = self._scratch(memory, options["num_warps"])
        start = 0
        while start < len(samples):
            chunk = samples[start : start + step]
            shape = (len(chunk), self.n_blocks, n_values)
            try:
                values = torch.empty(shape, device=self.device)
                sent = send(chunk)
            except (MemoryError, RuntimeError) as error:
                if step == 1 or not is_out_of_memory(error):
                    raise
                step //= 2
                release_memory()
                continue
            n_items = len(chunk) * self.n_blocks
            with self._on_device():
                play[(min(n_items, n_programs),)](
                    *given, sent, values, *scratch, n_items, own, *counts, **options
                )
                self._add_blocks(values, totals[start : start + len(chunk)])
            start += len(chunk)
        return totals.cpu().numpy() / self.n_samples

    def _add_blocks(self, values, totals):
        """Sum values (m, n_blocks, k) over the blocks to `totals` (m, k)."""
        m, n_blocks, k = values.shape
        grid = (m, -(-k // _SUM_SIZE))
        _kernels().add_blocks[grid](
            values, totals, n_blocks, k, SIZE=_SUM_SIZE, enable_fp_fusion=True
        )

    def _options_for(self, net):
        """Compile-time options for a net."""
        classes = self._options["CLASSES"]
        if net.n_layers > 1:
            n_warps = 4 if classes < 512 else 8
        else:
            n_warps = min(8, max(1, classes // 32))
        return self._options | {"num_warps": n_warps}

    def _scratch(self, memory, n_warps):
        """How many programs may run at once, and what they work in."""
        n_rows, n_codes = memory
        per_program = 4 * LANES * n_rows + n_codes
        n_programs = max(1, self._warps // n_warps)
        if per_program:
            n_programs = max(1, min(n_programs, self.memory_budget // per_program))
        scratch = []
        if n_codes:
            shape = (n_programs, n_codes)
            scratch.append(torch.empty(shape, dtype=torch.uint8, device=self.device))
        if n_rows:
            shape = (n_programs, n_rows, LANES)
            scratch.append(torch.empty(shape, device=self.device))
        return n_programs, scratch

    def _on_device(self):
        """Triton launches on torch's current device."""
        if self.device.type == "cuda":
            return torch.cuda.device(self.device)
        return nullcontext()


@cache
def _kernels():
    """The kernels; loaded by name when needed, for Triton is optional and slow."""
    folder = __name__.rpartition(".")[0]
    general = import_module(f"{folder}._triton")
    outputs = import_module(f"{folder}._triton_outputs")
    return SimpleNamespace(
        Net=general.Net,
        add_blocks=general.add_blocks,
        play_flips=general.play_flips,
        play_output_flips=outputs.play_output_flips,
        play_output_walks=outputs.play_output_walks,
        play_walks=general.play_walks,
    )


def _difference(played, expected):
    """Largest difference of payoffs; not a number is as good as another one."""
    same = (played == expected) | (np.isnan(played) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        errors = np.where(same, 0, np.abs(played - expected))
    scale = 1 + np.abs(expected[np.isfinite(expected)]).max(initial=0)
    return float(np.nan_to_num(errors, nan=np.inf).max() / scale)


def _fault(links, split, features, payoff):
    """Why the kernels cannot play a chain of layers, or None."""
    fault = chain_fault(links, split, features, payoff)
    if fault is not None:
        return fault
    is_interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    feature = features[0]
    if feature.device.type != "cuda" and not is_interpreted:
        return f"the net is on the device {str(feature.device)!r}, and not on 'cuda'"
    n_outputs = split.rest.get_submodule(links[-1].name).out_features
    if n_outputs > _MAX_CLASSES:
        return f"it has {n_outputs} outputs, and they take {_MAX_CLASSES}"
    return None
