"""Participation: gates that play, learn, fold and go; the parameters of players."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from skprune.networks import (
    Participation,
    column_means,
    find_players,
    masked,
    remove_players,
)
from skprune.networks._inputs import call, map_tensors, tensors_in

X = torch.linspace(-1, 1, 20).reshape(4, 5)


def run(module, example):
    with torch.no_grad():
        return tensors_in(call(module, example))


def assert_same(outputs, expected, tolerance=1e-5):
    assert len(outputs) == len(expected) > 0
    for one, other in zip(outputs, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=10 * tolerance, atol=tolerance)


def some_of(players, seed=0):
    """Half of each group leaves."""
    rng = np.random.default_rng(seed)
    drop = np.zeros(players.n_players, dtype=bool)
    for group in range(len(players.groups)):
        members = rng.permutation(np.flatnonzero(players.group_of == group))
        drop[members[: len(members) // 2]] = True
    return drop


def values_of(players, seed=0):
    return np.random.default_rng(seed).uniform(0.2, 1.0, players.n_players)


def mlp(*sizes, activation=nn.ReLU):
    torch.manual_seed(0)
    layers = []
    for n_inputs, n_units in itertools.pairwise(sizes):
        layers += [nn.Linear(n_inputs, n_units), activation()]
    return nn.Sequential(*layers[:-1])


def doubled(example):
    def convert(x):
        return x.double() if x.is_floating_point() else x

    example = map_tensors(convert, example)
    return tuple(example) if isinstance(example, list) else example


def test_closed_gates_are_masks(case):
    """Where no LayerNorm takes its statistics over all that is read."""
    _, module, example, players = case
    if any(isinstance(part, nn.LayerNorm) for part in module.modules()):
        pytest.skip("a gate stands behind the LayerNorm, a mask before it")
    keep = ~some_of(players)
    with masked(module, players, keep):
        expected = run(module, example)
    with Participation(module, players, keep) as participation:
        assert_same(run(participation.module, example), expected)


def test_slopes_are_those_of_the_loss(case):
    _, module, example, players = case
    module, example = copy.deepcopy(module).double(), doubled(example)

    def loss(values):
        outputs = tensors_in(call(module, example))
        return sum(x.square().sum() for x in outputs)

    with Participation(module, players, values_of(players)) as participation:
        loss(participation.values).backward()
        slope = participation.values.grad
        direction = torch.from_numpy(values_of(players, seed=1) - 0.6)
        losses = []
        with torch.no_grad():
            for step in (1e-6, -2e-6):
                participation.values += step * direction
                losses.append(loss(participation.values))
    expected = (losses[0] - losses[1]) / 2e-6
    assert slope.shape == (players.n_players,)
    torch.testing.assert_close(slope @ direction, expected, rtol=1e-4, atol=1e-6)


def test_folding_changes_no_output(case):
    _, module, example, players = case
    dense = run(module, example)
    with Participation(module, players, values_of(players)) as participation:
        expected = run(module, example)
        assert any(
            not torch.allclose(a, b) for a, b in zip(dense, expected, strict=True)
        )
        assert participation.fold_() is participation
        assert (participation.values == 1).all()
        assert participation.values.requires_grad
        assert_same(run(module, example), expected)
    assert_same(run(module, example), expected)


def test_removal_under_gates_changes_no_output(case):
    """Gated, with constants for those who leave == removed, gated with the rest."""
    _, module, example, players = case
    drop, values = some_of(players), values_of(players)
    with Participation(module, players, values):
        fill = column_means(module, players, example)
        with masked(module, players, ~drop, fill=fill):
            expected = run(module, example)
        pruned = remove_players(module, players, drop, fill=fill)
    with Participation(pruned, players.after_removal(drop), values[~drop]) as gates:
        assert_same(run(gates.module, example), expected)


def test_open_gates_cost_nothing():
    net = mlp(5, 6, 2)
    expected = net(X)
    with Participation(net, find_players(net, X), np.zeros(6)) as participation:
        assert not torch.allclose(net(X), expected)
        participation.is_open = True
        output = net(X)
    assert torch.equal(output, expected)
    output.sum().backward()
    assert participation.values.grad is None


def test_gates_learn_and_end_with_the_context():
    net = mlp(5, 6, 4, 2)
    players = find_players(net, X)
    participation = Participation(net, players)
    optimizer = torch.optim.SGD([participation.values], lr=0.1)
    participation(X).square().sum().backward()
    optimizer.step()
    with pytest.raises(KeyError), participation:
        raise KeyError
    assert participation.values.is_leaf
    assert (participation.values != 1).any()
    assert not any(part._forward_pre_hooks for part in net.modules())


def test_copies_are_not_gated():
    net = mlp(5, 6, 4, 2)
    players = find_players(net, X)
    nobody = np.zeros(10, dtype=bool)
    expected = net(X)
    with Participation(net, players, np.full(10, 0.5)):
        again = find_players(net, X)
        pruned = remove_players(net, players, nobody)
    assert again.names == players.names
    torch.testing.assert_close(pruned(X), expected)


def test_values_follow_the_module():
    net = mlp(5, 6, 2).double()
    given = torch.rand(6, requires_grad=True)
    participation = Participation(net, find_players(net, X.double()), given)
    assert participation.values.dtype == torch.float64
    assert participation.values.is_leaf
    assert torch.equal(participation.values.float(), given)
    with torch.no_grad():
        participation.values.zero_()
    assert given.any()
    participation.close()


def test_wrong_values_and_module():
    net = mlp(5, 6, 2)
    players = find_players(net, X)
    with pytest.raises(ValueError, match=r"values must have shape \(6,\).*\(5,\)"):
        Participation(net, players, np.ones(5))
    with pytest.raises(ValueError, match=r"does not fit module: layer '0' should"):
        Participation(mlp(5, 4, 2), players)
    assert not net[2]._forward_pre_hooks


def test_thetas_of_neurons_and_inputs():
    net = mlp(5, 6, 4, 2)
    players = find_players(
        net, X, [("inputs", "0"), ("neurons", "0"), ("neurons", "2")]
    )
    inputs, first, second = Participation(net, players).thetas()
    assert torch.equal(inputs, net[0].weight.T)
    assert torch.equal(first, torch.cat([net[0].weight, net[0].bias[:, None]], 1))
    assert torch.equal(second, torch.cat([net[2].weight, net[2].bias[:, None]], 1))
    assert not first.requires_grad


def test_thetas_of_filters_after_removal():
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 2, groups=4), nn.Flatten()
    ).append(nn.Linear(16, 2))
    x = torch.rand(3, 2, 5, 5)
    players = find_players(net, x, "filters")
    drop = np.array([False, True, False, False])
    net, players = remove_players(net, players, drop), players.after_removal(drop)
    (theta,) = Participation(net, players).thetas()
    conv, depthwise = net[0], net[2]
    expected = [conv.weight, conv.bias, depthwise.weight, depthwise.bias]
    assert torch.equal(theta, torch.cat([p.reshape(3, -1) for p in expected], 1))


class HalvesAdded(nn.Module):
    """Each unit of `whole` leaves with one of `left`, or with one of `right`."""

    def __init__(self):
        super().__init__()
        self.whole, self.left = nn.Linear(5, 4), nn.Linear(5, 1)
        self.right, self.out = nn.Linear(5, 3, bias=False), nn.Linear(4, 2)

    def forward(self, x):
        whole = self.whole(x)
        halves = torch.cat([self.left(x), self.right(x)], dim=1)
        return self.out(torch.relu(whole + halves))


def test_thetas_of_players_with_unlike_rows():
    net = HalvesAdded()
    (theta,) = Participation(net, find_players(net, X)).thetas()
    expected = torch.zeros(4, 17)
    expected[:, :5], expected[:, 5] = net.whole.weight, net.whole.bias
    expected[0, 6:11], expected[0, 11] = net.left.weight, net.left.bias
    expected[1:, 12:] = net.right.weight
    assert torch.equal(theta, expected)


def test_every_pattern_has_thetas(case):
    """A player's parameters are all of its rows, in any order, padded by zeros."""
    _, module, _, players = case
    thetas = Participation(module, players).thetas()
    sizes = np.bincount(players.group_of, minlength=len(players.groups))
    assert [len(theta) for theta in thetas] == sizes.tolist()
    expected = torch.zeros(players.n_players, dtype=torch.float64)
    parts = [
        (n, o, a) for n, o in players.producers.items() for a in ("weight", "bias")
    ]
    parts += [(name, owners, "columns") for name, owners in players.selections.items()]
    for name, owners, attribute in parts:
        layer = module.get_submodule(name)
        parameter = getattr(layer, attribute.replace("columns", "weight"), None)
        if parameter is None:
            continue
        if attribute == "columns" or isinstance(layer, (nn.Embedding, nn.EmbeddingBag)):
            parameter = parameter.transpose(0, 1)
        for unit, owner in enumerate(owners):
            if owner >= 0:
                expected[owner] += parameter[unit].detach().double().square().sum()
    norms = torch.cat([theta.double().square().sum(1) for theta in thetas])
    torch.testing.assert_close(norms, expected, rtol=1e-5, atol=1e-6)


