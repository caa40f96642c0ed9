"""Games of whole layers and of single weights, alone and beside other players."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from skprune.evaluation import (
    CoalitionEvaluator,
    LayerGames,
    Repairer,
    Samples,
    _compaction,
    _division,
    played_payoff,
    resolve_payoff,
    split_module,
    task_of,
    taylor_scores,
    weight_gradient_scores,
    weight_norm_scores,
)
from skprune.exceptions import UnsupportedNetworkError
from skprune.networks import find_players, remove_players, weight_norms
from skprune.scorers import ShapleyScorer


class Block(nn.Module):
    def __init__(self, width, n_hidden, norm=nn.Identity):
        super().__init__()
        self.norm = norm(width)
        self.fc1, self.fc2 = nn.Linear(width, n_hidden), nn.Linear(n_hidden, width)

    def forward(self, x):
        return x + self.fc2(functional.relu(self.fc1(self.norm(x))))


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
        self.conv1 = nn.Conv2d(width, n_hidden, 3, padding=1)
        self.norm = nn.BatchNorm2d(n_hidden)
        self.conv2 = nn.Conv2d(n_hidden, width, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(functional.relu(self.norm(self.conv1(x))))


class Branching(nn.Module):
    """A forward that `torch.fx` cannot trace."""

    def __init__(self):
        super().__init__()
        self.stem, self.out = nn.Linear(6, 5), nn.Linear(5, 3)
        self.body = Block(5, 4)

    def forward(self, x):
        h = self.body(functional.relu(self.stem(x)))
        return self.out(-h if h.sum() > 1e9 else h)


def residual(norm=nn.Identity):
    blocks = [Block(5, n_hidden, norm) for n_hidden in (4, 3, 2)]
    return nn.Sequential(nn.Linear(6, 5), *blocks, nn.Linear(5, 3))


def in_place():
    blocks = [InPlaceBlock(5), InPlaceBlock(5)]
    return nn.Sequential(nn.Linear(6, 5), *blocks, nn.Linear(5, 3))


def convolutional():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        ConvBlock(4, 3),
        ConvBlock(4, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def mlp():
    activations = nn.ReLU(), nn.ReLU(inplace=True)
    return nn.Sequential(
        nn.Linear(6, 5),
        activations[0],
        nn.Linear(5, 5),
        activations[1],
        nn.Linear(5, 3),
    )


ALL = ("neurons", None)
CASES = {
    "residual": (residual, "layers", (6,)),
    "residual with norm": (lambda: residual(nn.LayerNorm), "layers", (6,)),
    "residual and neurons": (residual, [("layers", "1"), ("layers", "3"), ALL], (6,)),
    "residual with norm and neurons": (
        lambda: residual(nn.LayerNorm),
        [("layers", None), ALL],
        (6,),
    ),
    "residual, weights and inputs": (
        residual,
        [("layers", "2"), ("weights", "4"), ("weights", "1.fc1"), ("inputs", "0")],
        (6,),
    ),
    "in place": (in_place, "layers", (6,)),
    "in place and neurons": (in_place, [("layers", "1"), ALL], (6,)),
    "convolutions": (convolutional, "layers", (2, 4, 4)),
    "convolutions and filters": (
        convolutional,
        [("layers", None), ("filters", None)],
        (2, 4, 4),
    ),
    "convolution weights": (convolutional, [("weights", "2.conv1")], (2, 4, 4)),
    "mlp": (mlp, "layers", (6,)),
    "mlp and neurons": (mlp, [("layers", "2"), ALL], (6,)),
    "weights": (mlp, "weights", (6,)),
    "last weights and neurons": (mlp, [("weights", "4"), ("neurons", "0")], (6,)),
    "weights of a layer": (mlp, [("weights", "2"), ("layers", "2")], (6,)),
    "untraceable": (Branching, [("layers", "body"), ("weights", "out")], (6,)),
}
PAYOFFS = ("accuracy", "log_likelihood")


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "-"))
def case(request, zoo):
    build, players, shape = CASES[request.param]
    return zoo.make_net(build(), shape=shape), players


def game_of(problem, players, payoff="accuracy", **parameters):
    return CoalitionEvaluator(
        problem.net, problem.X, problem.y, players=players, payoff=payoff, **parameters
    )


def coalitions(players, n_coalitions, seed=0):
    """All coalitions of few players, and some of many."""
    n_players = players.n_players
    if n_players <= 3:
        return np.array(list(product([False, True], repeat=n_players)))
    keep = np.random.default_rng(seed).random((n_coalitions, n_players)) < 0.7
    for group, floor in enumerate(players.floors()):
        if floor:
            keep[:, np.flatnonzero(players.group_of == group)[0]] = True
    return keep


def earned(problem, players, keep, payoff):
    """What the network from which players were removed earns."""
    module = remove_players(problem.module, players, ~keep).eval()
    with torch.no_grad():
        logits = module(torch.from_numpy(problem.X))
    y = torch.from_numpy(problem.y)
    if payoff == "accuracy":
        return float((logits.argmax(1) == y).double().mean())
    return -float(functional.cross_entropy(logits, y))


def walked(game, order):
    """Marginals along an order, from payoffs alone."""
    keep = np.zeros((len(order) + 1, len(order)), dtype=bool)
    for place, player in enumerate(order):
        keep[place + 1 :, player] = True
    marginals = np.empty(len(order))
    marginals[order] = np.diff(game(keep))
    return marginals


def flipped(game, keep):
    """Marginals around a coalition, from payoffs alone."""
    own = np.eye(len(keep), dtype=bool)
    return game(keep | own) - game(keep & ~own)


@pytest.mark.parametrize("payoff", PAYOFFS)
def test_payoffs_are_those_of_removed_networks(case, payoff):
    problem, players = case
    game = game_of(problem, players, payoff)
    keep = coalitions(game.players, 12)
    expected = [earned(problem, game.players, own, payoff) for own in keep]
    np.testing.assert_allclose(game(keep), expected, rtol=1e-5, atol=1e-6)
    assert np.ptp(expected) > 0 or payoff == "accuracy"


@pytest.mark.parametrize("payoff", PAYOFFS)
def test_walks_and_flips_are_differences_of_payoffs(case, payoff):
    problem, players = case
    game = game_of(problem, players, payoff)
    assert game.backend_ == "batched"
    rng = np.random.default_rng(1)
    orders = rng.permuted(np.tile(np.arange(game.n_players), (3, 1)), axis=1)
    expected = [walked(game, order) for order in orders]
    np.testing.assert_allclose(game.walk(orders), expected, rtol=0, atol=1e-6)
    keep = rng.random((3, game.n_players)) < 0.5
    expected = [flipped(game, own) for own in keep]
    np.testing.assert_allclose(game.flip(keep), expected, rtol=0, atol=1e-6)


def test_restricted_games(case):
    problem, players = case
    game = game_of(problem, players, "log_likelihood")
    rng = np.random.default_rng(2)
    free = rng.random(game.n_players) < 0.5
    free[-1] = True
    stays = ~free & (rng.random(game.n_players) < 0.5)
    rest = game.restrict(always_in=stays, always_out=~free & ~stays)
    keep = rng.random((4, rest.n_players)) < 0.5
    whole = np.tile(stays, (4, 1))
    whole[:, free] = keep
    np.testing.assert_allclose(rest(keep), game(whole), rtol=0, atol=1e-12)
    order = rng.permutation(rest.n_players)
    walk = rest.walk(order[None])[0]
    np.testing.assert_allclose(walk, walked(rest, order), rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        rest.flip(keep[:1])[0], flipped(rest, keep[0]), rtol=0, atol=1e-6
    )


def test_bits_depend_on_no_cut(case):
    problem, players = case
    game = game_of(problem, players)
    other = game_of(problem, players, memory_budget=20_000, n_jobs=2)
    rng = np.random.default_rng(3)
    shape = 2, game.n_blocks, game.n_players
    orders = rng.permuted(np.broadcast_to(np.arange(shape[2]), shape), axis=2)
    keep = rng.random(shape) < 0.5
    np.testing.assert_array_equal(game.walk(orders), other.walk(orders))
    np.testing.assert_array_equal(game.flip(keep), other.flip(keep))
    np.testing.assert_array_equal(game(keep[:, 0]), other(keep[:, 0]))


def test_shapley_values_of_three_blocks(zoo):
    problem = zoo.make_net(residual())
    game = game_of(problem, "layers", "log_likelihood")
    values = ShapleyScorer(method="exact").estimate(game).values
    v = {
        keep: earned(problem, game.players, np.array(keep), "log_likelihood")
        for keep in product([False, True], repeat=3)
    }
    one, two = (True, False, False), (True, True, False)
    other, both = (True, False, True), (True, True, True)
    first = (
        2 * (v[one] - v[(False, False, False)])
        + (v[two] - v[(False, True, False)])
        + (v[other] - v[(False, False, True)])
        + 2 * (v[both] - v[(False, True, True)])
    ) / 6
    assert values[0] == pytest.approx(first, abs=1e-6)
    assert values.sum() == pytest.approx(v[both] - v[(False,) * 3], abs=1e-6)


def test_weights_that_are_zero(zoo):
    problem = zoo.make_net(mlp())
    game = game_of(problem, [("weights", "4")], "log_likelihood")
    for keep in coalitions(game.players, 5):
        value = game(keep[None])[0]
        module = zoo.make_net(mlp()).module
        with torch.no_grad():
            module[4].weight *= torch.from_numpy(keep.reshape(3, 5))
            logits = module(torch.from_numpy(problem.X))
        loss = functional.cross_entropy(logits, torch.from_numpy(problem.y))
        assert value == pytest.approx(-float(loss), abs=1e-6)


def stages_of(game):
    return game._batched._staged.stages


def test_what_comes_first_is_computed_once(zoo):
    problem = zoo.make_net(residual())
    game = game_of(problem, "layers")
    assert game._batched.features[0].shape == (40, 5)
    assert len(stages_of(game)) == 3
    game = game_of(problem, [("weights", "4")])
    assert len(stages_of(game)) == len(stages_of(game)[0].entries) == 1
    game = game_of(zoo.make_net(mlp()), [("layers", "2"), ALL])
    # What a layer gives that may be absent is no sum of what players add.
    assert [len(stage.entries) for stage in stages_of(game)] == [0, 0]


def test_too_many_weights_are_run_again(zoo, monkeypatch):
    monkeypatch.setattr(_division, "_ENTRY_WEIGHTS", 10)
    problem = zoo.make_net(mlp())
    game = game_of(problem, [("weights", "4")])
    assert stages_of(game)[0].entries == []
    order = np.random.default_rng(0).permutation(15)
    np.testing.assert_allclose(
        game.walk(order[None])[0], walked(game, order), rtol=0, atol=1e-12
    )


def test_smaller_layers_only_where_all_others_are_there(zoo, monkeypatch):
    monkeypatch.setattr(_compaction, "_WORTH_A_LAYER", {"cpu": 0.0})
    problem = zoo.make_net(residual())
    pairs = [("layers", "2"), ("weights", "4"), ("neurons", "1.fc1")]
    game = game_of(problem, pairs, "log_likelihood")
    pays = game._batched._pays
    keep = np.arange(game.n_players) != 0
    assert game.players.names[0] == "1.fc1[0]"
    assert pays(keep, 40)
    for name in ("2", "4.weight[0,0]"):
        absent = keep & ~np.isin(game.players.names, [name])
        assert not pays(absent, 40)
        for own in (keep, absent):
            value = earned(problem, game.players, own, "log_likelihood")
            assert game(own[None])[0] == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("players", ["weights", "layers", [("layers", "2"), ALL]])
def test_native_backends_decline(zoo, players):
    problem = zoo.make_net(mlp())
    with pytest.raises(
        ValueError, match="net with payoff='accuracy': single weights or whole"
    ):
        game_of(problem, players, backend="compiled")
    with pytest.raises(ValueError, match="backend='triton' cannot play this net"):
        game_of(problem, players, backend="triton")


def prepared(problem, players):
    x = torch.from_numpy(problem.X)
    found = find_players(problem.module, x[:2], players)
    split = split_module(problem.module, found, x[:2])
    task = task_of(problem.net)
    return (
        found,
        split,
        task,
        Samples.of(problem.net, split, task, problem.X, problem.y),
    )


def test_repairs(case):
    problem, asked = case
    players, split, task, samples = prepared(problem, asked)
    repairer = Repairer(split, samples, task)
    payoff = resolve_payoff("log_likelihood", task, samples.targets)
    for keep in coalitions(players, 3, seed=1):
        plain = repairer.repaired(keep, "none")
        worth = played_payoff(plain, samples, task, payoff)
        for method in ("output", "layers"):
            repaired = repairer.repaired(keep, method)
            whole = remove_players(problem.module, players, ~keep)
            split.copy_weights(repaired.rest, whole, players, keep)
            with torch.no_grad():
                logits = whole.eval()(torch.from_numpy(problem.X))
            loss = functional.cross_entropy(logits, torch.from_numpy(problem.y))
            after = played_payoff(repaired, samples, task, payoff)
            assert after == pytest.approx(-float(loss), abs=1e-5)
            for name, owners in players.after_removal(~keep).weights.items():
                weight = whole.get_submodule(name).weight.detach()
                assert not weight[torch.from_numpy(owners < 0)].any()
                dense = problem.module.get_submodule(name).weight.detach()
                stays = torch.from_numpy(owners >= 0)
                torch.testing.assert_close(weight[stays], dense[stays])
            if method == "output":
                assert after >= worth - 1e-6


def test_the_output_layer_is_refitted_for_layers_alone(zoo):
    problem = zoo.make_net(residual())
    players, split, task, samples = prepared(problem, "layers")
    repairer = Repairer(split, samples, task)
    payoff = resolve_payoff("log_likelihood", task, samples.targets)
    keep = np.array([True, False, False])
    before, after = (
        played_payoff(repairer.repaired(keep, method), samples, task, payoff)
        for method in ("none", "layers")
    )
    assert after > before + 0.01
    players, split, task, samples = prepared(
        problem, [("layers", "2"), ("weights", "4")]
    )
    keep = np.ones(players.n_players, dtype=bool)
    keep[0] = False
    rest = Repairer(split, samples, task).repaired(keep, "layers").rest
    assert rest.get_submodule("4").weight[0, 0] == 0


@pytest.mark.parametrize(
    ("players", "message"),
    [
        ("layers", r"kind 'layers' \(\['1', '2', '3'\]\) have no reconstruction game"),
        ([("weights", "4"), ("neurons", "1.fc1")], r"kind 'weights' \(\['4'\]\)"),
    ],
)
def test_no_reconstruction_games(zoo, players, message):
    found, split, task, samples = prepared(zoo.make_net(residual()), players)
    with pytest.raises(UnsupportedNetworkError, match=message):
        LayerGames(split, found, samples, task)


def test_scores_without_a_game(zoo):
    problem = zoo.make_net(residual())
    pairs = [("layers", "2"), ("weights", "4"), ("neurons", "1.fc1")]
    players, split, task, samples = prepared(problem, pairs)
    module, weights, layer = problem.module, players.group_of == 1, players.layers["2"]
    norms = weight_norm_scores(module, players, normalize=False)
    last = module[4].weight
    np.testing.assert_allclose(norms[weights], last.detach().abs().numpy().ravel())
    assert norms[layer] == pytest.approx(float(weight_norms(module, players)[layer]))
    readers = module[1].fc2.weight.detach().norm(dim=0)
    np.testing.assert_allclose(norms[:4], readers, rtol=1e-6)
    assert weight_norm_scores(module, players)[weights].mean() == pytest.approx(1)
    x, y = torch.from_numpy(problem.X), torch.from_numpy(problem.y)
    inside = [module[2].fc1.weight, module[2].fc2.weight]
    loss = functional.cross_entropy(module(x), y, reduction="sum")
    slopes = torch.autograd.grad(loss, [last, module[1].fc2.weight, *inside])
    scores = weight_gradient_scores(samples, split, players, task, normalize=False)
    expected = (slopes[0] * last).detach().abs().numpy().ravel()
    np.testing.assert_allclose(scores[weights], expected, rtol=1e-4, atol=1e-4)
    expected = sum(
        float((w * g).detach().abs().sum())
        for w, g in zip(inside, slopes[2:], strict=True)
    )
    assert scores[layer] == pytest.approx(expected, rel=1e-4)
    expected = (module[1].fc2.weight * slopes[1]).detach().abs().sum(0)
    np.testing.assert_allclose(scores[:4], expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(UnsupportedNetworkError, match=r"\['4', '2'\].*weight_gradient"):
        taylor_scores(samples, split, players, task)


def games_of(zoo, problem):
    own = zoo.prepare(problem)
    return LayerGames(own.split, own.players, own.samples, own.task)


@pytest.mark.parametrize("floor", [1, 3])
@pytest.mark.parametrize("total", [6, 9, 15, 16])
def test_players_are_allocated_where_most_passes_all_layers(zoo, total, floor):
    games = games_of(zoo, zoo.make_net(zoo.mlp([6, 9, 7, 3])))
    group_of = games.players.group_of
    earned = []
    for group in range(2):
        game = games.game(group, np.ones(len(group_of), dtype=bool))
        marginals = game.greedy_order(game.n_players)[1]
        earned.append(np.concatenate([[0], marginals.cumsum()]))
    splits = [(i, total - i) for i in range(floor, 10) if floor <= total - i <= 7]
    products = [earned[0][i] * earned[1][j] for i, j in splits]
    # Marginals hardly ever rise, so that building finds the best of all splits.
    assert games.allocate(total, floor) == splits[int(np.argmax(products))]


def test_a_layer_that_is_told_nothing_gets_no_more_than_its_floor(zoo):
    problem = zoo.make_net(zoo.mlp([6, 9, 7, 3]))
    with torch.no_grad():
        # All units of the second layer are dead.
        problem.module[2].weight.zero_()
        problem.module[2].bias.fill_(-1)
    assert games_of(zoo, problem).allocate(9, 2) == (7, 2)
