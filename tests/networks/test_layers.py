"""Whole layers as players: found, bypassed, removed, alone and beside other players."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from skprune.exceptions import UnsupportedNetworkError
from skprune.networks import (
    MaskedModule,
    Participation,
    column_means,
    contributions,
    curvature_benefits,
    find_players,
    is_within,
    masked,
    remove_players,
    remove_rows,
    size_of,
    weight_norms,
)


class Block(nn.Module):
    def __init__(self, width, n_hidden, norm=nn.Identity):
        super().__init__()
        self.norm = norm(width)
        self.fc1, self.fc2 = nn.Linear(width, n_hidden), nn.Linear(n_hidden, width)

    def forward(self, x):
        return x + self.fc2(torch.relu(self.fc1(self.norm(x))))


class InPlaceBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc = nn.Linear(width, width)

    def forward(self, x):
        x += self.fc(x)
        return x.relu_()


class ConvBlock(nn.Module):
    def __init__(self, width, n_hidden):
        super().__init__()
        self.conv1 = nn.Conv2d(width, n_hidden, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(n_hidden), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(n_hidden, width, 3, padding=1)

    def forward(self, x):
        h = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(x + self.bn2(self.conv2(h)))


class Tower(nn.Module):
    """Blocks in a list, called in a loop, and a head that reads them by keyword."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(6, 5), nn.Linear(5, 3)
        self.blocks = nn.ModuleList([Block(5, 4), Block(5, 3)])
        self.mix = nn.ModuleDict({"one": nn.Linear(5, 5), "two": nn.LayerNorm(5)})

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(self.mix["two"](torch.sin(self.mix["one"](input=x))))


def mlp(width=5):
    return nn.Sequential(
        nn.Linear(6, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.Tanh(),
        nn.Linear(width, 3),
    )


def residual(norm=nn.Identity):
    blocks = [Block(5, n_hidden, norm) for n_hidden in (4, 3, 2)]
    return nn.Sequential(nn.Linear(6, 5), *blocks, nn.Linear(5, 3))


def in_place():
    blocks = [InPlaceBlock(5), InPlaceBlock(5)]
    return nn.Sequential(nn.Linear(6, 5), *blocks, nn.Linear(5, 3))


def convolutional():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        ConvBlock(4, 3),
        ConvBlock(4, 2),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


@dataclass(frozen=True, eq=False)
class Case:
    module: Any
    players: Any
    n_players: int
    shape: tuple = (6,)

    def build(self, seed=0):
        torch.manual_seed(seed)
        module = self.module()
        for tensor in module.state_dict().values():
            if tensor.ndim == 1 and tensor.is_floating_point():
                tensor.uniform_(0.3, 1.5)
        return module.eval()

    def input(self, batch=4):
        generator = torch.Generator().manual_seed(1)
        return torch.randn(batch, *self.shape, generator=generator)


def layers(*names):
    return [("layers", name) for name in names]


NEURONS, FILTERS = [("neurons", None)], [("filters", None)]

CASES = {
    "mlp": Case(mlp, "layers", 1),
    "mlp and neurons": Case(mlp, [*layers("2"), *NEURONS], 6),
    "mlp, its inputs and weights": Case(
        mlp, [*layers("2"), ("inputs", "2"), ("inputs", "0"), ("weights", "4")], 27
    ),
    "mlp and its own weights": Case(mlp, [*layers("2"), ("weights", "2")], 26),
    "mlp and an activation": Case(mlp, layers("2", "3"), 2),
    "first layer": Case(lambda: mlp(6), [*layers("0", "2"), *NEURONS], 2),
    "residual": Case(residual, "layers", 3),
    "residual and neurons": Case(residual, [*layers("1", "3"), *NEURONS], 16),
    "residual and neurons in it": Case(
        residual, [*layers("1", "2"), ("neurons", "1.fc1"), ("inputs", "0")], 12
    ),
    "pre-norm": Case(lambda: residual(nn.LayerNorm), "layers", 3),
    "pre-norm and neurons": Case(
        lambda: residual(nn.LayerNorm), [*layers("1", "2", "3"), *NEURONS], 17
    ),
    "layers in blocks": Case(
        lambda: residual(nn.LayerNorm), [*layers("1.norm", "2"), *NEURONS], 16
    ),
    "batch norm blocks": Case(
        lambda: residual(nn.BatchNorm1d), [("layers", None), *NEURONS], 17
    ),
    "in place": Case(in_place, "layers", 2),
    "in place and neurons": Case(in_place, [*layers("2"), *NEURONS], 6),
    "convolutions": Case(convolutional, "layers", 3, (2, 5, 5)),
    "convolutions and filters": Case(
        convolutional, [("layers", None), *FILTERS], 12, (2, 5, 5)
    ),
    "one block and weights": Case(
        convolutional, [*layers("2"), ("weights", "1.conv1")], 109, (2, 5, 5)
    ),
    "tower": Case(Tower, "layers", 3),
    "tower and neurons": Case(
        Tower, [*layers("blocks.1", "mix.one", "mix.two"), *NEURONS], 15
    ),
}
each = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@cache
def found(case):
    module, x = case.build(), case.input()
    return module, x, find_players(module, x, case.players)


def coalitions(players, n_coalitions, seed=0):
    """Random coalitions with somebody left in every group of units."""
    rng = np.random.default_rng(seed)
    keep = rng.random((n_coalitions, players.n_players)) < rng.uniform(0.2, 0.9)
    for group in range(len(players.groups)):
        members = np.flatnonzero(players.group_of == group)
        if players.floors()[group]:
            keep[np.arange(n_coalitions), rng.choice(members, n_coalitions)] = True
    return keep


def run(module, x):
    with torch.no_grad():
        # A copy: a block may work in place on what it reads.
        return module(x.clone())


def assert_same(output, expected):
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


@each
def test_number_and_names(case):
    _, _, players = found(case)
    assert players.n_players == case.n_players == len(players.names)
    assert len(set(players.names)) == players.n_players
    assert np.all(np.diff(players.group_of) >= 0)
    numbers = list(players.layers.values())
    assert numbers == list(range(players.n_players - len(numbers), players.n_players))
    assert players.names[-len(numbers) :] == list(players.layers)
    assert players.groups[-1] == "layers"


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.sampled_from(list(CASES)), st.integers(0, 2**32 - 1))
def test_masked_is_removed(name, seed):
    module, x, players = found(CASES[name])
    (keep,) = coalitions(players, 1, seed)
    with masked(module, players, keep):
        expected = run(module, x)
    assert_same(run(remove_players(module, players, ~keep), x), expected)


