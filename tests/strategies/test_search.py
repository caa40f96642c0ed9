"""Searches on games whose best coalitions are known."""

import numpy as np
import pytest

from skprune.games import AirportGame, CallableGame, TableGame, un_security_council
from skprune.scorers import BanzhafScorer, PowerIndexScorer, ShapleyScorer
from skprune.strategies import IteratedBuilding, IteratedPruning, Search, TopN

SEARCHES = {
    "top n": TopN(),
    "pruning": IteratedPruning(),
    "pruning by threes": IteratedPruning(step=3),
    "pruning layerwise": IteratedPruning(step=0.2, layerwise=True),
    "building": IteratedBuilding(),
    "building by fours": IteratedBuilding(step=4),
}


def additive(weights):
    weights = np.asarray(weights, dtype=float)
    return CallableGame(lambda coalitions: coalitions @ weights, weights.size)


def random_game(n_players, seed=0):
    return TableGame(np.random.default_rng(seed).normal(size=2**n_players))


class CountingScorer(PowerIndexScorer):
    """Exact Shapley values; keeps the numbers of players it was asked for."""

    def coalition_weights(self, n_players):
        return ShapleyScorer().coalition_weights(n_players)

    def draw_marginals(self, game, n_samples, rng):
        raise AssertionError("exact values need no samples")

    def estimate(self, game):
        self.__dict__.setdefault("asked", []).append(game.n_players)
        return ShapleyScorer(method="exact").estimate(game)


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
@pytest.mark.parametrize("scorer", [ShapleyScorer(), BanzhafScorer()])
def test_every_search_finds_the_winning_coalition(search, scorer):
    path = search.search(un_security_council(), scorer, [12, 9])
    assert path.sizes.tolist() == [9, 12]
    assert path.payoffs.tolist() == [1.0, 1.0]
    assert path.masks[:, :5].all()


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_of_an_additive_game_the_best_players_stay(search):
    weights = np.random.default_rng(0).permutation(12) + 1.0
    path = search.search(additive(weights), ShapleyScorer(), [1, 4, 7, 12])
    if not getattr(search, "layerwise", False):
        for size, mask in zip(path.sizes, path.masks, strict=True):
            assert sorted(weights[mask]) == list(range(13 - size, 13))
    np.testing.assert_allclose(path.payoffs, path.masks @ weights)


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
@pytest.mark.parametrize("minimum", [1, 2])
def test_every_search_keeps_the_floors(search, minimum):
    # By worth alone, the second group would leave whole, and the third one nearly.
    game = additive([9, 8, 7, 6, 5, -3, -2, -1, 1, 2, 0.1])
    groups = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3])
    low = 1 + 3 * minimum
    path = search.search(
        game,
        ShapleyScorer(),
        [low, low + 1, 9],
        groups=groups,
        min_per_group=minimum,
    )
    for mask in path.masks:
        floors = np.minimum(minimum, np.bincount(groups))
        assert (np.bincount(groups[mask], minlength=4) >= floors).all()
    assert path.masks.sum(axis=1).tolist() == [low, low + 1, 9]


@pytest.mark.parametrize(
    "search",
    [IteratedPruning(step=2), IteratedBuilding(step=2), IteratedBuilding()],
)
def test_building_and_pruning_are_nested(search):
    path = search.search(random_game(9), ShapleyScorer(method="exact"), [2, 3, 6, 8])
    for small, large in zip(path.masks[:-1], path.masks[1:], strict=True):
        assert not (small & ~large).any()


@pytest.mark.parametrize(
    ("search", "asked"),
    [
        (TopN(), [10]),
        (IteratedPruning(step=3), [10, 7]),
        (IteratedPruning(step=0.5), [10, 5]),
        # A share of those left, one player at least: 10 less 4, 6 less 2.
        (IteratedPruning(step=0.4), [10, 6]),
        (IteratedPruning(step=0.01), [10, 9, 8, 7, 6, 5]),
        # The last step is cut short at the size that was asked for.
        (IteratedPruning(step=4), [10, 6]),
        (IteratedPruning(step=np.int64(6)), [10]),
        (IteratedBuilding(step=3), [10, 7]),
        (IteratedBuilding(step=1), [10, 9, 8, 7]),
        (IteratedBuilding(step=0.5), [10, 9, 8, 7]),
        (IteratedBuilding(step=0.99), [10, 9, 8, 7]),
    ],
)
def test_steps_are_players_or_shares(search, asked):
    scorer = CountingScorer()
    search.search(additive(np.arange(10.0)), scorer, [4])
    assert scorer.asked == asked


