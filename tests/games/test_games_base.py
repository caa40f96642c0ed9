"""The base class: payoffs in, marginals out, whatever the chunk."""

import numpy as np
import pytest

from skprune.games import (
    AirportGame,
    CallableGame,
    Game,
    TableGame,
    as_game,
    un_security_council,
)
from skprune.samplers import bernoulli_coalitions, uniform_orders


class NativeGame(Game):
    """A game with a walk and a flip of its own, counting what it is asked."""

    def __init__(self, game, n_blocks=1):
        self.game = game
        self.n_players = game.n_players
        self.n_blocks = n_blocks
        self.walks = self.flips = 0

    def _payoffs(self, coalitions):
        return self.game(coalitions)

    def walk(self, orders):
        self.walks += 1
        if orders.ndim == 2:
            return self.game.walk(orders)
        return np.mean([self.game.walk(o) for o in orders.swapaxes(0, 1)], axis=0)

    def flip(self, coalitions):
        self.flips += 1
        if coalitions.ndim == 2:
            return self.game.flip(coalitions)
        return np.mean([self.game.flip(c) for c in coalitions.swapaxes(0, 1)], axis=0)


class CountingGame(TableGame):
    """A table that keeps every coalition it is asked for."""

    def __init__(self, payoffs):
        super().__init__(payoffs)
        self.asked = []

    def _payoffs(self, coalitions):
        self.asked.extend(map(tuple, coalitions.tolist()))
        return super()._payoffs(coalitions)


def random_game(n_players, seed=0, kind=TableGame):
    return kind(np.random.default_rng(seed).normal(size=2**n_players))


def slow_walk(game, order):
    marginals, present = np.empty(game.n_players), np.zeros(game.n_players, dtype=bool)
    for player in order:
        before = game(present[None])[0]
        present[player] = True
        marginals[player] = game(present[None])[0] - before
    return marginals


def slow_flip(game, coalition):
    marginals = np.empty(game.n_players)
    for player in range(game.n_players):
        sides = np.stack([coalition, coalition])
        sides[:, player] = [True, False]
        marginals[player] = np.subtract(*game(sides))
    return marginals


@pytest.mark.parametrize("n_players", [1, 2, 6])
def test_walk_and_flip_match_their_definitions(n_players):
    game, rng = random_game(n_players), np.random.default_rng(1)
    orders = uniform_orders(n_players, 7, rng)
    coalitions = bernoulli_coalitions(n_players, 7, rng)
    np.testing.assert_array_equal(
        game.walk(orders), [slow_walk(game, o) for o in orders]
    )
    np.testing.assert_array_equal(
        game.flip(coalitions), [slow_flip(game, c) for c in coalitions]
    )


@pytest.mark.parametrize("elements", [1, 17, 64])
def test_chunks_change_no_bit(elements):
    game, chunked = random_game(6), random_game(6)
    chunked._chunk_elements = elements
    rng = np.random.default_rng(2)
    orders, coalitions = uniform_orders(6, 9, rng), bernoulli_coalitions(6, 9, rng)
    np.testing.assert_array_equal(game.walk(orders), chunked.walk(orders))
    np.testing.assert_array_equal(game.flip(coalitions), chunked.flip(coalitions))


def test_chunks_bound_what_is_asked_at_once():
    sizes = []
    game = CallableGame(lambda c: sizes.append(len(c)) or c.sum(axis=1), 10)
    game._chunk_elements = 50
    game.walk(uniform_orders(10, 20, np.random.default_rng(0)))
    assert max(sizes) == 5
    assert sum(sizes) == 20 * 9 + 2


def test_walk_plays_the_ends_once():
    game = random_game(5, kind=CountingGame)
    game.walk(uniform_orders(5, 12, np.random.default_rng(0)))
    assert game.asked.count((False,) * 5) == 1
    assert game.asked.count((True,) * 5) == 1


def test_single_block_axis_is_accepted():
    game, rng = random_game(4), np.random.default_rng(0)
    orders = uniform_orders(4, 3, rng, n_blocks=1)
    coalitions = bernoulli_coalitions(4, 3, rng, n_blocks=1)
    np.testing.assert_array_equal(game.walk(orders), game.walk(orders[:, 0]))
    np.testing.assert_array_equal(game.flip(coalitions), game.flip(coalitions[:, 0]))


def test_blocks_need_walks_of_their_own():
    game = random_game(3)
    game.n_blocks = 2
    with pytest.raises(TypeError, match="n_blocks=2 and must override"):
        game.walk(np.array([[0, 1, 2]]))


def test_a_single_coalition_gives_one_payoff():
    game, coalition = random_game(3), np.array([True, False, True])
    assert game(coalition).shape == (1,)
    np.testing.assert_array_equal(game(coalition), game(coalition[None]))


@pytest.mark.parametrize(
    ("coalitions", "error", "match"),
    [
        (np.ones((2, 3), dtype=int), TypeError, r"dtype int64.*astype\(bool\)"),
        (np.ones((2, 4), dtype=bool), ValueError, r"\(n_coalitions, 3\), got \(2, 4\)"),
        (np.ones((1, 1, 3), dtype=bool), ValueError, r"got \(1, 1, 3\)"),
    ],
)
def test_bad_coalitions_are_refused(coalitions, error, match):
    game = random_game(3)
    with pytest.raises(error, match=match):
        game(coalitions)


