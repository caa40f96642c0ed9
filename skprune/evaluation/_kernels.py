"""Coalition payoffs of a multilayer perceptron's tail, compiled for the CPU.

Payoffs are accumulated in float64, in an order that does not depend on the number of
threads: the same call gives the same bits on every number of threads. Accuracies are
those of a plain float32 forward pass unless two outputs differ by no more than its
rounding. Sums have only the terms of those present, so outputs that are equal because
nothing reaches them (dead units, no weights, the empty coalition) stay equal: then the
lowest class wins, as in `torch.argmax`. NaN outputs are never right.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skprune.evaluation._lane_payoffs import PAYOFFS
from skprune.evaluation._tail import lay_out
from skprune.evaluation._tail_flips import play_flips
from skprune.evaluation._tail_layers import play_coalitions
from skprune.evaluation._tail_outputs import play_output_flips, play_output_walks
from skprune.evaluation._tail_problem import FoldedTail, TailProblem
from skprune.evaluation._tail_walks import play_walks

__all__ = [
    "TailProblem",
    "coalition_payoffs",
    "flip_marginals",
    "prepare_tail",
    "walk_marginals",
]


def prepare_tail(
    inputs: ArrayLike,
    weights: list[ArrayLike],
    biases: list[ArrayLike | None],
    activations: list[str | tuple[str, float]],
    owners: list[ArrayLike],
    n_players: int,
    targets: ArrayLike,
    payoff: str,
) -> TailProblem:
    """Lay a multilayer perceptron and its samples out for the kernels.

    Parameters
    ----------
    inputs : array-like of shape (n_samples, n_inputs)
        What the first Linear layer reads.
    weights : list of array-like of shape (n_outputs, n_inputs)
        Weights of each Linear layer, as torch holds them.
    biases : list of array-like of shape (n_outputs,) or None
        Their biases.
    activations : list of str or (str, float)
        Activation after each layer but the last: a key of `ACTIVATIONS`, with the
        negative slope of "leaky_relu" (default 0.01) or the alpha of "elu" (default 1).
    owners : list of array-like of shape (n_inputs,), int
        For each layer the player that owns each input column, -1 where a column is
        always present.
    n_players : int
        Number of players; each owns columns of exactly one layer.
    targets : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Classes 0, 1, ...; or, for "neg_mean_squared_error", the true outputs.
    payoff : str
        A key of `PAYOFFS`. A network with one output and a payoff of classification is
        a binary one: its output is the logit of class 1.

    Returns
    -------
    tail : TailProblem
        May be shared by threads.

    Raises
    ------
    ValueError
        If shapes do not fit together, an activation or a payoff is unknown, a class is
        out of range, or a player owns columns of no or of several layers.

    Examples
    --------
    >>> tail = prepare_tail(
    ...     [[1.0, 2.0]], [[[1.0, 0.0], [0.0, 1.0]]], [None], [], [[0, 1]], 2, [1],
    ...     "accuracy",
    ... )
    >>> tail.n_blocks, tail.n_players
    (1, 2)
    """
    return TailProblem(
        lay_out(
            inputs, weights, biases, activations, owners, n_players, targets, payoff
        )
    )


def coalition_payoffs(
    tail: TailProblem, coalitions: NDArray[np.bool_], *, n_threads: int = 1
) -> NDArray[np.float64]:
    """Payoff of coalitions that all samples play.

    Parameters
    ----------
    tail : TailProblem
        From `prepare_tail`.
    coalitions : ndarray of shape (m, n_players), bool
        True where a player is present.
    n_threads : int, default=1
        Number of threads; the result does not depend on it.

    Returns
    -------
    payoffs : ndarray of shape (m,), float64
        Means over the samples.

    Raises
    ------
    ValueError
        If `coalitions` has another shape.
    """
    coalitions = np.ascontiguousarray(coalitions, dtype=np.bool_)
    _check_shape("coalitions", coalitions, (len(coalitions), tail.n_players))
    if not len(coalitions):
        return np.zeros(0)
    changing = (coalitions != coalitions[0]).any(axis=0)
    # One coalition alone: the kernel skips absent units, which a prefix would compute.
    folded = tail.fold(coalitions[0], changing | (len(coalitions) == 1))

    def play(table, work, rows, out):
        play_coalitions(table, work, coalitions[rows], out)

    return _in_parts(play, folded, (len(coalitions),), n_threads)


def walk_marginals(
    tail: TailProblem,
    start: NDArray[np.bool_],
    free: NDArray[np.intp],
    orders: NDArray[np.intp],
    names: NDArray[np.intp] | None = None,
    *,
    n_threads: int = 1,
) -> NDArray[np.float64]:
    """Marginals of players that join one by one.

    Parameters
    ----------
    tail : TailProblem
        From `prepare_tail`.
    start : ndarray of shape (n_players,), bool
        Presence of the players that are not free; the free ones start absent.
    free : ndarray of shape (k,), int
        Players that join.
    orders : ndarray of shape (m, n_blocks, k) or (m, 1, k), int
        Orders of joining, as positions in `free`; each block of samples plays its own,
        or all play the same.
    names : ndarray of shape (n_blocks, k) or (1, k), int, default=None
        Positions in `free` that the numbers in `orders` stand for in each block; the
        same numbers by default.
    n_threads : int, default=1
        Number of threads; the result does not depend on it.

    Returns
    -------
    marginals : ndarray of shape (m, k), float64
        Column i belongs to player ``free[i]``; means over the samples.

    Raises
    ------
    ValueError
        If an array has another shape or holds numbers out of range, or `free` holds a
        player twice.
    """
    start = np.ascontiguousarray(start, dtype=np.bool_)
    free = np.ascontiguousarray(free, dtype=np.int64)
    orders = np.ascontiguousarray(orders, dtype=np.int64)
    _check_shape("start", start, (tail.n_players,))
    _check_players(free, tail.n_players)
    _check_indices("orders", orders, len(free))
    named = np.arange(len(free))[None] if names is None else names
    named = np.ascontiguousarray(named, dtype=np.int64)
    n_blocks = tail.n_blocks if len(named) != 1 else 1
    _check_shape("names", named, (n_blocks, len(free)))
    _check_indices("names", named, len(free))
    n_blocks = tail.n_blocks if orders.shape[1:2] != (1,) else 1
    _check_shape("orders", orders, (len(orders), n_blocks, len(free)))
    folded = tail.fold(start, np.isin(np.arange(tail.n_players), free))

    walk = play_output_walks if _has_columns(folded, free) else play_walks

    def play(table, work, rows, out):
        walk(table, work, start, free, orders[rows], named, out)

    return _in_parts(play, folded, (len(orders), len(free)), n_threads)


def flip_marginals(
    tail: TailProblem,
    free: NDArray[np.intp],
    coalitions: NDArray[np.bool_],
    *,
    n_threads: int = 1,
) -> NDArray[np.float64]:
    """Marginals of players around coalitions, whether they are in them or not.

    Parameters
    ----------
    tail : TailProblem
        From `prepare_tail`.
    free : ndarray of shape (k,), int
        Players whose marginals are asked for.
    coalitions : ndarray of shape (m, n_blocks, n_players) or (m, 1, n_players), bool
        Coalitions; each block of samples plays its own, or all play the same.
    n_threads : int, default=1
        Number of threads; the result does not depend on it.

    Returns
    -------
    marginals : ndarray of shape (m, k), float64
        Column i belongs to player ``free[i]``; means over the samples.

    Raises
    ------
    ValueError
        If an array has another shape or holds numbers out of range, or `free` holds a
        player twice.
    """
    free = np.ascontiguousarray(free, dtype=np.int64)
    coalitions = np.ascontiguousarray(coalitions, dtype=np.bool_)
    _check_players(free, tail.n_players)
    n_blocks = tail.n_blocks if coalitions.shape[1:2] != (1,) else 1
    _check_shape("coalitions", coalitions, (len(coalitions), n_blocks, tail.n_players))
    if not coalitions.size:
        return np.zeros((len(coalitions), len(free)))
    changing = (coalitions != coalitions[0, 0]).any(axis=(0, 1))
    changing[free] = True
    folded = tail.fold(coalitions[0, 0], changing)

    flip = play_output_flips if _has_columns(folded, free) else play_flips

    def play(table, work, rows, out):
        flip(table, work, free, coalitions[rows], out)

    return _in_parts(play, folded, (len(coalitions), len(free)), n_threads)


def _check_shape(name, array, shape):
    """Raise unless an array has a shape: compiled code would read beyond it."""
    if array.shape != shape:
        raise ValueError(f"{name} must have the shape {shape}, got {array.shape}.")


def _check_indices(name, indices, size):
    """Raise unless all numbers lie from 0 to below `size`."""
    # As unsigned numbers negative ones are large: one pass checks both ends.
    if indices.size and indices.view(np.uint64).max() >= size:
        raise ValueError(
            f"{name} must hold numbers from 0 to {size - 1}, got numbers from "
            f"{indices.min()} to {indices.max()}."
        )


def _check_players(free, n_players):
    """Raise unless each of the free players is there, and listed once."""
    _check_indices("free", free, n_players)
    if len(np.unique(free)) < len(free):
        raise ValueError(f"free must hold each player once, got {free.tolist()}.")


def _has_columns(folded, free):
    """Whether the kernels for single columns of the last layer know the game."""
    tail = folded.layout
    is_single = np.all(np.diff(tail.player_start)[free] == 1)
    has_classes = tail.payoff != PAYOFFS["neg_mean_squared_error"]
    return folded.is_bounded and has_classes and bool(is_single)


def _in_parts(play: Callable, folded: FoldedTail, shape, n_threads):
    """Play rows in threads; each row is summed up by one of them, block after block."""
    out = np.zeros(shape)
    parts = np.array_split(np.arange(len(out)), max(1, min(len(out), n_threads)))

    def play_part(part):
        rows = slice(part[0], part[-1] + 1) if part.size else slice(0)
        with folded.workspace() as work:
            play(folded.table, work, rows, out[rows])

    if len(parts) == 1:
        play_part(parts[0])
    else:
        with ThreadPoolExecutor(len(parts)) as pool:
            list(pool.map(play_part, parts))
    return out / folded.layout.n_samples
