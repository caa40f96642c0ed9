"""Scores against values known exactly: published, axiomatic and from shapiq."""

import numpy as np
import pytest
import shapiq
from hypothesis import given, settings
from hypothesis import strategies as st

from skprune.games import (
    AirportGame,
    CallableGame,
    Game,
    GloveGame,
    PerturbedUniformGame,
    TableGame,
    UnanimityGame,
    WeightedVotingGame,
    three_player_game,
    un_security_council,
)
from skprune.scorers import BanzhafScorer, BiasedBanzhafScorer, ShapleyScorer

EXACT = [
    ShapleyScorer(method="exact"),
    BanzhafScorer(method="exact"),
    BiasedBanzhafScorer(0.225, method="exact"),
]


class BlockGame(Game):
    """A mean of games, each of which plays its own orders."""

    def __init__(self, games):
        self.games = games
        self.n_players, self.n_blocks = games[0].n_players, len(games)

    def _payoffs(self, coalitions):
        return np.mean([game(coalitions) for game in self.games], axis=0)

    def walk(self, orders):
        blocks = orders.swapaxes(0, 1) if orders.ndim == 3 else [orders] * self.n_blocks
        pairs = zip(self.games, blocks, strict=True)
        return np.mean([game.walk(own) for game, own in pairs], axis=0)

    def flip(self, coalitions):
        blocks = [coalitions] * self.n_blocks
        if coalitions.ndim == 3:
            blocks = coalitions.swapaxes(0, 1)
        pairs = zip(self.games, blocks, strict=True)
        return np.mean([game.flip(own) for game, own in pairs], axis=0)


GAMES = {
    "three players": three_player_game(),
    "security council": un_security_council(),
    "voting": WeightedVotingGame([4, 3, 2, 2, 1, 0], quota=7),
    "unanimity": UnanimityGame(5, carrier=[1, 4]),
    "glove": GloveGame(3, 5),
    "airport": AirportGame(np.arange(1, 9.0)),
    "perturbed uniform": PerturbedUniformGame(9, random_state=0),
    "blocks": BlockGame([PerturbedUniformGame(7, random_state=i) for i in range(4)]),
}

SAMPLED = [
    *(ShapleyScorer(sampler=s) for s in ("antithetic", "sobol", "uniform")),
    *(
        scorer.set_params(sampler=s)
        for s in ("auto", "flips", "least_squares", "sample_reuse")
        for scorer in (BanzhafScorer(), BiasedBanzhafScorer(0.75))
    ),
]


@pytest.mark.parametrize(
    ("scorer", "permanent", "other", "tolerance"),
    [
        (ShapleyScorer(), 421 / 2145, 4 / 2145, 1e-12),
        (BanzhafScorer(), 53 / 1024, 21 / 4096, 1e-12),
        (BiasedBanzhafScorer(0.225), 4.328550e-4, 1.195500e-4, 5e-11),
        (BiasedBanzhafScorer(0.75), 0.315297022, 0.002053097, 5e-10),
    ],
)
def test_security_council(scorer, permanent, other, tolerance):
    scores = scorer.set_params(method="exact").estimate(un_security_council())
    expected = [permanent] * 5 + [other] * 10
    np.testing.assert_allclose(scores.values, expected, rtol=0, atol=tolerance)


def test_three_players_of_the_paper():
    values = ShapleyScorer().estimate(three_player_game()).values
    np.testing.assert_allclose(values, [1.5, 2, 1.5], rtol=0, atol=1e-14)


def test_exact_values_of_more_than_one_chunk():
    game = AirportGame(np.arange(1, 17.0))
    values = ShapleyScorer(method="exact").estimate(game).values
    np.testing.assert_allclose(values, game.shapley_values(), rtol=1e-14)


@pytest.mark.parametrize("game", GAMES.values(), ids=GAMES)
@pytest.mark.parametrize("scorer", SAMPLED, ids=repr)
def test_estimates_are_within_four_standard_errors(scorer, game):
    scorer.set_params(method="exact")
    exact = scorer.estimate(game).values
    scorer.set_params(method="sampling", n_evaluations=6000, random_state=0)
    scores = scorer.estimate(game)
    error = abs(scores.values - exact)
    assert (error <= 4 * scores.standard_errors + 1e-12).all()
    # Standard errors of any size would pass the line above.
    assert scores.standard_errors.max() < 0.1 * max(1, np.ptp(exact))


