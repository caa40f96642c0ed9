"""Coalitions as masks on what the layers behind the players read."""

from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from skprune.networks._fill import check_fill, fill_shift
from skprune.networks._hooks import LayerHooks, channel_axis, run_with_weight

__all__ = ["MaskedModule", "masked"]


@contextmanager
def masked(module, players, keep, *, fill=None):
    """Play a coalition: inside the context, absent players are read as 0.

    Nothing of `module` but its forward hooks changes, and these are taken away at
    the end, also after an exception. A LayerNorm on the way takes its statistics
    over the players present. A whole layer that is absent hands on what it reads.

    Parameters
    ----------
    module : torch.nn.Module
        The network in which `players` were found.
    players : Players
        From `find_players`.
    keep : bool ndarray of shape (n_players,) or (n_coalitions, n_players)
        True for the players present. Several coalitions are played at once on an
        input of ``n_coalitions * batch`` rows: first the batch of the first one.
    fill : dict of str to tensor of shape (n_columns,), optional
        Constants that absent players leave behind, as in `remove_players`.

    Yields
    ------
    torch.nn.Module
        `module` itself.

    Raises
    ------
    ValueError
        If `keep` is not boolean, or if it or `fill` does not fit `players`.

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
    with MaskedModule(module, players, fill=fill) as masks:
        masks.set_masks(keep)
        yield module


# Weights that are masked at once for several coalitions.
_MASKED_WEIGHTS = 2**20
# Whole numbers as wide as floating point numbers of so many bytes.
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class MaskedModule(LayerHooks):
    """Hooks that are held once, and masks that change from coalition to coalition.

    Parameters
    ----------
    module : torch.nn.Module
        The network in which `players` were found. It is hooked until `close` is
        called or the context of this object ends.
    players : Players
        From `find_players`.
    fill : dict of str to tensor of shape (n_columns,), optional
        Constants that absent players leave behind, as in `remove_players`.

    Notes
    -----
    Absent units are replaced, not multiplied: one that is NaN or infinite reads as
    0 too, as in the network from which it was removed. A layer whose single weights
    are players runs once more for each coalition, with that coalition's weights. A
    whole layer that is absent runs too, and what it gives is replaced.

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

    def __init__(self, module, players, *, fill=None):
        super().__init__(module)
        self.players = players
        self._present = None
        self._cache = {}
        fill = check_fill(fill, players)
        for name, owners in players.consumers.items():
            layer = module.get_submodule(name)
            self._hook_consumer(name, layer, owners)
            if name in fill and layer.bias is not None:
                self._hook_fill(layer, owners, fill[name])
        for name, owners in players.weights.items():
            self._hook_weights(name, module.get_submodule(name), owners)
        for name, owners in players.normalizations.items():
            layer = module.get_submodule(name)
            if isinstance(layer, nn.LayerNorm):
                self._hook_layer_norm(name, layer, owners)
        # Last, so that nothing else changes what an absent layer hands on.
        for name, player in players.layers.items():
            self._hook_bypass(name, module.get_submodule(name), player)

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
        super().close()
        self._cache = {}

    def _hook_consumer(self, name, layer, owners):
        """Mask the input of a Linear layer or a convolution."""
        axis = channel_axis(layer)
        owners = torch.from_numpy(owners)

        def mask_input(x):
            if self._present is None:
                return None
            return self._masked(name, owners, x, axis)

        self._before(layer, mask_input)

    def _hook_fill(self, layer, owners, values):
        """Add to a layer's outputs what the constants of absent players give."""
        axis = channel_axis(layer)
        trailing = (1,) * (-1 - axis)
        owners = torch.from_numpy(owners)

        def add_shift(x, output):
            if self._present is None:
                return None
            absent = ~self._columns(owners, x.device)
            shift = fill_shift(layer, values, absent)
            if absent.ndim == 1:
                return output + shift.reshape(-1, *trailing)
            rows = output.unflatten(0, (len(shift), -1))
            between = (1,) * (output.ndim + axis)
            shift = shift.reshape(len(shift), *between, -1, *trailing)
            return (rows + shift).flatten(0, 1)

        self._after(layer, add_shift)

    def _hook_weights(self, name, layer, owners):
        """Run a layer without the weights that are absent."""
        owners = torch.from_numpy(owners)

        def run_present(x, _):
            if self._present is None:
                return None
            coalitions = self._present.reshape(-1, self._present.shape[-1]).to(x.device)
            n_coalitions = len(coalitions)
            self._check_rows(name, x, n_coalitions)
            batches = x.unflatten(0, (n_coalitions, len(x) // n_coalitions))
            return _run_each(layer, batches, coalitions, owners.to(x.device))

        self._after(layer, run_present)

    def _hook_bypass(self, name, layer, player):
        """Let a layer that is absent hand on what it reads."""
        given = []

        def keep_input(x):
            given.clear()
            if self._present is not None and not self._present[..., player].all():
                # A copy: the layer may work in place on what it reads.
                given.append(x.clone())

        def hand_on(_, output):
            if not given:
                return None
            x, present = given.pop(), self._present[..., player]
            if not present.any():
                return x
            self._check_rows(name, x, len(present))
            mask = present.to(x.device).reshape(-1, *(1,) * x.ndim)
            output, x = (t.unflatten(0, (len(mask), -1)) for t in (output, x))
            return torch.where(mask, output, x).flatten(0, 1)

        self._before(layer, keep_input, first=True)
        self._after(layer, hand_on)

    def _hook_layer_norm(self, name, layer, owners):
        """Take the statistics of a LayerNorm over the players present."""
        owners = torch.from_numpy(owners)

        def normalize_present(x, output):
            if self._present is None:
                return None
            mask = self._mask(name, owners, x, -1)
            x = x.unflatten(0, (mask.shape[0], -1)) if mask.ndim > x.ndim else x
            return _layer_norm(x, mask, layer).reshape(output.shape)

        self._after(layer, normalize_present)

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
            columns = self._columns(owners, x.device)
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
        if mask.ndim > x.ndim:
            self._check_rows(name, x, len(mask))
        return mask

    def _columns(self, owners, device):
        """Who is present among owners, for one coalition or for each of several."""
        return self._present.to(device)[..., owners.to(device)]

    def _check_rows(self, name, x, n_coalitions):
        if len(x) % n_coalitions:
            raise ValueError(
                f"With {n_coalitions} coalitions in keep, layer {name!r} must read a "
                f"multiple of {n_coalitions} rows; got {len(x)}. Repeat the batch once "
                "for each coalition."
            )


def _run_each(layer, batches, coalitions, owners):
    """What a layer gives for each batch, with the weights of its coalition alone."""
    weight = layer.weight if torch.is_grad_enabled() else layer.weight.detach()
    if not isinstance(layer, nn.Linear) or batches.ndim < 3:
        outputs = [
            run_with_weight(layer, batch, _zeroed(weight, present[owners]))
            for batch, present in zip(batches, coalitions, strict=True)
        ]
        return torch.cat(outputs)
    outputs, step = [], max(1, _MASKED_WEIGHTS // weight.numel())
    rows = batches.flatten(1, -2)
    for own, present in zip(rows.split(step), coalitions.split(step), strict=True):
        outputs.append(torch.bmm(own, _zeroed(weight, present[:, owners]).mT))
    output = torch.cat(outputs).reshape(-1, *batches.shape[2:-1], len(weight))
    return output if layer.bias is None else output + layer.bias


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
