"""A tail that remembers what its unchanging first layers answer."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from skprune.evaluation._pointers import table_of
from skprune.evaluation._tail import Tail
from skprune.evaluation._tail_layers import compute_prefix
from skprune.evaluation._tail_workspace import Workspace, aligned, make_workspace

__all__ = ["FoldedTail", "TailProblem"]


class TailProblem:
    """A tail with its samples, ready for the kernels; made by `prepare_tail`.

    It remembers what the layers before the first one that changes answered in the last
    call, so that a game on later layers does not compute earlier ones again.

    Attributes
    ----------
    layout : Tail
        What the kernels read.
    n_players, n_blocks, n_samples : int
        Sizes of the game; a block has sixteen samples, the last may have fewer.
    """

    def __init__(self, layout: Tail):
        self.layout = layout
        self._last = (None, FoldedTail(layout, _is_bounded(layout)))

    def __getstate__(self):
        return {"layout": self.layout}

    def __setstate__(self, state):
        self.__init__(Tail(*state["layout"]))

    @property
    def n_players(self) -> int:
        """Number of players."""
        return self.layout.n_players

    @property
    def n_blocks(self) -> int:
        """Number of blocks of sixteen samples."""
        return self.layout.n_blocks

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return self.layout.n_samples

    def fold(
        self, coalition: NDArray[np.bool_], changing: NDArray[np.bool_]
    ) -> "FoldedTail":
        """The tail from the first layer that a changing player is in.

        Parameters
        ----------
        coalition : ndarray of shape (n_players,), bool
            Presence of the players of the layers before.
        changing : ndarray of shape (n_players,), bool
            Players whose presence is not the same in all of a call.

        Returns
        -------
        folded : FoldedTail
            The layers from there on; earlier players have negative layers.
        """
        layers = self.layout.player_layer
        first = int(min(layers[changing], default=self.layout.n_layers - 1))
        key = (first, coalition[layers < first].tobytes()) if first else None
        known, folded = self._last
        if known != key:
            tail = _fold(self.layout, coalition, first) if first else self.layout
            folded = FoldedTail(tail, _is_bounded(tail))
            self._last = (key, folded)
        return folded


class FoldedTail:
    """Layers to play on, and memory for the threads that do.

    Parameters
    ----------
    layout : Tail
        The layers.
    is_bounded : bool
        Whether it is one layer whose sums cannot overflow.
    """

    def __init__(self, layout: Tail, is_bounded: bool):
        self.layout, self.is_bounded = layout, is_bounded
        self.table = table_of(layout)
        self._spare: list[Workspace] = []

    @contextmanager
    def workspace(self) -> Iterator[NDArray[np.int64]]:
        """Table of a workspace that no other thread uses meanwhile."""
        try:
            work = self._spare.pop()
        except IndexError:
            work = make_workspace(self.layout)
        yield table_of(work)
        self._spare.append(work)


def _fold(tail, coalition, first):
    """The layers of a tail from `first` on, reading what a coalition makes of it."""
    width, row = int(tail.widths[first]), tail.first_row[first]
    inputs = aligned(tail.n_blocks, width, tail.inputs.shape[-1])
    work = make_workspace(tail)
    compute_prefix(table_of(tail), table_of(work), coalition, first, inputs)
    start = tail.weight_start[first]
    return tail._replace(
        inputs=inputs,
        n_layers=tail.n_layers - first,
        widths=tail.widths[first:],
        first_row=tail.first_row[first:] - row,
        weights=tail.weights[start:],
        weight_start=tail.weight_start[first:] - start,
        stride=tail.stride[first:],
        biases=tail.biases[row:],
        owners=tail.owners[row:],
        activations=tail.activations[first:],
        slopes=tail.slopes[first:],
        player_layer=tail.player_layer - first,
    )


def _is_bounded(tail):
    """Whether a tail is one layer whose sums can be neither infinite nor NaN."""
    if tail.n_layers > 1:
        return False
    columns = np.abs(tail.inputs).max(axis=(0, 2)).astype(np.float64)
    weights = tail.weights[: len(columns) * tail.stride[0]].reshape(len(columns), -1)
    largest = columns @ np.abs(weights).max(axis=1) + np.abs(tail.biases).max()
    return bool(largest < np.finfo(np.float32).max / 2)