@each
def test_every_layer_matters(case):
    module, x, players = found(case)
    everybody = run(module, x)
    for number in players.layers.values():
        with masked(module, players, np.arange(players.n_players) != number):
            assert not torch.allclose(run(module, x), everybody)
    assert_same(run(module, x), everybody)


@each
def test_batched_is_single(case):
    module, x, players = found(case)
    keep = coalitions(players, 4)
    keep[0], keep[1, list(players.layers.values())] = True, False
    with MaskedModule(module, players) as masks:
        masks.set_masks(keep)
        together = run(module, torch.cat([x] * 4)).split(4)
        for coalition, expected in zip(keep, together, strict=True):
            masks.set_masks(torch.from_numpy(coalition))
            assert_same(run(module, x), expected)
        masks.set_masks(None)
        assert_same(run(module, x), together[0])


@each
def test_removed_again(case):
    module, x, players = found(case)
    first, second = coalitions(players, 2, seed=3)
    first |= second
    once, rest = remove_players(module, players, ~first), players.subset(first)
    stays = ~players.leaving(~first)
    assert rest.names == [players.names[i] for i in np.flatnonzero(stays)]
    twice = remove_players(once, rest, ~second[stays])
    with masked(module, players, second):
        expected = run(module, x)
    assert_same(run(twice, x), expected)
    with masked(once, rest, second[stays]):
        assert_same(run(once, x), expected)
    at_once = remove_players(module, players, ~second)
    shapes = {name: p.shape for name, p in at_once.state_dict().items()}
    assert {name: p.shape for name, p in twice.state_dict().items()} == shapes


def test_found_again_in_the_pruned_module():
    module, x, players = found(CASES["residual and neurons"])
    keep = coalitions(players, 1, seed=2)[0]
    keep[list(players.layers.values())] = [True, False]
    known = players.subset(keep)
    pairs = [("layers", "1"), ("neurons", None)]
    again = find_players(remove_players(module, players, ~keep), x, pairs)
    assert (again.n_players, again.layers) == (known.n_players, known.layers)
    for kind in ("producers", "consumers"):
        own, other = getattr(again, kind), getattr(known, kind)
        assert own.keys() == other.keys()
        assert all(np.array_equal(own[name], other[name]) for name in own)


