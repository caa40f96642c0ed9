"""The reconstruction game against least squares on the samples themselves."""

import itertools

import numpy as np
import pytest

from skprune.games import Game, ReconstructionGame, _building, _cholesky
from skprune.samplers import bernoulli_coalitions, uniform_orders
from skprune.scorers import ShapleyScorer

RIDGE = 1e-3
OWNERS = {
    "own columns": None,
    "equal numbers": [0, 0, 1, 1, 2, 2, 3, 3],
    "unequal numbers": [2, 0, 0, 1, 3, 3, 3, 1],
    "always present": [-1, 0, 1, 2, -1, 3, 3, 2],
}


def data(n_samples=60, n_columns=8, n_targets=3, seed=0):
    """Correlated columns, one of them constant, and noisy targets."""
    rng = np.random.default_rng(seed)
    H = rng.normal(size=(n_samples, n_columns)) @ rng.normal(size=(n_columns,) * 2)
    H[:, 5] = 2.0
    Z = H[:, :4] @ rng.normal(size=(4, n_targets)) + rng.normal(
        size=(n_samples, n_targets)
    )
    return H, Z


def moments(H, Z):
    H, Z = H - H.mean(0), Z - Z.mean(0)
    return H.T @ H / len(H), H.T @ Z / len(H), float((Z**2).sum() / len(H))


def make_game(owners=None, ridge=RIDGE, seed=0):
    return ReconstructionGame(*moments(*data(seed=seed)), owners=owners, ridge=ridge)


def least_squares_payoff(coalition, owners=None, ridge=RIDGE, seed=0):
    """Variance that a ridge regression explains, by stacked least squares."""
    H, Z = data(seed=seed)
    owner = np.arange(8) if owners is None else np.asarray(owners)
    H, Z = H - H.mean(0), Z - Z.mean(0)
    penalty = ridge * (H**2).mean(0).mean() * len(H)
    present = np.append(coalition, True)[owner]
    S = H[:, present]
    rows = np.vstack([S, np.sqrt(penalty) * np.eye(S.shape[1])])
    weights = np.linalg.lstsq(rows, np.vstack([Z, np.zeros((S.shape[1], 3))]))[0]
    residual = ((Z - S @ weights) ** 2).sum() + penalty * (weights**2).sum()
    return 1 - residual / (Z**2).sum()


def all_coalitions(n):
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(bool)


@pytest.mark.parametrize("owners", OWNERS.values(), ids=OWNERS)
def test_payoffs_are_those_of_least_squares(owners):
    game = make_game(owners)
    coalitions = all_coalitions(game.n_players)[::3]
    wanted = [least_squares_payoff(c, owners) for c in coalitions]
    np.testing.assert_allclose(game(coalitions), wanted, atol=1e-10)


@pytest.mark.parametrize("ridge", [0.0, 1e-3, 1.0])
@pytest.mark.parametrize("owners", OWNERS.values(), ids=OWNERS)
def test_walks_and_flips_are_the_default_ones(owners, ridge):
    game, rng = make_game(owners, ridge), np.random.default_rng(1)
    n = game.n_players
    orders = uniform_orders(n, 5, rng)
    coalitions = np.vstack(
        [bernoulli_coalitions(n, 6, rng), np.zeros((1, n), bool), np.ones((1, n), bool)]
    )
    tolerance = {"rtol": 1e-6, "atol": 1e-9}
    np.testing.assert_allclose(game.walk(orders), Game.walk(game, orders), **tolerance)
    np.testing.assert_allclose(
        game.flip(coalitions), Game.flip(game, coalitions), **tolerance
    )


@pytest.mark.parametrize("owners", OWNERS.values(), ids=OWNERS)
def test_the_greedy_order_is_the_default_one(owners):
    game = make_game(owners)
    order, marginals = game.greedy_order(game.n_players)
    wanted_order, wanted = Game.greedy_order(game, game.n_players)
    np.testing.assert_allclose(marginals, wanted, atol=1e-10)
    # The constant column earns nothing wherever it joins, so it comes last.
    np.testing.assert_array_equal(order, wanted_order)