@pytest.mark.parametrize("search", [IteratedPruning, IteratedBuilding])
@pytest.mark.parametrize("step", [0, -1, 0.0, 1.0, 1.5, -0.1, float("nan")])
def test_a_step_that_is_no_step_is_refused(search, step):
    with pytest.raises(ValueError, match=r"'step' parameter.* range \(0\.0, 1\.0\)"):
        search(step=step).search(additive(np.ones(4)), ShapleyScorer(), [2])


@pytest.mark.parametrize("search", [IteratedPruning, IteratedBuilding])
@pytest.mark.parametrize("step", [True, "0.1", None])
def test_a_step_that_is_no_number_is_refused(search, step):
    with pytest.raises(TypeError, match=r"step.? .*must be an int"):
        search(step=step).search(additive(np.ones(4)), ShapleyScorer(), [2])


@pytest.mark.parametrize("search", [TopN(), IteratedPruning()])
def test_a_search_that_needs_a_scorer_says_so(search):
    with pytest.raises(ValueError, match=f"scorer=None: {type(search).__name__} needs"):
        search.search(additive(np.ones(4)), None, [2])


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([], "one or more integers"),
        ([1.5], r"one or more integers; got \[1.5\]"),
        ([True], "one or more integers"),
        ([2, 11], r"sizes=\[2, 11\] must lie between 2 .* and the 10 players"),
        ([1], r"between 2 \(the floors of 2 groups\)"),
        ([0], "between 2"),
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes, message):
    groups = np.arange(10) // 5
    with pytest.raises(ValueError, match=message):
        TopN().search(additive(np.ones(10)), ShapleyScorer(), sizes, groups=groups)


def test_sizes_are_sorted_and_told_once():
    game = additive(np.arange(5.0))
    path = IteratedBuilding().search(game, None, [4, 2, 4])
    assert path.sizes.tolist() == [2, 4]
    assert TopN().search(game, ShapleyScorer(), 3).sizes.tolist() == [3]


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_among_equals_the_smaller_tie_leaves_first(search):
    ties = np.array([3.0, 1.0, 2.0, 6.0, 5.0, 4.0])
    path = search.search(additive(np.ones(6)), ShapleyScorer(), [2, 4], ties=ties)
    assert np.flatnonzero(path.masks[0]).tolist() == [3, 4]
    assert np.flatnonzero(path.masks[1]).tolist() == [0, 3, 4, 5]
    plain = search.search(additive(np.ones(6)), ShapleyScorer(), [2, 4])
    assert np.flatnonzero(plain.masks[1]).tolist() == [0, 1, 2, 3]


def test_building_without_a_scorer_is_greedy():
    game = random_game(8)
    order, _ = game.greedy_order(7)
    path = IteratedBuilding(step=5).search(game, None, [1, 3, 7])
    for size, mask in zip(path.sizes, path.masks, strict=True):
        assert set(np.flatnonzero(mask)) == set(order[:size])


def test_greedy_building_in_groups_is_greedy_where_floors_allow_it():
    game = random_game(8)
    order, _ = game.greedy_order(4)
    groups = np.zeros(8, int)
    # Every group has a player among the first four.
    groups[order[1]], groups[order[2]] = 1, 2
    path = IteratedBuilding().search(game, None, [4], groups=groups)
    assert set(np.flatnonzero(path.masks[0])) == set(order)
    # And where they do not, the last player comes from the group that has none.
    groups = np.zeros(8, int)
    groups[[p for p in range(8) if p not in order]] = 1
    path = IteratedBuilding().search(game, None, [4], groups=groups)
    kept = set(np.flatnonzero(path.masks[0]))
    assert set(order[:3]) <= kept
    assert groups[list(kept)].sum() == 1