def test_blocks_draw_orders_of_their_own():
    # Blocks of equal games average independent orders: less variance, same cost.
    game = AirportGame(np.arange(1, 9.0))
    blocks = BlockGame([game] * 16)
    for scorer in (ShapleyScorer(), BanzhafScorer()):
        scorer.set_params(method="sampling", random_state=0, n_evaluations=4000)
        if isinstance(scorer, BanzhafScorer):
            scorer.set_params(sampler="flips")
        alone, together = scorer.estimate(game), scorer.estimate(blocks)
        assert min(alone.n_evaluations, together.n_evaluations) >= 3900
        assert max(alone.n_evaluations, together.n_evaluations) <= 4000
        ratio = together.standard_errors[-1] / alone.standard_errors[-1]
        assert 0.2 < ratio < 0.3


def test_native_flips_are_preferred():
    native = BlockGame([GloveGame(3, 4)])
    scores = BanzhafScorer(method="sampling", n_evaluations=700).estimate(native)
    assert scores.n_samples == 100
    black_box = CallableGame(native, 7)
    scores = BanzhafScorer(method="sampling", n_evaluations=700).estimate(black_box)
    assert scores.n_samples == 700


tables = st.integers(1, 5).flatmap(
    lambda n: st.lists(st.floats(-10, 10, width=32), min_size=2**n, max_size=2**n)
)


@given(tables)
def test_efficiency(table):
    for method in ("exact", "sampling"):
        scorer = ShapleyScorer(method=method, n_evaluations=40, random_state=0)
        total = scorer.estimate(TableGame(table)).values.sum()
        assert total == pytest.approx(table[-1] - table[0], abs=1e-9)


@given(tables, st.data())
def test_symmetry(table, data):
    game = TableGame(table)
    order = np.array(data.draw(st.permutations(range(game.n_players))))
    renamed = CallableGame(lambda c: game(c[:, order]), game.n_players)
    for scorer in EXACT:
        values = scorer.estimate(game).values
        np.testing.assert_allclose(
            scorer.estimate(renamed).values[order], values, atol=1e-9
        )


@given(tables)
def test_null_player(table):
    # The table twice over: the last player changes nothing.
    for scorer in EXACT:
        values = scorer.estimate(TableGame(table * 2)).values
        assert values[-1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("scorer", SAMPLED, ids=repr)
def test_null_player_in_samples(scorer):
    game = UnanimityGame(5, carrier=[0, 1])
    scorer.set_params(method="sampling", n_evaluations=1000, random_state=0)
    scores = scorer.estimate(game)
    # Regressions answer exactly here, but for rounding.
    assert abs(scores.values[3]) <= 4 * scores.standard_errors[3] + 1e-15


@given(tables, st.floats(-3, 3), st.randoms(use_true_random=False))
def test_linearity(table, factor, random):
    first = np.array(table)
    second = np.array([random.uniform(-10, 10) for _ in table])
    for scorer in EXACT:
        parts = [scorer.estimate(TableGame(part)).values for part in (first, second)]
        whole = scorer.estimate(TableGame(first + factor * second)).values
        np.testing.assert_allclose(whole, parts[0] + factor * parts[1], atol=1e-9)


@given(tables)
@settings(max_examples=30)
def test_banzhaf_is_biased_banzhaf_at_one_half(table):
    game = TableGame(table)
    for params in ({"method": "exact"}, {"method": "sampling", "sampler": "flips"}):
        params = {"n_evaluations": 50, "random_state": 0, **params}
        fair = BanzhafScorer(**params).estimate(game)
        biased = BiasedBanzhafScorer(0.5, **params).estimate(game)
        np.testing.assert_array_equal(fair.values, biased.values)


@pytest.mark.parametrize("game", list(GAMES.values())[:-1], ids=list(GAMES)[:-1])
def test_shapiq_agrees(game):
    oracle = shapiq.ExactComputer(game, game.n_players)
    for index, scorer in zip(("SV", "BV"), EXACT[:2], strict=True):
        theirs = oracle(index, order=1)
        ours = scorer.estimate(game).values
        for player in range(game.n_players):
            assert theirs[(player,)] == pytest.approx(ours[player], abs=1e-10)


def test_shapiq_approximators_play_our_games():
    game = AirportGame(np.arange(1, 7.0))
    approximator = shapiq.PermutationSamplingSV(6, random_state=0)
    values = approximator.approximate(4000, game).get_n_order_values(1)
    np.testing.assert_allclose(values, game.shapley_values(), atol=0.3)


def test_shapiq_games_are_scored():
    game = shapiq.Game(n_players=4, normalize=False)
    game.value_function = lambda coalitions: coalitions @ np.arange(4.0)
    for scorer in EXACT:
        values = scorer.estimate(game).values
        np.testing.assert_allclose(values, np.arange(4.0), atol=1e-12)
