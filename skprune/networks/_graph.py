"""torch-pruning's graph of a forward pass: which module made which node.

Its index arithmetic is left aside: it guesses sizes from neighbouring layers, is
wrong for a concatenation in front of a Flatten and for sequences, and fails for
some networks whose players it would never touch. Autograd knows the true shapes.
"""

from dataclasses import dataclass

import torch
import torch_pruning
from torch import nn

from skprune.networks._hooks import LayerHooks
from skprune.networks._inputs import call, map_tensors, tensors_in

__all__ = ["InputTap", "NetworkGraph", "build_graph"]


@dataclass(frozen=True)
class NetworkGraph:
    """Nodes of an autograd graph, and where they come from.

    Attributes
    ----------
    outputs : list of tensors
        What the network gave, as far as it depends on a layer.
    module_of : dict of autograd node to torch.nn.Module or torch.nn.Parameter
        The layer whose output a node is, or the parameter that it reads.
    parameter_names : dict of torch.nn.Parameter to str
        Parameters that belong to no layer that torch-pruning knows.
    """

    outputs: list
    module_of: dict
    parameter_names: dict


class InputTap(nn.Module):
    """Identity that autograd can see: where an input enters the network."""

    def __init__(self, like):
        super().__init__()
        self.one = nn.Parameter(torch.ones((), dtype=like.dtype, device=like.device))

    def forward(self, x):
        """Return `x`, as a tensor that requires a gradient."""
        return x * self.one


def build_graph(module, example_input, passive_types, joined=()):
    """Trace a module with torch-pruning.

    Parameters
    ----------
    module : torch.nn.Module
        A module all of whose parameters require gradients.
    example_input : tensor, tuple of tensors or dict of tensors
        What it is run on.
    passive_types : tuple of type
        Layers that torch-pruning does not know and that shall be nodes too.
    joined : iterable of torch.nn.Module, default=()
        Parts of the module whose outputs depend on their inputs element by element
        too, as in a residual sum.

    Returns
    -------
    NetworkGraph
        The nodes of the forward pass.
    """
    outputs = []

    def forward(tapped, example_input):
        # Hooked here and not before: torch-pruning's hooks have to come first, which
        # take what a layer gives for the layer's node.
        with _Joins(tapped, joined):
            outputs.extend(tapped(example_input))
        if not outputs:
            raise ValueError("its output does not depend on a layer by autograd.")
        return outputs

    types = (InputTap, nn.EmbeddingBag, *passive_types)
    graph = _NodesOnly().build_dependency(
        _Tapped(module, example_input),
        example_input,
        forward_fn=forward,
        customized_pruners={layer_type: _Passive() for layer_type in types},
        verbose=False,
    )
    names = graph._param_to_name
    return NetworkGraph(
        outputs,
        {node.grad_fn: node.module for node in graph.nodes},
        {parameter: name.removeprefix("module.") for parameter, name in names.items()},
    )


class _Joins(LayerHooks):
    """Ties what some layers give to what they read."""

    def __init__(self, module, layers):
        super().__init__(module)
        for layer in layers:
            self._join(layer)

    def _join(self, layer):
        given = []
        # A copy: the layer may work in place on what it reads.
        self._before(layer, lambda x: given.append(x.clone()), first=True)
        self._after(layer, lambda _, output: torch.add(output, given.pop(), alpha=0))


class _NodesOnly(torch_pruning.DependencyGraph):
    """A dependency graph that keeps its nodes and infers no sizes."""

    def _build_dependency(self, module2node):
        self.nodes = list(module2node.values())
        # What follows in build_dependency walks over this, and has nothing to do.
        self.module2node = {}


class _Tapped(nn.Module):
    """The network behind taps on its floating point inputs."""

    def __init__(self, module, example_input):
        super().__init__()
        self.module = module
        self.taps = nn.ModuleList(
            InputTap(x) for x in tensors_in(example_input) if x.is_floating_point()
        )

    def forward(self, example_input):
        taps = iter(self.taps)
        tapped = map_tensors(
            lambda x: next(taps)(x) if x.is_floating_point() else x, example_input
        )
        return [x for x in tensors_in(call(self.module, tapped)) if x.requires_grad]


class _Passive(torch_pruning.BasePruningFunc):
    """Make torch-pruning keep a node for a layer of which it does not know."""

    def prune_out_channels(self, layer, idxs):
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer):
        return None

    get_in_channels = get_out_channels