def test_layerwise_pruning_keeps_equal_shares():
    weights = np.r_[np.arange(100, 112), np.arange(8), 50, 51, 52, 53]
    groups = np.r_[np.zeros(12), np.ones(8), np.full(4, 2)].astype(int)
    search = IteratedPruning(step=2, layerwise=True)
    path = search.search(additive(weights), ShapleyScorer(), [6, 12, 18], groups=groups)
    for mask, share in zip(path.masks, (0.25, 0.5, 0.75), strict=True):
        counts = np.bincount(groups[mask])
        assert np.abs(counts - share * np.array([12, 8, 4])).max() <= 1
        for group in range(3):
            own = np.flatnonzero(groups == group)
            assert mask[own[-counts[group] :]].all()


def test_layerwise_pruning_heeds_ties_within_a_group():
    ties = np.array([1.0, 2.0, 3.0, 4.0, 8.0, 7.0, 6.0, 5.0])
    groups = np.arange(8) // 4
    search = IteratedPruning(step=4, layerwise=True)
    path = search.search(
        additive(np.ones(8)), ShapleyScorer(), [4], groups=groups, ties=ties
    )
    assert np.flatnonzero(path.masks[0]).tolist() == [2, 3, 4, 5]


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Search()


def test_pruning_plays_the_game_of_those_who_are_left():
    # In the whole game 2 and 3 are needed by nobody but each other.
    def payoff(coalitions):
        a, b, c, d = coalitions.T
        return 2.0 * (a & b) + 3.0 * (c & d) + 0.1 * a

    game = CallableGame(payoff, 4)
    path = IteratedPruning(step=1).search(game, ShapleyScorer(), [2])
    assert path.payoffs.tolist() == [3.0]


def test_airport_building_takes_the_dearest_first():
    path = IteratedBuilding().search(AirportGame([1, 5, 3]), None, [1])
    assert path.masks.tolist() == [[False, True, False]]


@pytest.mark.parametrize(
    "search",
    [TopN(layerwise=True), IteratedPruning(2, True), IteratedBuilding(2, True)],
)
def test_layerwise_searches_keep_the_same_share_of_each_group(search):
    groups = np.repeat([0, 1, 2], [8, 4, 4])
    game = AirportGame(np.arange(1.0, 17.0))
    scorer = ShapleyScorer(method="exact")
    path = search.search(game, scorer, [4, 8, 12], groups=groups)
    counts = [np.bincount(groups[mask]).tolist() for mask in path.masks]
    assert counts == [[2, 1, 1], [4, 2, 2], [6, 3, 3]]


def test_greedy_building_keeps_to_quotas():
    groups = np.repeat([0, 1], [6, 2])
    game = AirportGame(np.arange(8.0, 0.0, -1.0))
    search = IteratedBuilding(layerwise=True)
    mask = search.search(game, None, [4], groups=groups).masks[0]
    assert np.bincount(groups[mask]).tolist() == [3, 1]


@pytest.mark.parametrize("scorer", [None, ShapleyScorer(method="exact")])
@pytest.mark.parametrize("groups", [None, [0, 0, 1, 1, 1]])
def test_of_equals_the_larger_value_joins_first(scorer, groups):
    game, ties = additive(np.ones(5)), np.arange(5.0)
    path = IteratedBuilding().search(game, scorer, [2], groups=groups, ties=ties)
    expected = [3, 4] if groups is None else [1, 4]
    floors = {} if groups is None else {"min_per_group": 1}
    path = IteratedBuilding().search(
        game, scorer, [2], groups=groups, ties=ties, **floors
    )
    np.testing.assert_array_equal(np.flatnonzero(path.mask_at(2)), expected)


@pytest.mark.parametrize("scorer", [None, ShapleyScorer(method="exact")])
def test_quotas_do_not_depend_on_the_sizes_on_the_way(scorer):
    game = additive(np.random.default_rng(0).random(12))
    groups = np.repeat([0, 1, 2], [2, 5, 5])
    building = IteratedBuilding(step=1, layerwise=True)
    alone, path = (
        building.search(game, scorer, sizes, groups=groups).mask_at(8)
        for sizes in ([8], list(range(3, 9)))
    )
    np.testing.assert_array_equal(alone, path)
    assert np.bincount(groups[alone]).min() >= 1
