"""Coalitions as masks on what the layers behind the players read."""

from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

__all__ = ["MaskedModule", "masked"]


@contextmanager
def masked(module, players, keep):
    """Play a coalition: inside the context, absent players are read as 0.

    Nothing of `module` but its forward hooks changes, and these are taken away at
    the end, also after an exception. A LayerNorm on the way takes its statistics
    over the players present.

    Parameters
    ----------
    module : torch.nn.Module
        The network in which `players` were found.
    players : Players
        From `find_players`.
    keep : bool ndarray of shape (n_players,) or (n_coalitions, n_players)
        True for the players present. Several coalitions are played at once on an
        input of ``n_coalitions * batch`` rows: first the batch of the first one.

    Yields
    ------
    torch.nn.Module
        `module` itself.

    Raises
    ------
    ValueError
        If `keep` is not boolean or does not fit `players`.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from torch import nn
    >>> from skprune.networks import find_players, masked
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> players = find_players(net, torch.zeros(1, 4))
    >>> with masked(net, players, np.zeros(3, dtype=bool)) as nobody:
    ...     bool((nobody(torch.ones(5, 4)) == net[2].bias).all())
    True
    """
    with MaskedModule(module, players) as masks:
        masks.set_masks(keep)
        yield module


# Whole numbers as wide as floating point numbers of so many bytes.
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class MaskedModule:
    """Hooks that are held once, and masks that change from coalition to coalition.

    Parameters
    ----------
    module : torch.nn.Module
        The network in which `players` were found. It is hooked until `close` is
        called or the context of this object ends.
    players : Players
        From `find_players`.

    Notes
    -----
    Absent units are replaced, not multiplied: one that is NaN or infinite reads as
    0 too, as in the network from which it was removed.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from torch import nn
    >>> from skprune.networks import MaskedModule, find_players
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> x = torch.ones(5, 4)
    >>> players = find_players(net, x)
    >>> with MaskedModule(net, players) as masks:
    ...     masks.set_masks(np.eye(3, dtype=bool))
    ...     masks(x.repeat(3, 1)).shape
    torch.Size([15, 2])
    """

    def __init__(self, module, players):
        self.module = module
        self.players = players
        self._present = None
        self._cache = {}
        self._handles = []
        for name, owners in players.consumers.items():
            self._hook_consumer(name, module.get_submodule(name), owners)
        for name, owners in players.normalizations.items():
            layer = module.get_submodule(name)
            if isinstance(layer, nn.LayerNorm):
                self._hook_layer_norm(name, layer, owners)

    def set_masks(self, keep):
        """Change who is present.

        Parameters
        ----------
        keep : bool ndarray or bool tensor, (n_players,) or (n_coalitions, n_players)
            True for the players present; None for everybody. A tensor may lie on the
            module's device already.

        Raises
        ------
        ValueError
            If `keep` is not boolean or does not fit the players.
        """
        self._cache = {}
        if keep is None:
            self._present = None
            return
        present = keep if isinstance(keep, torch.Tensor) else np.asarray(keep)
        n_players = self.players.n_players
        if (
            present.dtype not in (bool, torch.bool)
            or present.ndim not in (1, 2)
            or present.shape[-1] != n_players
        ):
            raise ValueError(
                f"keep must be boolean, of shape ({n_players},) or (n_coalitions, "
                f"{n_players}); got dtype {present.dtype} and shape "
                f"{tuple(present.shape)}."
            )
        present = torch.as_tensor(present)
        # The last column is nobody's: owner -1 picks it, and it is always present.
        self._present = nn.functional.pad(present, (0, 1), value=True)

    def close(self):
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._cache = {}

    def __call__(self, *args, **kwargs):
        """Run the module under the masks that are set.

        Parameters
        ----------
        *args, **kwargs : tensors
            What the module takes.

        Returns
        -------
        tensor
            What the module gives.
        """
        return self.module(*args, **kwargs)

    def __enter__(self):
        """Return self; leaving the context closes it."""
        return self

    def __exit__(self, *exception):
        """Take the hooks away, whatever happened."""
        self.close()

    def _hook_consumer(self, name, layer, owners):
        """Mask the input of a Linear layer or a convolution."""
        axis = -1 if isinstance(layer, nn.Linear) else -1 - len(layer.kernel_size)
        owners = torch.from_numpy(owners)

        def mask_input(_, args, kwargs):
            if self._present is None:
                return None
            if args:
                return (self._masked(name, owners, args[0], axis), *args[1:]), kwargs
            x = self._masked(name, owners, kwargs["input"], axis)
            return args, kwargs | {"input": x}

        mask_input.is_mask = True
        handle = layer.register_forward_pre_hook(mask_input, with_kwargs=True)
        self._handles.append(handle)

    def _hook_layer_norm(self, name, layer, owners):
        """Take the statistics of a LayerNorm over the players present."""
        owners = torch.from_numpy(owners)

        def normalize_present(_, args, kwargs, output):
            if self._present is None:
                return None
            x = args[0] if args else kwargs["input"]
            mask = self._mask(name, owners, x, -1)
            x = x.unflatten(0, (mask.shape[0], -1)) if mask.ndim > x.ndim else x
            return _layer_norm(x, mask, layer).reshape(output.shape)

        normalize_present.is_mask = True
        handle = layer.register_forward_hook(normalize_present, with_kwargs=True)
        self._handles.append(handle)

    def _masked(self, name, owners, x, axis):
        """Replace what absent players give to this layer by 0."""
        mask = self._mask(name, owners, x, axis)
        if mask.ndim == x.ndim:
            return _zeroed(x, mask)
        rows = x.unflatten(0, (mask.shape[0], -1))
        return _zeroed(rows, mask).flatten(0, 1)

    def _mask(self, name, owners, x, axis):
        """Who is present in each column of `x`, with axes that broadcast over it."""
        key = name, x.ndim, x.device
        if key not in self._cache:
            columns = self._present.to(x.device)[..., owners.to(x.device)]
            trailing = (1,) * (-1 - axis)
            if columns.ndim == 1:
                shape = (1,) * (x.ndim + axis) + (-1, *trailing)
            else:
                shape = (len(columns),) + (1,) * (x.ndim + axis) + (-1, *trailing)
            if columns.shape[-1] != x.shape[axis]:
                raise ValueError(
                    f"Layer {name!r} reads {x.shape[axis]} columns where players has "
                    f"{columns.shape[-1]}: they were found in another module. Call "
                    "find_players on this one, or players.after_removal(drop)."
                )
            self._cache[key] = columns.reshape(shape)
        mask = self._cache[key]
        if mask.ndim > x.ndim and len(x) % len(mask):
            raise ValueError(
                f"With {len(mask)} coalitions in keep, layer {name!r} must read a "
                f"multiple of {len(mask)} rows; got {len(x)}. Repeat the batch once "
                "for each coalition."
            )
        return mask


def _zeroed(x, mask):
    """`x` with 0 where the mask is False, even for infinity and NaN."""
    integers = _INTEGERS.get(x.element_size())
    if x.requires_grad or integers is None or not x.is_floating_point():
        return torch.where(mask, x, x.new_zeros(()))
    # Four times as fast on a CPU, where `where` does not use vector instructions.
    kept = x.view(integers) & mask.to(integers).neg_()
    return kept.view(x.dtype)


def _layer_norm(x, mask, layer):
    """Layer normalization over the present columns; absent ones give 0."""
    count = mask.sum(-1, keepdim=True).clamp(min=1)
    mean = _zeroed(x, mask).sum(-1, keepdim=True) / count
    centred = _zeroed(x - mean, mask)
    variance = centred.square().sum(-1, keepdim=True) / count
    output = centred * torch.rsqrt(variance + layer.eps)
    if layer.weight is not None:
        output = output * layer.weight
    if layer.bias is not None:
        output = _zeroed(output + layer.bias, mask)
    return output
