"""Swaps: never worse, of the same size, above the floors."""

import numpy as np
import pytest

from skprune.games import CallableGame, TableGame, un_security_council
from skprune.strategies import IteratedLocalSearch, SwapRefinement

REFINEMENTS = {
    "swaps": SwapRefinement(),
    "one candidate": SwapRefinement(n_candidates=1),
    "one round": SwapRefinement(max_rounds=1),
    "local search": IteratedLocalSearch(n_restarts=4, random_state=0),
}


def random_game(n_players, seed):
    return TableGame(np.random.default_rng(seed).normal(size=2**n_players))


@pytest.mark.parametrize("refinement", REFINEMENTS.values(), ids=REFINEMENTS)
@pytest.mark.parametrize("seed", range(5))
def test_swaps_keep_the_size_and_never_lower_the_payoff(refinement, seed):
    game, rng = random_game(9, seed), np.random.default_rng(seed)
    keep = rng.permutation(np.arange(9) < 4)
    before = keep.copy()
    better, payoff = refinement.refine(game, keep)
    np.testing.assert_array_equal(keep, before)
    assert better.sum() == 4
    assert payoff == game(better[None])[0] >= game(keep[None])[0]


@pytest.mark.parametrize("refinement", REFINEMENTS.values(), ids=REFINEMENTS)
@pytest.mark.parametrize("seed", range(5))
def test_swaps_keep_the_floors(refinement, seed):
    groups = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
    weights = np.array([9, 8, 7, 1, 2, 3, 0.4, 0.5, 0.6])
    weights = weights + np.random.default_rng(seed).uniform(size=9) / 10
    game = CallableGame(lambda coalitions: coalitions @ weights, 9)
    start = np.isin(np.arange(9), [0, 3, 4, 6, 7])
    keep, payoff = refinement.refine(game, start, groups=groups, min_per_group=1)
    assert keep.sum() == 5
    assert (np.bincount(groups[keep], minlength=3) >= 1).all()
    assert payoff > game(start[None])[0]


def test_swaps_find_the_optimum_of_an_additive_game():
    weights = np.random.default_rng(0).permutation(20)
    game = CallableGame(lambda coalitions: coalitions @ weights, 20)
    keep, payoff = SwapRefinement().refine(game, np.arange(20) < 6)
    assert sorted(weights[keep]) == [14, 15, 16, 17, 18, 19]
    assert payoff == sum(range(14, 20))


def test_swaps_across_groups_stop_at_the_floor():
    weights = np.array([5.0, 4.0, 3.0, 1.0, 0.5])
    game = CallableGame(lambda coalitions: coalitions @ weights, 5)
    start = np.array([True, False, False, False, True])
    keep, _ = SwapRefinement().refine(game, start, groups=[0, 0, 0, 1, 1])
    assert np.flatnonzero(keep).tolist() == [0, 3]
    keep, _ = SwapRefinement().refine(
        game, start, groups=[0, 0, 0, 1, 1], min_per_group=0
    )
    assert np.flatnonzero(keep).tolist() == [0, 1]


def test_everybody_is_asked_before_swaps_end():
    # After a round the next ones ask few; the last player needed is not among them.
    game = CallableGame(lambda coalitions: coalitions @ np.arange(30), 30)
    refinement = SwapRefinement(n_candidates=1, n_substitutes=1)
    keep, _ = refinement.refine(game, np.arange(30) < 6)
    assert np.flatnonzero(keep).tolist() == [24, 25, 26, 27, 28, 29]


def test_quotas_leave_swaps_within_groups():
    weights = np.array([1.0, 2.0, 10.0, 20.0, 30.0])
    game = CallableGame(lambda coalitions: coalitions @ weights, 5)
    start, groups = np.array([1, 0, 1, 0, 0], dtype=bool), [0, 0, 1, 1, 1]
    refinement = SwapRefinement(n_substitutes=1)
    keep, _ = refinement.refine(game, start, groups=groups, min_per_group=[1, 1])
    assert np.flatnonzero(keep).tolist() == [1, 4]


