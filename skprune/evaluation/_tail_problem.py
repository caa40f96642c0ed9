"""A tail that remembers what its unchanging first layers answer."""

import numpy as np
from numpy.typing import NDArray

from skprune.evaluation._tail import Tail
from skprune.evaluation._tail_layers import compute_prefix
from skprune.evaluation._tail_workspace import aligned, make_workspace

__all__ = ["TailProblem"]


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
        self._last = (None, layout, _is_bounded(layout))

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
    ) -> tuple[Tail, bool]:
        """The tail from the first layer that a changing player is in.

        Parameters
        ----------
        coalition : ndarray of shape (n_players,), bool
            Presence of the players of the layers before.
        changing : ndarray of shape (n_players,), bool
            Players whose presence is not the same in all of a call.

        Returns
        -------
        folded : Tail
            The layers from there on; earlier players have negative layers.
        is_bounded : bool
            Whether it is one layer whose sums cannot overflow.
        """
        layers = self.layout.player_layer
        first = int(min(layers[changing], default=self.layout.n_layers - 1))
        key = (first, coalition[layers < first].tobytes()) if first else None
        known, folded, is_bounded = self._last
        if known != key:
            folded = _fold(self.layout, coalition, first) if first else self.layout
            is_bounded = _is_bounded(folded)
            self._last = (key, folded, is_bounded)
        return folded, is_bounded


def _fold(tail, coalition, first):
    """The layers of a tail from `first` on, reading what a coalition makes of it."""
    width, row = int(tail.widths[first]), tail.first_row[first]
    inputs = aligned(tail.n_blocks, width, tail.inputs.shape[-1])
    compute_prefix(tail, make_workspace(tail), coalition, first, inputs)
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
    return bool(largest < np.finfo(np.float32).max)
