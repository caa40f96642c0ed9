"""What staying is worth: benefits and contributions, against their definitions."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from skprune.networks import (
    Participation,
    contributions,
    curvature_benefits,
    find_players,
    remove_players,
    remove_rows,
    weight_norms,
)


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3)
    ).double()


class ConvNet(nn.Module):
    """A convolution read by a convolution, and one read by a Linear layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 5, 2, stride=2)
        self.out = nn.Linear(5 * 4, 3)

    def forward(self, x):
        x = torch.tanh(self.norm(self.first(x)))
        return self.out(torch.relu(self.second(x)).flatten(1))


class Branches(nn.Module):
    """Units that two layers read."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(5, 6)
        self.left, self.right = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        h = torch.tanh(self.body(x))
        return self.left(h) + self.right(h).square()


def conv_net():
    torch.manual_seed(0)
    return ConvNet().double().eval()


def branches():
    torch.manual_seed(0)
    return Branches().double()


CASES = {
    "linear": (mlp, (5,), "neurons"),
    "convolutions": (conv_net, (2, 4, 4), "filters"),
    "two readers": (branches, (5,), "neurons"),
}


@pytest.fixture(params=CASES)
def case(request):
    build, shape, kind = CASES[request.param]
    module = build()
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.normal(size=(9, *shape)))
    y = torch.from_numpy(rng.integers(3, size=9))
    return module, x, y, find_players(module, x, kind)


def mean_loss(module, x, y):
    return lambda: functional.cross_entropy(module(x), y)


def by_hand(module, x, y, players):
    """Half the mean square of each sample's slope along a path to the mean.

    A player's column z becomes z + t (z - mean): the slope at 0 is <g, z - mean>, from
    one backward pass for each sample, through a graph built by this test.
    """
    read = {}
    hooks = [
        module.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: read.__setitem__(name, args[0])
        )
        for name in players.consumers
    ]
    slopes = np.zeros((len(x), players.n_players))
    with torch.no_grad():
        module(x)
    means = {
        name: z.mean(dim=[0, *range(2, z.ndim)], keepdim=True)[0]
        for name, z in read.items()
    }
    for sample in range(len(x)):
        outputs = module(x[sample : sample + 1])
        loss = functional.cross_entropy(outputs, y[sample : sample + 1])
        parts = dict(read)
        gradients = torch.autograd.grad(loss, list(parts.values()))
        for (name, z), gradient in zip(parts.items(), gradients, strict=True):
            change = (gradient * (z - means[name]))[0].detach()
            for column, owner in enumerate(players.consumers[name]):
                if owner >= 0:
                    slopes[sample, owner] += float(change[column].sum())
    for hook in hooks:
        hook.remove()
    return 0.5 * (slopes**2).mean(0)


def test_benefits_are_those_of_the_samples(case):
    module, x, y, players = case
    found = curvature_benefits(module, players, mean_loss(module, x, y))
    assert found.shape == (players.n_players,)
    np.testing.assert_allclose(found, by_hand(module, x, y, players), rtol=1e-9)
    assert (found > 0).all()


def test_benefits_do_not_depend_on_the_batch_s_size(case):
    module, x, y, players = case
    once = curvature_benefits(module, players, mean_loss(module, x, y))
    many = x.repeat(3, *(1,) * (x.ndim - 1))
    thrice = curvature_benefits(module, players, mean_loss(module, many, y.repeat(3)))
    torch.testing.assert_close(once, thrice)


def test_benefits_leave_the_module_as_it_was(case):
    module, x, y, players = case
    module.train()
    buffers = [buffer.clone() for buffer in module.buffers()]
    with torch.no_grad():
        curvature_benefits(module, players, mean_loss(module, x, y))
    assert module.training
    assert all(p.grad is None for p in module.parameters())
    for old, new in zip(buffers, module.buffers(), strict=True):
        assert torch.equal(old, new)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in module.modules())


def test_a_benefit_of_a_squared_error_is_the_loss_of_leaving():
    """To second order: exact where the outputs are linear in the player.

    For half the squared error of one output with residual r, a player that moves the
    output by d costs d²/2 more to second order; the Fisher approximation takes r² d²/2,
    which is the same where |r| = 1.
    """
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Identity(), nn.Linear(1, 1))
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[2].weight.fill_(0.5)
        net[2].bias.fill_(0.0)
    x = torch.tensor([[1.0], [-1.0], [3.0], [-3.0]])
    y = net(x).detach() + torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    players = find_players(net, x)
    benefit = curvature_benefits(
        net, players, lambda: 0.5 * (net(x) - y).square().mean()
    )
    bias = net[2].bias.expand(4, 1)
    rise = 0.5 * (bias - y).square().mean() - 0.5 * (net(x) - y).square().mean()
    torch.testing.assert_close(benefit[0], rise.detach())


def test_who_never_varies_is_worth_nothing():
    module = mlp()
    with torch.no_grad():
        module[0].weight[2] = 0
        module[0].bias[2] = 3.0
    x = torch.randn(
        8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    players = find_players(module, x)
    y = torch.arange(8) % 3
    benefits = curvature_benefits(module, players, mean_loss(module, x, y))
    assert benefits[2] < 1e-20
    assert contributions(module, players, x)[2] < 1e-10
    assert (benefits[:2] > 1e-9).all()


def test_benefits_of_single_weights():
    module = mlp()
    rng = np.random.default_rng(2)
    x, y = torch.from_numpy(rng.normal(size=(9, 5))), torch.arange(9) % 3
    players = find_players(module, x, "weights")
    found = curvature_benefits(module, players, mean_loss(module, x, y))
    expected = np.zeros(players.n_players)
    for sample in range(9):
        module.zero_grad()
        functional.cross_entropy(module(x[[sample]]), y[[sample]]).backward()
        for name, owners in players.weights.items():
            weight = module.get_submodule(name).weight
            slope = (weight.grad * weight).detach().numpy()
            expected[owners[owners >= 0]] += 0.5 * slope[owners >= 0] ** 2 / 9
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-18)


def test_a_single_weight_that_left_is_nobody_s():
    module, x = mlp(), torch.ones(4, 5, dtype=torch.float64)
    players = find_players(module, x, "weights")
    drop = np.arange(players.n_players) % 2 == 0
    smaller = remove_players(module, players, drop)
    left = players.after_removal(drop)
    for found in (
        contributions(smaller, left, x),
        curvature_benefits(smaller, left, mean_loss(smaller, x, torch.arange(4) % 3)),
    ):
        assert found.shape == ((~drop).sum(),)
    sizes = contributions(module, players, x)
    torch.testing.assert_close(contributions(smaller, left, x), sizes[~drop])
    layer = next(iter(players.weights))
    weight = module.get_submodule(layer).weight.detach().abs().ravel()
    owners = players.weights[layer].ravel()
    torch.testing.assert_close(sizes[owners], weight)


def test_contributions_are_spreads_of_what_readers_get(case):
    module, x, _, players = case
    found = contributions(module, players, x)
    expected = np.zeros(players.n_players)
    read = {}
    for name in players.consumers:
        module.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: read.__setitem__(name, args[0].detach())
        )
    module(x)
    for name, owners in players.consumers.items():
        weight = module.get_submodule(name).weight.detach()
        z = read[name]
        for column, owner in enumerate(owners):
            values = z[:, column].flatten()
            spread = ((values - values.mean()) ** 2).mean()
            expected[owner] += float(spread * (weight[:, column] ** 2).sum())
    np.testing.assert_allclose(found, np.sqrt(expected), rtol=1e-9)


def test_contributions_do_not_see_who_carries_the_scale(case):
    module, x, _, players = case
    before = contributions(module, players, x)
    values = np.random.default_rng(0).uniform(0.2, 1.0, players.n_players)
    with Participation(module, players, values) as gates:
        gated = contributions(module, players, x)
        gates.fold_()
    folded = contributions(module, players, x)
    torch.testing.assert_close(gated, folded)
    assert (folded < before).any()


def test_weight_norms_are_those_of_what_computes_the_players(case):
    module, _, _, players = case
    expected = np.zeros(players.n_players)
    for name, owners in players.producers.items():
        weight = module.get_submodule(name).weight.detach().numpy()
        for unit, owner in enumerate(owners):
            if owner >= 0:
                expected[owner] += (weight[unit] ** 2).sum()
    np.testing.assert_allclose(weight_norms(module, players), np.sqrt(expected))
    with torch.no_grad():
        for name, p in module.named_parameters():
            if name.endswith("bias"):
                p.fill_(100.0)
    np.testing.assert_allclose(weight_norms(module, players), np.sqrt(expected))


def test_norms_of_single_weights_are_their_sizes():
    module = mlp()
    players = find_players(module, torch.zeros(1, 5, dtype=torch.float64), "weights")
    found = weight_norms(module, players)
    for name, owners in players.weights.items():
        weight = module.get_submodule(name).weight.detach()
        torch.testing.assert_close(found[owners.ravel()], weight.abs().ravel())


def test_rows_of_tensors_follow_the_parameters(case):
    """Tensors whose entries name their place, after surgery on both."""
    module, _, _, players = case
    drop = np.arange(players.n_players) % 3 == 1
    numbered = {
        name: torch.arange(p.numel(), dtype=torch.float64).reshape(p.shape)
        for name, p in module.named_parameters()
    }
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(numbered[name])
    smaller = dict(remove_players(module, players, drop).named_parameters())
    left = remove_rows(module, players, drop, numbered)
    assert left.keys() == smaller.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, smaller[name])
        assert not tensor.requires_grad
    for name, p in module.named_parameters():
        assert torch.equal(p, numbered[name])


def test_rows_of_some_tensors_only():
    module = mlp()
    players = find_players(module, torch.zeros(1, 5, dtype=torch.float64))
    drop = np.isin(np.arange(13), [0, 5, 9])
    left = remove_rows(module, players, drop, {"2.weight": torch.ones(6, 7)})
    assert left.keys() == {"2.weight"}
    assert left["2.weight"].shape == (5, 5)


def test_rows_of_tensors_that_lie_column_by_column():
    module = mlp()
    players = find_players(module, torch.zeros(1, 5, dtype=torch.float64))
    drop = np.isin(np.arange(13), [1, 2])
    moment = torch.arange(35.0).reshape(5, 7).T
    left = remove_rows(module, players, drop, {"0.weight": moment})["0.weight"]
    assert left.stride() == (1, 5)
    assert torch.equal(left, moment[[0, 3, 4, 5, 6]])
