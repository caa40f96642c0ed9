"""Layers as reconstruction games: moments of the right columns and targets."""

import numpy as np
import pytest
import torch
from torch import nn

from skprune.evaluation import LayerGames
from skprune.exceptions import UnsupportedNetworkError


def games_of(
    zoo,
    module,
    kind="multiclass",
    players="neurons",
    ridge=1e-3,
    output_weight=4.0,
    **parameters,
):
    problem = zoo.make_net(module, kind, **{"n_samples": 300, **parameters})
    problem.module.eval()
    own = zoo.prepare(problem, players)
    games = LayerGames(
        own.split,
        own.split.players,
        own.samples,
        own.task,
        ridge=ridge,
        output_weight=output_weight,
    )
    return problem, own, games


def explained(H, Z):
    """R² of a regression of all targets together."""
    H, Z = np.asarray(H, float), np.asarray(Z, float)
    H, Z = H - H.mean(0), Z - Z.mean(0)
    residual = Z - H @ np.linalg.lstsq(H, Z)[0]
    return 1 - (residual**2).sum() / (Z**2).sum()


def wanted(H, Z, outputs, weight=4.0):
    """Payoff of a hidden layer: of the next pre-activations and of the outputs."""
    outputs = outputs - outputs.mean(1, keepdims=True)
    return (explained(H, Z) + weight * explained(H, outputs)) / (1 + weight)


def everybody(game):
    return np.ones((1, game.n_players), bool)


def activations(module, problem):
    with torch.no_grad():
        return module(torch.from_numpy(problem.X)).numpy()


@pytest.mark.parametrize("weight", [0.0, 4.0])
def test_payoffs_are_r2_of_the_next_layer_and_the_outputs(zoo, weight):
    problem, _, games = games_of(zoo, zoo.mlp(), ridge=1e-9, output_weight=weight)
    module, rng = problem.module, np.random.default_rng(0)
    H1, Z2 = activations(module[:2], problem), activations(module[:3], problem)
    H2, logits = activations(module[:4], problem), activations(module, problem)
    keep = np.ones(16, bool)
    keep[9 + np.array([1, 4])] = False
    first, last = games.game(0, keep), games.game(1, keep)
    for _ in range(3):
        one, two = rng.random(9) < 0.5, rng.random(7) < 0.5
        payoff = wanted(H1[:, one], Z2[:, keep[9:]], logits, weight)
        assert first(one[None])[0] == pytest.approx(payoff, abs=1e-3)
        centred = logits - logits.mean(1, keepdims=True)
        payoff = explained(H2[:, two], centred)
        assert last(two[None])[0] == pytest.approx(payoff, abs=1e-3)


@pytest.mark.parametrize("kind", ["multiclass", "binary", "regression"])
def test_everybody_explains_all_that_comes_next(zoo, kind):
    n_outputs = {"multiclass": 3, "binary": 1, "regression": 2}[kind]
    module = zoo.mlp([6, 9, 7, n_outputs])
    _, _, games = games_of(zoo, module, kind, ridge=1e-9, output_weight=0.0)
    for group in (0, 1):
        game = games.game(group, np.ones(16, bool))
        assert game(everybody(game))[0] == pytest.approx(1, abs=1e-3)


def test_a_last_reader_that_is_not_the_output_is_as_any_other(zoo):
    problem, _, games = games_of(zoo, zoo.mlp(), players=[("neurons", "0")], ridge=1e-9)
    game = games.game(0, np.ones(9, bool))
    H, Z, logits = (activations(problem.module[:n], problem) for n in (2, 3, 5))
    half = np.arange(9) < 4
    payoff = wanted(H[:, half], Z, logits)
    assert game(half[None])[0] == pytest.approx(payoff, abs=1e-3)


def test_players_of_other_groups_are_always_there(zoo):
    problem, own, games = games_of(zoo, zoo.Concatenated(), ridge=1e-9)
    module = problem.module
    X = torch.from_numpy(problem.X)
    with torch.no_grad():
        a, b = torch.tanh(module.a(X)), torch.relu(module.b(X))
        Z = module.c(torch.cat([a, X, b], 1))
        logits = module(X)
    coalition = np.array([True, False, False, True])
    group = own.players.groups.index("a")
    game = games.game(group, np.ones(16, bool))
    columns = torch.cat([a[:, coalition], X, b], 1)
    assert game.n_players == 4
    payoff = wanted(columns, Z, logits.numpy())
    assert game(coalition[None])[0] == pytest.approx(payoff, abs=1e-3)


def test_filters_own_patches(zoo):
    problem, _, games = games_of(
        zoo,
        zoo.conv_net(),
        players="filters",
        shape=(2, 6, 6),
        n_samples=60,
        ridge=1e-9,
    )
    game = games.game(0, np.ones(9, bool))
    module = problem.module
    with torch.no_grad():
        pooled = module[:3](torch.from_numpy(problem.X))
        Z, logits = module[3](pooled), module[3:](pooled)
    keep = np.array([True, False, True, False])
    patches = nn.functional.unfold(pooled[:, keep], 2).transpose(1, 2).flatten(0, 1)
    rows = Z.flatten(2).transpose(1, 2).flatten(0, 1)
    # Each position answers for the outputs of its sample.
    payoff = wanted(patches, rows, logits.repeat_interleave(4, 0).numpy())
    assert game(keep[None])[0] == pytest.approx(payoff, abs=1e-3)
    assert games.game(1, np.ones(9, bool)).n_players == 5


