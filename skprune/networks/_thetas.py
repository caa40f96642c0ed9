"""Parameters of players: which they are, and how alike."""

import numpy as np
import torch
from torch import nn

__all__ = ["PlayerParameters", "competition", "squared_norms"]


class PlayerParameters:
    """Where in a module each player's parameters θ_i are.

    A neuron's or filter's are the weights and the bias of the rows that it owns, an
    input's the columns of the layer that reads it, a single weight's that weight. Of
    a group of which some players own more rows than others, these have zeros. Whole
    layers have none here: no two need have as many.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    players : Players
        Its players.
    biases : bool, default=True
        Whether biases are among them.
    """

    def __init__(self, module, players, biases=True):
        self._module = module
        sizes = np.bincount(players.group_of, minlength=len(players.groups))
        self._sizes = sizes.tolist()
        self._pieces = [[] for _ in players.groups]
        for name, owners in players.producers.items():
            layer = module.get_submodule(name)
            is_table = isinstance(layer, (nn.Embedding, nn.EmbeddingBag))
            self._add(players, name, "weight", 1 if is_table else 0, owners)
            if biases and getattr(layer, "bias", None) is not None:
                self._add(players, name, "bias", None, owners)
        for name, owners in players.selections.items():
            self._add(players, name, "weight", 1, owners)
        for name, owners in players.weights.items():
            self._add(players, name, "weight", None, owners.ravel())

    def matrices(self):
        """One matrix of parameters a group, one row a player."""
        return [
            self._matrix([self._rows(*p, torch.Tensor.detach) for p in pieces], size)
            for pieces, size in zip(self._pieces, self._sizes, strict=True)
        ]

    def gradient_products(self):
        """Inner product of each player's parameters with their gradients."""
        return torch.cat(
            [
                sum(
                    torch.linalg.vecdot(
                        self._rows(*p, torch.Tensor.detach), self._rows(*p, _gradient)
                    )
                    for p in pieces
                )
                for pieces in self._pieces
                if pieces
            ]
        )

    def parameters(self):
        """The parameters in which players have a part."""
        return [self._parameter(*p[:2]) for pieces in self._pieces for p in pieces]

    def _add(self, players, name, attribute, axis, owners):
        """Say whose the positions of a parameter are, on one axis or (None) on all."""
        positions = np.flatnonzero(owners >= 0)
        groups = players.group_of[owners[positions]]
        for group in np.unique(groups):
            at = positions[groups == group]
            # Players are numbered group by group.
            own = owners[at] - np.searchsorted(players.group_of, group)
            n_players = self._sizes[group]
            for index in _one_each(own, at, n_players):
                whole = len(owners) == n_players and (index == np.arange(n_players))
                rows = None if np.all(whole) else torch.from_numpy(index)
                self._pieces[group].append((name, attribute, axis, rows))

    def _rows(self, name, attribute, axis, rows, of):
        """The players' rows of ``of(parameter)``, 0 where a player has none."""
        tensor = of(self._parameter(name, attribute))
        if axis is None:
            matrix = tensor.reshape(-1, 1)
        else:
            matrix = tensor.movedim(axis, 0).flatten(1)
        if rows is None:
            return matrix
        rows = rows.to(tensor.device)
        there = (rows >= 0)[:, None]
        return matrix.index_select(0, rows.clamp(min=0)) * there

    def _matrix(self, parts, n_players):
        if not parts:
            return next(self._module.parameters()).new_zeros(n_players, 0)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _parameter(self, name, attribute):
        return getattr(self._module.get_submodule(name), attribute)


def _gradient(parameter):
    """Gradient of a parameter; a frozen one has none to give."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _one_each(owners, positions, n_players):
    """Deal positions out to their owners, one each a time; -1 where none is left."""
    order = np.argsort(owners, kind="stable")
    owners, positions = owners[order], positions[order]
    rank = np.arange(len(owners)) - np.searchsorted(owners, owners)
    for time in range(rank.max() + 1):
        index = np.full(n_players, -1)
        index[owners[rank == time]] = positions[rank == time]
        yield index


def squared_norms(thetas):
    """Squared norm of each player's parameters.

    Parameters
    ----------
    thetas : list of tensors of shape (n_players_of_group, n_parameters)
        Parameters of the players of each group, one row a player.

    Returns
    -------
    tensor of shape (n_players,)
        ‖θ_i‖², group by group.

    Examples
    --------
    >>> import torch
    >>> from skprune.networks import squared_norms
    >>> squared_norms([torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0]])])
    tensor([25.,  4.])
    """
    return torch.cat([_squared_rows(theta) for theta in thetas])


def competition(s, thetas):
    """How much of each player's parameters the others of its group play already.

    Parameters
    ----------
    s : tensor of shape (n_players,)
        Participations.
    thetas : list of tensors of shape (n_players_of_group, n_parameters)
        Parameters of the players of each group, one row a player.

    Returns
    -------
    tensor of shape (n_players,)
        Σ_{j≠i} s_j ⟨θ_i, θ_j⟩ over the players of i's group, in time proportional to
        the number of parameters.

    Examples
    --------
    >>> import torch
    >>> from skprune.networks import competition
    >>> theta = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> competition(torch.tensor([1.0, 0.5, 1.0]), [theta])
    tensor([0.5000, 1.0000, 0.0000])
    """
    parts = s.split([len(theta) for theta in thetas])
    return torch.cat(
        [
            theta @ (part @ theta) - part * _squared_rows(theta)
            for part, theta in zip(parts, thetas, strict=True)
        ]
    )


def _squared_rows(theta):
    """Squared norm of each row, without a product as large as the matrix."""
    return torch.linalg.vector_norm(theta, dim=1).square()
