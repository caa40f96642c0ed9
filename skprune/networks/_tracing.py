"""From a forward pass to units: which of them flow into which layers."""

from collections import Counter

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from skprune.exceptions import UnsupportedNetworkError
from skprune.networks._flow import is_reshape, permuted, reshaped, saved_dim
from skprune.networks._graph import InputTap, build_graph
from skprune.networks._selection import ColumnSelection
from skprune.networks._units import Units

__all__ = ["UnitTrace", "trace_units"]

_LAYERS = (nn.Linear, _ConvNd)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_REFUSED = (
    nn.GroupNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
    nn.CrossMapLRN2d,
    nn.modules.instancenorm._InstanceNorm,
    _ConvTransposeNd,
    ColumnSelection,
)


def trace_units(module, example_input, layers=()):
    """Run a module once, and follow its units.

    Parameters
    ----------
    module : torch.nn.Module
        A copy of the user's module in evaluation mode; its parameters are made to
        require gradients.
    example_input : tensor, tuple of tensors or dict of tensors
        What it is run on.
    layers : iterable of str, default=()
        Layers that may be left out, so that the units which enter them and those which
        leave them have to be the same.

    Returns
    -------
    UnitTrace
        Labels of each layer's outputs and inputs.

    Raises
    ------
    UnsupportedNetworkError
        If the module cannot be followed.
    """
    for parameter in module.parameters():
        # Autograd is what is traced, also through layers that the user froze.
        parameter.requires_grad_(parameter.is_floating_point())
    calls = []
    names = {part: name for name, part in module.named_modules()}
    handles = [
        part.register_forward_pre_hook(lambda part, _: calls.append(part))
        for part in names
    ]
    try:
        with torch.enable_grad():
            joined = [module.get_submodule(name) for name in layers]
            graph = build_graph(module, example_input, _REFUSED, joined)
    except Exception as error:
        last = next((names[part] for part in reversed(calls) if names[part]), "")
        raise UnsupportedNetworkError(
            f"module ({type(module).__name__}) cannot be traced with this "
            f"example_input; the last layer that was called is {last!r}. "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    _check_called_once(calls, names)
    order = [names[part] for part in calls if isinstance(part, _LAYERS)]
    return UnitTrace(graph, names, order)


class UnitTrace:
    """Labels of the units that each layer makes and reads.

    Attributes
    ----------
    order : list of str
        Linear layers and convolutions in forward order.
    producers, consumers, normalizations : dict of str to int ndarray
        The set of each output unit, input column and normalized unit.
    fixed, refused : dict of int to str
        Sets that can never leave, or cannot be played, and why.
    """

    def __init__(self, graph, names, order):
        self._units = Units()
        self._names = names
        self._parameter_names = graph.parameter_names
        self._module_of = graph.module_of
        self.order = order
        self.producers, self.consumers, self.normalizations = {}, {}, {}
        self._follow(graph.outputs)
        roots = self._units.roots
        self.producers = {name: roots(x) for name, x in self.producers.items()}
        self.consumers = {name: roots(x) for name, x in self.consumers.items()}
        self.normalizations = {n: roots(x) for n, x in self.normalizations.items()}
        self.fixed, self.refused = self._units.fixed(), self._units.refused()

    def _follow(self, outputs):
        """Carry the flows from the network's inputs to its outputs."""
        flows = {}
        for grad_fn in _in_forward_order([x.grad_fn for x in outputs]):
            inputs = [(flows.get(f), _shape(f, k)) for f, k in grad_fn.next_functions]
            flows[grad_fn] = self._flow(grad_fn, inputs)
        for output in outputs:
            if flows[output.grad_fn] is not None:
                self._units.fix(flows[output.grad_fn][1], "they reach its output")

    def _flow(self, grad_fn, inputs):
        """Flow of one node's output."""
        module = self._module_of.get(grad_fn)
        incoming = next((x for x in inputs if x[0] is not None), (None, None))
        if isinstance(module, InputTap):
            labels = self._units.new(1)
            self._units.fix(labels, "they are added to its input")
            return None, labels
        if isinstance(module, nn.Parameter):
            return self._flow_of_parameter(module)
        if isinstance(module, nn.Module) and module in self._names:
            return self._flow_of_layer(module, *incoming)
        name = grad_fn.name()
        if incoming[0] is None:
            return None
        if is_reshape(name):
            return self._flow_of_reshape(grad_fn, *incoming)
        if name.startswith(("Permute", "Transpose")):
            return permuted(incoming[0], grad_fn, len(incoming[1]))
        if name.startswith("Cat"):
            return self._flow_of_concatenation(grad_fn, inputs)
        return self._merged([flow for flow, _ in inputs if flow is not None])

    def _flow_of_parameter(self, parameter):
        name = self._parameter_names[parameter].removeprefix("module.")
        labels = self._units.new(1)
        self._units.refuse(labels, f"parameter {name!r}, which is no layer's of torch")
        return None, labels

    def _flow_of_layer(self, layer, flow, shape):
        """Flow behind a module that torch-pruning knows."""
        name = self._names[layer]
        if isinstance(layer, _REFUSED):
            return self._refused_by(layer, flow)
        if isinstance(layer, _LAYERS):
            return self._flow_of_weights(name, layer, flow, shape)
        if isinstance(layer, _EMBEDDINGS):
            self.producers[name] = self._units.new(layer.embedding_dim)
            if layer.max_norm is not None:
                self._refused_by(layer, (-1, self.producers[name]))
            return -1, self.producers[name]
        return self._flow_of_normalization(name, layer, flow, shape)

    def _flow_of_weights(self, name, layer, flow, shape):
        """Flow behind a Linear layer or a convolution, which makes new units."""
        linear = isinstance(layer, nn.Linear)
        labels = self._units.new(layer.out_features if linear else layer.out_channels)
        self.producers[name] = labels
        outgoing = (-1 if linear else 1), labels
        n_columns = layer.in_features if linear else layer.in_channels
        if not linear and layer.groups == layer.in_channels == layer.out_channels > 1:
            return self._merged([x for x in (flow, outgoing) if x is not None])
        if not linear and layer.groups > 1:
            self._refused_by(layer, outgoing)
            self._refused_by(layer, flow)
        if flow is None or flow[0] is None:
            return outgoing
        axis = -1 if linear else -1 - len(layer.kernel_size)
        if _same_axis(flow[0], axis, len(shape)) and len(flow[1]) == n_columns:
            self.consumers[name] = flow[1]
        else:
            self._refused_by(layer, flow)
        return outgoing

    def _flow_of_normalization(self, name, layer, flow, shape):
        """Flow through a layer that has parameters for each unit."""
        if flow is None or flow[0] is None:
            return flow
        if isinstance(layer, nn.PReLU) and layer.num_parameters == 1:
            return flow
        if isinstance(layer, nn.LayerNorm):
            fits = _same_axis(flow[0], -1, len(shape))
            fits &= layer.normalized_shape == (len(flow[1]),)
        elif isinstance(layer, (_BatchNorm, nn.PReLU)):
            n_units = getattr(layer, "num_features", None) or layer.num_parameters
            fits = _same_axis(flow[0], 1, len(shape)) and n_units == len(flow[1])
        else:
            fits = False
        if fits:
            self.normalizations[name] = flow[1]
        else:
            self._refused_by(layer, flow)
        return flow

    def _flow_of_reshape(self, grad_fn, flow, shape):
        result = reshaped(flow, shape, _shape(grad_fn, 0))
        if result is None:
            # From here on one label has to stand for all of them.
            self._units.join(flow[1], np.repeat(flow[1][:1], len(flow[1])))
            self._units.refuse(flow[1], f"a reshape to {_shape(grad_fn, 0)}")
            return None, flow[1][:1]
        return result

    def _flow_of_concatenation(self, grad_fn, inputs):
        shape = _shape(grad_fn, 0)
        dim = saved_dim(grad_fn, len(shape))
        known = [flow for flow, _ in inputs if flow is not None]
        axes = {flow[0] % len(shape) for flow in known if flow[0] is not None}
        if axes != {dim}:
            return self._merged(known)
        sizes = [part[dim] if part else None for _, part in inputs]
        if sizes.count(None) == 1:
            missing = shape[dim] - sum(size for size in sizes if size)
            sizes[sizes.index(None)] = missing
        labels = []
        for (flow, _), size in zip(inputs, sizes, strict=True):
            part = [-1] if flow is None else flow[1]
            whole = flow is None or flow[0] is None
            labels.append(np.full(size or 0, part[0]) if whole else part)
        joined = np.concatenate(labels)
        if len(joined) != shape[dim]:
            self._units.refuse(joined, "a concatenation with tensors of unknown size")
        return next(flow[0] for flow in known if flow[0] is not None), joined

    def _merged(self, flows):
        """Flow of an operation that works element by element, with broadcasting."""
        longest = max(flows, key=lambda flow: (flow[0] is not None, len(flow[1])))
        for flow in flows:
            if flow is longest:
                continue
            if len(flow[1]) == len(longest[1]):
                self._units.join(longest[1], flow[1])
            elif flow[0] is None:
                self._units.join(longest[1], np.repeat(flow[1][:1], len(longest[1])))
            elif len(flow[1]) == 1:
                self._units.fix(flow[1], "all units of another layer read them")
            else:
                both = np.concatenate([longest[1], flow[1]])
                self._units.refuse(both, "a product of two layers' outputs")
        return longest

    def _refused_by(self, layer, flow):
        if flow is not None:
            reason = f"layer {self._names[layer]!r} ({type(layer).__name__})"
            self._units.refuse(flow[1], reason, is_layer=True)
        return flow


def _check_called_once(calls, names):
    """Refuse a layer whose weights do two jobs."""
    for layer, n_calls in Counter(calls).items():
        own = sum(p.numel() for p in layer.parameters(recurse=False))
        if n_calls > 1 and own > 1 and not isinstance(layer, _EMBEDDINGS):
            raise UnsupportedNetworkError(
                f"Layer {names[layer]!r} ({type(layer).__name__}) is called "
                f"{n_calls} times in one forward pass, so its weights are "
                "tied; give each call a layer of its own."
            )


def _in_forward_order(grad_fns):
    """Nodes of the autograd graph, each behind those that it reads."""
    order, seen, stack = [], set(), [(fn, False) for fn in reversed(grad_fns)]
    while stack:
        grad_fn, expanded = stack.pop()
        if expanded:
            order.append(grad_fn)
        elif grad_fn not in seen:
            seen.add(grad_fn)
            stack.append((grad_fn, True))
            parents = [f for f, _ in reversed(grad_fn.next_functions) if f is not None]
            stack.extend((parent, False) for parent in parents)
    return order


def _shape(grad_fn, output):
    """Shape of one output of an autograd node."""
    if grad_fn is None:
        return ()
    return tuple(grad_fn._input_metadata[output].shape)


def _same_axis(axis, wanted, n_axes):
    return axis % n_axes == wanted % n_axes