def make_large_game(owners=None, ridge=RIDGE, n_columns=48, n_targets=7, scale=1.0):
    """More columns than a small panel holds, all of them of full rank."""
    rng = np.random.default_rng(3)
    H = rng.normal(size=(200, n_columns)) @ rng.normal(size=(n_columns, n_columns))
    Z = np.maximum(H[:, :10] @ rng.normal(size=(10, n_targets)), 0)
    G, C, variance = moments(scale * H, Z)
    return ReconstructionGame(G, C, variance, owners=owners, ridge=ridge)


LARGE_OWNERS = {
    "own columns": None,
    "pairs": np.arange(48) // 2,
    "unequal numbers": np.repeat(np.arange(16), [1, 5] * 8),
    "always present": np.arange(48) // 3 - 2,
    "wider than a panel": np.arange(48) // 12,
}
LARGE_OWNERS["always present"][:6] = -1


@pytest.mark.parametrize(("panel", "batch"), [(1, 1), (5, 2), (8, 32), (128, 32)])
@pytest.mark.parametrize("ridge", [0.0, RIDGE])
@pytest.mark.parametrize("owners", LARGE_OWNERS.values(), ids=LARGE_OWNERS)
def test_panels_choose_as_the_default_does(owners, ridge, panel, batch, monkeypatch):
    monkeypatch.setattr(_building, "_PANEL", panel)
    monkeypatch.setattr(_building, "_BATCH", batch)
    game = make_large_game(owners, ridge)
    n_steps = game.n_players - 1
    order, marginals = game.greedy_order(n_steps)
    wanted_order, wanted = Game.greedy_order(game, n_steps)
    np.testing.assert_array_equal(order, wanted_order)
    np.testing.assert_allclose(marginals, wanted, rtol=1e-6, atol=1e-11)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_of_the_columns_change_nothing(scale, monkeypatch):
    ended = []
    end = _building.GreedyBuilding._end_panel
    monkeypatch.setattr(
        _building.GreedyBuilding, "_end_panel", lambda self: ended.append(end(self))
    )
    order, marginals = make_large_game(scale=scale).greedy_order(48)
    wanted_order, wanted = make_large_game().greedy_order(48)
    np.testing.assert_array_equal(order, wanted_order)
    np.testing.assert_allclose(marginals, wanted, rtol=1e-6, atol=1e-11)
    # One panel holds them all; ending it early would mean a trust that knows units.
    assert not ended


def extended_gains(gram, cross, width, order):
    """Along an order, what each player earns and what the best would: 64-bit mantissa.

    Rank-one elimination, column by column, of everything.
    """
    G, R = gram.astype(np.longdouble), cross.astype(np.longdouble)
    n = len(G) // width
    free = np.ones(n, bool)
    earned, best = [], []
    for player in order:
        gains = np.full(n, -np.inf, np.longdouble)
        for i in np.flatnonzero(free):
            D = G[i * width :, i * width :][:width, :width].copy()
            X = R[i * width : (i + 1) * width].copy()
            gains[i] = 0
            for c in range(width):
                gains[i] += (X[c] ** 2).sum() / D[c, c]
                factor = D[:, c] / D[c, c]
                X -= np.outer(factor, X[c])
                D -= np.outer(factor, D[c])
        earned.append(gains[player])
        best.append(gains.max())
        free[player] = False
        for c in range(player * width, (player + 1) * width):
            factor = G[:, c] / G[c, c]
            R -= np.outer(factor, R[c])
            G -= np.outer(factor, G[c])
    return np.array(earned, float), np.array(best, float)


