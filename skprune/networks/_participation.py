"""Trainable gates on what the layers behind the players read."""

import numpy as np
import torch
from torch.nn import functional

from skprune.networks._hooks import LayerHooks, channel_axis, run_with_weight
from skprune.networks._players import refuse_layers
from skprune.networks._surgery import check_fits
from skprune.networks._thetas import PlayerParameters

__all__ = ["Participation"]


class Participation(LayerHooks):
    """Gates s_i by which what players give to a network is multiplied.

    A gate stands behind the activation, where the next layer reads the player: s f(z)
    has a derivative by s at 0, which relu(s z) has not. A single weight is multiplied
    itself, as in equation (3). The module is hooked until `close` is called or the
    context of this object ends.

    Parameters
    ----------
    module : torch.nn.Module
        The network in which `players` were found.
    players : Players
        From `find_players`.
    values : array-like or tensor of shape (n_players,), optional
        Participations at first; 1 if None. They are copied.

    Attributes
    ----------
    values : tensor of shape (n_players,)
        The participations: a leaf on the module's device that requires a gradient,
        which is ∂L/∂s after ``loss.backward()``. It is changed in place, by an
        optimizer or under `torch.no_grad`.
    is_open : bool
        While True nothing is multiplied, as if all values were 1, and a forward pass
        costs what it costs without gates. False at first.

    Raises
    ------
    ValueError
        If `players` does not fit `module`, `values` does not fit `players`, or whole
        layers are players.

    See Also
    --------
    ParticipationGame : What players gain and pay at these values.

    Notes
    -----
    After players were removed, close this object, and gate the smaller module with
    the values of those who stay. A layer whose single weights are players runs twice,
    once with its own weights, which are then ignored.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skprune.networks import Participation, find_players
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> x = torch.ones(5, 4)
    >>> with Participation(net, find_players(net, x)) as participation:
    ...     participation(x).sum().backward()
    >>> participation.values
    tensor([1., 1., 1.], requires_grad=True)
    >>> participation.values.grad.shape
    torch.Size([3])
    """

    def __init__(self, module, players, values=None):
        super().__init__(module)
        refuse_layers(players, "participation (in EquilibriumPruner too)")
        check_fits(module, players)
        self.players = players
        self.is_open = False
        self.values = _leaf(module, players.n_players, values)
        self._parameters = PlayerParameters(module, players)
        self._columns = {n: self._place(o) for n, o in players.consumers.items()}
        self._weights = {n: self._place(o.ravel()) for n, o in players.weights.items()}
        for name in self._columns:
            self._gate_inputs(name, module.get_submodule(name))
        for name in self._weights:
            self._gate_weights(name, module.get_submodule(name))

    def fold_(self):
        """Multiply the weights that read players by their gates, and set these to 1.

        Outputs stay what they are, up to rounding, whatever activation or
        normalization lies between a player and its gate.

        Returns
        -------
        Participation
            Itself.
        """
        with torch.no_grad():
            for name, place in self._columns.items():
                weight = self.module.get_submodule(name).weight
                weight.mul_(self._gates(place).reshape(-1, *(1,) * (weight.ndim - 2)))
            for name, place in self._weights.items():
                weight = self.module.get_submodule(name).weight
                weight.mul_(self._gates(place).view_as(weight))
            self.values.fill_(1)
        return self

    def thetas(self):
        """Parameters of the players of each group.

        Returns
        -------
        list of tensors of shape (n_players_of_group, n_parameters)
            θ_i in row i: a neuron's or filter's incoming weights and bias, an input's
            outgoing weights, or a single weight. They share no graph, and may share
            memory, with the module.
        """
        return self._parameters.matrices()

    def theta_gradient_products(self):
        """Inner products of parameters and their gradients, as in equation (9).

        Returns
        -------
        tensor of shape (n_players,)
            ⟨∇_{θ_i}L, θ_i⟩, from the gradients that the last backward pass left.

        Raises
        ------
        ValueError
            If there are no gradients.
        """
        if all(p.grad is None for p in self._parameters.parameters()):
            raise ValueError(
                "The module's parameters have no gradients; call loss.backward() first."
            )
        return self._parameters.gradient_products()

    def _gate_inputs(self, name, layer):
        trailing = (1,) * (-1 - channel_axis(layer))

        def gate(x):
            if self.is_open:
                return None
            return x * self._gates(self._columns[name]).reshape(-1, *trailing)

        self._before(layer, gate)

    def _gate_weights(self, name, layer):
        def gate(x, _):
            if self.is_open:
                return None
            gates = self._gates(self._weights[name]).view_as(layer.weight)
            return run_with_weight(layer, x, layer.weight * gates)

        self._after(layer, gate)

    def _place(self, owners):
        """Where in `values` the gates of owners are: a slice where that is enough."""
        first = int(owners[0])
        if first >= 0 and np.array_equal(owners, np.arange(first, first + len(owners))):
            return slice(first, first + len(owners))
        # The last gate is nobody's: owner -1 picks it, and it is always 1.
        index = np.where(owners < 0, self.players.n_players, owners)
        return torch.from_numpy(index).to(self.values.device)

    def _gates(self, place):
        if isinstance(place, slice):
            return self.values[place]
        return functional.pad(self.values, (0, 1), value=1.0).index_select(0, place)


def _leaf(module, n_players, values):
    """Participations as a leaf of the module's type, on its device."""
    like = next(p for p in module.parameters() if p.is_floating_point())
    if values is None:
        return like.new_ones(n_players).requires_grad_()
    if isinstance(values, torch.Tensor):
        values = values.detach()
    values = torch.as_tensor(values, dtype=like.dtype, device=like.device).clone()
    if values.shape != (n_players,):
        raise ValueError(
            f"values must have shape ({n_players},), one for each player; got "
            f"{tuple(values.shape)}."
        )
    return values.requires_grad_()
