"""What a traced module looks like: chains of Linear layers, and who is rectified."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn import functional

__all__ = ["ChainLink", "has_hooks", "linear_chain", "rectified_layers"]

_FUNCTIONS = {
    functional.relu: "relu",
    torch.relu: "relu",
    functional.leaky_relu: "leaky_relu",
    functional.elu: "elu",
    functional.gelu: "gelu",
    functional.silu: "silu",
    functional.tanh: "tanh",
    torch.tanh: "tanh",
    functional.sigmoid: "sigmoid",
    torch.sigmoid: "sigmoid",
    functional.dropout: "identity",
}
_MODULES = {
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.ELU: "elu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.Identity: "identity",
    nn.Dropout: "identity",
}
_METHODS = {"relu": "relu", "tanh": "tanh", "sigmoid": "sigmoid"}
_SLOPES = {"leaky_relu": ("negative_slope", 0.01), "elu": ("alpha", 1.0)}


@dataclass(frozen=True)
class ChainLink:
    """A Linear layer and the activation behind it.

    Parameters
    ----------
    name : str
        Name of the layer in the module.
    activation : tuple of (str, float)
        Name and parameter (0 where it has none) of the activation.
    """

    name: str
    activation: tuple[str, float]


def linear_chain(split):
    """The rest of a split module as Linear layers in a row, or None.

    Parameters
    ----------
    split : SplitModule
        A module cut in front of its first layer that reads players.

    Returns
    -------
    links : list of ChainLink or None
        The layers in forward order; None where the rest is anything else.
    """
    if split.front is None:
        return None
    links = []
    nodes = [node for node in split.rest.graph.nodes if node.op != "placeholder"]
    if len(split.rest.graph.nodes) - len(nodes) != 1:
        return None
    for node in nodes:
        if len(node.all_input_nodes) != 1 or len(node.users) > 1:
            return None
        if node.op == "output":
            break
        layer = _module_of(split.rest, node)
        activation = _activation(split.rest, node)
        if layer is not None and has_hooks(layer):
            return None
        if type(layer) is nn.Linear:
            links.append(ChainLink(node.target, ("identity", 0.0)))
        elif activation is None or not links:
            return None
        elif activation[0] != "identity":
            if links[-1].activation[0] != "identity":
                return None
            links[-1] = ChainLink(links[-1].name, activation)
    return links if links and links[-1].activation[0] == "identity" else None


def rectified_layers(split):
    """Names of the layers of the rest whose outputs are read through a ReLU alone.

    Parameters
    ----------
    split : SplitModule
        A module cut in front of its first layer that reads players.

    Returns
    -------
    names : set of str
        Such layers; empty where the module could not be traced.
    """
    if split.front is None:
        return set()
    return {
        node.target
        for node in split.rest.graph.nodes
        if node.op == "call_module" and _is_rectified(split.rest, node)
    }


def has_hooks(layer):
    """Whether hooks may change what a layer reads or gives."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


def _is_rectified(module, node):
    """Whether every reader of a node is a ReLU."""
    return bool(node.users) and all(
        (_activation(module, user) or ("", 0.0))[0] == "relu" for user in node.users
    )


def _module_of(module, node):
    """The layer that a node calls, if any."""
    return module.get_submodule(node.target) if node.op == "call_module" else None


def _activation(module, node: fx.Node):
    """Name and parameter of the pointwise activation that a node is, or None."""
    if node.op == "call_module":
        layer = _module_of(module, node)
        name = _MODULES.get(type(layer))
        if name == "gelu" and layer.approximate != "none":
            return None
        attribute, _ = _SLOPES.get(name, (None, 0.0))
        return name and (name, float(getattr(layer, attribute or "", 0.0)))
    if node.op == "call_method":
        name = _METHODS.get(node.target)
        return name and (name, 0.0)
    if node.op != "call_function" or node.target not in _FUNCTIONS:
        return None
    name = _FUNCTIONS[node.target]
    if name == "gelu" and node.kwargs.get("approximate", "none") != "none":
        return None
    attribute, default = _SLOPES.get(name, (None, 0.0))
    given = node.args[1] if attribute and len(node.args) > 1 else default
    return name, float(node.kwargs.get(attribute, given))