@pytest.mark.parametrize("ridge", [1e-3, 1e-8])
@pytest.mark.parametrize(
    ("n_columns", "rank", "width"), [(300, 40, 1), (90, 12, 3), (60, 5, 1)]
)
def test_building_is_exact_where_few_directions_carry_it_all(
    n_columns, rank, width, ridge
):
    rng = np.random.default_rng(4)
    # Directions of very different size: gains fall by ten orders of magnitude.
    B = np.logspace(0, -4, rank)[:, None] * rng.normal(size=(rank, n_columns))
    W = rng.normal(size=(n_columns, 20))
    G = B.T @ B
    game = ReconstructionGame(
        G,
        G @ W,
        float(np.trace(W.T @ G @ W)),
        owners=np.arange(n_columns) // width,
        ridge=ridge,
    )
    n_steps = min(game.n_players, 2 * rank)
    order, marginals = game.greedy_order(n_steps)
    earned, best = extended_gains(game._gram, game._cross, width, order)
    np.testing.assert_allclose(marginals, earned, rtol=1e-5, atol=1e-8 * ridge)
    np.testing.assert_allclose(earned, best, rtol=1e-5)
    assert marginals[-1] < 1e-3 * marginals[0]


@pytest.mark.parametrize("owners", [None, [0, 0, 1, 1, 2, 2, -1, -1]])
def test_many_targets_are_rotated_to_few(owners):
    H, Z = data(n_targets=13)
    game = ReconstructionGame(*moments(H, Z), owners=owners, ridge=RIDGE)
    owner = np.arange(8) if owners is None else np.array(owners)
    G, C, variance = moments(H, Z)
    G = G + RIDGE * G.diagonal().mean() * np.eye(8)
    coalitions = all_coalitions(game.n_players)
    for coalition, payoff in zip(coalitions, game(coalitions), strict=True):
        S = np.append(coalition, True)[owner]
        explained = np.trace(C[S].T @ np.linalg.solve(G[np.ix_(S, S)], C[S]))
        assert payoff == pytest.approx(explained / variance, abs=1e-11)
    assert game._cross.shape[1] <= len(game._gram)
    small = game.restrict(always_out=np.arange(game.n_players) == 0)
    assert small._cross.shape[1] <= len(small._gram)


def test_walks_and_flips_of_many_columns(monkeypatch):
    game = make_large_game()
    orders = uniform_orders(48, 2, np.random.default_rng(0))
    coalitions = bernoulli_coalitions(48, 2, np.random.default_rng(0))
    wanted = game.walk(orders), game.flip(coalitions), game(coalitions)
    # What is gathered in many blocks of rows is what is gathered in one.
    monkeypatch.setattr(_cholesky, "_ROWS", 5)
    for found, value in zip(
        (game.walk(orders), game.flip(coalitions), game(coalitions)),
        wanted,
        strict=True,
    ):
        np.testing.assert_array_equal(found, value)
    for order, marginals in zip(orders, game.walk(orders), strict=True):
        lower = np.linalg.cholesky(game._gram[np.ix_(order, order)])
        rows = np.linalg.solve(lower, game._cross[order])
        np.testing.assert_allclose(marginals[order], (rows**2).sum(1), atol=1e-11)


def test_games_are_not_changed_by_play():
    game = make_large_game([*range(40), *[-1] * 8])
    gram, cross, blocks = game._gram.copy(), game._cross.copy(), game._blocks.copy()
    game.greedy_order(40)
    game.walk(np.arange(40)[None])
    game.flip(np.eye(40, dtype=bool))
    game.restrict(always_in=np.arange(40) < 3)
    np.testing.assert_array_equal(game._gram, gram)
    np.testing.assert_array_equal(game._cross, cross)
    np.testing.assert_array_equal(game._blocks, blocks)


@pytest.mark.parametrize("owners", [None, [0, 0, 1, 1]])
def test_dependent_columns_without_a_ridge_are_refused_by_name(owners):
    H = np.random.default_rng(0).normal(size=(50, 2))
    H = np.hstack([H, H])
    G, C = H.T @ H, H.T @ H[:, :1]
    game = ReconstructionGame(G - 1e-9 * np.eye(4), C, 1.0, owners=owners, ridge=0.0)
    for play in (
        lambda: game.greedy_order(game.n_players),
        lambda: game(np.ones((1, game.n_players), bool)),
    ):
        with pytest.raises(np.linalg.LinAlgError, match="raise ridge"):
            play()


