"""Single weights as players: found, masked, removed, gated."""

import numpy as np
import pytest
import torch
from torch import nn

from skprune.networks import (
    MaskedModule,
    Participation,
    call,
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
    keep = np.random.default_rng(seed).random((n_coalitions, players.n_players)) < 0.6
    keep[:, np.searchsorted(players.group_of, range(len(players.groups)))] = True
    return keep


def net_of():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 2))


@pytest.fixture
def weights_case(case):
    _, module, example, _ = case
    return module, example, find_players(module, example, "weights")


def test_every_weight_is_a_player(weights_case):
    module, _, players = weights_case
    kinds = nn.Linear, nn.Conv1d, nn.Conv2d
    layers = {n: m for n, m in module.named_modules() if isinstance(m, kinds)}
    assert players.weights.keys() == layers.keys()
    for name, owners in players.weights.items():
        assert owners.shape == layers[name].weight.shape
        last = ",".join(str(size - 1) for size in owners.shape)
        label = f"{name}.weight".lstrip(".")
        assert players.names[owners.flat[-1]] == f"{label}[{last}]"
        assert players.groups[players.group_of[owners.flat[0]]] == label
    numbers = np.sort(np.concatenate([o.ravel() for o in players.weights.values()]))
    assert np.array_equal(numbers, np.arange(players.n_players))
    assert not any([players.producers, players.consumers, players.selections])


def test_masked_is_removed(weights_case):
    module, example, players = weights_case
    dense = run(module, example)
    for keep in coalitions(players, 2):
        with masked(module, players, keep):
            expected = run(module, example)
        assert any(
            not torch.allclose(a, b) for a, b in zip(dense, expected, strict=True)
        )
        pruned = remove_players(module, players, ~keep)
        assert_same(run(pruned, example), expected)
        for name, owners in players.weights.items():
            weight = pruned.get_submodule(name).weight
            assert weight.shape == owners.shape
            assert torch.equal(weight != 0, torch.from_numpy(keep[owners]))
    assert_same(run(module, example), dense)


def test_batched_is_single(weights_case):
    module, example, players = weights_case
    keep = coalitions(players, 3)
    batch = map_tensors(lambda x: torch.cat([x] * 3), example)
    batch = tuple(batch) if isinstance(batch, list) else batch
    with MaskedModule(module, players) as masks:
        masks.set_masks(keep)
        together = run(module, batch)
        for number, coalition in enumerate(keep):
            masks.set_masks(coalition)
            rows = slice(4 * number, 4 * number + 4)
            assert_same(run(module, example), [x[rows] for x in together])


def test_removed_again(weights_case):
    module, example, players = weights_case
    first, second = coalitions(players, 2)
    first |= second
    once = remove_players(module, players, ~first)
    remaining = players.after_removal(~first)
    assert remaining.n_players == first.sum()
    for name, owners in remaining.weights.items():
        gone = ~first[players.weights[name]]
        assert (owners[gone] == -1).all()
        names = [players.names[i] for i in players.weights[name][~gone]]
        assert [remaining.names[i] for i in owners[~gone]] == names
    twice = remove_players(once, remaining, ~second[first])
    with masked(module, players, second):
        expected = run(module, example)
    assert_same(run(twice, example), expected)
    with masked(once, remaining, second[first]):
        assert_same(run(once, example), expected)


def test_gates(weights_case):
    module, example, players = weights_case
    values = np.random.default_rng(0).uniform(0.2, 1.0, players.n_players)
    keep = coalitions(players, 1)[0]
    with Participation(module, players, keep):
        closed = run(module, example)
    with masked(module, players, keep):
        assert_same(closed, run(module, example))
    with Participation(module, players, values) as participation:
        expected = run(module, example)
        sum(x.square().sum() for x in tensors_in(call(module, example))).backward()
        products = participation.theta_gradient_products()
        participation.is_open = True
        dense = run(module, example)
        participation.is_open = False
        slope = participation.values.grad
        euler = slope * torch.from_numpy(values).float()
        scale = euler.abs().max().item()
        torch.testing.assert_close(products, euler, rtol=1e-4, atol=1e-5 * scale)
        participation.fold_()
        assert_same(run(module, example), expected)
    assert_same(run(module, example), expected)
    assert any(not torch.allclose(a, b) for a, b in zip(dense, expected, strict=True))


def test_one_layer_beside_neurons():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU())
    net.append(nn.Linear(3, 2))
    players = find_players(net, X, [("weights", "4"), ("neurons", "0")])
    assert players.groups == ("0", "4.weight")
    assert players.names[3:6] == ["0[3]", "4.weight[0,0]", "4.weight[0,1]"]
    keep = np.isin(np.arange(10), [0, 2, 4, 7])
    with masked(net, players, keep):
        expected = net(X)
    pruned = remove_players(net, players, ~keep)
    torch.testing.assert_close(pruned(X), expected)
    rest = players.after_removal(~keep)
    assert rest.weights["4"].tolist() == [[2, -1, -1], [3, -1, -1]]
    neurons, weights = Participation(pruned, rest).thetas()
    assert neurons.shape == (2, 6)
    assert torch.equal(weights, net[4].weight[:, :1])


def test_absent_weights_may_be_infinite():
    net = net_of()
    players = find_players(net, X, [("weights", "2")])
    with torch.no_grad():
        net[2].weight[0, 1] = torch.inf
    keep = np.arange(6) != 1
    with masked(net, players, keep):
        expected = net(X)
    assert expected.isfinite().all()
    torch.testing.assert_close(remove_players(net, players, ~keep)(X), expected)


def test_the_module_itself_is_the_layer():
    net = nn.Linear(5, 2)
    players = find_players(net, X, "weights")
    assert players.names[-1] == "weight[1,4]"
    drop = np.arange(10) < 5
    torch.testing.assert_close(
        remove_players(net, players, drop)(X)[:, 0], net.bias[0].expand(4)
    )


@pytest.mark.parametrize("other", [("neurons", "0"), ("neurons", "2"), ("inputs", "2")])
def test_weights_of_units_that_are_players(other):
    net = net_of().append(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"same weights twice: .* layer '2'.*either"):
        find_players(net, X, [("weights", "2"), other])


def test_no_layer_is_emptied():
    net = net_of()
    players = find_players(net, X, "weights")
    with pytest.raises(ValueError, match=r"layer '2\.weight' empty: all of its 6"):
        remove_players(net, players, np.arange(21) >= 15)


def test_weights_of_another_module():
    net = net_of()
    players = find_players(net, X, "weights")
    other = nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 4))
    with pytest.raises(ValueError, match=r"layer '2' should have \(2, 3\) weights"):
        remove_players(other, players, np.arange(21) == 0)
    with pytest.raises(ValueError, match="'1' is not a layer that it calls"):
        find_players(net, X, [("weights", "1")])


def test_rows_must_be_whole_batches():
    net = net_of()
    players = find_players(net, X, "weights")
    with (
        masked(net, players, np.ones((3, 21), dtype=bool)),
        pytest.raises(ValueError, match="multiple of 3 rows; got 4"),
    ):
        net(X)
