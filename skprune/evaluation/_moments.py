"""Second moments of what a layer reads and what it should answer, in one pass."""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

__all__ = ["Moments", "columns_of", "is_linear_map", "rows_of", "watch_layers"]

# Rows are gathered to as many as half the columns, or to this many, before they are
# multiplied: adding up the products in float64 then costs little.
_ROWS = 2048
# Numbers of a batch that are shifted and multiplied at once.
_NUMBERS = 2**22
# Columns of the covariance that are made at once, from the diagonal on.
_COLUMNS = 512


class Moments:
    """Covariances of columns and targets, added up batch by batch in float64.

    Memory is that of the covariances and of some thousand rows, however many samples
    stream by. Data are shifted by the mean of the first batch, so that large means
    cost no digits. Products are float32 where the data are, float64 where these are;
    everything stays on the device of the data.
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
            self._begin(columns, targets)
        pairs = zip(columns.split(self._rows), targets.split(self._rows), strict=True)
        for x, z in pairs:
            # Differences are new tensors: what the caller does to his is his affair.
            self._waiting.append((x - self._shifts[0], z - self._shifts[1]))
            self._n_waiting += len(x)
            if self._n_waiting >= min(_ROWS, len(self._added[0]) // 2):
                self._multiply()
        self.n += len(columns)

    def _begin(self, columns, targets):
        """Shifts and empty sums, on the device of the data."""
        p, q = columns.shape[1], targets.shape[1]
        self._shifts = columns.mean(0), targets.mean(0)
        self._rows = max(_ROWS, _NUMBERS // max(1, p + q))
        self._waiting, self._n_waiting = [], 0
        shapes = (p,), (q,), (p, p), (p, q), (q,)
        self._added = [
            torch.zeros(shape, dtype=torch.float64, device=columns.device)
            for shape in shapes
        ]

    def _multiply(self):
        """Add the products of the rows that wait."""
        x, z = self._waiting[0]
        if len(self._waiting) > 1:
            x, z = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting, self._n_waiting = [], 0
        sum_x, sum_z, gram, cross, squares = self._added
        sum_x += x.sum(0)
        sum_z += z.sum(0)
        # The covariance is symmetric, so what is right of a block's end is left out.
        for start in range(0, x.shape[1], _COLUMNS):
            stop = min(start + _COLUMNS, x.shape[1])
            gram[start:stop, :stop] += x[:, start:stop].T @ x[:, :stop]
        cross += x.T @ z
        squares += (z * z).sum(0)

    @property
    def _sums(self):
        """Sums of all rows so far."""
        if self._waiting:
            self._multiply()
        return self._added

    @property
    def means(self):
        """Means of the columns and of the targets."""
        return tuple(
            shift.double() + total / self.n
            for shift, total in zip(self._shifts, self._sums[:2], strict=True)
        )

    @property
    def gram(self):
        """Covariance of the columns, (n_columns, n_columns), symmetric to the bit."""
        mean, total = self._sums[0] / self.n, self._sums[2].tril()
        gram = total.div_(self.n).addr_(mean, mean, alpha=-1).tril_()
        return gram + gram.tril(-1).T

    @property
    def cross(self):
        """Covariance of columns and targets, (n_columns, n_targets)."""
        mean_x, mean_z = (total / self.n for total in self._sums[:2])
        return torch.addr(self._sums[3] / self.n, mean_x, mean_z, alpha=-1)

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