@pytest.mark.parametrize(
    ("orders", "error", "match"),
    [
        ([[0, 1, 1]], ValueError, "every player from 0 to 2 once"),
        ([[0, 1]], ValueError, "orders must have shape"),
        ([[0.0, 1.0, 2.0]], TypeError, "orders must be integers"),
    ],
)
def test_bad_orders_are_refused(orders, error, match):
    with pytest.raises(error, match=match):
        random_game(3).walk(np.array(orders))


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite")])
def test_payoffs_that_are_no_numbers_are_refused(value, word):
    game = TableGame([0.0, 1.0, value, 2.0])
    with pytest.raises(ValueError, match=rf"payoff of a coalition is {word} .*\[1\]"):
        game.walk(np.array([[1, 0]]))


def test_payoffs_of_a_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="payoffs of shape"):
        CallableGame(lambda c: c, 2)(np.ones((3, 2), dtype=bool))


MASK = np.array([True, False, False, False, False, True])


@pytest.mark.parametrize("native", [False, True])
def test_restricted_game_is_the_parent_with_players_fixed(native):
    parent, rng = random_game(6), np.random.default_rng(3)
    if native:
        parent = NativeGame(parent)
    always_in, always_out = np.arange(6) == 4, np.arange(6) == 1
    game = parent.restrict(always_in, always_out)
    np.testing.assert_array_equal(game.players, [0, 2, 3, 5])
    coalitions, orders = bernoulli_coalitions(4, 5, rng), uniform_orders(4, 5, rng)
    full = np.zeros((5, 6), dtype=bool)
    full[:, game.players], full[:, 4] = coalitions, True
    np.testing.assert_array_equal(game(coalitions), parent(full))
    np.testing.assert_array_equal(
        game.walk(orders), [slow_walk(game, o) for o in orders]
    )
    np.testing.assert_array_equal(
        game.flip(coalitions), [slow_flip(game, c) for c in coalitions]
    )
    assert game.walks_natively is native
    assert game.flips_natively is native
    if native:
        assert parent.walks == parent.flips == 1


def test_restricted_blocks_reach_the_parent():
    parent, rng = NativeGame(random_game(6), n_blocks=3), np.random.default_rng(4)
    game = parent.restrict(always_in=MASK)
    assert game.n_blocks == 3
    orders = uniform_orders(4, 2, rng, n_blocks=3)
    coalitions = bernoulli_coalitions(4, 2, rng, n_blocks=3)
    plain = random_game(6).restrict(always_in=MASK)
    walks = [plain.walk(orders[:, b]) for b in range(3)]
    flips = [plain.flip(coalitions[:, b]) for b in range(3)]
    np.testing.assert_allclose(game.walk(orders), np.mean(walks, axis=0))
    np.testing.assert_allclose(game.flip(coalitions), np.mean(flips, axis=0))


def test_restrictions_compose():
    parent = random_game(6)
    once = parent.restrict(always_in=MASK, always_out=np.arange(6) == 2)
    inner = parent.restrict(always_in=MASK).restrict(
        always_out=np.array([False, True, False, False])
    )
    np.testing.assert_array_equal(inner.players, once.players)
    assert inner.parent is parent
    coalitions = bernoulli_coalitions(3, 8, np.random.default_rng(0))
    np.testing.assert_array_equal(inner(coalitions), once(coalitions))


@pytest.mark.parametrize(
    ("always_in", "always_out", "match"),
    [
        (MASK, MASK, r"overlap at players \[0, 5\]"),
        (MASK, ~MASK, "fix all 6 players"),
        (MASK[:3], None, r"always_in must be a boolean mask of shape \(6,\)"),
        (None, MASK.astype(int), "always_out must be a boolean mask"),
    ],
)
def test_bad_restrictions_are_refused(always_in, always_out, match):
    with pytest.raises(ValueError, match=match):
        random_game(6).restrict(always_in, always_out)


def test_as_game_passes_games_and_wraps_functions():
    game = un_security_council()
    assert as_game(game) is game

    def count(coalitions):
        return coalitions.sum(axis=1)

    assert as_game(count, 3)(np.ones((1, 3), dtype=bool)) == [3.0]
    count.n_players = 4
    assert as_game(count).n_players == 4


@pytest.mark.parametrize(
    ("obj", "n_players", "error", "match"),
    [
        (3, 3, TypeError, "game=3 is not callable"),
        (len, None, TypeError, r"as_game\(function, n_players=...\)"),
        (len, 0, ValueError, "at least one player"),
        (AirportGame([1, 2]), 3, ValueError, "n_players=3, but the game has 2"),
    ],
)
def test_as_game_refuses(obj, n_players, error, match):
    with pytest.raises(error, match=match):
        as_game(obj, n_players)


@pytest.mark.parametrize("n_steps", [-1, 4])
def test_no_more_steps_than_players(n_steps):
    with pytest.raises(ValueError, match=f"n_steps={n_steps} must lie between 0 and"):
        AirportGame(np.arange(3.0)).greedy_order(n_steps)
