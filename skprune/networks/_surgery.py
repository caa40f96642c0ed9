"""The physical step: a new module without the rows and columns of those who leave."""

import copy

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from skprune.exceptions import UnsupportedNetworkError
from skprune.networks._fill import check_fill, fill_shift
from skprune.networks._players import is_within
from skprune.networks._selection import ColumnSelection

__all__ = [
    "check_fits",
    "copy_of",
    "remove_in_place",
    "remove_players",
    "remove_rows",
]


def remove_players(module, players, drop, *, fill=None):
    """Build the module that remains when some players leave.

    Parameters
    ----------
    module : torch.nn.Module
        The network in which `players` were found. It is left untouched.
    players : Players
        From `find_players`, or from `Players.after_removal` for a pruned module.
    drop : bool ndarray of shape (n_players,)
        True for the players that leave; with layers, what is wholly inside them leaves
        too (see `Players.leaving`).
    fill : dict of str to tensor of shape (n_columns,), optional
        Constants that players leave behind, such as their `column_means`: for layers
        of ``players.consumers``, one value for each column or channel. What the
        columns that leave would add to the outputs if they held these constants is
        added to the bias; a layer without a bias takes nothing in.

    Returns
    -------
    torch.nn.Module
        A copy with smaller layers. Its parameters are new and carry no gradients;
        `requires_grad`, the training mode, the device and hooks stay as they were.
        A layer that loses single weights keeps its shape: they are set to 0. A whole
        layer that leaves is an ``nn.Identity``, and the names of all others stay.

    Raises
    ------
    ValueError
        If `drop` or `fill` does not fit `players`, if `players` does not fit
        `module`, or if a layer that stays would be left empty.

    Notes
    -----
    A convolution takes in its kernels summed over the whole window. At the border of
    a padded one that is more than constant channels would give, for these are padded
    by 0 too. `masked` adds the same shift, so that both agree for every layer.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from torch import nn
    >>> from skprune.networks import find_players, remove_players
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> players = find_players(net, torch.zeros(1, 4))
    >>> remove_players(net, players, np.array([False, True, False]))
    Sequential(
      (0): Linear(in_features=4, out_features=2, bias=True)
      (1): ReLU()
      (2): Linear(in_features=2, out_features=2, bias=True)
    )
    """
    drop = players.leaving(drop)
    _check_not_empty(players, drop)
    check_fits(module, players)
    fill = check_fill(fill, players)
    return remove_in_place(copy_of(module), players, drop, fill)


def remove_rows(module, players, drop, tensors):
    """What is left of tensors that are laid out as a module's parameters.

    Parameters
    ----------
    module : torch.nn.Module
        The network in which `players` were found. It is left untouched.
    players : Players
        Its players.
    drop : bool ndarray of shape (n_players,)
        True for the players that leave.
    tensors : dict of str to tensor
        For names of ``module.named_parameters()`` a tensor of the parameter's shape,
        such as a moment that an optimizer keeps.

    Returns
    -------
    dict of str to tensor
        For the names of the parameters of ``remove_players(module, players, drop)``
        that stand for one of `tensors`: the rows and columns that stay.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from torch import nn
    >>> from skprune.networks import find_players, remove_rows
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> players = find_players(net, torch.zeros(1, 4))
    >>> drop = np.array([False, True, False])
    >>> remove_rows(net, players, drop, {"0.bias": torch.tensor([1.0, 2.0, 3.0])})
    {'0.bias': tensor([1., 3.])}
    """
    # A copy of the module that holds the tensors in the place of its parameters: what
    # surgery does to weights it does to them.
    held = {
        id(parameter): nn.Parameter(tensors.get(name, parameter).detach(), False)
        for name, parameter in module.named_parameters()
    }
    left = remove_in_place(copy.deepcopy(module, held), players, drop)
    return {
        name: parameter.detach()
        for name, parameter in left.named_parameters()
        if name in tensors
    }


def remove_in_place(module, players, drop, fill=None):
    """Remove players from a module that is ours; return it (its root may be new)."""
    drop = players.leaving(drop)
    gone, left = np.append(drop, False), players.layers_in(drop)
    for name in left:
        _bypass(module, name)

    def there(owners_of_layers):
        return [
            pair for pair in owners_of_layers.items() if not is_within(pair[0], left)
        ]

    for name, values in there(fill or {}):
        absent = torch.from_numpy(gone[players.consumers[name]])
        _fold_in(module.get_submodule(name), values, absent)
    for name, owners in there(players.weights):
        _zero_weights(module.get_submodule(name), torch.from_numpy(gone[owners]))
    for name, owners in there(players.producers | players.normalizations):
        _keep_outputs(module.get_submodule(name), _positions(owners, gone))
    for name, owners in there(players.consumers):
        if name not in players.selections:
            _keep_inputs(module.get_submodule(name), _positions(owners, gone))
    for name, owners in there(players.selections):
        kept = _positions(owners, gone)
        if len(kept) < len(owners):
            module = _select_inputs(module, name, kept, name in players.selected)
    return module


def copy_of(module):
    """Deep copy of a module, or an error of ours that says why there is none."""
    try:
        duplicate = copy.deepcopy(module)
    except (RuntimeError, TypeError) as error:
        raise UnsupportedNetworkError(
            f"module ({type(module).__name__}) cannot be copied: {error} Remove from "
            "it what cannot be copied, such as tensors kept from a forward pass."
        ) from error
    for part in duplicate.modules():
        # A coalition that is being played on the original is not the copy's.
        for hooks in (part._forward_pre_hooks, part._forward_hooks):
            for key in [k for k, hook in hooks.items() if hasattr(hook, "is_mask")]:
                del hooks[key]
    return duplicate