def test_products_are_slopes_times_values_behind_a_relu():
    """Relu is homogeneous: to scale θ_i is to scale s_i, so Euler's rule holds."""
    net = mlp(5, 6, 4, 2)
    players = find_players(
        net, X, [("inputs", "0"), ("neurons", "0"), ("neurons", "2")]
    )
    with Participation(net, players, values_of(players)) as participation:
        participation(X).square().sum().backward()
    expected = participation.values * participation.values.grad
    torch.testing.assert_close(participation.theta_gradient_products(), expected)


def test_products_are_derivatives_by_the_scale_of_theta():
    net = mlp(5, 6, 4, 2, activation=nn.Tanh).double()
    players = find_players(net, X.double())
    net[2].bias.requires_grad_(False)
    participation = Participation(net, players)
    with pytest.raises(ValueError, match="have no gradients; call"):
        participation.theta_gradient_products()

    def loss(scales):
        first, second = scales[:6], scales[6:]
        h = torch.tanh(first * net[0](X.double()))
        # The frozen bias is no part of what is trained.
        return net[4](torch.tanh(second * (h @ net[2].weight.T) + net[2].bias)).sum()

    participation(X.double()).sum().backward()
    scales = torch.ones(10, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(loss(scales), scales)
    torch.testing.assert_close(participation.theta_gradient_products(), expected)
