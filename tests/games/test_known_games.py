"""Closed forms against enumeration."""

from itertools import product

import numpy as np
import pytest

from skprune.games import (
    AirportGame,
    GloveGame,
    PerturbedUniformGame,
    TableGame,
    UnanimityGame,
    WeightedVotingGame,
    three_player_game,
    un_security_council,
)
from skprune.scorers import BiasedBanzhafScorer, ShapleyScorer

GAMES = [
    WeightedVotingGame([4, 3, 2, 2, 1, 0], quota=7),
    WeightedVotingGame([0.5, 0.25, 0.25, 0.125], quota=0.625),
    un_security_council(),
    UnanimityGame(5, carrier=[4, 1]),
    GloveGame(3, 2),
    GloveGame(1, 4),
    AirportGame([5.0, 1.0, 1.0, 0.0, 2.5]),
]


@pytest.mark.parametrize("game", GAMES, ids=lambda game: type(game).__name__)
def test_closed_forms_match_enumeration(game):
    exact = ShapleyScorer(method="exact").estimate(game)
    np.testing.assert_allclose(exact.values, game.shapley_values(), atol=1e-13)
    for probability in (0.1, 0.5, 0.75):
        exact = BiasedBanzhafScorer(probability, method="exact").estimate(game)
        closed = game.banzhaf_values(probability)
        np.testing.assert_allclose(exact.values, closed, atol=1e-13)


def test_security_council_needs_five_permanent_members_and_nine_votes():
    game = un_security_council()
    coalitions = np.zeros((3, 15), dtype=bool)
    coalitions[0, :9] = coalitions[1, :8] = coalitions[2, 1:] = True
    np.testing.assert_array_equal(game(coalitions), [1, 0, 0])


def test_three_player_game_is_the_table_of_the_paper():
    table = {"": 0, "A": 1, "B": 2, "C": 2, "AB": 4, "AC": 3, "BC": 3, "ABC": 5}
    for names, payoff in table.items():
        coalition = np.array([[name in names for name in "ABC"]])
        assert three_player_game()(coalition) == [payoff]


def test_table_game_reads_bits():
    payoffs = np.random.default_rng(0).normal(size=16)
    game = TableGame(payoffs)
    for bits in product([False, True], repeat=4):
        index = sum(2**i for i, bit in enumerate(bits) if bit)
        assert game(np.array([bits])) == [payoffs[index]]


def test_perturbed_uniform_game():
    game = PerturbedUniformGame(8, noise=0.05, random_state=0)
    sizes = np.bitwise_count(np.arange(256)) / 8
    assert game.table[0] == 0
    assert game.table[-1] == 1
    noise = (game.table - sizes)[1:-1]
    assert noise.std() == pytest.approx(0.05, rel=0.2)
    again = PerturbedUniformGame(8, noise=0.05, random_state=0)
    np.testing.assert_array_equal(game.table, again.table)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: WeightedVotingGame([1, -1], 1), "weights="),
        (lambda: UnanimityGame(3, [3]), r"carrier=\[3\]"),
        (lambda: UnanimityGame(3, []), r"carrier=\[\]"),
        (lambda: GloveGame(0, 2), "n_left=0"),
        (lambda: AirportGame([]), r"costs=\[\]"),
        (lambda: TableGame([0, 1, 2]), r"shape \(3,\)"),
        (lambda: PerturbedUniformGame(21), "n_players=21"),
    ],
)
def test_bad_parameters_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()
