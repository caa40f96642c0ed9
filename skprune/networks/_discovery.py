"""find_players: from what the caller asks for to the players of a module."""

from dataclasses import replace

import numpy as np
from torch import nn
from torch.nn.modules.conv import _ConvNd

from skprune.exceptions import UnsupportedNetworkError
from skprune.networks._keystone import check_keystone
from skprune.networks._layers import find_layers
from skprune.networks._players import Players
from skprune.networks._selection import is_selected
from skprune.networks._support import check_supported
from skprune.networks._surgery import copy_of
from skprune.networks._tracing import trace_units

__all__ = ["find_players"]

_LAYER_TYPE = {
    "neurons": nn.Linear,
    "filters": _ConvNd,
    "inputs": (nn.Linear, _ConvNd),
    "weights": (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    "layers": nn.Module,
}


def find_players(module, example_input, players="neurons"):
    """Find the units of a module that may leave.

    Parameters
    ----------
    module : torch.nn.Module
        The network. It is copied, and the copy is run; it stays as it is.
    example_input : tensor, tuple of tensors or dict of tensors
        A batch that the network can read, on its device. A tuple is given as
        arguments, a dict as keywords.
    players : {"neurons", "filters", "inputs", "weights", "layers"} or list of \
(kind, layer), default="neurons"
        "neurons": units of all hidden Linear layers. "filters": of all
        convolutions. "inputs": the features that the first layer reads. "weights":
        single weights of all Linear layers and convolutions. "layers": whole layers,
        see the notes. Or pairs such as ``("neurons", "fc1")`` with names from
        ``module.named_modules()``, of any kinds side by side. Units that are added to
        the network's input, or reach its output, are no players.

    Returns
    -------
    Players
        The players, and what each of them owns.

    Raises
    ------
    ValueError
        If `players` names no kind or layer that there is, a layer of another kind,
        the output layer, the same units or weights twice, or a layer that cannot be
        left out; or if there is no player.
    UnsupportedNetworkError
        If the network holds a part that cannot be played, or if a masked forward
        pass is not that of the pruned network. The text names the layer.

    Notes
    -----
    A whole layer that leaves is bypassed: it hands on what it reads. ``("layers",
    name)`` may be any module that is called once, with one tensor, and gives one of the
    same shape: a Linear layer, a convolution or a block of several layers. "layers"
    alone takes the outermost ones that hold a Linear layer or a convolution. The units
    that enter and leave such a layer are one player each, if they are players, and
    units wholly inside it leave with it. What holds the output layer cannot leave.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skprune.networks import find_players
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> find_players(net, torch.zeros(1, 4), [("inputs", "0"), ("neurons", "0")]).names
    ['0.input[0]', '0.input[1]', '0.input[2]', '0.input[3]', '0[0]', '0[1]', '0[2]']
    """
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"module must be a torch.nn.Module; got {type(module).__name__}. Of a "
            "fitted skorch net, give net.module_."
        )
    pairs = _pairs_of(players)
    check_supported(module)
    scratch = copy_of(module).eval()
    trace = trace_units(scratch, example_input)
    layers = []
    if labels := [label for kind, label in pairs if kind == "layers"]:
        output_layer = trace.order[-1] if trace.order else None
        layers = find_layers(scratch, example_input, labels, output_layer)
        trace = trace_units(scratch, example_input, layers)
    found = _Assembly(scratch, trace, pairs, layers, asked=players).players()
    check_keystone(module, scratch, found, example_input)
    return found


def _pairs_of(players):
    """Normalize `players` to a list of (kind, layer or None)."""
    pairs = [(players, None)] if isinstance(players, str) else list(players)
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ValueError(
                "players must be a kind or a list of (kind, layer) pairs; got "
                f"{pair!r} in {players!r}."
            )
        if pair[0] not in _LAYER_TYPE:
            raise ValueError(
                f"players: there is no kind {pair[0]!r}; the kinds are "
                f"{list(_LAYER_TYPE)}."
            )
    pairs = [tuple(pair) for pair in pairs]
    for pair in pairs:
        if pairs.count(pair) > 1:
            raise ValueError(f"players names {pair!r} twice; name each layer once.")
    if not pairs:
        raise ValueError("players is empty; give a kind or (kind, layer) pairs.")
    return pairs


