"""A tail on a device, cut down to the layers that a game changes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from skprune.evaluation._lane_math import ACTIVATIONS
from skprune.evaluation._lanes import LANES

__all__ = ["DeviceTail", "Game"]

_FUNCTIONS = {
    "identity": lambda x, slope: x,
    "relu": lambda x, slope: functional.relu(x),
    "leaky_relu": functional.leaky_relu,
    "elu": functional.elu,
    "gelu": lambda x, slope: functional.gelu(x),
    "silu": lambda x, slope: functional.silu(x),
    "tanh": lambda x, slope: torch.tanh(x),
    "sigmoid": lambda x, slope: torch.sigmoid(x),
}
_BY_CODE = {code: _FUNCTIONS[name] for name, code in ACTIVATIONS.items()}


class Game(NamedTuple):
    """What the kernels read of the game that some players of a tail play.

    Attributes
    ----------
    net : Net
        The layers from the first one on that has such a player.
    members : tensor, int32
        The players, layer by layer.
    """

    net: Any
    members: torch.Tensor


class DeviceTail:
    """The tensors of a `Tail`, and the nets that the kernels read.

    Parameters
    ----------
    tail : Tail
        The layout.
    device : torch.device
        Where it should lie.
    net_class : type
        `Net` of the kernels, which exists only where Triton does.
    """

    def __init__(self, tail, device, net_class):
        self.tail, self.device, self.net_class = tail, device, net_class
        self.inputs = self.tensor(tail.inputs)
        self.goals = self.tensor(tail.targets)
        self.weights, self.biases = self.tensor(tail.weights), self.tensor(tail.biases)

    def tensor(self, array, dtype=None):
        """An array on the device, copied without waiting for what runs there."""
        tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=dtype))
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.clone()

    def game(self, coalition, moving) -> Game:
        """The game of the `moving` players, all others as in `coalition`.

        Parameters
        ----------
        coalition, moving : ndarray of bool of shape (n_players,)
            Who is there, and whose presence changes.

        Returns
        -------
        Game
        """
        tail = self.tail
        layers = np.where(moving, tail.player_layer, tail.n_layers - 1)
        first = int(layers.min(initial=tail.n_layers - 1))
        samples = self.inputs.transpose(1, 2).reshape(-1, self.inputs.shape[1])
        for layer in range(first):
            present = self._columns(layer, coalition)
            samples = self._outputs(layer, samples, present)
            activate = _BY_CODE[int(tail.activations[layer])]
            samples = activate(samples, float(tail.slopes[layer]))
        fixed = self._columns(first, coalition & ~moving)
        base = self._outputs(first, samples, fixed)
        members = np.flatnonzero(moving)
        members = members[np.argsort(tail.player_layer[members], kind="stable")]
        net = self._net(first, members, _in_lanes(samples), _in_lanes(base))
        return Game(net, self.tensor(members, np.int32))

    def _columns(self, layer, coalition):
        """Indices of a layer's columns that are there in a coalition."""
        first = self.tail.first_row[layer]
        owners = self.tail.owners[first : first + self.tail.widths[layer]]
        there = np.append(coalition, True)
        return self.tensor(np.flatnonzero(there[owners]))

    def _outputs(self, layer, samples, columns):
        """What a layer answers to some columns of samples (n_samples, n_inputs)."""
        tail = self.tail
        n_in, n_out = (int(width) for width in tail.widths[layer : layer + 2])
        start, stride = int(tail.weight_start[layer]), int(tail.stride[layer])
        weights = self.weights[start : start + n_in * stride].view(n_in, stride)
        row = int(tail.first_row[layer + 1])
        bias = self.biases[row : row + n_out]
        return torch.addmm(bias, samples[:, columns], weights[columns, :n_out])

    def _net(self, first, members, inputs, base):
        """The tables of the layers from `first` on."""
        tail = self.tail
        row = int(tail.first_row[first + 1])
        counts = np.bincount(
            tail.player_layer[members] - first, minlength=tail.n_layers - first
        )
        depths = np.maximum(1, np.ceil(np.log2(np.maximum(counts, 1)))).astype(int)
        wide = int(tail.widths[first + 1 :].max())
        return self.net_class(
            layers=self.tensor(_layer_table(tail, first, counts, depths), np.int32),
            players=self.tensor(_player_table(tail, first), np.int32),
            owners=self.tensor(tail.owners[row:], np.int32),
            weights=self.weights[int(tail.weight_start[first]) :],
            biases=self.biases[row:],
            inputs=inputs,
            base=base,
            goals=self.goals,
            n_samples=tail.n_samples,
            n_layers=tail.n_layers - first,
            n_players=tail.n_players,
            n_rows=int(tail.first_row[-1]) - row,
            n_wide=wide,
            n_stack=int(depths.max() + 1) * wide,
        )


def _in_lanes(samples):
    """Lay (n_blocks * 16, n) out as (n_blocks, n, 16)."""
    return samples.view(-1, LANES, samples.shape[1]).transpose(1, 2).contiguous()


def _layer_table(tail, first, counts, depths):
    """`Net.layers`, with the numbers of members and the depths of their trees."""
    later = slice(first, tail.n_layers)
    rows = tail.first_row - tail.first_row[first + 1]
    # The activation of what a layer reads; the first one's inputs had theirs.
    kinds = np.append(0, tail.activations[first : tail.n_layers - 1])
    slopes = np.append(0, tail.slopes[first : tail.n_layers - 1]).astype(np.float32)
    columns = [
        tail.widths[later],
        tail.widths[first + 1 : tail.n_layers + 1],
        tail.weight_start[later] - tail.weight_start[first],
        tail.stride[later],
        rows[later],
        rows[first + 1 : tail.n_layers + 1],
        kinds,
        slopes.view(np.int32),
        np.cumsum(counts) - counts,
        counts,
        depths,
    ]
    return np.column_stack(columns)


def _player_table(tail, first):
    """`Net.players`: layer and places of each player, then all columns."""
    places = tail.player_start + 3 * tail.n_players
    table = np.column_stack([tail.player_layer - first, places[:-1], places[1:]])
    return np.concatenate([table.ravel(), tail.player_columns])