@pytest.mark.parametrize("owners", OWNERS.values(), ids=OWNERS)
@pytest.mark.parametrize(
    ("inside", "outside"), [([0], []), ([], [1, 2]), ([2], [0]), ([0, 1], [3])]
)
def test_restricted_games_are_the_same_game(owners, inside, outside):
    game, rng = make_game(owners), np.random.default_rng(2)
    masks = [np.isin(np.arange(game.n_players), fixed) for fixed in (inside, outside)]
    small, wanted = game.restrict(*masks), Game.restrict(game, *masks)
    assert isinstance(small, ReconstructionGame)
    np.testing.assert_array_equal(small.players, wanted.players)
    coalitions = all_coalitions(small.n_players)[::2]
    np.testing.assert_allclose(small(coalitions), wanted(coalitions), atol=1e-10)
    orders = uniform_orders(small.n_players, 4, rng)
    np.testing.assert_allclose(
        small.walk(orders), Game.walk(wanted, orders), atol=1e-10
    )
    np.testing.assert_allclose(
        small.flip(coalitions), Game.flip(wanted, coalitions), atol=1e-10
    )
    np.testing.assert_array_equal(
        small.greedy_order(1)[0], Game.greedy_order(wanted, 1)[0]
    )


def test_a_restricted_game_that_is_restricted_keeps_the_first_numbers():
    game = make_game()
    first = game.restrict(always_in=np.arange(8) == 2)
    second = first.restrict(always_out=np.arange(7) == 0, always_in=np.arange(7) == 6)
    np.testing.assert_array_equal(second.players, [1, 3, 4, 5, 6])
    inner = np.array([[True, False, True, True, False]])
    outer = np.array([[False, True, True, False, True, True, False, True]])
    np.testing.assert_allclose(second(inner), game(outer), atol=1e-12)


def test_restricting_nobody_changes_nothing():
    game = make_game()
    coalitions = all_coalitions(8)[::7]
    np.testing.assert_array_equal(game.restrict()(coalitions), game(coalitions))


def test_exact_shapley_values_average_all_walks():
    owners = [0, 1, 2, 3, 4, 4, 0, 1]
    game = make_game(owners)
    exact = ShapleyScorer(method="exact").estimate(game).values
    orders = np.array(list(itertools.permutations(range(5))))
    np.testing.assert_allclose(game.walk(orders).mean(axis=0), exact, atol=1e-10)
    ends = game(np.array([[False] * 5, [True] * 5]))
    assert exact.sum() == pytest.approx(ends[1] - ends[0])


@pytest.mark.parametrize("owners", OWNERS.values(), ids=OWNERS)
def test_more_players_explain_more(owners):
    game = make_game(owners)
    assert (game.flip(all_coalitions(game.n_players)) >= -1e-12).all()
    payoffs = game(all_coalitions(game.n_players))
    assert ((payoffs >= -1e-12) & (payoffs <= 1 + 1e-12)).all()


