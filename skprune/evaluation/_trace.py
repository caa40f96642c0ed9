"""Which layers read players, in which order, and what their rows weigh."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from skprune.evaluation._moments import columns_of, is_linear_map, watch_layers
from skprune.networks import call, evaluating

__all__ = ["LayerTrace", "last_linear", "trace_layers"]


@dataclass(frozen=True)
class LayerTrace:
    """The linear maps of a rest that read players.

    Parameters
    ----------
    names : list of str
        Their names, in forward order.
    output : str or None
        The Linear layer whose outputs are those of the module, if there is one whose
        single weights are no players.
    bytes_per_sample : int
        Bytes of what all of them read and give for one sample.
    """

    names: list[str]
    output: str | None
    bytes_per_sample: int


def trace_layers(split, samples):
    """Run two samples and see which layers are called.

    Parameters
    ----------
    split : SplitModule
        A module, cut in front of its first layer that reads players.
    samples : Samples
        Samples for it.

    Returns
    -------
    trace : LayerTrace
    """
    names, outputs, size = [], {}, 1

    def see(name, layer, inputs, output):
        nonlocal size
        names.append(name)
        outputs[name] = output
        read = columns_of(layer, inputs[:1]).numel() + output[:1].numel()
        size += read * output.element_size()

    players = split.players
    maps = {
        name
        for name in players.consumers
        if is_linear_map(split.rest.get_submodule(name))
    } | {
        name
        for name, layer in split.rest.named_modules()
        if isinstance(layer, nn.Linear) and name not in players.weights
    }
    watched = watch_layers(split.rest, maps, see)
    with watched, evaluating(split.rest), torch.no_grad():
        result = split.run(next(samples.subset(2).batches())[0])
    last = [
        name
        for name in names
        if outputs[name] is result
        and result.ndim == 2
        and isinstance(split.rest.get_submodule(name), nn.Linear)
    ]
    names = [name for name in names if name in players.consumers]
    return LayerTrace(names, last[0] if last else None, size)


def last_linear(module, example_input):
    """Name of the last Linear layer that a module calls: its output layer.

    Parameters
    ----------
    module : torch.nn.Module
        A module.
    example_input : tensor, tuple of tensors or dict of tensors
        A batch.

    Returns
    -------
    name : str or None
        None where the module calls no Linear layer.
    """
    linear = [
        name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)
    ]
    called = [None]
    watched = watch_layers(module, linear, lambda name, *_: called.append(name))
    with watched, evaluating(module), torch.no_grad():
        call(module, example_input)
    return called[-1]
