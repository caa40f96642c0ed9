"""What no network of ours may hold, checked before anything is run."""

import torch
from torch import nn
from torch.nn.utils import parametrize

from skprune.exceptions import UnsupportedNetworkError

__all__ = ["check_supported"]

_UNSUPPORTED = {
    nn.RNNBase: "recurrent layers",
    nn.RNNCellBase: "recurrent layers",
    nn.MultiheadAttention: "attention layers",
    torch.jit.ScriptModule: "compiled modules",
}


def check_supported(module):
    """Refuse a module with a part that cannot be played, by the part's name.

    Parameters
    ----------
    module : torch.nn.Module
        The user's network.

    Raises
    ------
    UnsupportedNetworkError
        For recurrent and attention layers, compiled modules, parametrized or
        uninitialized weights, weights that a hook computes, and weights that two layers
        share.
    """
    owner_of = {}
    for name, part in module.named_modules():
        _check_type(name, part)
        for own, parameter in part.named_parameters(recurse=False):
            full_name = f"{name}.{own}".lstrip(".")
            if nn.parameter.is_lazy(parameter):
                raise UnsupportedNetworkError(
                    f"Layer {name!r} ({type(part).__name__}) has no sizes yet; run "
                    "the network once on a batch."
                )
            if parameter in owner_of:
                raise UnsupportedNetworkError(
                    f"Layer {name!r} shares its weights with another one: "
                    f"{full_name!r} is {owner_of[parameter]!r}. Tied weights cannot "
                    "be pruned; give each layer its own."
                )
            owner_of[parameter] = full_name


def _check_type(name, part):
    kind = next((text for t, text in _UNSUPPORTED.items() if isinstance(part, t)), None)
    if kind is None and (
        parametrize.is_parametrized(part) or hasattr(part, "weight_g")
    ):
        kind = "parametrized weights"
    for own in part._parameters:
        # A hook leaves what it computes among the plain attributes.
        if not (own.endswith("_orig") and own.removesuffix("_orig") in vars(part)):
            continue
        raise UnsupportedNetworkError(
            f"Layer {name!r} ({type(part).__name__}) computes its weights from "
            f"{own!r} in a hook, as torch.nn.utils.prune does; make what it "
            "gave permanent, by torch.nn.utils.prune.remove or remove_spectral_norm."
        )
    if kind is not None:
        raise UnsupportedNetworkError(
            f"Layer {name!r} ({type(part).__name__}) is not supported: {kind} cannot "
            "be followed unit by unit. Give a network without it, or the part of the "
            "network behind it."
        )
