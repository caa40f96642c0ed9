"""Whole layers as players: which parts of a network can be left out of it."""

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from skprune.networks._inputs import call, map_tensors
from skprune.networks._players import is_within
from skprune.networks._selection import is_selected

__all__ = ["find_layers"]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_MAPS = (nn.Linear, _ConvNd)


def find_layers(module, example_input, labels, output_layer):
    """Find the layers that may be left out, for what they read is what they give.

    Parameters
    ----------
    module : torch.nn.Module
        A copy of the user's module in evaluation mode, whose parameters require
        gradients.
    example_input : tensor, tuple of tensors or dict of tensors
        What it is run on.
    labels : list of (str or None)
        Names of layers. None for the outermost parts that qualify and hold a Linear
        layer or a convolution; containers of torch are no such parts.
    output_layer : str or None
        The layer that gives the answer, which stays.

    Returns
    -------
    list of str
        Names of the layers, in forward order.

    Raises
    ------
    ValueError
        If a layer cannot be left out, if there is none, or if one is inside another.
    """
    faults = _faults(module, example_input, output_layer)
    whole = _outermost(module, faults)
    for label in labels:
        if label is not None:
            _check_layer(module, label, faults, whole)
    if None in labels and not whole:
        raise ValueError(_why_none(module, faults))
    found = [name for label in labels for name in (whole if label is None else [label])]
    for place, name in enumerate(found):
        others = found[:place] + found[place + 1 :]
        if is_within(name, others):
            outer = next(other for other in others if is_within(name, [other]))
            raise ValueError(
                f"players names the same units twice: layer {name!r} is in layer "
                f"{outer!r}, which is to be a player too. Name one of them."
            )
    return [name for name in faults if name in found]


def _faults(module, example_input, output_layer):
    """Why each part of a module cannot be left out, or None, in forward order."""
    called = {}

    def watch(name, part):
        def see(_, args, kwargs, output):
            called.setdefault(name, []).append(_fault_of_call(args, kwargs, output))

        return part.register_forward_hook(see, with_kwargs=True)

    parts = {name: part for name, part in module.named_modules() if name}
    handles = [watch(name, part) for name, part in parts.items()]
    try:
        with torch.enable_grad():
            call(module, map_tensors(_followed, example_input))
    finally:
        for handle in handles:
            handle.remove()
    faults = {name: faults[0] for name, faults in called.items()}
    for name in parts:
        n_calls = len(called.get(name, []))
        if n_calls != 1:
            faults[name] = f"the network calls it {n_calls} times, and not once"
        elif output_layer is not None and is_within(output_layer, [name]):
            what = "is" if name == output_layer else f"holds {output_layer!r},"
            faults[name] = f"it {what} the output layer, without which is no answer"
    return faults


def _followed(x):
    """A copy that is no leaf, and that autograd follows where it can."""
    return x.clone().requires_grad_() * 1 if x.is_floating_point() else x.clone()


def _fault_of_call(args, kwargs, output):
    """Why what a layer gives cannot be replaced by what it reads, or None."""
    given = [*args, *kwargs.values()]
    is_one = len(given) == 1 and isinstance(given[0], torch.Tensor)
    if not is_one:
        return (
            f"it is called with {len(given)} arguments, and not with one tensor alone"
        )
    if named := kwargs.keys() - {"input"}:
        return f"it is called with the keyword {named.pop()!r}; call it as layer(x)"
    if not isinstance(output, torch.Tensor):
        return f"it gives a {type(output).__name__}, and no tensor"
    (x,) = given
    if x.shape != output.shape or x.dtype != output.dtype:
        return (
            f"it reads {x.dtype} of shape {tuple(x.shape)} and gives {output.dtype} of "
            f"shape {tuple(output.shape)}"
        )
    if not x.requires_grad:
        return "what it reads depends on no layer and no input of the network"
    return None


def _outermost(module, faults, prefix=""):
    """Outermost parts that can be left out and hold a Linear layer or a convolution."""
    found = []
    for own_name, part in module.named_children():
        name = f"{prefix}{own_name}"
        is_container = type(part) in _CONTAINERS and not _is_selection(part)
        if faults[name] is None and not is_container and _holds_map(part):
            found.append(name)
        else:
            found += _outermost(part, faults, f"{name}.")
    return found


def _is_selection(part):
    """Whether a container is a layer of ours that reads through a selection."""
    return isinstance(part, nn.Sequential) and is_selected(part, "1")


def _holds_map(part):
    return any(isinstance(layer, _MAPS) for layer in part.modules())


def _check_layer(module, label, faults, choices):
    """Refuse a name that is no layer's, or that of a layer which cannot leave."""
    if label in faults and faults[label] is None:
        return
    if label == "":
        raise ValueError(
            "players: the network itself cannot be left out; name a layer of it, such "
            f"as one of {choices}."
        )
    if label not in faults:
        raise ValueError(
            f"players: layer {label!r} does not exist; layers that can be left out are "
            f"{choices}."
        )
    raise ValueError(
        f"players: layer {label!r} ({type(module.get_submodule(label)).__name__}) "
        f"cannot be left out: {faults[label]}. A layer that leaves hands on what it "
        "reads, so it has to read one tensor and give one of the same shape. Name one "
        f"of {choices}, or play its neurons, filters or weights."
    )


def _why_none(module, faults):
    """An error's text for a network without a layer that can be left out."""
    reasons = [
        f"{name!r}: {fault}"
        for name, fault in faults.items()
        if fault is not None and isinstance(module.get_submodule(name), _MAPS)
    ]
    return (
        "The network has no players='layers': none of its layers reads one tensor and "
        "gives one of the same shape, so that it could be left out "
        f"({'; '.join(reasons)}). Build it of layers of equal width or of residual "
        "blocks, or choose other players, such as players='neurons'."
    )
