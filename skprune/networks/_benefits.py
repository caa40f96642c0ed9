"""What staying is worth to players: from activations, gradients and weights."""

from functools import partial

import torch

from skprune.networks._hooks import LayerHooks, channel_axis, run_with_weight
from skprune.networks._inputs import call, evaluating
from skprune.networks._players import refuse_layers
from skprune.networks._thetas import PlayerParameters, squared_norms

__all__ = ["contributions", "curvature_benefits", "weight_norms"]


def curvature_benefits(module, players, loss):
    """What the loss would gain if one player left, to second order.

    A player that leaves is replaced by its mean. With d what it differs from its mean,
    and g the derivative of a sample's loss by it, the loss gains half the mean of
    (g d)²: its second derivative by the participation, in the Fisher approximation.
    The first derivative vanishes where training has converged.

    Parameters
    ----------
    module : torch.nn.Module
        The network in which `players` were found, run in evaluation mode.
    players : Players
        Its players.
    loss : callable
        Without arguments: runs the module on a batch, and returns its mean loss.

    Returns
    -------
    tensor of shape (n_players,)
        In units of the loss.

    Raises
    ------
    UnsupportedNetworkError
        If whole layers are players.

    References
    ----------
    LeCun, Denker and Solla, "Optimal Brain Damage", 1989; Theis et al., "Faster gaze
    prediction with dense networks and Fisher pruning", 2018.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from skprune.networks import curvature_benefits, find_players
    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> players = find_players(net, torch.zeros(1, 2))
    >>> with torch.no_grad():
    ...     _ = net[2].weight.copy_(torch.tensor([[0.0, 1.0]]))
    >>> x = torch.tensor([[0.0, 1.0], [9.0, 9.0]])
    >>> curvature_benefits(net, players, lambda: net(x).square().mean())[0]
    tensor(0.)
    """
    refuse_layers(players, "curvature benefit")
    with evaluating(module), torch.enable_grad(), _Readings(module, players) as read:
        total = loss()
        outputs = [output for _, output in read.layers.values()]
        gradients = torch.autograd.grad(total, [*read.inputs.values(), *outputs])
    n_readers = len(read.inputs)
    benefits = _by_sample(read, gradients[:n_readers], players)
    _add_weights(benefits, read, gradients[n_readers:], players)
    return benefits[:-1]


def contributions(module, players, inputs):
    """How much of what the next layer computes varies with each player.

    It does not change where a player's weights grow as much as its participation
    shrinks, because both leave the network what it is.

    Parameters
    ----------
    module : torch.nn.Module
        The network in which `players` were found, with the gates that are on it.
    players : Players
        Its players.
    inputs : tensor, tuple of tensors or dict of tensors
        A batch.

    Returns
    -------
    tensor of shape (n_players,)
        Standard deviation over the batch of what a player gives to each unit that reads
        it, root of the sum of squares over these units; of a single weight its size.

    Raises
    ------
    UnsupportedNetworkError
        If whole layers are players.
    """
    refuse_layers(players, "contribution")
    with evaluating(module), torch.no_grad(), _Readings(module, players) as read:
        call(module, inputs)
    total = _zeros(module, players)
    for name, x in read.inputs.items():
        layer = module.get_submodule(name)
        weight = layer.weight.detach()
        column = weight.movedim(1, 0).flatten(1).square().sum(1)
        variance = x.movedim(channel_axis(layer), -1).flatten(0, -2).var(0, False)
        total.index_add_(0, _places(players.consumers[name], total), column * variance)
    for name, owners in players.weights.items():
        weight = module.get_submodule(name).weight.detach()
        total.index_add_(0, _places(owners.ravel(), total), weight.flatten().square())
    return total[:-1].sqrt()


def weight_norms(module, players):
    """Euclidean norm of the weights by which players are computed.

    Of a whole layer, those of all parameters in it. Biases do not count: they take in
    what constants left behind, which can be much in neurons that are dead.

    Parameters
    ----------
    module : torch.nn.Module
        The network in which `players` were found.
    players : Players
        Players of any kinds.

    Returns
    -------
    tensor of shape (n_players,)
        The magnitude of magnitude pruning.
    """
    parameters = PlayerParameters(module, players, biases=False)
    squares = squared_norms(parameters.matrices())
    for name, player in players.layers.items():
        for own_name, parameter in module.get_submodule(name).named_parameters():
            if own_name.rpartition(".")[-1] != "bias":
                squares[player] += parameter.detach().square().sum()
    return squares.sqrt()


class _Readings(LayerHooks):
    """Keeps what the layers behind the players read, and layers of weights do."""

    def __init__(self, module, players):
        super().__init__(module)
        self.inputs, self.layers = {}, {}
        for name in players.consumers:
            self._before(module.get_submodule(name), partial(self._keep, name))
        for name in players.weights:
            self._after(module.get_submodule(name), partial(self._keep_both, name))

    def _keep(self, name, x):
        if torch.is_grad_enabled() and not x.requires_grad:
            x = x.detach().requires_grad_()
        self.inputs[name] = x
        return x

    def _keep_both(self, name, x, output):
        self.layers[name] = (x.detach(), output)


def _by_sample(read, gradients, players):
    """Half the mean of (g d)² of neurons and filters, and a 0 for nobody."""
    total = _zeros(read.module, players)
    changes = []
    for (name, x), gradient in zip(read.inputs.items(), gradients, strict=True):
        axis = channel_axis(read.module.get_submodule(name))
        x, gradient = x.detach().movedim(axis, -1), gradient.movedim(axis, -1)
        change = gradient * (x - x.flatten(0, -2).mean(0))
        # What one player does at all positions, to all readers, is one change.
        change = change.flatten(1, -2).sum(1) if change.ndim > 2 else change
        sums = change.new_zeros(len(x), players.n_players + 1)
        owners = _places(players.consumers[name], total)
        changes.append(sums.index_add_(1, owners, change))
    if changes:
        # The loss is a mean: its gradients are those of samples over their number.
        every = sum(changes)
        total += 0.5 * len(every) * every.square().sum(0)
    return total


def _add_weights(total, read, gradients, players):
    """Add half the mean of (g w)² of single weights.

    A sample's gradient by a weight is the product of what its column reads and of the
    gradient by what its row gives, so that the sum of squares is the layer's gradient
    for squared inputs and squared gradients. Positions of a convolution count as
    samples.
    """
    for (name, (x, _)), gradient in zip(read.layers.items(), gradients, strict=True):
        layer = read.module.get_submodule(name)
        weight = layer.weight.detach().requires_grad_()
        with torch.enable_grad():
            output = run_with_weight(layer, x.square(), weight)
        (squares,) = torch.autograd.grad(output, weight, gradient.square())
        change = 0.5 * len(x) * squares * weight.detach().square()
        owners = _places(players.weights[name].ravel(), total)
        total.index_add_(0, owners, change.flatten())


def _zeros(module, players):
    """A zero for each player, and one for nobody."""
    like = next(p for p in module.parameters() if p.is_floating_point())
    return like.new_zeros(players.n_players + 1)


def _places(owners, total):
    """Where in a total the owners are; nobody is last."""
    owners = torch.from_numpy(owners).to(total.device)
    return torch.where(owners < 0, len(total) - 1, owners)