def test_of_two_swaps_that_exclude_each_other_the_better_is_made():
    # Players 2 and 3 are worth the more, but one makes the other worthless.
    def payoff(coalitions):
        return (
            1.0 * coalitions[:, 2]
            + 3.0 * coalitions[:, 3]
            - 3.5 * (coalitions[:, 2] & coalitions[:, 3])
        )

    refinement = SwapRefinement(max_rounds=1)
    keep, earned = refinement.refine(CallableGame(payoff, 4), np.arange(4) < 2)
    assert earned == 3.0
    assert keep[3]
    assert not keep[2]


@pytest.mark.parametrize("name", ["swaps", "one round", "local search"])
def test_one_missing_member_of_the_council_is_found(name):
    start = (np.arange(15) < 4) | (np.arange(15) > 9)
    keep, payoff = REFINEMENTS[name].refine(un_security_council(), start)
    assert payoff == 1.0
    assert keep[:5].all()


@pytest.mark.parametrize("refinement", REFINEMENTS.values(), ids=REFINEMENTS)
@pytest.mark.parametrize("everybody", [True, False])
def test_with_everybody_or_nobody_there_is_nothing_to_swap(refinement, everybody):
    game, keep = random_game(4, 0), np.full(4, everybody)
    same, payoff = refinement.refine(game, keep)
    np.testing.assert_array_equal(same, keep)
    assert payoff == game(keep[None])[0]


def test_no_more_rounds_than_asked_for():
    weights = np.arange(20)
    game = CallableGame(lambda coalitions: coalitions @ weights, 20)
    start = np.arange(20) < 6
    once = SwapRefinement(n_candidates=1, max_rounds=1).refine(game, start)[0]
    assert np.flatnonzero(once).tolist() == [1, 2, 3, 4, 5, 19]
    twice = SwapRefinement(n_candidates=1, max_rounds=2).refine(game, start)[0]
    assert np.flatnonzero(twice).tolist() == [2, 3, 4, 5, 18, 19]


def trap():
    """A game whose best pair no single swap leads to."""

    def payoff(coalitions):
        return 1.0 * coalitions[:, :2].all(axis=1) + 3.0 * coalitions[:, 2:4].all(
            axis=1
        )

    return CallableGame(payoff, 6)


def test_local_search_leaves_a_trap_that_swaps_stay_in():
    start = np.arange(6) < 2
    assert SwapRefinement().refine(trap(), start)[1] == 1.0
    search = IteratedLocalSearch(n_restarts=40, random_state=0)
    assert search.refine(trap(), start)[1] == 3.0


def test_local_search_is_reproducible():
    game, start = random_game(12, 3), np.arange(12) < 6
    search = IteratedLocalSearch(n_restarts=3, kick=0.5, random_state=4)
    first, second = search.refine(game, start), search.refine(game, start)
    np.testing.assert_array_equal(first[0], second[0])
    assert first[1] == second[1]


def test_local_search_uses_the_refinement_it_is_given():
    class Recording(SwapRefinement):
        starts = ()

        def _improve(self, game, keep, *rest):
            self.starts = (*self.starts, np.array(keep))
            return super()._improve(game, keep, *rest)

    local = Recording(max_rounds=1)
    groups = np.arange(10) // 5
    start = np.isin(np.arange(10), [0, 1, 5, 6])
    search = IteratedLocalSearch(local, n_restarts=3, kick=0.5, random_state=0)
    search.refine(random_game(10, 0), start, groups=groups)
    assert len(local.starts) == 4
    # A disturbance exchanges players of one group, so that floors hold.
    assert all((np.bincount(groups[s], minlength=2) >= 1).all() for s in local.starts)


def test_the_search_inside_checks_its_parameters_too():
    search = IteratedLocalSearch(SwapRefinement(n_candidates=0))
    with pytest.raises(ValueError, match="'n_candidates' parameter of SwapRefinement"):
        search.refine(random_game(4, 0), np.arange(4) < 2)
