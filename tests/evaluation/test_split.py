"""The cut: the front is run once, and both halves are the module."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from skprune.evaluation import CoalitionEvaluator, split_module
from skprune.networks import find_players, map_tensors, masked, remove_players


def inputs(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomized(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.eval()


def cut(module, example, players, **parameters):
    found = find_players(module, example, players)
    return found, split_module(module, found, example, **parameters)


CASES = {
    "mlp": (lambda zoo: zoo.mlp(), "neurons"),
    "last hidden": (lambda zoo: zoo.mlp(), [("neurons", "2")]),
    "inputs": (lambda zoo: zoo.mlp(), "inputs"),
    "inner inputs": (lambda zoo: zoo.mlp(), [("inputs", "2"), ("neurons", "2")]),
    "residual": (lambda zoo: zoo.ResidualMLP(), "neurons"),
    "residual made in the front": (
        lambda zoo: zoo.ResidualMLP(),
        [("neurons", "stem")],
    ),
    "residual branch": (lambda zoo: zoo.ResidualMLP(), [("neurons", "up")]),
    "concatenation": (lambda zoo: zoo.Concatenated(), "neurons"),
    "half a concatenation": (lambda zoo: zoo.Concatenated(), [("neurons", "b")]),
    "layer norm": (lambda zoo: zoo.norm_net(), "neurons"),
    "batch norm": (
        lambda zoo: nn.Sequential(
            nn.Linear(6, 9), nn.BatchNorm1d(9), nn.PReLU(9), nn.Linear(9, 3)
        ),
        "neurons",
    ),
    "untraceable": (lambda zoo: zoo.DataDependent(), "neurons"),
}


@pytest.fixture(params=CASES)
def case(request, zoo):
    build, players = CASES[request.param]
    module = randomized(build(zoo))
    return module, *cut(module, inputs(2, 6), players)


def test_both_halves_are_the_module(case):
    module, _, split = case
    x = inputs(11, 6, seed=1)
    with torch.no_grad():
        torch.testing.assert_close(split.run(split.features(x)), module(x))


def test_masked_halves_are_the_masked_module(case):
    module, players, split = case
    x, rng = inputs(11, 6, seed=1), np.random.default_rng(0)
    for _ in range(4):
        keep = rng.random(players.n_players) < 0.6
        with torch.no_grad():
            with masked(module, players, keep):
                wanted = module(x)
            with masked(split.rest, split.players, keep):
                torch.testing.assert_close(split.run(split.features(x)), wanted)


def test_pruned_rest_is_the_pruned_module(case):
    module, players, split = case
    x = inputs(11, 6, seed=1)
    keep = np.arange(players.n_players) % 3 > 0
    keep[-1] = True
    with torch.no_grad():
        wanted = remove_players(module, players, ~keep)(x)
        pruned = split.without(keep)
        torch.testing.assert_close(pruned.run(pruned.features(x)), wanted)


def test_weights_are_copied_to_the_whole_pruned_module(case):
    module, players, split = case
    x = inputs(11, 6, seed=1)
    keep = np.arange(players.n_players) % 3 > 0
    keep[-1] = True
    pruned, whole = split.without(keep), remove_players(module, players, ~keep)
    with torch.no_grad():
        for name in split.players.consumers:
            layer = split.layer_in(pruned.rest, name)
            layer.weight.mul_(1.5)
            layer.bias.add_(0.1)
        split.copy_weights(pruned.rest, whole, players, keep)
        features = pruned.features(x)
        torch.testing.assert_close(whole(x), pruned.run(features))
        assert not torch.allclose(whole(x), remove_players(module, players, ~keep)(x))


@pytest.mark.parametrize(
    ("name", "in_front"),
    [
        ("mlp", {"0"}),
        ("last hidden", {"0", "2"}),
        ("inputs", set()),
        ("inner inputs", {"0"}),
        ("residual", {"stem"}),
        ("residual made in the front", {"stem"}),
        ("residual branch", {"stem", "up"}),
        ("concatenation", {"a", "b"}),
        ("half a concatenation", {"a", "b"}),
        ("batch norm", {"0", "1", "2"}),
    ],
)
def test_the_front_is_what_no_player_changes(zoo, name, in_front):
    build, players = CASES[name]
    module = randomized(build(zoo))
    found, split = cut(module, inputs(2, 6), players)
    layers = {
        n for n, part in module.named_modules() if n and not list(part.children())
    }
    rest = {n.target for n in split.rest.graph.nodes if n.op == "call_module"}
    called = {n.target for n in split.front.graph.nodes if n.op == "call_module"}
    assert in_front <= called
    assert not called & set(found.consumers)
    assert called | rest == layers


def test_the_front_runs_once(zoo):
    problem = zoo.make_net(zoo.mlp())
    calls = dict.fromkeys(("0", "2", "4"), 0)

    def count(name):
        def hook(*_):
            calls[name] += 1

        return hook

    for name in calls:
        problem.module.get_submodule(name).register_forward_hook(count(name))
    game = CoalitionEvaluator(
        problem.net, problem.X, problem.y, players=[("neurons", "2")], backend="batched"
    )
    made = dict(calls)
    game(np.eye(7, dtype=bool))
    game.flip(np.eye(7, dtype=bool))
    assert calls["0"] == made["0"]
    assert calls["2"] == made["2"]
    assert calls["4"] > made["4"]


def test_a_forward_that_cannot_be_traced_is_run_whole(zoo):
    module = randomized(zoo.DataDependent())
    _, split = cut(module, inputs(2, 6), "neurons")
    assert split.front is None
    assert split.rest is module
    assert not split.logits


HEADS = {
    "module": lambda: nn.Softmax(dim=1),
    "log module": lambda: nn.LogSoftmax(dim=1),
    "sigmoid": nn.Sigmoid,
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_a_softmax_at_the_end_is_left_out(zoo, head):
    module = randomized(zoo.mlp(last=[head()]))
    x = inputs(5, 6)
    found, split = cut(module, x, "neurons")
    assert split.logits
    with torch.no_grad():
        torch.testing.assert_close(split.run(split.features(x)), module[:-1](x))
        whole = split_module(module, found, x, strip_softmax=False)
        torch.testing.assert_close(whole.run(whole.features(x)), module(x))
    assert not whole.logits


class Head(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.hidden, self.out, self.function = (
            nn.Linear(6, 8),
            nn.Linear(8, 3),
            function,
        )

    def forward(self, x):
        return self.function(self.out(self.hidden(x).relu()))


def twice(x):
    """A softmax that is read by more than the output."""
    p = functional.softmax(x, 1)
    return p if p is None else torch.relu(p) * 0 + p


@pytest.mark.parametrize(
    ("function", "stripped"),
    [
        (lambda x: functional.log_softmax(x, 1), True),
        (lambda x: x.softmax(dim=1), True),
        (torch.sigmoid, True),
        (lambda x: functional.softmax(input=x, dim=1), True),
        (lambda x: functional.softmax(x, 1) * 2, False),
        (twice, False),
        (functional.relu, False),
    ],
)
def test_heads_that_are_functions(function, stripped):
    module, x = randomized(Head(function)), inputs(5, 6)
    _, split = cut(module, x, "neurons")
    assert split.logits == stripped
    with torch.no_grad():
        given = split.run(split.features(x))
        torch.testing.assert_close(function(given) if stripped else given, module(x))


def test_a_dict_is_given_by_keywords(zoo):
    module = randomized(zoo.TwoInputs())
    example = {"right": inputs(3, 2), "left": inputs(3, 4)}
    _, split = cut(module, example, "neurons")
    assert split.front is not None
    doubled = map_tensors(lambda x: torch.cat([x, x]), example)
    with torch.no_grad():
        torch.testing.assert_close(
            split.run(split.features(doubled)), module(**doubled)
        )


def test_the_module_stays_as_it_was(zoo):
    module = zoo.mlp(last=[nn.Softmax(dim=1)]).train()
    cut(module, inputs(2, 6), "neurons")
    assert all(part.training for part in module.modules())
    assert [name for name, _ in module.named_children()] == list("012345")


def test_a_module_that_is_one_layer_is_not_cut(zoo):
    problem = zoo.make_net(nn.Linear(6, 3))
    game = CoalitionEvaluator(problem.net, problem.X, problem.y, players="inputs")
    assert game(np.ones((1, 6), bool))[0] == problem.net.score(problem.X, problem.y)


@pytest.mark.parametrize("kind", ["weights", "layers"])
def test_the_cut_is_in_front_of_the_layer_itself(zoo, kind):
    module = zoo.mlp((6, 9, 9, 3))
    x = inputs(5, 6)
    split = cut(module, x, [(kind, "2")])[1]
    (features,) = split.features(x)
    torch.testing.assert_close(features, module[:2](x))
    torch.testing.assert_close(split.run([features]), module(x))
    assert getattr(split.players, kind).keys() == {"2"}


def test_small_outputs_that_are_left_of_large_terms_do_not_forbid_the_cut():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(300, 40), nn.ReLU(), nn.Linear(40, 20))
    example = torch.rand(2, 300)
    with torch.no_grad():
        for layer in (net[0], net[2]):
            layer.weight.mul_(300)
        net[2].bias.sub_(net(example)[0])
    _, split = cut(net, example, "neurons")
    assert split.front is not None