def test_a_layer_behind_a_selection_is_found_again():
    module, x, players = found(CASES["mlp, its inputs and weights"])
    pruned = remove_players(module, players, np.isin(players.names, ["2.input[1]"]))
    assert isinstance(pruned[2], nn.Sequential)
    assert find_players(pruned, x, "layers").names == ["2"]


def test_outermost_layers():
    assert found(CASES["residual"])[2].names == ["1", "2", "3"]
    assert found(CASES["mlp"])[2].names == ["2"]
    assert found(CASES["convolutions"])[2].names == ["1", "2", "3"]
    # Not the LayerNorm, which is small; nor what holds the output layer.
    assert found(CASES["tower"])[2].names == ["blocks.0", "blocks.1", "mix.one"]
    inner = nn.Sequential(Block(5, 4), nn.Sequential(nn.Linear(5, 5), nn.ReLU()))
    nested = nn.Sequential(nn.Linear(6, 5), inner, nn.Linear(5, 3))
    players = find_players(nested, torch.zeros(2, 6), "layers")
    assert players.names == ["1.0", "1.1.0"]


def test_a_container_of_the_users_own_class_is_one_layer():
    class Body(nn.Sequential):
        pass

    body = Body(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 5))
    net = nn.Sequential(nn.Linear(6, 5), body, nn.Linear(5, 3))
    assert find_players(net, torch.zeros(2, 6), "layers").names == ["1"]


def test_units_that_enter_and_leave_are_one_player():
    _, _, players = found(CASES["mlp and neurons"])
    assert players.groups == ("0", "layers")
    assert np.array_equal(players.producers["0"], players.producers["2"])
    _, _, players = found(CASES["first layer"])
    # What stands in for the network's input can never leave.
    assert players.groups == ("layers",)


def test_what_is_inside_leaves_too():
    module, _, players = found(CASES["residual and neurons in it"])
    drop = np.isin(players.names, ["1"])
    leaving = players.leaving(drop)
    assert [players.names[i] for i in np.flatnonzero(leaving)] == [
        *(f"1.fc1[{i}]" for i in range(4)),
        "1",
    ]
    rest = players.after_removal(drop)
    assert (rest.n_players, rest.layers) == (7, {"2": 6})
    assert rest.producers == {}
    assert rest.consumers.keys() == rest.selections.keys() == {"0"}
    assert rest.names == players.subset(~drop).names
    assert np.array_equal(players.leaving(~drop), ~drop)
    pruned = remove_players(module, players, drop)
    assert isinstance(pruned[1], nn.Identity)
    # All of the group of the neurons leave, which no layer that stays misses.
    assert isinstance(remove_players(module, players, leaving)[1], nn.Identity)
    drop &= False
    drop[[players.names.index(f"1.fc1[{i}]") for i in range(4)]] = True
    with pytest.raises(ValueError, match=r"layer '1\.fc1' empty: all of its 4"):
        remove_players(module, players, drop)


def test_weights_inside_leave_too():
    module, x, players = found(CASES["mlp and its own weights"])
    drop = np.isin(players.names, ["2"])
    rest = players.after_removal(drop)
    assert (rest.n_players, rest.weights, rest.layers) == (0, {}, {})
    assert rest.groups == players.groups
    assert rest.floors().tolist() == [0, 0]
    pruned = remove_players(module, players, drop)
    with masked(pruned, rest, np.ones(0, dtype=bool)):
        assert_same(run(pruned, x), run(module[3:], run(module[:2], x)))


def test_floors():
    _, _, players = found(CASES["residual and neurons"])
    assert players.groups == ("0", "1.fc1", "2.fc1", "3.fc1", "layers")
    assert players.floors().tolist() == [1, 1, 1, 1, 0]
    assert players.floors(3).tolist() == [3, 3, 3, 2, 0]
    rest = players.after_removal(players.group_of == 4)
    assert rest.floors(2).tolist() == [2, 0, 2, 0, 0]
    named_so = nn.Sequential()
    named_so.add_module("layers", nn.Linear(6, 5))
    named_so.add_module("out", nn.Linear(5, 3))
    assert find_players(named_so, torch.zeros(1, 6)).floors().tolist() == [1]