class _Assembly:
    """Puts players together from a trace and what was asked for."""

    def __init__(self, module, trace, pairs, layers, asked):
        self.module, self.trace, self.asked = module, trace, asked
        self.layers = layers
        self.label_of = {name: _label(module, name) for name in trace.order}
        self.name_of = {label: name for name, label in self.label_of.items()}
        chosen = set()
        self.input_layers, self.weight_layers = [], set()
        for kind, label in pairs:
            if kind == "inputs":
                self.input_layers.append(self._input_layer(label))
            elif kind == "weights":
                self.weight_layers |= set(self._layers_of(kind, label))
            elif kind != "layers":
                chosen |= self._units_of(kind, label)
        self.chosen = chosen

    def players(self):
        """Number the players, group by group, and say what they own."""
        number, names, groups, group_of = {}, [], [], []
        selections, weights = {}, {}

        def add_group(label, n_units, units):
            if units:
                group_of.extend([len(groups)] * n_units)
                groups.append(label)
                names.extend(f"{label}[{unit}]" for unit in units)

        for name in self.trace.order:
            label = self.label_of[name]
            if name in self.input_layers:
                n_columns = _n_columns(self.module.get_submodule(name))
                selections[name] = np.arange(n_columns) + len(names)
                input_label = f"{label}.input" if label else "input"
                add_group(input_label, n_columns, range(n_columns))
            if name in self.weight_layers:
                shape = self.module.get_submodule(name).weight.shape
                places = [",".join(map(str, place)) for place in np.ndindex(*shape)]
                weights[name] = len(names) + np.arange(len(places)).reshape(shape)
                add_group(f"{label}.weight".lstrip("."), len(places), places)
            first_unit = {}
            for unit, root in enumerate(self.trace.producers.get(name, [])):
                if root in self.chosen and root not in number:
                    number[root] = len(names) + len(first_unit)
                    first_unit[unit] = root
            add_group(label, len(first_unit), list(first_unit))
        if self.layers:
            # One group: of a group for each layer nobody could ever leave.
            group_of += [len(groups)] * len(self.layers)
            groups.append("layers")
            names += self.layers
        numbers = range(len(names) - len(self.layers), len(names))
        layers = dict(zip(self.layers, numbers, strict=True))
        self._check_found(names)
        players = self._owned(number, names, groups, group_of, selections, weights)
        return replace(players, layers=layers)

    def _owned(self, number, names, groups, group_of, selections, weights):
        """Translate the labels of the trace into owners."""

        def owners_of(labels):
            owners = {
                name: np.array([number.get(root, -1) for root in roots], int)
                for name, roots in labels.items()
            }
            return {name: o for name, o in owners.items() if (o >= 0).any()}

        consumers = owners_of(self.trace.consumers)
        for name in selections:
            if name in consumers:
                raise ValueError(
                    f"players={self.asked!r} names the same units twice: layer "
                    f"{self.label_of[name]!r} reads units that are players already. "
                    f"Leave out ('inputs', {self.label_of[name]!r}) or these."
                )
        producers = owners_of(self.trace.producers)
        for name in weights:
            if name in producers or name in consumers or name in selections:
                raise ValueError(
                    f"players={self.asked!r} names the same weights twice: those of "
                    f"layer {self.label_of[name]!r} are in rows or columns that leave "
                    "with whole units. Name either its weights or these units."
                )
        return Players(
            n_players=len(names),
            names=names,
            groups=tuple(groups),
            group_of=np.array(group_of, int),
            producers=producers,
            consumers=consumers | selections,
            normalizations=owners_of(self.trace.normalizations),
            selections=selections,
            selected=frozenset(n for n in selections if is_selected(self.module, n)),
            weights=weights,
        )

    def _units_of(self, kind, label):
        """Sets of units that the pair (kind, layer) asks for."""
        layers = self._layers_of(kind, label)
        roots = {r for name in layers for r in self.trace.producers.get(name, [])}
        free = {root for root in roots if root not in self.trace.fixed}
        if label is not None and not free:
            reason = self.trace.fixed[min(roots)] if roots else "nothing reads them"
            raise ValueError(
                f"players: the units of layer {label!r} can never leave the network: "
                f"{reason}. Name other layers: {self._choices(kind)}."
            )
        for root in sorted(free & self.trace.refused.keys()):
            owner = next(n for n in layers if root in self.trace.producers[n])
            raise UnsupportedNetworkError(
                f"The units of layer {self.label_of[owner]!r} cannot be players: on "
                f"their way is {self.trace.refused[root]}. Leave this layer out of "
                "players, or build the network without that part."
            )
        return free

    def _input_layer(self, label):
        """Name of the layer whose inputs are asked for."""
        if label is None:
            name = self.trace.order[0] if self.trace.order else None
            if name is None:
                self._check_found([])
        else:
            name = self._layer("inputs", label)
        if getattr(self.module.get_submodule(name), "groups", 1) > 1:
            raise UnsupportedNetworkError(
                f"The inputs of layer {self.label_of[name]!r} cannot be players: it "
                "is a grouped convolution. Name another layer."
            )
        return name

    def _layers_of(self, kind, label):
        """Names of the layers that the pair (kind, layer) means."""
        if label is None:
            return [n for n in self.trace.order if self._is_of_kind(n, kind)]
        return [self._layer(kind, label)]

    def _layer(self, kind, label):
        """Name of the module that a pair means, which must be of its kind."""
        name = self.name_of.get(label)
        if name is None:
            known = label in dict(self.module.named_modules())
            what = "is not a layer that it calls" if known else "does not exist"
            raise ValueError(
                f"players: layer {label!r} {what}; for {kind!r} there are "
                f"{self._choices(kind)}."
            )
        if not self._is_of_kind(name, kind):
            found = type(self.module.get_submodule(name)).__name__
            raise ValueError(
                f"players: layer {label!r} is a {found} and has no {kind}; for "
                f"{kind!r} there are {self._choices(kind)}."
            )
        return name

    def _is_of_kind(self, name, kind):
        return isinstance(self.module.get_submodule(name), _LAYER_TYPE[kind])

    def _choices(self, kind):
        """Labels of the layers that can be named with this kind."""
        fixed = self.trace.fixed
        return [
            self.label_of[name]
            for name in self.trace.order
            if self._is_of_kind(name, kind)
            and (
                kind in ("inputs", "weights")
                or set(self.trace.producers.get(name, [])) - set(fixed)
            )
        ]

    def _check_found(self, names):
        if not names:
            raise ValueError(
                f"The network has no players={self.asked!r}: its layers are "
                f"{list(self.name_of)}, and units that reach the output or are added "
                "to the input can never leave."
            )


def _n_columns(layer):
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def _label(module, name):
    """Name of a layer to its user: a selection in front of it is not seen."""
    return name[:-1].rstrip(".") if is_selected(module, name) else name
