"""Players: which rows and columns of which layers belong to whom."""

from dataclasses import dataclass, field, replace

import numpy as np

__all__ = ["Players", "as_player_mask"]


@dataclass(frozen=True, eq=False)
class Players:
    """The units of a module that may leave, as owners of its rows and columns.

    Players are numbered group by group, in forward order. The dictionaries are keyed
    by the layer's name in ``module.named_modules()``; an owner is a player's number,
    or -1 for a unit that belongs to no player.

    Attributes
    ----------
    n_players : int
        Number of players.
    names : list of str
        "fc1[3]" for a neuron or a filter, "fc1.input[3]" for an input,
        "fc1.weight[3,5]" for a single weight. Units that can only leave together are
        one player, named after the first layer that makes them.
    groups : tuple of str
        Label of each group: "fc1", "fc1.input" or "fc1.weight".
    group_of : int ndarray of shape (n_players,)
        Each player's group.
    producers : dict of str to int ndarray of shape (n_units,)
        Layers whose outputs leave (Linear, convolutions, also depthwise ones, and
        embeddings that are added to them): owner of each output unit.
    consumers : dict of str to int ndarray of shape (n_columns,)
        Linear layers and convolutions that read players: owner of each input column
        or channel. After a Flatten a filter owns several columns.
    normalizations : dict of str to int ndarray of shape (n_units,)
        BatchNorm, LayerNorm and PReLU layers on the way: owner of each parameter.
    selections : dict of str to int ndarray of shape (n_columns,)
        Layers whose inputs are players themselves: owner of each column, as in
        `consumers`. To remove one puts a `ColumnSelection` in front of the layer.
    selected : frozenset of str
        Layers of `selections` that read through a `ColumnSelection` already.
    weights : dict of str to int ndarray of the shape of the layer's weight
        Linear layers and convolutions whose single weights are players: owner of each
        weight. To remove one sets it to 0.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from torch import nn
    >>> from skprune.networks import find_players
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> players = find_players(net, torch.zeros(1, 4))
    >>> players.names
    ['0[0]', '0[1]', '0[2]']
    >>> players.subset(np.array([True, False, True])).names
    ['0[0]', '0[2]']
    """

    n_players: int
    names: list[str]
    groups: tuple[str, ...]
    group_of: np.ndarray
    producers: dict[str, np.ndarray]
    consumers: dict[str, np.ndarray]
    normalizations: dict[str, np.ndarray] = field(default_factory=dict)
    selections: dict[str, np.ndarray] = field(default_factory=dict)
    selected: frozenset[str] = frozenset()
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def subset(self, keep):
        """Players of the module from which all but `keep` were removed.

        Parameters
        ----------
        keep : bool ndarray of shape (n_players,)
            True for the players that stay.

        Returns
        -------
        Players
            The remaining players, numbered anew, under their old names.
        """
        return self.after_removal(~as_player_mask(keep, self.n_players, "keep"))

    def after_removal(self, drop):
        """Players of the module that ``remove_players(module, self, drop)`` returns.

        Parameters
        ----------
        drop : bool ndarray of shape (n_players,)
            True for the players that left.

        Returns
        -------
        Players
            The remaining players, numbered anew, under their old names.
        """
        drop = as_player_mask(drop, self.n_players, "drop")
        wrapped = self._newly_selected(drop)

        def remaining(owners_of_layers):
            return {
                f"{layer}.1".lstrip(".") if layer in wrapped else layer: owners
                for layer, owners in _renumbered(owners_of_layers, drop).items()
            }

        return replace(
            self,
            n_players=int((~drop).sum()),
            names=[
                name for name, left in zip(self.names, drop, strict=True) if not left
            ],
            group_of=self.group_of[~drop],
            producers=remaining(self.producers),
            consumers=remaining(self.consumers),
            normalizations=_renumbered(self.normalizations, drop),
            selections=remaining(self.selections),
            selected=self.selected | {f"{layer}.1".lstrip(".") for layer in wrapped},
            weights={
                layer: _new_numbers(drop)[owners]
                for layer, owners in self.weights.items()
            },
        )

    def _newly_selected(self, drop):
        """Layers that the removal of `drop` puts behind a selection."""
        return {
            layer
            for layer, owners in self.selections.items()
            if layer not in self.selected and np.append(drop, False)[owners].any()
        }


def as_player_mask(mask, n_players, name):
    """Check a boolean mask over players."""
    mask = np.asarray(mask)
    if mask.dtype != bool or mask.shape != (n_players,):
        raise ValueError(
            f"{name} must be a boolean array of shape ({n_players},), one entry for "
            f"each player; got dtype {mask.dtype} and shape {mask.shape}. From player "
            f"numbers: {name} = np.isin(np.arange({n_players}), numbers)."
        )
    return mask


def _renumbered(owners_of_layers, drop):
    """Owner arrays without the units of `drop`, in the numbers of those who stay."""
    gone = np.append(drop, False)
    return {
        layer: _new_numbers(drop)[owners[~gone[owners]]]
        for layer, owners in owners_of_layers.items()
    }


def _new_numbers(drop):
    """New number of each player, -1 for those who leave and, last, for nobody."""
    return np.append(np.where(drop, -1, np.cumsum(~drop) - 1), -1)