def test_surgery_touches_nothing_else():
    module, x, players = found(CASES["residual"])
    module = CASES["residual"].build()
    module[2].fc1.weight.requires_grad_(False)
    module[0].train()
    module[3].train()
    calls = []
    module[2].register_forward_hook(lambda *_: calls.append(1))
    before = run(module, x)
    drop = np.array([True, False, True])
    pruned = remove_players(module, players, drop)
    names = [n for n, _ in module.named_parameters() if not is_within(n, ["1", "3"])]
    assert [name for name, _ in pruned.named_parameters()] == names
    assert not pruned[2].fc1.weight.requires_grad
    assert [part.training for part in pruned] == [True, False, False, True, False]
    calls.clear()
    run(pruned, x)
    assert calls == [1]
    assert_same(run(module, x), before)
    sizes = [size_of(m, x).n_parameters for m in (module, pruned)]
    gone = [p.numel() for i in (1, 3) for p in module[i].parameters()]
    assert sizes[0] - sizes[1] == sum(gone)
    assert isinstance(remove_players(module, players, np.ones(3, bool))[3], nn.Identity)


def test_players_of_another_module():
    _, _, players = found(CASES["residual"])
    with pytest.raises(ValueError, match="has no layer '3'"):
        remove_players(residual()[:3], players, np.zeros(3, dtype=bool))


def test_constants_and_what_optimizers_keep():
    module, x, players = found(CASES["residual and neurons"])
    fill = column_means(module, players, x)
    for keep in coalitions(players, 6, seed=4):
        with masked(module, players, keep, fill=fill):
            expected = run(module, x)
        pruned = remove_players(module, players, ~keep, fill=fill)
        assert_same(run(pruned, x), expected)
        kept = dict(remove_players(module, players, ~keep).named_parameters())
        rows = remove_rows(module, players, ~keep, dict(module.named_parameters()))
        assert rows.keys() == kept.keys()
        assert all(torch.equal(rows[name], kept[name]) for name in kept)


def test_absent_layers_may_be_infinite():
    case = CASES["residual"]
    module, x, players = case.build(), case.input(), found(case)[2]
    with torch.no_grad():
        module[2].fc1.bias[0] = torch.inf
        module[2].fc2.bias[0] = torch.nan
    keep = np.array([[True, False, True], [True, True, True], [False] * 3])
    with masked(module, players, keep):
        one, everybody, nobody = run(module, torch.cat([x] * 3)).split(4)
    assert not everybody.isfinite().all()
    for output, coalition in ((one, keep[0]), (nobody, keep[2])):
        assert output.isfinite().all()
        assert_same(run(remove_players(module, players, ~coalition), x), output)


def test_gradients_pass_by():
    module, x, players = found(CASES["residual"])
    x = x.clone().requires_grad_()
    keep = np.array([False, True, True])
    with masked(module, players, keep):
        output = module(x)
    (slope,) = torch.autograd.grad(output.sum(), x)
    pruned = remove_players(module, players, ~keep)
    (expected,) = torch.autograd.grad(pruned(x).sum(), x)
    assert_same(slope, expected)


def test_hooks_of_the_user_leave_with_the_layer():
    case = CASES["residual"]
    module, x, players = case.build(), case.input(), found(case)[2]
    module[1].register_forward_pre_hook(lambda _, args: (2 * args[0],))
    module[1].register_forward_hook(lambda *given: given[-1] + 1)
    keep = np.array([False, True, True])
    with masked(module, players, keep):
        expected = run(module, x)
    assert_same(run(remove_players(module, players, ~keep), x), expected)


def test_rows_must_be_whole_batches():
    module, x, players = found(CASES["residual"])
    with (
        masked(module, players, np.eye(3, dtype=bool)),
        pytest.raises(ValueError, match="layer '1' must read a multiple of 3 rows"),
    ):
        run(module, x)


class Wired(nn.Module):
    def __init__(self, wiring, **layers):
        super().__init__()
        self.wiring = wiring
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.wiring(self, x)


class Pair(nn.Module):
    def forward(self, x, y):
        return x + y


class Two(nn.Module):
    def forward(self, x):
        return x, x


