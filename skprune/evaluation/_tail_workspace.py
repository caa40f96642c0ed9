"""The memory that a thread needs to play on a tail."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skprune.evaluation._lane_payoffs import MAX_CLASSES
from skprune.evaluation._lanes import LANES
from skprune.evaluation._pointers import reader

__all__ = ["LAG", "TILE", "Workspace", "aligned", "make_workspace", "read_workspace"]

# Outputs that one pass over the inputs computes together.
TILE = 8
# Steps that counting is behind a walk: enough for the bits to be in memory.
LAG = 8


class Workspace(NamedTuple):
    """Memory of one thread; rows as in `Tail.first_row`, compact ones without gaps.

    Attributes
    ----------
    full, full_sums : ndarray of shape (n_rows, 16)
        Every unit after and before its activation.
    packed, sums : ndarray of shape (n_rows, 16)
        The present units after and before their activation.
    trial : ndarray of shape (n_rows, 16)
        The present units of a coalition that is tried.
    bias : ndarray of shape (n_rows, 16)
        Biases of the present units.
    weights : ndarray
        Weights between present units, eight outputs of a column side by side; with one
        layer those of each pass over its classes.
    columns : ndarray of shape (n_rows,), int64
        Present columns of each layer.
    n_present : ndarray of shape (n_layers + 1,), int64
        How many they are.
    stack : ndarray of shape (n_stack_rows, 16)
        Pre-activations without the players of nested ranges.
    states : ndarray of shape (3 * n_steps, 16)
        What the payoff of each step of a walk is made from.
    listed : ndarray of shape (8 + n_steps,), int32
        Columns that come or go at each step.
    right, marks : ndarray of shape (8 + n_steps,), uint16
        Bits of the samples that are right at each step of a walk, and what another pass
        says of them.
    is_alive : ndarray of shape (n_rows,), int64
        1 for an input that is not 0 in all samples of the block, 0 for the others.
    """

    full: NDArray[np.float32]
    full_sums: NDArray[np.float32]
    packed: NDArray[np.float32]
    sums: NDArray[np.float32]
    trial: NDArray[np.float32]
    bias: NDArray[np.float32]
    weights: NDArray[np.float32]
    columns: NDArray[np.int64]
    n_present: NDArray[np.int64]
    stack: NDArray[np.float32]
    states: NDArray[np.float32]
    listed: NDArray[np.int32]
    right: NDArray[np.uint16]
    marks: NDArray[np.uint16]
    is_alive: NDArray[np.int64]


read_workspace = reader(Workspace)


def aligned(*shape: int) -> NDArray[np.float32]:
    """Zeros that start at a multiple of 64 bytes, so that no row spans two lines."""
    size = int(np.prod(shape))
    memory = np.zeros(size + LANES, dtype=np.float32)
    start = (-memory.ctypes.data % 64) // 4
    return memory[start : start + size].reshape(shape)


def make_workspace(tail) -> Workspace:
    """Memory for one thread that plays on a `Tail`."""
    n_rows = int(tail.first_row[-1]) + LANES
    depth = int(np.ceil(np.log2(max(2, tail.n_players)))) + 1
    stack_rows = depth * int(tail.stride.max())
    n_weights, n_steps = len(tail.weights), tail.n_players + 1
    if tail.n_layers == 1:
        stack_rows = max(stack_rows, int(tail.widths[0]) * (MAX_CLASSES + 1))
        n_weights = int(tail.widths[0] * (tail.widths[1] + MAX_CLASSES))
    return Workspace(
        full=aligned(n_rows, LANES),
        full_sums=aligned(n_rows, LANES),
        packed=aligned(n_rows, LANES),
        sums=aligned(n_rows, LANES),
        trial=aligned(n_rows, LANES),
        bias=aligned(n_rows, LANES),
        weights=aligned(n_weights),
        columns=np.zeros(n_rows, dtype=np.int64),
        n_present=np.zeros(tail.n_layers + 1, dtype=np.int64),
        stack=aligned(stack_rows, LANES),
        states=aligned(3 * n_steps, LANES),
        listed=np.zeros(LAG + n_steps, dtype=np.int32),
        right=np.zeros(LAG + n_steps, dtype=np.uint16),
        marks=np.zeros(LAG + n_steps, dtype=np.uint16),
        is_alive=np.zeros(n_rows, dtype=np.int64),
    )
