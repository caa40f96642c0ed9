"""The tail of a multilayer perceptron, laid out for the compiled kernels.

Samples lie in blocks of sixteen lanes, weights by input column (the outputs of a column
are neighbours, padded to a multiple of eight), and everything of a kind in one flat
array, so that the kernels compile for one set of types.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skprune.evaluation._lane_math import ACTIVATIONS
from skprune.evaluation._lane_payoffs import PAYOFFS
from skprune.evaluation._lanes import LANES
from skprune.evaluation._pointers import reader
from skprune.evaluation._tail_workspace import TILE, aligned

__all__ = ["Tail", "lay_out", "read_tail"]


class Tail(NamedTuple):
    """What the kernels read; see `lay_out`.

    Attributes
    ----------
    inputs : ndarray of shape (n_blocks, n_rows, 16), float32
        Inputs of the first layer.
    targets : ndarray of shape (n_blocks, n_targets, 16), float32
        Classes as numbers, or the values of a regression.
    n_targets : int
        Targets of a sample.
    n_lanes : ndarray of shape (n_blocks,), int64
        Samples in each block.
    n_blocks, n_samples : int
        How many blocks, and how many samples they hold.
    n_layers : int
        Number of Linear layers.
    widths : ndarray of shape (n_layers + 1,), int64
        Number of inputs of each layer, and of outputs.
    first_row : ndarray of shape (n_layers + 2,), int64
        Where the inputs of each layer (and the outputs) start in an array of rows.
    weights : ndarray, float32
        ``weights[weight_start[l] + column * stride[l] + output]``.
    weight_start, stride : ndarray of shape (n_layers,), int64
        See `weights`.
    biases : ndarray of shape (n_rows,), float32
        Bias of each unit, at the row of the unit.
    owners : ndarray of shape (n_rows,), int64
        Player that owns each input column, -1 for a column that is always present.
    activations : ndarray of shape (n_layers,), int64
        Values of `ACTIVATIONS`.
    slopes : ndarray of shape (n_layers,), float32
        Parameter of the activation.
    n_players : int
        Number of players.
    player_layer : ndarray of shape (n_players,), int64
        Layer whose inputs a player owns; negative where it was folded away.
    player_start : ndarray of shape (n_players + 1,), int64
        Where each player's columns start in `player_columns`.
    player_columns : ndarray, int64
        Columns, player by player.
    payoff : int
        Value of `PAYOFFS`.
    """

    inputs: NDArray[np.float32]
    targets: NDArray[np.float32]
    n_targets: int
    n_lanes: NDArray[np.int64]
    n_blocks: int
    n_samples: int
    n_layers: int
    widths: NDArray[np.int64]
    first_row: NDArray[np.int64]
    weights: NDArray[np.float32]
    weight_start: NDArray[np.int64]
    stride: NDArray[np.int64]
    biases: NDArray[np.float32]
    owners: NDArray[np.int64]
    activations: NDArray[np.int64]
    slopes: NDArray[np.float32]
    n_players: int
    player_layer: NDArray[np.int64]
    player_start: NDArray[np.int64]
    player_columns: NDArray[np.int64]
    payoff: int


read_tail = reader(Tail)


def lay_out(
    inputs, weights, biases, activations, owners, n_players, targets, payoff
) -> Tail:
    """The layout of a tail; parameters as in `prepare_tail`."""
    if payoff not in PAYOFFS:
        raise ValueError(f"payoff must be one of {sorted(PAYOFFS)}, got {payoff!r}.")
    arrays = [np.asarray(weight, dtype=np.float32) for weight in weights]
    offsets = [
        np.zeros(len(weight), dtype=np.float32)
        if bias is None
        else np.asarray(bias, dtype=np.float32)
        for weight, bias in zip(arrays, biases, strict=True)
    ]
    if len(arrays[-1]) == 1 and payoff != "neg_mean_squared_error":
        # softmax(0, z) is the logistic function of z, and argmax breaks the tie at 0.
        arrays[-1] = np.vstack([np.zeros_like(arrays[-1]), arrays[-1]])
        offsets[-1] = np.concatenate([np.zeros_like(offsets[-1]), offsets[-1]])
    samples = np.asarray(inputs, dtype=np.float32)
    _check_shapes(samples, arrays, offsets, activations, owners)
    widths = np.array([samples.shape[1], *map(len, arrays)], dtype=np.int64)
    first_row = np.concatenate([[0], np.cumsum(_padded(widths))]).astype(np.int64)
    kinds, slopes = _read_activations(activations)
    goals = _read_targets(targets, payoff, len(samples), int(widths[-1]))
    n_lanes = np.full(-(-len(samples) // LANES), LANES, dtype=np.int64)
    n_lanes[-1] = len(samples) - LANES * (len(n_lanes) - 1)
    return Tail(
        inputs=_in_lanes(samples),
        targets=_in_lanes(goals),
        n_targets=goals.shape[1],
        n_lanes=n_lanes,
        n_blocks=len(n_lanes),
        n_samples=len(samples),
        n_layers=len(arrays),
        widths=widths,
        first_row=first_row,
        **_pack_layers(arrays, offsets, first_row),
        activations=kinds,
        slopes=slopes,
        n_players=n_players,
        **_pack_players(owners, n_players, widths, first_row),
        payoff=PAYOFFS[payoff],
    )


def _padded(size):
    """The next multiple of the tile's width."""
    return -(-size // TILE) * TILE


def _in_lanes(values):
    """Lay (n_samples, n) out as (n_blocks, n, 16); the last block ends in zeros."""
    n_samples, n_values = values.shape
    n_blocks = -(-n_samples // LANES)
    lanes = aligned(n_blocks, n_values, LANES)
    padded = np.zeros((n_blocks * LANES, n_values), dtype=np.float32)
    padded[:n_samples] = values
    lanes[:] = padded.reshape(n_blocks, LANES, n_values).transpose(0, 2, 1)
    return lanes


def _check_shapes(samples, weights, biases, activations, owners):
    """Raise unless every array fits its neighbours."""
    if samples.ndim != 2 or not len(samples):
        raise ValueError(
            f"inputs must have the shape (n_samples, n_inputs) with at least one "
            f"sample, got {samples.shape}."
        )
    if len(activations) != len(weights) - 1 or len(owners) != len(weights):
        raise ValueError(
            f"{len(weights)} layers need {len(weights) - 1} activations and "
            f"{len(weights)} arrays of owners, got {len(activations)} and "
            f"{len(owners)}."
        )
    n_inputs = samples.shape[1]
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        owner = np.asarray(owners[layer])
        if weight.ndim != 2 or weight.shape[1] != n_inputs:
            raise ValueError(
                f"weights[{layer}] must have the shape (n_outputs, {n_inputs}), got "
                f"{weight.shape}."
            )
        if bias.shape != weight.shape[:1] or owner.shape != weight.shape[1:]:
            raise ValueError(
                f"biases[{layer}] and owners[{layer}] must have the shapes "
                f"{weight.shape[:1]} and {weight.shape[1:]}, got {bias.shape} and "
                f"{owner.shape}."
            )
        n_inputs = len(weight)


def _read_activations(activations):
    """Codes and parameters of the activations; the last layer has none."""
    kinds = np.zeros(len(activations) + 1, dtype=np.int64)
    slopes = np.zeros(len(activations) + 1, dtype=np.float32)
    defaults = {"leaky_relu": 0.01, "elu": 1.0}
    for layer, activation in enumerate(activations):
        if isinstance(activation, str):
            activation = (activation, defaults.get(activation, 0.0))
        name, slope = activation
        if name not in ACTIVATIONS:
            raise ValueError(
                f"activations[{layer}] must be one of {sorted(ACTIVATIONS)}, got "
                f"{name!r}."
            )
        kinds[layer], slopes[layer] = ACTIVATIONS[name], slope
    return kinds, slopes


def _read_targets(targets, payoff, n_samples, n_outputs):
    """Targets of shape (n_samples, n_targets), checked."""
    goals = np.asarray(targets)
    if payoff == "neg_mean_squared_error":
        if goals.size != n_samples * n_outputs:
            raise ValueError(
                f"targets must have the shape {(n_samples, n_outputs)}, got "
                f"{goals.shape}."
            )
        return goals.reshape(n_samples, n_outputs).astype(np.float32)
    if goals.shape != (n_samples,):
        raise ValueError(
            f"targets must have the shape ({n_samples},), got {goals.shape}."
        )
    if goals.min() < 0 or goals.max() >= n_outputs or np.any(goals % 1):
        raise ValueError(
            f"targets must be whole numbers from 0 to {n_outputs - 1}, got values "
            f"from {goals.min()} to {goals.max()}."
        )
    return goals.reshape(n_samples, 1).astype(np.float32)


def _pack_layers(weights, biases, first_row):
    """Flat weights, column by column, and biases at the rows of their units."""
    stride = np.array([_padded(len(weight)) for weight in weights], dtype=np.int64)
    sizes = stride * [weight.shape[1] for weight in weights]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    # A pass over ten classes may read beyond the last column.
    flat = aligned(starts[-1] + LANES)
    flat_biases = np.zeros(first_row[-1], dtype=np.float32)
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        block = flat[starts[layer] : starts[layer + 1]].reshape(-1, stride[layer])
        block[:, : len(weight)] = weight.T
        row = first_row[layer + 1]
        flat_biases[row : row + len(bias)] = bias
    return {
        "weights": flat,
        "weight_start": starts[:-1],
        "stride": stride,
        "biases": flat_biases,
    }


def _pack_players(owners, n_players, widths, first_row):
    """Owners of columns and columns of owners."""
    flat = np.full(first_row[-1], -1, dtype=np.int64)
    player_layer = np.full(n_players, -1, dtype=np.int64)
    columns: list[list[int]] = [[] for _ in range(n_players)]
    for layer, owner in enumerate(owners):
        row = first_row[layer]
        flat[row : row + widths[layer]] = owner
        for column, player in enumerate(np.asarray(owner).tolist()):
            if player == -1:
                continue
            if not 0 <= player < n_players or player_layer[player] not in (-1, layer):
                raise ValueError(
                    f"owners[{layer}][{column}] must be -1 or a player from 0 to "
                    f"{n_players - 1} that owns no column of another layer, got "
                    f"{player}."
                )
            player_layer[player] = layer
            columns[player].append(column)
    if np.any(player_layer < 0):
        missing = np.flatnonzero(player_layer < 0).tolist()
        raise ValueError(f"owners must give each player a column; {missing} own none.")
    counts = [len(own) for own in columns]
    flat_columns = [column for own in columns for column in own]
    return {
        "owners": flat,
        "player_layer": player_layer,
        "player_start": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "player_columns": np.array(flat_columns, dtype=np.int64),
    }
