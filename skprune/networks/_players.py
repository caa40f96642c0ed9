"""Players: which rows and columns of which layers belong to whom."""

from dataclasses import dataclass, field, replace

import numpy as np

from skprune.exceptions import UnsupportedNetworkError

__all__ = ["Players", "as_player_mask", "is_within", "refuse_layers"]


@dataclass(frozen=True, eq=False)
class Players:
    """The units of a module that may leave, as owners of its rows and columns.

    Players are numbered group by group, in forward order; whole layers come last. The
    dictionaries are keyed by the layer's name in ``module.named_modules()``; an owner
    is a player's number, or -1 for a unit that belongs to no player.

    Attributes
    ----------
    n_players : int
        Number of players.
    names : list of str
        "fc1[3]" for a neuron or a filter, "fc1.input[3]" for an input,
        "fc1.weight[3,5]" for a single weight, "fc1" for a whole layer. Units that can
        only leave together are one player, named after the first layer that makes them.
    groups : tuple of str
        Label of each group: "fc1", "fc1.input" or "fc1.weight"; "layers" for all whole
        layers, the only group all of which may leave (see `floors`).
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
    layers : dict of str to int
        Whole layers that are players, and their numbers. To remove one puts an
        ``nn.Identity`` in its place; what is inside it leaves too (see `leaving`).

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
    layers: dict[str, int] = field(default_factory=dict)

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
            True for the players that left; with layers, what is inside them left too.

        Returns
        -------
        Players
            The remaining players, numbered anew, under their old names. Groups stay,
            also those without players.
        """
        drop = self.leaving(drop)
        gone = self.layers_in(drop)
        wrapped, number = self._newly_selected(drop), _new_numbers(drop)

        def there(owners_of_layers):
            return {n: o for n, o in owners_of_layers.items() if not is_within(n, gone)}

        def remaining(owners_of_layers):
            return {
                f"{layer}.1".lstrip(".") if layer in wrapped else layer: owners
                for layer, owners in _renumbered(there(owners_of_layers), drop).items()
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
            normalizations=_renumbered(there(self.normalizations), drop),
            selections=remaining(self.selections),
            selected=frozenset(n for n in self.selected if not is_within(n, gone))
            | {f"{layer}.1".lstrip(".") for layer in wrapped},
            weights={n: number[owners] for n, owners in there(self.weights).items()},
            layers={n: int(number[i]) for n, i in there(self.layers).items()},
        )

    def leaving(self, drop):
        """Who leaves when some players do: with layers, what is wholly inside them.

        `remove_players`, `after_removal` and `subset` ask for it themselves.

        Parameters
        ----------
        drop : bool ndarray of shape (n_players,)
            True for players that leave.

        Returns
        -------
        bool ndarray of shape (n_players,)
            `drop`, and the players that own nothing outside the layers that leave.

        Examples
        --------
        >>> import numpy as np, torch
        >>> from torch import nn
        >>> from skprune.networks import find_players
        >>> block = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 3))
        >>> net = nn.Sequential(nn.Linear(4, 3), block, nn.Linear(3, 2))
        >>> x, pairs = torch.zeros(1, 4), [("layers", "1"), ("neurons", "1.0")]
        >>> players = find_players(net, x, pairs)
        >>> players.names
        ['1.0[0]', '1.0[1]', '1']
        >>> players.leaving(np.array([False, False, True]))
        array([ True,  True,  True])
        """
        drop = as_player_mask(drop, self.n_players, "drop")
        gone = self.layers_in(drop)
        if not gone:
            return drop
        inside, outside = np.zeros((2, self.n_players + 1), dtype=bool)
        for kind in (
            self.producers,
            self.consumers,
            self.normalizations,
            self.weights,
        ):
            for name, owners in kind.items():
                (inside if is_within(name, gone) else outside)[owners] = True
        return drop | (inside & ~outside)[:-1]

    def layers_in(self, drop):
        """Names of the whole layers among some players.

        Parameters
        ----------
        drop : bool ndarray of shape (n_players,)
            True for these players.

        Returns
        -------
        list of str
            In forward order.
        """
        return [name for name, player in self.layers.items() if drop[player]]

    def floors(self, min_per_group=1):
        """How many players of each group have to stay.

        Parameters
        ----------
        min_per_group : int, default=1
            Wanted in each group; of smaller groups all players stay.

        Returns
        -------
        int ndarray of shape (n_groups,)
            0 for the group of whole layers: without them the network still has its
            other layers.
        """
        counts = np.bincount(self.group_of, minlength=len(self.groups))
        floors = np.minimum(counts, min_per_group)
        floors[self.group_of[list(self.layers.values())]] = 0
        return floors

    def _newly_selected(self, drop):
        """Layers that the removal of `drop` puts behind a selection."""
        gone = self.layers_in(drop)
        return {
            layer
            for layer, owners in self.selections.items()
            if layer not in self.selected
            and not is_within(layer, gone)
            and np.append(drop, False)[owners].any()
        }


def is_within(name, layers):
    """Whether a module is one of some layers, or inside one of them.

    Parameters
    ----------
    name : str
        Name of a module, as in ``module.named_modules()``.
    layers : iterable of str
        Names of layers.

    Returns
    -------
    bool
        Whether the name is a layer's, or begins with one and a dot.

    Examples
    --------
    >>> from skprune.networks import is_within
    >>> is_within("blocks.1.fc1", ["blocks.1"]), is_within("blocks.10", ["blocks.1"])
    (True, False)
    """
    return any(name == layer or name.startswith(f"{layer}.") for layer in layers)


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


def refuse_layers(players, what):
    """Refuse players among which are whole layers, for what there is of units alone."""
    if players.layers:
        raise UnsupportedNetworkError(
            f"There is no {what} of whole layers, and {list(players.layers)} are among "
            "the players. Leave them out, or let them play as a game, with "
            "CoalitionEvaluator or a pruner that scores players by one."
        )


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
