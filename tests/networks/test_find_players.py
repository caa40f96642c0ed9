"""What find_players refuses, and that it leaves the module as it was."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from skprune.exceptions import UnsupportedNetworkError
from skprune.networks import Players, find_players


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 4, 3),
        nn.BatchNorm1d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 6),
        nn.ReLU(),
        nn.Linear(6, 5),
        nn.ReLU(),
        nn.Linear(5, 3),
    )


EXAMPLE = torch.linspace(-1, 1, 24).reshape(2, 2, 6)


class Wired(nn.Module):
    """Named layers and a forward pass given as a function."""

    def __init__(self, wiring, **layers):
        super().__init__()
        self.wiring = wiring
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.wiring(self, x)


@pytest.mark.parametrize(
    ("players", "message"),
    [
        ("layers", r"no players='layers': .*'4': it reads .*Build it"),
        ([("weights", "4"), ("neurons", "4")], "same weights twice: .* layer '4'"),
        ([("neuron", "4")], "no kind 'neuron'"),
        ([("neurons", "fc9")], r"'fc9' does not exist; .* \['4', '6'\]"),
        ([("neurons", "1")], "'1' is not a layer that it calls"),
        ([("neurons", "8")], r"'8' can never leave .* reach its output.* \['4', '6'\]"),
        ([("neurons", "0")], r"'0' is a Conv1d and has no neurons"),
        ([("filters", "4")], r"'4' is a Linear and has no filters; .* \['0'\]"),
        ([("neurons", "4"), ("inputs", "6")], "the same units twice: layer '6'"),
        ([("filters", "0"), ("inputs", "4")], "the same units twice: layer '4'"),
        ([("neurons", "4"), ("neurons", "4")], r"\('neurons', '4'\) twice"),
        ([], "players is empty"),
        (["neurons"], "pairs; got 'neurons'"),
    ],
)
def test_wrong_players(players, message):
    with pytest.raises(ValueError, match=message):
        find_players(small_net(), EXAMPLE, players)


def test_no_player():
    with pytest.raises(ValueError, match=r"no players='filters'.*'0'"):
        find_players(nn.Sequential(nn.Linear(3, 2)), torch.zeros(1, 3), "filters")
    with pytest.raises(ValueError, match="no players='neurons'"):
        find_players(nn.Linear(3, 2), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"torch.nn.Module; got function"):
        find_players(small_net, torch.zeros(1, 3))


def test_units_added_to_the_input_never_leave():
    net = Wired(
        lambda m, x: m.out(x + m.down(functional.relu(m.up(x)))),
        up=nn.Linear(3, 4),
        down=nn.Linear(4, 3),
        out=nn.Linear(3, 2),
    )
    assert find_players(net, torch.ones(1, 3)).groups == ("up",)
    with pytest.raises(ValueError, match=r"'down' can never leave.*added to its input"):
        find_players(net, torch.ones(1, 3), [("neurons", "down")])


def test_layer_that_is_never_called():
    net = Wired(lambda m, x: m.out(x), out=nn.Linear(3, 2), spare=nn.Linear(3, 2))
    with pytest.raises(ValueError, match="'spare' is not a layer that it calls"):
        find_players(net, torch.ones(1, 3), [("neurons", "spare")])


def shared(m, x):
    return m.out(m.fc(m.fc(m.first(x))))


def tied_network():
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 4))
    net[2].weight = net[0].weight
    return net


def gated(m, x):
    left, right = m.first(x).chunk(2, dim=1)
    return m.out(torch.cat([left * right.sigmoid()] * 2, 1))


def between(layer, n_units=4):
    return nn.Sequential(nn.Linear(4, n_units), layer, nn.Linear(4, 4))


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.rand(4))

    def forward(self, x):
        return x * self.gain


def wired(wiring, **layers):
    layers = {"first": nn.Linear(4, 4), "out": nn.Linear(4, 4)} | layers
    return Wired(wiring, **layers)


def recurrent(m, x):
    return m.out(m.lstm(m.first(x)[:, None])[0][:, 0])


UNSUPPORTED = {
    "recurrent": (lambda: wired(recurrent, lstm=nn.LSTM(4, 4)), "'lstm' .LSTM."),
    "cell": (
        lambda: wired(lambda m, x: m.out(m.cell(x)), cell=nn.GRUCell(4, 4)),
        "cell",
    ),
    "attention": (
        lambda: wired(shared, attention=nn.MultiheadAttention(4, 2)),
        "'attention' .MultiheadAttention",
    ),
    "called twice": (
        lambda: wired(shared, fc=nn.Linear(4, 4)),
        "'fc' .* called 2 times",
    ),
    "tied": (tied_network, "'2' shares its weights .* '0.weight'"),
    "lazy": (lambda: between(nn.LazyLinear(4)), "'1' .LazyLinear. has no sizes"),
    "weight norm": (
        lambda: between(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))),
        "'1' .* parametrized",
    ),
    "group norm": (lambda: between(nn.GroupNorm(2, 4)), "'0' .* layer '1' .GroupNorm"),
    "rms norm": (lambda: between(nn.RMSNorm(4)), "'0' .* layer '1' .RMSNorm"),
    "free parameter": (lambda: between(Scaled()), "'0' .* parameter '1.gain'"),
    "softmax": (lambda: between(nn.Softmax(1)), "layer '0' cannot be removed"),
    "mean over units": (
        lambda: wired(lambda m, x: m.out((h := m.first(x)) - h.mean(1, keepdim=True))),
        "layer 'first' cannot be removed",
    ),
    "chunks": (lambda: wired(gated), "'first'"),
    "fixed view": (
        lambda: wired(lambda m, x: m.out(m.first(x).view(-1, 4))),
        "layer 'first' cannot be removed",
    ),
    "no gradient": (
        lambda: wired(lambda m, x: m.out(m.first(x)).detach()),
        "cannot be traced .* 'out'",
    ),
    "wrong sizes": (
        lambda: wired(lambda m, x: m.out(m.first(x)[:, 1:])),
        "cannot be traced .* 'out'",
    ),
}


@pytest.mark.parametrize(("build", "message"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_unsupported_network(build, message):
    example = torch.linspace(-1, 2, 20).reshape(5, 4)
    with pytest.raises(UnsupportedNetworkError, match=message):
        find_players(build(), example)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.InstanceNorm2d(4, affine=True), "InstanceNorm2d"),
        (nn.LocalResponseNorm(2), "LocalResponseNorm"),
        (nn.Conv2d(4, 8, 1, groups=2), "Conv2d"),
        (nn.ConvTranspose2d(4, 8, 1), "ConvTranspose2d"),
    ],
)
def test_unsupported_layer_behind_filters(layer, name):
    net = nn.Sequential(nn.Conv2d(1, 4, 1), layer, nn.Flatten(), nn.LazyLinear(3))
    example = torch.ones(2, 1, 3, 3)
    net(example)
    with pytest.raises(UnsupportedNetworkError, match=f"'0' .* layer '1' .{name}"):
        find_players(net, example, [("filters", "0")])


def test_unsupported_part_elsewhere_is_allowed():
    net = nn.Sequential(
        nn.Linear(4, 4), nn.GroupNorm(2, 4), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)
    )
    assert find_players(net, torch.ones(1, 4), [("neurons", "2")]).n_players == 6


def test_module_is_left_alone():
    net = small_net()
    net.train()
    net[1].eval()
    net[0].weight.requires_grad_(False)
    calls = []
    net[4].register_forward_hook(lambda *_: calls.append(1))
    net(EXAMPLE).sum().backward()
    state = copy.deepcopy(net.state_dict())
    grads = [p.grad if p.grad is None else p.grad.clone() for p in net.parameters()]
    find_players(net, EXAMPLE, [("inputs", "4"), ("neurons", "4")])
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, state[name])
    for parameter, grad in zip(net.parameters(), grads, strict=True):
        assert (parameter.grad is None) == (grad is None)
        assert grad is None or torch.equal(parameter.grad, grad)
    assert net.training
    assert net[4].training
    assert not net[1].training
    assert not net[0].weight.requires_grad
    assert len(net[4]._forward_hooks) == 1
    assert not net[0]._forward_pre_hooks


def test_all_parameters_frozen_and_no_grad():
    net = small_net().requires_grad_(False)
    with torch.no_grad():
        players = find_players(net, EXAMPLE[:1])
    assert players.n_players == 11
    assert not any(p.requires_grad for p in net.parameters())


def test_groups_come_in_forward_order():
    asked = [("neurons", "6"), ("inputs", "4"), ("neurons", "4")]
    players = find_players(small_net(), EXAMPLE, asked)
    assert players.groups == ("4.input", "4", "6")
    assert players.names[0] == "4.input[0]"
    np.testing.assert_array_equal(np.bincount(players.group_of), [16, 6, 5])
    assert players.selections.keys() == {"4"}
    np.testing.assert_array_equal(players.consumers["4"], np.arange(16))
    np.testing.assert_array_equal(players.consumers["6"], 16 + np.arange(6))


def test_a_filter_owns_its_columns():
    players = find_players(small_net(), EXAMPLE, "filters")
    np.testing.assert_array_equal(players.consumers["4"], np.repeat(np.arange(4), 4))
    np.testing.assert_array_equal(players.normalizations["1"], np.arange(4))


def test_coupled_layers_are_named_after_the_first():
    net = Wired(
        lambda m, x: m.out((h := m.stem(x)) + m.down(functional.relu(m.up(h)))),
        stem=nn.Linear(3, 4),
        up=nn.Linear(4, 5),
        down=nn.Linear(5, 4),
        out=nn.Linear(4, 2),
    )
    players = find_players(net, torch.ones(1, 3), [("neurons", "down")])
    assert players.names == [f"stem[{i}]" for i in range(4)]
    np.testing.assert_array_equal(players.producers["stem"], players.producers["down"])
    both = find_players(
        net, torch.ones(1, 3), [("neurons", "down"), ("neurons", "stem")]
    )
    assert both.names == players.names


def test_same_layer_under_two_names():
    net = small_net()
    net.again = nn.ModuleList([net[4]])
    net.forward = lambda x: nn.Sequential.forward(net[:9], x)
    wrapped = Wired(lambda m, x: m.net(x), net=small_net())
    wrapped.alias = wrapped.net[4]
    assert find_players(wrapped, EXAMPLE).groups == ("net.4", "net.6")


def test_subset_checks_its_mask():
    players = find_players(small_net(), EXAMPLE)
    assert isinstance(players.subset(np.ones(11, dtype=bool)), Players)
    with pytest.raises(ValueError, match=r"keep must be a boolean .*\(11,\).*int64"):
        players.subset(np.arange(11))
    with pytest.raises(ValueError, match=r"drop must be a boolean .*shape \(3,\)"):
        players.after_removal(np.ones(3, dtype=bool))
