"""What lies behind the layer that reads the features: a module that reads its sums."""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import nn

from skprune.evaluation._graph import has_hooks
from skprune.networks import call, tensors_in

__all__ = ["InputTail", "reading_layer"]


class InputTail:
    """The rest of a module without the Linear layer that reads the features.

    Parameters
    ----------
    split : SplitModule
        A module, cut in front of that layer. It is copied, but for its weights.
    name : str
        Name of the layer.

    Attributes
    ----------
    module : torch.nn.Module
        The copy, with an identity in the place of the layer.
    bytes_per_row : int
        What one row of sums needs on its way through, roughly.
    """

    def __init__(self, split, name):
        self.split = split
        tensors = chain(split.rest.parameters(), split.rest.buffers())
        self._shared = {id(tensor): tensor for tensor in tensors}
        module = copy.deepcopy(split.rest, dict(self._shared)).eval()
        self.module = _without_layer(module, name)
        self.bytes_per_row = 1

    def replica(self):
        """The same with a module of its own; the weights are shared."""
        twin = copy.copy(self)
        twin.module = copy.deepcopy(self.module, dict(self._shared))
        return twin

    def whole(self):
        """The split around a copy of the rest, which may be masked."""
        return self.split.with_rest(copy.deepcopy(self.split.rest, dict(self._shared)))

    def __call__(self, sums):
        """Outputs (n_rows, n_outputs) for sums (n_rows, n_units) of the layer."""
        # A list: modules take one as their arguments.
        outputs = call(self.module, [sums])
        return outputs.reshape(len(outputs), -1)

    def measure(self, sums):
        """Outputs for some sums, and note of the bytes that each row needs."""
        sizes = [_bytes_of_one(sums)]

        def note(layer, inputs, outputs):
            sizes.extend(map(_bytes_of_one, tensors_in(outputs)))

        leaves = [m for m in self.module.modules() if next(m.children(), None) is None]
        handles = [layer.register_forward_hook(note) for layer in leaves]
        try:
            with torch.no_grad():
                outputs = self(sums)
        finally:
            for handle in handles:
                handle.remove()
        # Twice: functions between the layers give tensors too.
        self.bytes_per_row = 2 * sum(sizes) + 4 * sums.element_size() * sums.shape[-1]
        return outputs


def reading_layer(split):
    """Name of the one layer that reads players, where these are all of its inputs.

    Parameters
    ----------
    split : SplitModule
        A module cut in front of its first layer that reads players.

    Returns
    -------
    name : str or None
        None where others play, where several layers read players, or where the layer
        is no plain Linear one.
    """
    players = split.players
    others = (players.producers, players.normalizations, players.weights)
    if players.layers or any(others) or len(players.selections) != 1:
        return None
    ((name, owners),) = players.selections.items()
    layer = split.rest.get_submodule(name)
    plain = type(layer) is nn.Linear and not has_hooks(layer)
    # In half precision a sum of many columns would lose too much.
    plain = plain and layer.weight.dtype in (torch.float32, torch.float64)
    in_order = len(owners) == players.n_players and (owners[1:] > owners[:-1]).all()
    return name if plain and in_order else None


def _without_layer(module, name):
    """A module with an identity in the place of a layer; it may be the layer itself."""
    if not name:
        return nn.Identity()
    parent_name, _, own_name = name.rpartition(".")
    setattr(module.get_submodule(parent_name), own_name, nn.Identity())
    return module.eval()


def _bytes_of_one(tensor):
    """Bytes of one row of a tensor."""
    return tensor.numel() * tensor.element_size() // max(1, len(tensor))