def _check_not_empty(players, drop):
    left = players.layers_in(drop)
    only_layers = np.isin(range(players.n_players), [players.layers[n] for n in left])
    # Of a group, those who have a part in layers that stay.
    outside = ~players.leaving(only_layers)
    for group, floor in enumerate(players.floors()):
        members = outside & (players.group_of == group)
        if floor and members.any() and drop[members].all():
            raise ValueError(
                f"drop would leave layer {players.groups[group]!r} empty: all of its "
                f"{members.sum()} players would leave. Keep at least one of them."
            )
    gone = np.append(drop, False)
    for name, owners in (players.producers | players.consumers).items():
        if not is_within(name, left) and gone[owners].all():
            raise ValueError(
                f"drop would leave layer {name!r} empty: all of its {len(owners)} "
                "units would leave. Keep at least one of them."
            )


def check_fits(module, players):
    """Refuse players that were found in a module of other sizes."""
    expected = {(name, True): len(o) for name, o in players.producers.items()}
    expected |= {(name, True): len(o) for name, o in players.normalizations.items()}
    expected |= {(name, False): len(o) for name, o in players.consumers.items()}
    for (name, outputs), n_units in expected.items():
        size_of = _n_outputs if outputs else _n_inputs
        what = "outputs" if outputs else "inputs"
        _check_size(module, name, size_of, n_units, what)
    for name, owners in players.weights.items():
        _check_size(module, name, _weight_shape, owners.shape, "weights")
    names = dict(module.named_modules())
    for name in players.layers:
        if name not in names:
            raise ValueError(
                f"players does not fit module: it has no layer {name!r}. Call "
                "find_players on this module, or players.after_removal(drop)."
            )


def _check_size(module, name, size_of, expected, what):
    try:
        found = size_of(module.get_submodule(name))
    except AttributeError:
        found = None
    if found != expected:
        raise ValueError(
            f"players does not fit module: layer {name!r} should have {expected} "
            f"{what}, and has {found}. Call find_players on this module, or "
            "players.after_removal(drop)."
        )


def _n_outputs(layer):
    if isinstance(layer, nn.Linear):
        return layer.out_features
    if isinstance(layer, _NormBase):
        return layer.num_features
    if isinstance(layer, nn.LayerNorm):
        return layer.normalized_shape[-1]
    if isinstance(layer, nn.PReLU):
        return layer.num_parameters
    if isinstance(layer, (nn.Embedding, nn.EmbeddingBag)):
        return layer.embedding_dim
    return layer.out_channels


def _n_inputs(layer):
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def _weight_shape(layer):
    return tuple(layer.weight.shape)


def _bypass(module, name):
    """Put an identity in the place of a layer."""
    parent_name, _, own_name = name.rpartition(".")
    training = module.get_submodule(name).training
    identity = nn.Identity().train(training)
    setattr(module.get_submodule(parent_name), own_name, identity)


def _fold_in(layer, values, absent):
    """Add to the bias what constant columns would give."""
    if layer.bias is not None:
        with torch.no_grad():
            layer.bias += fill_shift(layer, values, absent.to(layer.weight.device))


def _zero_weights(layer, gone):
    with torch.no_grad():
        layer.weight[gone.to(layer.weight.device)] = 0


def _positions(owners, gone):
    return torch.from_numpy(np.flatnonzero(~gone[owners]))


def _shrink(layer, attribute, kept, axis=0):
    """Replace a parameter or buffer of `layer` by its `kept` positions."""
    old = getattr(layer, attribute, None)
    if old is None:
        return
    kept = kept.to(old.device)
    if old.ndim == 2 and not old.is_contiguous():
        # A weight that lies column by column in memory goes on doing so.
        new = old.detach().T.index_select(1 - axis, kept).T
    else:
        new = old.detach().index_select(axis, kept)
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    setattr(layer, attribute, new)


def _keep_outputs(layer, kept):
    """Shrink what a layer gives; a layer that works channel by channel, wholly."""
    if isinstance(layer, (nn.Embedding, nn.EmbeddingBag)):
        _shrink(layer, "weight", kept, axis=1)
        layer.embedding_dim = len(kept)
        return
    for attribute in ("weight", "bias", "running_mean", "running_var"):
        _shrink(layer, attribute, kept)
    if isinstance(layer, nn.Linear):
        layer.out_features = len(kept)
    elif isinstance(layer, _NormBase):
        layer.num_features = len(kept)
    elif isinstance(layer, nn.LayerNorm):
        layer.normalized_shape = (len(kept),)
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(kept)
    else:
        if layer.groups > 1:
            layer.groups = layer.in_channels = len(kept)
        layer.out_channels = len(kept)


def _keep_inputs(layer, kept):
    _shrink(layer, "weight", kept, axis=1)
    if isinstance(layer, nn.Linear):
        layer.in_features = len(kept)
    else:
        layer.in_channels = len(kept)


def _select_inputs(module, name, kept, is_selected):
    """Let layer `name` read only its `kept` inputs, by one selection before it."""
    layer = module.get_submodule(name)
    parent_name, _, own_name = name.rpartition(".")
    parent = module.get_submodule(parent_name)
    _keep_inputs(layer, kept)
    if is_selected:
        parent[0] = parent[0].narrowed(kept).train(layer.training)
        return module
    axis = -1 if isinstance(layer, nn.Linear) else -1 - len(layer.kernel_size)
    selection = ColumnSelection(kept.to(layer.weight.device), axis)
    pair = nn.Sequential(selection, layer).train(layer.training)
    if not name:
        return pair
    setattr(parent, own_name, pair)
    return module
