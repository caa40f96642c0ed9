"""A module cut in two: what no player can change, and what is played."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional

from skprune.networks import (
    ColumnSelection,
    agree,
    call,
    evaluating,
    is_within,
    map_tensors,
    remove_players,
    tensors_in,
)

__all__ = [
    "LayerTracer",
    "SplitModule",
    "has_side_effect",
    "holds_any",
    "split_module",
]

_TRACING = threading.Lock()
_SOFTMAX_FUNCTIONS = {
    functional.softmax,
    functional.log_softmax,
    torch.softmax,
    torch.log_softmax,
    torch.sigmoid,
    functional.sigmoid,
}
_SOFTMAX_MODULES = (nn.Softmax, nn.LogSoftmax, nn.Sigmoid)
_SOFTMAX_METHODS = {"softmax", "log_softmax", "sigmoid"}


class SplitModule:
    """A front that is computed once, and a rest that every coalition runs through.

    Parameters
    ----------
    rest : torch.nn.Module
        What lies behind the first layers that read players. Its layers are those of
        the given module, under their names.
    players : Players
        The players, as players of `rest`: those made by the front stay among the
        features, and the layers that read them select.
    front : torch.nn.Module or None
        What lies before; None where the module could not be cut and `rest` is all.
    logits : bool
        Whether a softmax or sigmoid at the end was left out of `rest`.
    """

    def __init__(self, rest, players, front=None, logits=False):
        self.rest = rest
        self.players = players
        self.front = front
        self.logits = logits

    def features(self, inputs):
        """What `rest` reads, for a batch of inputs: a list of tensors, or `inputs`."""
        if self.front is None:
            return inputs
        return call(self.front, inputs)

    def run(self, features):
        """Outputs of the module for what `features` gave."""
        if self.front is None:
            return call(self.rest, features)
        return self.rest(*features)

    def with_rest(self, rest):
        """The same cut around another rest, such as a pruned one."""
        return SplitModule(rest, self.players, self.front, self.logits)

    def without(self, keep):
        """The same cut around the rest without the players that leave.

        Parameters
        ----------
        keep : ndarray of bool of shape (n_players,)
            Who stays.

        Returns
        -------
        split : SplitModule
            A pruned one; its layers have the names that `layer_in` gives.
        """
        return self.with_rest(remove_players(self.rest, self.players, ~keep))

    def layer_in(self, rest, name):
        """A layer of a pruned rest, which may have got a selection in front of it."""
        layer = rest.get_submodule(name)
        return layer[1] if isinstance(layer, nn.Sequential) else layer

    def copy_weights(self, rest, module, players, keep):
        """Give a pruned module the weights of a pruned rest.

        Parameters
        ----------
        rest : torch.nn.Module
            From `without`, refitted.
        module : torch.nn.Module
            The whole module without the same players; changed in place.
        players : Players
            Players of the whole dense module.
        keep : ndarray of bool of shape (n_players,)
            Who stayed.
        """
        drop = players.leaving(~keep)
        gone, left = np.append(drop, False), players.layers_in(drop)
        for name in self._refittable(rest):
            if is_within(name, left):
                continue
            source, target = self.layer_in(rest, name), self.layer_in(module, name)
            rows = slice(None)
            if name in players.producers and len(source.weight) != len(target.weight):
                rows = torch.as_tensor(~gone[players.producers[name]])
            with torch.no_grad():
                target.weight.copy_(source.weight[rows])
                if target.bias is not None:
                    target.bias.copy_(source.bias[rows])

    def _refittable(self, rest):
        """Layers of a pruned rest whose weights a repair may have changed."""
        readers = self.players.consumers
        # One of the other Linear layers may give the outputs; the weights of those
        # that do not are equal in both modules.
        others = [
            name
            for name, layer in rest.named_modules()
            if isinstance(layer, nn.Linear)
            and name not in self.players.weights
            and not is_within(name, readers)
        ]
        return [*readers, *others]


def split_module(module, players, example_input, strip_softmax=True):
    """Cut a module in front of the first layers that read players.

    Parameters
    ----------
    module : torch.nn.Module
        The module; its layers are shared, not copied.
    players : Players
        Players of the module.
    example_input : tensor, tuple of tensors or dict of tensors
        A batch on which the cut is tried out.
    strip_softmax : bool, default=True
        Leave a softmax, log-softmax or sigmoid at the end out, so that the outputs are
        logits.

    Returns
    -------
    SplitModule
        A trivial one where `torch.fx` cannot trace the module.
    """
    with evaluating(module), torch.no_grad():
        try:
            graph = LayerTracer(players).trace(module)
        except Exception:
            # Tracing runs the user's forward on proxies, which can fail in any way; the
            # whole module is then run for every coalition, slower and as correct.
            return SplitModule(module, players)
        logits = strip_softmax and _strip_softmax(graph, module)
        split = _cut(module, graph, players, logits)
        works = split is not None and _works(split, module, example_input)
        return split if works else SplitModule(module, players)


class LayerTracer(fx.Tracer):
    """Keeps layers whole, so that their names stay those of the module.

    These are torch's and our own, and whatever inherits what torch's layers compute.

    Parameters
    ----------
    players : Players
        Layers that they are, are read by or pass are kept whole too.
    """

    def __init__(self, players):
        super().__init__()
        parts = players.layers, players.consumers, players.weights
        self._layers = frozenset().union(*parts, players.normalizations)

    def trace(self, root, *args, **kwargs):
        # fx patches nn.Module for all threads while it traces.
        self._owner = threading.get_ident()
        with _TRACING:
            return super().trace(root, *args, **kwargs)

    def call_module(self, m, forward, args, kwargs):
        if threading.get_ident() != self._owner:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr, attr_val, parameter_proxy_cache):
        if threading.get_ident() != self._owner:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, module, qualified_name):
        if isinstance(module, ColumnSelection) or qualified_name in self._layers:
            return True
        forward = type(module).forward
        is_torchs = forward.__module__.startswith(("torch.nn.", "torch.ao.nn."))
        # A forward of the module's own is no method of its class.
        own = nn.Sequential.forward, nn.Module.forward
        return is_torchs and forward not in own


def _strip_softmax(graph, module):
    """Let the graph return what its last softmax or sigmoid reads."""
    output = next(node for node in graph.nodes if node.op == "output")
    last = output.args[0]
    if not isinstance(last, fx.Node):
        return False
    is_softmax = (
        (last.op == "call_function" and last.target in _SOFTMAX_FUNCTIONS)
        or (last.op == "call_method" and last.target in _SOFTMAX_METHODS)
        or (
            last.op == "call_module"
            and isinstance(module.get_submodule(last.target), _SOFTMAX_MODULES)
        )
    )
    if is_softmax:
        output.args = (last.args[0],)
        graph.erase_node(last)
    return is_softmax


def _cut(module, graph, players, logits):
    """Both halves of a traced module."""
    if any(has_side_effect(module, node) for node in graph.nodes):
        return None
    played = set()
    # A BatchNorm or PReLU works unit by unit, so nobody's absence changes it; only a
    # LayerNorm takes its statistics over the players present.
    names = {*players.consumers, *players.weights, *players.layers} | {
        name
        for name in players.normalizations
        if isinstance(module.get_submodule(name), nn.LayerNorm)
    }
    for node in graph.nodes:
        reads = any(parent in played for parent in node.all_input_nodes)
        calls = node.op == "call_module" and holds_any(node.target, names)
        if reads or calls:
            played.add(node)
    if not played:
        # A module that is itself the layer: there is nothing in front of it.
        return None
    output = next(node for node in graph.nodes if node.op == "output")
    border = [
        node
        for node in graph.nodes
        if node not in played
        and any(user in played for user in node.users)
        # A constant of the module is read where it is needed.
        and node.op != "get_attr"
    ]
    front, front_env = fx.Graph(), {}
    for node in graph.nodes:
        if node not in played and node is not output:
            front_env[node] = front.node_copy(node, front_env.__getitem__)
    front.output([front_env[node] for node in border])
    parts = [node.target for node in played if node.op == "call_module"]
    inner = _players_of_rest(players, parts)
    if inner is None:
        return None
    rest = fx.Graph()
    rest_env = {node: rest.placeholder(f"feature_{i}") for i, node in enumerate(border)}
    for node in graph.nodes:
        if node in played or node is output or node.op == "get_attr":
            rest_env[node] = rest.node_copy(node, rest_env.__getitem__)
    return SplitModule(
        fx.GraphModule(module, rest), inner, fx.GraphModule(module, front), logits
    )


def holds_any(target, names):
    """Whether a part of a module is a layer of these names, or holds one."""
    return any(is_within(name, [target]) for name in names)


def has_side_effect(module, node):
    """Whether a node only changes in place what others read: no path leads from it."""
    if node.users or node.op in ("output", "placeholder", "get_attr"):
        return False
    if node.op == "call_module":
        return getattr(module.get_submodule(node.target), "inplace", False)
    name = getattr(node.target, "__name__", node.target)
    return name.endswith("_") or name == "setitem" or node.kwargs.get("inplace", False)


def _players_of_rest(players, parts):
    """Players as the rest knows them, or None where the rest cannot be pruned alone.

    Units that the front makes are not removed there: what reads them selects. A unit
    of the rest that leaves with one of the front keeps its place too.
    """
    outside = np.zeros(players.n_players + 1, dtype=bool)
    for name, owners in players.producers.items():
        if not is_within(name, parts):
            outside[owners] = True
    outside[-1] = False
    selections = dict(players.selections)
    for name, owners in players.consumers.items():
        owned = outside[owners[owners >= 0]]
        if owned.any() and not owned.all():
            return None
        if owned.any():
            selections[name] = owners

    def inside(owners_of_layers):
        return {
            name: np.where(outside[owners], -1, owners)
            for name, owners in owners_of_layers.items()
            if is_within(name, parts)
        }

    norms = {n: o for n, o in players.normalizations.items() if is_within(n, parts)}
    if any(outside[owners].any() for owners in norms.values()):
        return None
    return replace(
        players,
        producers=inside(players.producers),
        normalizations=norms,
        selections=selections,
        # A selection that went to the front is not there to be narrowed.
        selected=frozenset(
            n for n in players.selected if is_within(n[:-1] + "0", parts)
        ),
    )


def _works(split, module, example_input):
    """Whether the halves together give what the module gives, batch by batch."""
    try:
        features = split.features(example_input)
        batch = tensors_in(example_input)[0].shape[0]
        if not all(isinstance(f, torch.Tensor) and len(f) == batch for f in features):
            return False
        twice = map_tensors(lambda x: torch.cat([x, x]), example_input)
        doubled = split.run([torch.cat([f, f]) for f in features])
        expected = call(module, twice)
    except Exception:
        # As above: a graph that does not run is not used.
        return False
    same_shape = isinstance(doubled, torch.Tensor) and doubled.shape == expected.shape
    return same_shape and (split.logits or agree(doubled, expected))
