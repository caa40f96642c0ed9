"""How large and how fast a module is."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from skprune.networks._inputs import call, evaluating, first_tensor

__all__ = ["NetworkSize", "latency", "size_of"]


@dataclass(frozen=True)
class NetworkSize:
    """What a network costs.

    Attributes
    ----------
    n_parameters : int
        Number of weights; a tied one counts once.
    n_flops : int
        Floating point operations per sample, as `size_of` counts them.
    n_players : int or None
        Number of players, where they were given.
    """

    n_parameters: int
    n_flops: int
    n_players: int | None = None


def size_of(module, example_input, players=None):
    """Count the parameters and the arithmetic of a module.

    Parameters
    ----------
    module : torch.nn.Module
        Any module; it is run once, in evaluation mode.
    example_input : tensor, tuple of tensors or dict of tensors
        A batch of at least one sample.
    players : Players, optional
        Players of the module, to be counted too.

    Returns
    -------
    NetworkSize
        Parameters, FLOPs per sample, players.

    Notes
    -----
    A multiply-add is 2 FLOPs. Linear layers and convolutions count their products
    without the bias, normalizations 2 FLOPs for each element; activations, pooling
    and table look-ups count nothing.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skprune.networks import size_of
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> size_of(net, torch.zeros(10, 4))
    NetworkSize(n_parameters=23, n_flops=36, n_players=None)
    """
    counted = []

    def count(layer, _, output):
        counted.append(_flops(layer, output))

    handles = [
        layer.register_forward_hook(count)
        for layer in module.modules()
        if isinstance(layer, _COUNTED)
    ]
    try:
        with evaluating(module), torch.no_grad():
            output = call(module, example_input)
    finally:
        for handle in handles:
            handle.remove()
    batch = first_tensor(output).shape[:1].numel()
    return NetworkSize(
        n_parameters=sum(p.numel() for p in module.parameters()),
        n_flops=sum(counted) // max(batch, 1),
        n_players=None if players is None else players.n_players,
    )


def latency(module, example_input, *, n_repeats=20):
    """Time a module on one thread.

    Parameters
    ----------
    module : torch.nn.Module
        Any module; it is run in evaluation mode, without gradients.
    example_input : tensor, tuple of tensors or dict of tensors
        The batch that is timed, on the module's device.
    n_repeats : int, default=20
        Number of timed runs, after one that is not timed.

    Returns
    -------
    float
        Median milliseconds per batch.

    Raises
    ------
    ValueError
        If `n_repeats` is not positive.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skprune.networks import latency
    >>> latency(nn.Linear(4, 3), torch.zeros(10, 4), n_repeats=3) > 0
    True
    """
    if n_repeats < 1:
        raise ValueError(f"n_repeats must be at least 1; got {n_repeats}.")
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with evaluating(module), torch.no_grad():
            _timed_run(module, example_input)
            seconds = [_timed_run(module, example_input) for _ in range(n_repeats)]
    finally:
        torch.set_num_threads(n_threads)
    return float(np.median(seconds)) * 1e3


_COUNTED = (nn.Linear, _ConvNd, _NormBase, nn.LayerNorm, nn.GroupNorm)


def _flops(layer, output):
    """Operations of one call of a layer."""
    if isinstance(layer, nn.Linear):
        return 2 * layer.in_features * output.numel()
    if isinstance(layer, _ConvNd):
        # A transposed convolution spends its products per input element; it is
        # never a player's layer, and counts here as if it were a plain one.
        kernel = int(np.prod(layer.kernel_size))
        return 2 * kernel * (layer.in_channels // layer.groups) * output.numel()
    return 2 * output.numel()


def _timed_run(module, example_input):
    start = time.perf_counter()
    output = first_tensor(call(module, example_input))
    if output.is_cuda:
        torch.cuda.synchronize(output.device)
    return time.perf_counter() - start
