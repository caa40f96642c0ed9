"""Scores in, masks of who stays out: worked examples, floors and ties."""

import numpy as np
import pytest

from skprune.strategies import check_groups, keep_best


def players(mask):
    return np.flatnonzero(mask).tolist()


def test_the_best_players_stay():
    assert players(keep_best([0.1, 0.5, -0.2, 0.4], 2)) == [1, 3]
    assert players(keep_best([0.1, 0.5, -0.2, 0.4], 4)) == [0, 1, 2, 3]


def test_every_group_keeps_its_floor():
    values, groups = [9, 8, 7, 6, 1, 2, 3], [0, 0, 0, 0, 1, 1, 2]
    assert players(keep_best(values, 4, groups=groups)) == [0, 1, 5, 6]
    floors = keep_best(values, 5, groups=groups, min_per_group=2)
    # The last group has one player, who is all that it can keep.
    assert players(floors) == [0, 1, 4, 5, 6]


def test_among_equals_the_smaller_tie_and_then_the_later_player_leaves():
    values = [1.0, 1.0, 1.0, 2.0]
    assert players(keep_best(values, 2, ties=[0.3, 0.1, 0.2, 0.0])) == [0, 3]
    assert players(keep_best(values, 3, ties=[0.3, 0.1, 0.2, 0.0])) == [0, 2, 3]
    assert players(keep_best(values, 3)) == [0, 1, 3]


@pytest.mark.parametrize(
    ("n_keep", "minimum", "message"),
    [
        (1, 1, r"n_keep=1 .*floor of 2 players \(min_per_group=1\) and all 4"),
        (5, 1, "n_keep=5 .*all 4; change n_keep or min_per_group"),
        (3, 2, r"n_keep=3 .*floor of 4 players \(min_per_group=2\)"),
    ],
)
def test_what_cannot_be_kept_is_refused(n_keep, minimum, message):
    with pytest.raises(ValueError, match=message):
        keep_best([1, 2, 3, 4], n_keep, groups=[0, 0, 1, 1], min_per_group=minimum)


def test_groups_are_numbered_without_gaps():
    np.testing.assert_array_equal(check_groups([7, 2, 7, 5], 4), [2, 0, 2, 1])
    np.testing.assert_array_equal(check_groups(None, 3), [0, 0, 0])
    with pytest.raises(
        ValueError, match=r"one group for each of the 3 players.*\(2,\)"
    ):
        check_groups([0, 1], 3)


def test_floors_that_sum_to_the_size_are_quotas():
    values, groups = np.arange(6.0), [0, 0, 0, 1, 1, 1]
    keep = keep_best(values, 3, groups=groups, min_per_group=[2, 1])
    assert np.flatnonzero(keep).tolist() == [1, 2, 5]


@pytest.mark.parametrize("floors", [-1, [1, -1], [1, 1, 1], 0.5])
def test_bad_floors(floors):
    with pytest.raises(ValueError, match="min_per_group"):
        keep_best(np.arange(4.0), 3, groups=[0, 0, 1, 1], min_per_group=floors)