def test_a_relu_that_works_in_place_changes_no_game(zoo):
    payoffs = []
    for inplace in (False, True):
        module = zoo.mlp(activation=lambda i=inplace: nn.ReLU(inplace=i))
        _, _, games = games_of(zoo, module)
        game = games.game(0, np.ones(16, bool))
        payoffs.append(game(np.tri(9, dtype=bool)))
    np.testing.assert_allclose(*payoffs)


def test_a_sum_of_two_readers_counts_them_alike(zoo):
    _, _, games = games_of(
        zoo, zoo.ResidualMLP(), players=[("neurons", "stem")], ridge=1e-9
    )
    game = games.game(0, np.ones(8, bool))
    assert game(everybody(game))[0] > 0.5
    # Two layers read the stem: `up` wholly from it, `out` from a sum with `down`.
    assert set(games.moments) == {"up", "out"}


def greedy(game, count):
    return np.isin(np.arange(game.n_players), game.greedy_order(count)[0])


def test_select_keeps_the_counts(zoo):
    _, own, games = games_of(zoo, zoo.mlp([6, 9, 7, 5, 3]))
    for counts in ([3, 2, 1], [9, 1, 5], [1, 7, 4]):
        keep = games.select(counts, greedy)
        np.testing.assert_array_equal(np.bincount(own.players.group_of[keep]), counts)


def test_select_of_everybody_asks_nobody(zoo):
    _, _, games = games_of(zoo, zoo.mlp())
    keep = games.select([9, 7], lambda game, count: pytest.fail("nothing to pick"))
    assert keep.all()


def test_select_plays_from_the_output_backwards(zoo):
    _, _, games = games_of(zoo, zoo.mlp([6, 9, 7, 3]))
    asked = []

    def recording(game, count):
        asked.append((game.n_players, count))
        return greedy(game, count)

    keep = games.select([4, 3], recording)
    assert asked == [(7, 3), (9, 4)]
    np.testing.assert_array_equal(keep[9:], greedy(games.game(1, np.ones(16, bool)), 3))
    np.testing.assert_array_equal(keep[:9], greedy(games.game(0, keep), 4))
    # The same question is not asked twice, another one is.
    np.testing.assert_array_equal(games.select([4, 3], recording), keep)
    games.select([5, 3], recording)
    assert asked == [(7, 3), (9, 4), (9, 5)]
    games.select([4, 2], recording)
    assert asked[3:] == [(7, 2), (9, 4)]


def test_useless_neurons_are_not_chosen(zoo):
    problem = zoo.make_net(zoo.mlp(), n_samples=300)
    with torch.no_grad():
        problem.module[0].weight[3] = 0
        problem.module[4].weight[:, 2] = 0
    own = zoo.prepare(problem)
    games = LayerGames(own.split, own.split.players, own.samples, own.task)
    keep = games.select([8, 6], greedy)
    assert not keep[3]
    assert keep.sum() == 14


def test_the_split_changes_no_game(zoo):
    class Untraceable(nn.Sequential):
        def forward(self, x):
            return super().forward(x if x.sum() < 1e9 else -x)

    _, _, traced = games_of(zoo, zoo.mlp())
    _, own, whole = games_of(zoo, Untraceable(*zoo.mlp()))
    assert own.split.front is None
    for group in (0, 1):
        one, two = (games.game(group, np.ones(16, bool)) for games in (traced, whole))
        orders = np.random.default_rng(0).permuted(
            np.tile(np.arange(one.n_players), (3, 1)), axis=1
        )
        np.testing.assert_allclose(one.walk(orders), two.walk(orders), rtol=1e-4)


def test_players_that_no_linear_map_reads_are_refused(zoo):
    module = nn.Sequential(
        nn.Conv3d(2, 4, 1),
        nn.ReLU(),
        nn.Conv3d(4, 3, 2),
        nn.Flatten(),
        nn.Linear(24, 3),
    )
    _, _, games = games_of(
        zoo, module, players="filters", shape=(2, 3, 3, 3), n_samples=20
    )
    assert games.game(1, np.ones(7, bool)).n_players == 3
    with pytest.raises(UnsupportedNetworkError, match="no reconstruction game"):
        games.game(0, np.ones(7, bool))


def test_no_hooks_stay_behind(zoo):
    problem, _, _ = games_of(zoo, zoo.mlp())
    assert not any(part._forward_hooks for part in problem.module.modules())


def test_another_pick_is_not_answered_from_memory(zoo):
    _, _, games = games_of(zoo, zoo.mlp())

    def first(game, count):
        return np.arange(game.n_players) < count

    def last(game, count):
        return np.arange(game.n_players) >= game.n_players - count

    assert (games.select([3, 2], first) != games.select([3, 2], last)).any()
