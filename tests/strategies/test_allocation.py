"""Splits of a total: optimal where the payoff is concave, within bounds always."""

import itertools

import numpy as np
import pytest

from skprune.strategies import search_allocation


def concave(seed, n_groups):
    """A separable concave payoff with a known way to its optimum."""
    rng = np.random.default_rng(seed)
    gains = [np.sort(rng.uniform(size=40))[::-1] for _ in range(n_groups)]
    sums = [np.concatenate([[0], np.cumsum(gain)]) for gain in gains]
    return lambda counts: sum(s[c] for s, c in zip(sums, counts, strict=True))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n_groups", [2, 3])
def test_the_optimum_of_separable_concave_functions_is_found(seed, n_groups):
    payoff, capacities = concave(seed, n_groups), [20, 30, 10][:n_groups]
    found = search_allocation(payoff, 24, capacities, max_evaluations=500)
    splits = itertools.product(*(range(1, high + 1) for high in capacities))
    best = max(payoff(split) for split in splits if sum(split) == 24)
    assert payoff(found) == pytest.approx(best, abs=1e-12)
    assert sum(found) == 24


@pytest.mark.parametrize("seed", range(4))
def test_floors_and_capacities_hold_in_every_split_played(seed):
    played, payoff = [], concave(seed, 3)

    def recording(counts):
        played.append(counts)
        return payoff(counts)

    found = search_allocation(
        recording,
        18,
        [20, 5, 10],
        floors=[2, 9, 3],
        starts=[[1, 0, 0], [0, 0, 7.5]],
        max_evaluations=200,
    )
    splits = np.array(played)
    # A floor above the capacity means the whole group.
    assert (splits >= [2, 5, 3]).all()
    assert (splits <= [20, 5, 10]).all()
    assert (splits.sum(axis=1) == 18).all()
    assert len(set(played)) == len(played)
    assert found in played
    assert payoff(found) == max(map(payoff, played))


@pytest.mark.parametrize("maximum", [1, 2, 5, 11])
def test_no_more_splits_are_played_than_asked_for(maximum):
    played = []
    search_allocation(
        lambda counts: played.append(counts) or float(np.prod(counts)),
        40,
        [40, 40, 40],
        starts=[[8, 1, 1], [1, 8, 1]],
        max_evaluations=maximum,
    )
    assert 1 <= len(played) <= maximum


def test_starts_are_played_in_proportion():
    played = []
    search_allocation(
        lambda counts: played.append(counts) or 0.0,
        10,
        [100, 100],
        starts=[[4, 1]],
        max_evaluations=3,
    )
    assert played[0] == (5, 5)
    assert (8, 2) in played


@pytest.mark.parametrize(("total", "counts"), [(7, (7,)), (1, (1,))])
def test_one_group_gets_all(total, counts):
    assert search_allocation(lambda counts: 0.0, total, [9]) == counts


def test_the_tightest_totals_have_one_split():
    assert search_allocation(lambda c: 0.0, 2, [3, 4]) == (1, 1)
    assert search_allocation(lambda c: 0.0, 7, [3, 4]) == (3, 4)


@pytest.mark.parametrize("total", [1, 8])
def test_a_total_that_cannot_be_split_is_refused(total):
    with pytest.raises(
        ValueError, match=f"total={total} .*floors sum to 2 and the capacities to 7"
    ):
        search_allocation(lambda counts: 0.0, total, [3, 4])


def test_not_a_number_is_less_than_any_payoff():
    def payoff(counts):
        return float("nan") if counts[0] == 5 else -abs(counts[0] - 3)

    assert search_allocation(payoff, 10, [20, 20]) == (3, 7)
