"""remove_players: attributes of the new module, errors, the old one untouched."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from skprune.networks import (
    ColumnSelection,
    MaskedModule,
    find_players,
    masked,
    remove_players,
)


def net_of(*sizes):
    torch.manual_seed(0)
    layers = []
    for n_inputs, n_units in itertools.pairwise(sizes):
        layers += [nn.Linear(n_inputs, n_units), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def among(n_players, *numbers):
    return np.isin(np.arange(n_players), numbers)


X = torch.linspace(-1, 1, 15).reshape(3, 5)


def test_sizes_and_parameters():
    net = net_of(5, 6, 4, 2)
    net[0].weight.requires_grad_(False)
    net(X).sum().backward()
    net.train()
    net[2].eval()
    before = copy.deepcopy(net.state_dict())
    pruned = remove_players(net, find_players(net, X), among(10, 1, 2, 6))
    assert (pruned[0].in_features, pruned[0].out_features) == (5, 4)
    assert (pruned[2].in_features, pruned[2].out_features) == (4, 3)
    torch.testing.assert_close(pruned[0].weight, net[0].weight[[0, 3, 4, 5]])
    assert not pruned[0].weight.requires_grad
    assert pruned[0].bias.requires_grad
    assert all(p.grad is None for p in pruned.parameters())
    assert pruned.training
    assert not pruned[2].training
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])
    with torch.no_grad():
        pruned[4].bias.zero_()
    assert torch.equal(net[4].bias, before["4.bias"])


def test_depthwise_attributes():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 2, groups=4), nn.Flatten(), nn.Linear(16, 2)
    )
    x = torch.rand(2, 1, 3, 3)
    pruned = remove_players(net, find_players(net, x, "filters"), among(4, 0))
    depthwise = pruned[1]
    assert (depthwise.groups, depthwise.in_channels, depthwise.out_channels) == (
        3,
        3,
        3,
    )
    assert depthwise.weight.shape == (3, 1, 2, 2)
    assert pruned[3].in_features == 12


def test_norm_attributes():
    net = nn.Sequential(
        nn.Linear(5, 4),
        nn.LayerNorm(4),
        nn.BatchNorm1d(4),
        nn.PReLU(4),
        nn.Linear(4, 2),
    )
    pruned = remove_players(net, find_players(net, X), among(4, 3))
    assert pruned[1].normalized_shape == (3,)
    assert pruned[2].num_features == 3
    assert pruned[2].running_var.shape == (3,)
    assert pruned[3].num_parameters == 3


def test_selections_are_composed():
    net = net_of(5, 6, 2)
    players = find_players(net, X, [("inputs", "2")])
    once = remove_players(net, players, among(6, 0, 4))
    twice = remove_players(once, players.after_removal(among(6, 0, 4)), among(4, 1))
    assert len(twice[2]) == 2
    assert isinstance(twice[2][0], ColumnSelection)
    assert twice[2][0].index.tolist() == [1, 3, 5]
    assert twice[2][1].in_features == 3
    assert twice[0].out_features == 6
    assert "2.0.index" in twice.state_dict()


def test_no_selection_where_no_input_leaves():
    net = net_of(5, 6, 2)
    players = find_players(net, X, [("inputs", "2"), ("neurons", "0")][:1])
    nobody = among(6)
    assert isinstance(remove_players(net, players, nobody)[2], nn.Linear)
    assert players.after_removal(nobody).consumers.keys() == {"2"}


@pytest.mark.parametrize("spec", ["neurons", [("inputs", "2")]])
def test_no_layer_is_emptied(spec):
    net = net_of(5, 6, 2)
    players = find_players(net, X, spec)
    with pytest.raises(ValueError, match=r"layer '(0|2.input)' empty: all of its 6 "):
        remove_players(net, players, np.ones(6, dtype=bool))


def test_wrong_drop():
    net = net_of(5, 6, 2)
    players = find_players(net, X)
    with pytest.raises(ValueError, match=r"drop must be a boolean .*int64"):
        remove_players(net, players, np.array([1, 2]))
    with pytest.raises(ValueError, match=r"shape \(6,\).*\(5,\)"):
        remove_players(net, players, np.zeros(5, dtype=bool))


def test_players_of_another_module():
    net = net_of(5, 6, 2)
    players = find_players(net, X)
    pruned = remove_players(net, players, among(6, 0))
    with pytest.raises(ValueError, match=r"does not fit module: layer '0' .* has 5"):
        remove_players(pruned, players, among(6, 0))
    with pytest.raises(ValueError, match=r"layer '0' should .* has None"):
        remove_players(nn.Linear(5, 2), players, among(6, 0))
    with (
        masked(pruned, players, among(6, 1)),
        pytest.raises(ValueError, match="'2' reads 5 columns where players has 6"),
    ):
        pruned(X)


def test_hooks_of_the_user_stay_and_ours_do_not():
    net = net_of(5, 6, 2)
    players = find_players(net, X)
    calls = []
    net[2].register_forward_pre_hook(lambda *_: calls.append(1))
    with masked(net, players, among(6, 0)):
        pruned = remove_players(net, players, among(6, 5))
    assert len(pruned[2]._forward_pre_hooks) == 1
    plain = remove_players(net, players, among(6, 5))
    calls.clear()
    torch.testing.assert_close(pruned(X), plain(X))
    assert len(calls) == 2


def test_masks_end_with_the_context():
    net = net_of(5, 6, 2)
    players = find_players(net, X)
    with pytest.raises(KeyError), masked(net, players, among(6, 0)):
        raise KeyError
    assert not net[2]._forward_pre_hooks
    masks = MaskedModule(net, players)
    expected = masks(X)
    masks.set_masks(among(6))
    torch.testing.assert_close(masks(X), net[2].bias.expand(3, 2))
    masks.close()
    torch.testing.assert_close(net(X), expected)


@pytest.mark.parametrize(
    "keep", [np.zeros(5, bool), np.zeros(6), np.zeros((1, 1, 6), bool)]
)
def test_wrong_keep(keep):
    net = net_of(5, 6, 2)
    players = find_players(net, X)
    with (
        pytest.raises(ValueError, match="keep must be boolean"),
        masked(net, players, keep),
    ):
        pass
    assert not net[2]._forward_pre_hooks


def test_rows_must_be_whole_batches():
    net = net_of(5, 6, 2)
    players = find_players(net, X)
    with (
        masked(net, players, np.ones((2, 6), dtype=bool)),
        pytest.raises(ValueError, match="multiple of 2 rows; got 3"),
    ):
        net(X)