WIRED = Wired(
    lambda m, x: m.last(
        m.named(x=m.pair(m.twice(m.twice(m.two(m.first(x))[0])), m.const(m.constant)))
    ),
    first=nn.Linear(6, 5),
    two=Two(),
    twice=nn.ReLU(),
    pair=Pair(),
    const=nn.Tanh(),
    named=Block(5, 3),
    last=nn.Sequential(nn.Linear(5, 5), nn.Softmax(-1)),
    spare=nn.Linear(5, 5),
)
WIRED.constant = torch.ones(1, 5)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (
            "first",
            r"\(Linear\) cannot .* \(4, 6\) and gives .* \(4, 5\)\. .*same shape",
        ),
        ("two", "gives a tuple, and no tensor"),
        ("twice", "calls it 2 times, and not once"),
        ("spare", "calls it 0 times, and not once"),
        ("pair", "called with 2 arguments, and not with one tensor"),
        ("named", r"called with the keyword 'x'; call it as layer\(x\)"),
        ("const", "depends on no layer and no input"),
        ("last", "it holds 'last.0', the output layer"),
        ("last.0", "it is the output layer"),
        ("", "the network itself cannot be left out"),
        ("lost", "layer 'lost' does not exist"),
    ],
)
def test_layers_that_cannot_leave(label, message):
    with pytest.raises(ValueError, match=message):
        find_players(WIRED, torch.ones(4, 6), [("layers", label)])


def test_choices_are_named():
    module, x, _ = found(CASES["residual"])
    with pytest.raises(ValueError, match=r"Name one of \['1', '2', '3'\]"):
        find_players(module, x, [("layers", "0")])
    narrow = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 5))
    message = r"no players='layers'.*'0': it reads.*'2': it is the output.*residual"
    with pytest.raises(ValueError, match=message):
        find_players(narrow, x, "layers")


@pytest.mark.parametrize(
    "labels", [("1", "1.norm"), ("1.norm", "1"), (None, "2"), (None, "2.norm")]
)
def test_layers_inside_each_other(labels):
    module, x, _ = found(CASES["residual"])
    with pytest.raises(ValueError, match="names the same units twice: layer"):
        find_players(module, x, layers(*labels))


class ReadsChanged(nn.Module):
    """Reads again what a block has changed in place."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(6, 5), nn.Linear(5, 3)
        self.one, self.two = InPlaceBlock(5), Block(5, 4)

    def forward(self, x):
        h = self.stem(x)
        return self.head(self.two(self.one(h)) + h)


def test_a_layer_on_which_something_else_depends():
    torch.manual_seed(0)
    module, x = ReadsChanged(), torch.randn(4, 6)
    with pytest.raises(UnsupportedNetworkError, match="Layer 'one' cannot be left out"):
        find_players(module, x, "layers")
    assert find_players(module, x, layers("two")).names == ["two"]


def test_a_part_without_followed_units_may_still_be_left_out():
    class Softly(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(5, 5)

        def forward(self, x):
            return functional.softmax(self.fc(x), dim=1)

    module = nn.Sequential(nn.Linear(6, 5), Softly(), nn.Linear(5, 3))
    players = find_players(module, torch.randn(4, 6), "layers")
    assert players.names == ["1"]


def test_what_does_not_play_layers():
    module, x, players = found(CASES["residual and neurons"])
    for play in (
        lambda: Participation(module, players),
        lambda: contributions(module, players, x),
        lambda: curvature_benefits(module, players, lambda: module(x).sum()),
    ):
        with pytest.raises(UnsupportedNetworkError, match=r"\['1', '3'\].*Coalition"):
            play()


def test_weight_norms():
    module, _, players = found(CASES["residual and neurons"])
    norms = weight_norms(module, players)
    for name, number in players.layers.items():
        block = module.get_submodule(name)
        squares = [w.weight.detach().square().sum() for w in (block.fc1, block.fc2)]
        torch.testing.assert_close(norms[number], sum(squares).sqrt())
    rows = module[1].fc1.weight.detach().norm(dim=1)
    torch.testing.assert_close(norms[players.group_of == 1], rows)


def test_is_within():
    assert is_within("a.b", ["a"])
    assert is_within("a", ["b", "a"])
    assert not is_within("ab", ["a"])
    assert not is_within("a", ["a.b"])
    assert not is_within("a", [])
