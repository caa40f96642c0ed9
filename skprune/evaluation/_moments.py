"""Second moments of what a layer reads and what it should answer, in one pass."""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

__all__ = ["Moments", "columns_of", "is_linear_map", "rows_of", "watch_layers"]


class Moments:
    """Covariances of columns and targets, added up batch by batch in float64.

    Memory is that of the covariances, however many samples stream by. Data are
    shifted by the mean of the first batch, so that large means cost no digits.
    """

    def __init__(self):
        self.n = 0

    def update(self, columns, targets):
        """Add rows.

        Parameters
        ----------
        columns : tensor of shape (n_rows, n_columns)
            What the layer reads.
        targets : tensor of shape (n_rows, n_targets)
            What it answers, or should.
        """
        if not self.n:
            self._shifts = columns.mean(0), targets.mean(0)
            self._sums = [0.0] * 5
        x, z = columns - self._shifts[0], targets - self._shifts[1]
        batch = (x.sum(0), z.sum(0), x.T @ x, x.T @ z, (z * z).sum(0))
        self._sums = [
            total + part.double() for total, part in zip(self._sums, batch, strict=True)
        ]
        self.n += len(x)

    @property
    def means(self):
        """Means of the columns and of the targets."""
        return tuple(
            shift.double() + total / self.n
            for shift, total in zip(self._shifts, self._sums[:2], strict=True)
        )

    @property
    def gram(self):
        """Covariance of the columns, (n_columns, n_columns)."""
        mean = self._sums[0] / self.n
        return self._sums[2] / self.n - torch.outer(mean, mean)

    @property
    def cross(self):
        """Covariance of columns and targets, (n_columns, n_targets)."""
        return self._sums[3] / self.n - torch.outer(
            self._sums[0] / self.n, self._sums[1] / self.n
        )

    @property
    def target_variances(self):
        """Variance of each target, (n_targets,)."""
        return self._sums[4] / self.n - (self._sums[1] / self.n) ** 2


def is_linear_map(layer):
    """Whether a layer is a matrix product of columns that `columns_of` gives."""
    return isinstance(layer, nn.Linear) or (
        isinstance(layer, (nn.Conv1d, nn.Conv2d)) and layer.groups == 1
    )


def columns_of(layer, inputs):
    """What a linear map multiplies, as a matrix of rows.

    Parameters
    ----------
    layer : Linear, Conv1d or Conv2d
        The layer.
    inputs : tensor
        Its input.

    Returns
    -------
    columns : tensor of shape (n_rows, n_columns)
        The inputs of a Linear; the patches of a convolution, channel by channel, a row
        for each output position.
    """
    if isinstance(layer, nn.Linear):
        return inputs.reshape(-1, layer.in_features)
    padding = layer._reversed_padding_repeated_twice
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    inputs = functional.pad(inputs, padding, mode=mode)
    if isinstance(layer, nn.Conv1d):
        inputs = inputs.unsqueeze(-2)
    one = (1,) * (2 - len(layer.kernel_size))
    patches = functional.unfold(
        inputs,
        one + layer.kernel_size,
        dilation=one + layer.dilation,
        stride=one + layer.stride,
    )
    return patches.transpose(1, 2).flatten(0, 1)


def rows_of(layer, outputs):
    """The outputs of a linear map, a row for each row of `columns_of`."""
    if isinstance(layer, _ConvNd):
        outputs = outputs.flatten(2).transpose(1, 2)
    return outputs.reshape(-1, outputs.shape[-1])


@contextmanager
def watch_layers(module, names, report):
    """Context in which layers report what they read and gave.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    names : iterable of str
        Names of the layers.
    report : callable
        Takes (name, layer, input, output) after each call of a layer.
    """

    def hook(name):
        def tell(layer, args, kwargs, output):
            report(name, layer, args[0] if args else kwargs["input"], output)

        return tell

    handles = [
        module.get_submodule(name).register_forward_hook(hook(name), with_kwargs=True)
        for name in names
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
