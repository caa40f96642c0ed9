"""Constants that players leave behind: masked with fill == removed with fill."""

import numpy as np
import pytest
import torch
from torch import nn

from skprune.networks import (
    MaskedModule,
    call,
    column_means,
    find_players,
    map_tensors,
    masked,
    remove_players,
    tensors_in,
)

X = torch.linspace(-1, 1, 20).reshape(4, 5)


def run(module, example):
    with torch.no_grad():
        return tensors_in(call(module, example))


def assert_same(outputs, expected):
    assert len(outputs) == len(expected) > 0
    for one, other in zip(outputs, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def coalitions(players, n_coalitions, seed=0):
    """Random coalitions with somebody left, and somebody gone, in each group."""
    rng = np.random.default_rng(seed)
    keep = rng.random((n_coalitions, players.n_players)) < 0.5
    for group in range(len(players.groups)):
        members = np.flatnonzero(players.group_of == group)
        for coalition in keep:
            first, *others = rng.permutation(members)
            coalition[first] = True
            coalition[others[:1]] = False
    return keep


def net_of(activation=nn.ReLU):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), activation(), nn.Linear(6, 2))


def test_masked_is_removed(case):
    _, module, example, players = case
    fill = column_means(module, players, example)
    assert fill.keys() == players.consumers.keys()
    for keep in coalitions(players, 3):
        with masked(module, players, keep):
            empty = run(module, example)
        with masked(module, players, keep, fill=fill):
            expected = run(module, example)
        assert_same(
            run(remove_players(module, players, ~keep, fill=fill), example), expected
        )
        biases = [module.get_submodule(name).bias for name in players.consumers]
        if any(bias is not None for bias in biases):
            assert any(
                not torch.allclose(a, b) for a, b in zip(empty, expected, strict=True)
            )


def test_batched_is_single(case):
    _, module, example, players = case
    fill = column_means(module, players, example)
    keep = coalitions(players, 3)
    batch = map_tensors(lambda x: torch.cat([x] * 3), example)
    batch = tuple(batch) if isinstance(batch, list) else batch
    with MaskedModule(module, players, fill=fill) as masks:
        masks.set_masks(keep)
        together = run(module, batch)
        for number, coalition in enumerate(keep):
            masks.set_masks(coalition)
            rows = slice(4 * number, 4 * number + 4)
            assert_same(run(module, example), [x[rows] for x in together])


def test_a_layer_that_reads_constants_loses_nothing():
    """A unit that gives the same for every row is wholly in the next bias."""
    net = net_of(nn.Tanh)
    with torch.no_grad():
        net[0].weight[[1, 4]] = 0
        net[0].bias[[1, 4]] = torch.tensor([-0.7, 1.9])
    players = find_players(net, X)
    fill = column_means(net, players, X)
    expected = torch.tanh(torch.tensor([-0.7, 1.9]))
    torch.testing.assert_close(fill["2"][[1, 4]], expected)
    drop = np.isin(np.arange(6), [1, 4])
    pruned = remove_players(net, players, drop, fill=fill)
    assert pruned[0].out_features == 4
    assert pruned[2].bias.requires_grad
    torch.testing.assert_close(pruned(X), net(X))


@pytest.mark.parametrize("padding", [0, 1])
def test_constant_channels_of_a_convolution(padding):
    """Exact without padding; with it, at the border the shift is that of the inside."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 1), nn.Conv2d(3, 2, 3, padding=padding), nn.ReLU()
    )
    net.append(nn.Conv2d(2, 1, 1))
    with torch.no_grad():
        net[0].weight[1] = 0
        net[0].bias[1] = 2.0
    x = torch.rand(2, 1, 6, 6)
    players = find_players(net, x, [("filters", "0")])
    fill = column_means(net, players, x)
    assert fill["1"][1].item() == pytest.approx(2.0)
    pruned = remove_players(net, players, np.array([False, True, False]), fill=fill)
    output, expected = pruned[:2](x), net[:2](x)
    inside = slice(padding, output.shape[-1] - padding)
    torch.testing.assert_close(
        output[..., inside, inside], expected[..., inside, inside]
    )
    assert torch.allclose(output, expected, atol=1e-5) == (padding == 0)


def test_means_are_over_rows_and_positions():
    net = nn.Sequential(nn.Conv1d(2, 3, 2), nn.ReLU(), nn.Conv1d(3, 2, 1))
    x = torch.randn(7, 2, 5)
    players = find_players(net, x, "filters")
    net.train()
    (means,) = column_means(net, players, x).values()
    torch.testing.assert_close(means, net[:2](x).mean((0, 2)))
    assert net.training
    assert not means.requires_grad
    assert not net[2]._forward_pre_hooks


def test_a_layer_without_bias_takes_nothing_in():
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2, bias=False))
    players = find_players(net, X)
    fill = column_means(net, players, X)
    drop = np.arange(6) < 2
    pruned = remove_players(net, players, drop, fill=fill)
    torch.testing.assert_close(pruned(X), remove_players(net, players, drop)(X))
    with masked(net, players, ~drop, fill=fill):
        torch.testing.assert_close(net(X), pruned(X))


def test_weights_that_are_not_finite_stay_out():
    net = net_of()
    players = find_players(net, X)
    fill = column_means(net, players, X)
    with torch.no_grad():
        net[2].weight[:, 3] = torch.inf
    pruned = remove_players(net, players, np.arange(6) == 0, fill=fill)
    assert pruned[2].bias.isfinite().all()


def test_the_module_stays_as_it_is():
    net = net_of()
    players = find_players(net, X)
    before = net[2].bias.clone()
    fill = {"2": torch.ones(6)}
    remove_players(net, players, np.arange(6) < 2, fill=fill)
    with masked(net, players, np.arange(6) < 2, fill=fill):
        net(X)
    assert torch.equal(net[2].bias, before)
    assert not net[2]._forward_hooks


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        ({"0": torch.ones(6)}, r"fill names layer '0'.*are \['2'\]"),
        ({"2": torch.ones(5)}, r"fill\['2'\] must be a tensor of shape \(6,\).*\[5\]"),
        ({"2": [0.0] * 6}, r"fill\['2'\] must be a tensor .*got list"),
    ],
)
def test_wrong_fill(fill, message):
    net = net_of()
    players = find_players(net, X)
    with pytest.raises(ValueError, match=message):
        remove_players(net, players, np.arange(6) < 2, fill=fill)
    with pytest.raises(ValueError, match=message):
        MaskedModule(net, players, fill=fill)
    assert not net[2]._forward_pre_hooks
