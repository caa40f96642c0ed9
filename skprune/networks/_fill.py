"""Constants that stand in for the players that leave."""

import torch
from torch import nn

from skprune.networks._hooks import LayerHooks, channel_axis
from skprune.networks._inputs import call, evaluating

__all__ = ["check_fill", "column_means", "fill_shift"]


def column_means(module, players, inputs):
    """Mean of what each layer reads from players, for use as `fill`.

    Parameters
    ----------
    module : torch.nn.Module
        The network in which `players` were found. It is run once, in evaluation mode,
        with the gates or masks that are on it.
    players : Players
        From `find_players`.
    inputs : tensor, tuple of tensors or dict of tensors
        The batch over which means are taken.

    Returns
    -------
    dict of str to tensor of shape (n_columns,)
        For each layer of ``players.consumers``, the mean over the batch, and over
        positions, of each input column or channel.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skprune.networks import column_means, find_players
    >>> net = nn.Sequential(nn.Identity(), nn.Linear(2, 3))
    >>> players = find_players(net, torch.zeros(1, 2), "inputs")
    >>> column_means(net, players, torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    {'1': tensor([2., 4.])}
    """
    with _ColumnMeans(module, players) as recorder, evaluating(module):
        with torch.no_grad():
            call(module, inputs)
        return recorder.means


class _ColumnMeans(LayerHooks):
    """Writes down what is read, and changes nothing."""

    def __init__(self, module, players):
        super().__init__(module)
        self.means = {}
        for name in players.consumers:
            self._record(name, module.get_submodule(name))

    def _record(self, name, layer):
        axis = channel_axis(layer)

        def record(x):
            self.means[name] = x.movedim(axis, -1).flatten(0, -2).mean(0)

        self._before(layer, record)


def check_fill(fill, players):
    """Check constants against the layers that read players; None is no constants."""
    for name, values in (fill or {}).items():
        if name not in players.consumers:
            raise ValueError(
                f"fill names layer {name!r}, which reads no players; the layers that "
                f"do are {list(players.consumers)}."
            )
        n_columns = len(players.consumers[name])
        if not isinstance(values, torch.Tensor) or values.shape != (n_columns,):
            found = getattr(values, "shape", type(values).__name__)
            raise ValueError(
                f"fill[{name!r}] must be a tensor of shape ({n_columns},), one value "
                f"for each column that the layer reads; got {found}."
            )
    return {} if fill is None else dict(fill)


def fill_shift(layer, values, absent):
    """What the absent columns of a layer add to its outputs if they hold constants.

    Parameters
    ----------
    layer : Linear or convolution
        It must have a bias, to which the shift can be added.
    values : tensor of shape (n_columns,)
        The constants.
    absent : bool tensor of shape (..., n_columns)
        True for the columns that are absent.

    Returns
    -------
    tensor of shape (..., n_outputs)
        Weights, summed over a convolution's window, times the constants.
    """
    weight = layer.weight.detach()
    if not isinstance(layer, nn.Linear):
        weight = weight.flatten(2).sum(2)
    values = values.detach().to(weight)
    # A column that stays may hold anything, also a weight that is not finite.
    used = absent.reshape(-1, absent.shape[-1]).any(0)
    constants = torch.where(absent, values, values.new_zeros(()))
    return constants[..., used] @ weight[:, used].T