def test_the_grand_coalition_earns_r2_as_the_ridge_vanishes():
    H, Z = data()
    H, Z = H - H.mean(0), Z - Z.mean(0)
    residual = Z - H @ np.linalg.lstsq(H, Z)[0]
    r2 = 1 - (residual**2).sum() / (Z**2).sum()
    everybody = np.ones((1, 8), bool)
    errors = [abs(make_game(ridge=r)(everybody)[0] - r2) for r in (1e-2, 1e-5, 1e-9)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-6


def test_a_column_that_never_varies_earns_nothing():
    for ridge in (0.0, RIDGE):
        game = make_game(ridge=ridge)
        marginals = game.flip(all_coalitions(8)[::5])
        np.testing.assert_allclose(marginals[:, 5], 0, atol=1e-12)
        assert np.abs(marginals[:, [0, 1]]).max() > 1e-3


def test_copies_of_a_column_compete():
    G, C = np.ones((2, 2)), np.full((2, 1), 0.5)
    game = ReconstructionGame(G, C, 1.0, ridge=1e-6)
    payoffs = game(np.array([[True, False], [False, True], [True, True]]))
    np.testing.assert_allclose(payoffs, 0.25, rtol=1e-5)
    assert game.flip(np.array([[True, True]])).max() < 1e-5


@pytest.mark.parametrize("owners", [None, [0, 0, 1], [-1, 0, 1]])
def test_a_layer_without_variance_is_a_null_game(owners):
    game = ReconstructionGame(np.zeros((3, 3)), np.zeros((3, 2)), 0.0, owners=owners)
    n = game.n_players
    orders = np.arange(n)[None]
    np.testing.assert_array_equal(game(all_coalitions(n)), 0)
    np.testing.assert_array_equal(game.walk(orders), 0)
    np.testing.assert_array_equal(game.flip(all_coalitions(n)), 0)
    np.testing.assert_array_equal(game.greedy_order(n)[1], 0)
    small = game.restrict(always_in=np.arange(n) < 1)
    np.testing.assert_array_equal(small.walk(np.arange(n - 1)[None]), 0)


def test_one_axis_of_blocks_and_no_coalitions_are_taken():
    game = make_game()
    orders = uniform_orders(8, 3, np.random.default_rng(0), n_blocks=1)
    coalitions = bernoulli_coalitions(8, 3, np.random.default_rng(0), n_blocks=1)
    np.testing.assert_array_equal(game.walk(orders), game.walk(orders[:, 0]))
    np.testing.assert_array_equal(game.flip(coalitions), game.flip(coalitions[:, 0]))
    assert game.flip(np.ones((0, 8), bool)).shape == (0, 8)
    assert game.walks_natively
    assert game.flips_natively


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gram": np.ones((2, 3))}, r"gram must be a square matrix.*\(2, 3\)"),
        ({"gram": np.ones(3)}, r"gram must be a square matrix.*\(3,\)"),
        ({"gram": np.zeros((0, 0))}, "gram must be a square matrix"),
        ({"cross": np.ones((2, 1))}, r"cross must have one row.*3 columns.*\(2, 1\)"),
        ({"cross": np.ones(3)}, "cross must have one row"),
        ({"gram": np.full((3, 3), np.nan)}, "NaN or infinity"),
        ({"cross": np.full((3, 1), np.inf)}, "NaN or infinity"),
        ({"target_variance": -1.0}, "target_variance must be finite.*-1.0"),
        ({"target_variance": np.nan}, "target_variance must be finite.*nan"),
        ({"ridge": -0.5}, "ridge must be finite and not negative; got -0.5"),
        ({"ridge": np.inf}, "ridge must be finite"),
        ({"owners": [0, 1]}, r"owners has .*shape \(2,\).*3 columns"),
        ({"owners": [-1, -1, -1]}, "owners has .*at least one player"),
        ({"owners": [0.0, 1.0, 2.0]}, "owners has dtype float64"),
        ({"owners": [0, 0, 2]}, "owners leaves player 1 without a column"),
    ],
)
def test_bad_moments_are_refused(arguments, message):
    good = {"gram": np.eye(3), "cross": np.ones((3, 1)), "target_variance": 3.0}
    with pytest.raises(ValueError, match=message):
        ReconstructionGame(**(good | arguments))


def test_bad_questions_are_refused():
    game = make_game()
    with pytest.raises(ValueError, match="n_steps=9 must lie between 0 and the 8"):
        game.greedy_order(9)
    with pytest.raises(ValueError, match="overlap"):
        game.restrict(np.arange(8) < 2, np.arange(8) < 1)
    with pytest.raises(ValueError, match="fix all 8 players"):
        game.restrict(np.ones(8, bool))
    with pytest.raises(ValueError, match="shape"):
        game.flip(np.ones((1, 7), bool))
    with pytest.raises(ValueError, match="every player from 0 to 7 once"):
        game.walk(np.zeros((1, 8), int))


@pytest.mark.parametrize("owners", [None, [0, 0, 1, 1]])
def test_singular_moments_without_a_ridge_are_told(owners):
    game = ReconstructionGame(
        np.ones((4, 4)), np.ones((4, 2)), 2.0, owners=owners, ridge=0
    )
    for play in (
        lambda: game.greedy_order(2),
        lambda: game.flip(np.ones((1, game.n_players), dtype=bool)),
        lambda: game(np.ones((1, game.n_players), dtype=bool)),
    ):
        with pytest.raises(np.linalg.LinAlgError, match="raise ridge"):
            play()
