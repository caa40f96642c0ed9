"""One coalition on really smaller layers: without the rows and columns of absentees."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from skprune.networks import map_tensors

__all__ = ["Compaction"]

_ROWS = ("weight", "bias", "running_mean", "running_var")
_ROW_SIZES = ("out_features", "out_channels", "num_features", "num_parameters")
_COLUMN_SIZES = ("in_features", "in_channels")
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
# What a processor core computes in the time that making one layer smaller takes, in
# floating point operations: 40 microseconds at 50 GFLOP/s. A device computes more.
_WORTH_A_LAYER = {"cpu": 2e6, "cuda": 1e9}
# What masking one number costs in the same unit, and normalizing it under a mask.
_MASKING, _NORMALIZING = 25.0, 300.0


@dataclass
class _Layer:
    """A layer and the owners of its outputs and columns, None where nobody's are."""

    layer: nn.Module
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None
    # A layer whose inputs are players reads all of them; it has to select.
    selects: bool = False
    # Of one sample: what it computes, and what masks cost that smaller layers save.
    operations: float = 0.0
    masking: float = 0.0


class Compaction:
    """Shrinks the layers of a module for as long as one coalition plays.

    Parameters
    ----------
    staged : StagedModule
        A copy of a module, whose layers are changed and changed back.
    features : tensor, list or dict of tensors
        What the module reads; one sample of it is run.
    """

    def __init__(self, staged, features):
        rest, players = staged.rest, staged.players
        # Single weights and whole layers take no rows or columns with them.
        others = [owners.ravel() for owners in players.weights.values()]
        others.append(np.array(list(players.layers.values()), dtype=int))
        self._others = np.unique(np.concatenate(others))
        self._layers = {}
        for name, owners in (players.producers | players.normalizations).items():
            self._layer(rest, name).rows = owners
        for name, owners in players.consumers.items():
            layer = self._layer(rest, name)
            layer.columns, layer.selects = owners, name in players.selections
        self._count_operations(staged, map_tensors(lambda x: x[:1].clone(), features))
        device = next(rest.parameters()).device.type
        self._cost = len(self._layers) * _WORTH_A_LAYER.get(device, 1e9)

    def pays(self, keep, n_samples):
        """Whether a coalition is played faster on smaller layers than under masks.

        Parameters
        ----------
        keep : ndarray of bool of shape (n_players,)
            Who is present.
        n_samples : int
            Number of samples it is played on.

        Returns
        -------
        bool
            By counting operations, so that it depends on nothing but these. False
            where a layer would be left empty, or single weights or whole layers are
            absent.
        """
        present, saved = np.append(keep, True), 0.0
        if not present[self._others].all():
            return False
        for part in self._layers.values():
            shares = [
                present[owners].mean()
                for owners in (part.rows, part.columns)
                if owners is not None
            ]
            if min(shares) == 0:
                return False
            saved += part.operations * (1 - np.prod(shares)) + part.masking
        return bool(saved * n_samples > self._cost)

    @contextmanager
    def shrunk(self, keep):
        """Play one coalition: the layers are smaller while the context lasts.

        Parameters
        ----------
        keep : ndarray of bool of shape (n_players,)
            Who is present; `pays` says that no layer is left empty.
        """
        present = np.append(keep, True)
        with ExitStack() as undo:
            for part in self._layers.values():
                # Before anything is changed: memory may run out in the middle.
                undo.callback(_restorer(part.layer))
                _shrink(part, present, undo)
            yield

    def _layer(self, rest, name):
        return self._layers.setdefault(name, _Layer(rest.get_submodule(name)))

    def _count_operations(self, staged, features):
        """Note what each layer with weights computes for one sample."""

        def counter(part):
            def count(layer, args, kwargs, outputs):
                inputs = [*args, *kwargs.values()]
                n_outputs = outputs.numel() / len(outputs)
                if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
                    part.operations = 2.0 * layer.weight[0].numel() * n_outputs
                if isinstance(layer, nn.LayerNorm):
                    part.masking = _NORMALIZING * n_outputs
                elif part.columns is not None:
                    part.masking = _MASKING * inputs[0].numel() / len(inputs[0])

            return count

        handles = [
            part.layer.register_forward_hook(counter(part), with_kwargs=True)
            for part in self._layers.values()
        ]
        try:
            with torch.no_grad():
                staged.whole.run(features, [])
        finally:
            for handle in handles:
                handle.remove()


def _restorer(layer):
    """A function that gives a layer back the tensors and sizes that it has now."""
    parameters, buffers = dict(layer._parameters), dict(layer._buffers)
    attributes = dict(layer.__dict__)

    def restore():
        layer.__dict__.update(attributes)
        layer._parameters.update(parameters)
        layer._buffers.update(buffers)

    return restore


def _shrink(part, present, undo):
    """Make a layer smaller; `undo` takes away the hook that this may need."""
    layer = part.layer
    device = layer.weight.device if layer.weight is not None else None
    if part.rows is not None:
        rows = torch.from_numpy(np.flatnonzero(present[part.rows])).to(device)
        _keep_rows(layer, rows)
    if part.columns is not None:
        columns = torch.from_numpy(np.flatnonzero(present[part.columns])).to(device)
        _select(layer, "weight", columns, axis=1)
        _resize(layer, _COLUMN_SIZES, len(columns))
        if part.selects:
            undo.enter_context(_select_inputs(layer, columns))


def _keep_rows(layer, rows):
    """Leave a layer some of its outputs."""
    if isinstance(layer, _EMBEDDINGS):
        _select(layer, "weight", rows, axis=1)
        layer.embedding_dim = len(rows)
        return
    for attribute in _ROWS:
        _select(layer, attribute, rows, axis=0)
    _resize(layer, _ROW_SIZES, len(rows))
    if isinstance(layer, nn.LayerNorm):
        layer.normalized_shape = (len(rows),)
    if getattr(layer, "groups", 1) > 1:
        layer.groups = layer.in_channels = len(rows)


def _select(layer, attribute, kept, axis):
    """Replace a parameter or buffer by some of its positions."""
    for tensors in (layer._parameters, layer._buffers):
        if tensors.get(attribute) is not None:
            tensors[attribute] = tensors[attribute].index_select(axis, kept)


def _resize(layer, attributes, size):
    """Let a layer's own record of its size be right."""
    for attribute in attributes:
        if attribute in layer.__dict__:
            setattr(layer, attribute, size)


def _select_inputs(layer, kept):
    """Let a layer read some of its inputs; return the hook's handle."""
    axis = -1 if isinstance(layer, nn.Linear) else -1 - len(layer.kernel_size)

    def select(_, args, kwargs):
        if args:
            return (args[0].index_select(axis, kept), *args[1:]), kwargs
        return args, kwargs | {"input": kwargs["input"].index_select(axis, kept)}

    return layer.register_forward_pre_hook(select, with_kwargs=True)
