"""Who leaves next: worked examples, floors, ties and bad parameters."""

import numpy as np
import pytest
from sklearn.base import clone

from skprune.strategies import BelowShare, Bottom, Bucket


def leavers(strategy, values, **options):
    return np.flatnonzero(strategy.leavers(values, **options)).tolist()


def test_the_bottom_leaves():
    assert leavers(Bottom(), [0.3, 0.1, 0.2]) == [1]
    assert leavers(Bottom(2), [0.3, -0.1, 0.2]) == [1, 2]
    # Somebody stays, and nobody leaves where only he is left.
    assert leavers(Bottom(5), [0.3, 0.1, 0.2]) == [1, 2]
    assert leavers(Bottom(5), [0.3]) == []


def test_among_equals_the_smaller_tie_and_then_the_later_player_leaves():
    values = [1.0, 1.0, 1.0, 2.0]
    assert leavers(Bottom(1), values) == [2]
    assert leavers(Bottom(2), values, ties=[0.3, 0.1, 0.2, 0.0]) == [1, 2]
    assert leavers(Bucket(0.15), [0.1, 0.1, 0.8], ties=[0, 1, 2]) == [0]


@pytest.mark.parametrize(
    ("values", "share", "leaving"),
    [
        # Sums of the sorted scores: .05, .15, .5, 1.
        ([0.05, 0.5, 0.1, 0.35], 0.2, [0, 2]),
        ([0.05, 0.5, 0.1, 0.35], 0.16, [0, 2]),
        ([0.05, 0.5, 0.1, 0.35], 0.1, [0]),
        # The sum has to stay below: 0.25 is not below 0.25.
        ([0.25, 0.25, 0.5], 0.25, [1]),
        # Nobody qualifies: the worst leaves.
        ([0.3, 0.3, 0.4], 0.2, [1]),
        # Signed: -.2, -.1, 0, .1, .3 and 1.3: two negative players buy two more.
        ([1.0, -0.2, 0.1, 0.1, 0.1, 0.2], 0.2, [1, 2, 3, 4]),
        # No positive sum: the worst leaves.
        ([0.1, -0.5, 0.2], 0.2, [1]),
        ([0.0, 0.0, 0.0], 0.2, [2]),
        # Somebody stays, whatever the share.
        ([0.1, 0.2, 0.7], 2.0, [0, 1]),
    ],
)
def test_the_bucket_holds_the_longest_run_below_its_share(values, share, leaving):
    assert leavers(Bucket(share), values) == leaving


@pytest.mark.parametrize(
    ("values", "factor", "leaving"),
    [
        ([0.1, 0.5, 0.2, 0.4], 0.5, [0]),
        ([0.1, 0.5, 0.2, 0.4], 0.9, [0, 2]),
        ([0.1, 0.5, -0.2, 0.4], 0.5, [2]),
        ([0.3, 0.3, 0.3], 0.5, [2]),
        ([0.1, -0.5, 0.2], 0.5, [1]),
        ([0.3, 0.2, 0.25], 3.0, [1, 2]),
    ],
)
def test_players_below_a_share_of_the_mean_leave(values, factor, leaving):
    assert leavers(BelowShare(factor), values) == leaving


@pytest.mark.parametrize(
    ("strategy", "floors", "leaving"),
    [
        (Bottom(2), 1, [0, 3]),
        (Bottom(2), 2, [0]),
        (Bottom(5), [1, 0], [0, 1, 3, 4]),
        (Bottom(5), [3, 2], []),
        # Those who have to stay buy nobody a way out: .1 and .2, not .01.
        (Bucket(0.35), [1, 2], [0, 1]),
        (BelowShare(10.0), [2, 1], [0, 3]),
    ],
)
def test_the_best_of_each_group_stay(strategy, floors, leaving):
    values, groups = [0.1, 0.2, 0.6, 0.01, 0.09], [0, 0, 0, 7, 7]
    mask = strategy.leavers(values, groups=groups, min_per_group=floors)
    assert np.flatnonzero(mask).tolist() == leaving


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (Bottom(0), "'n' parameter of Bottom"),
        (Bottom(1.5), "'n' parameter of Bottom"),
        (Bucket(0.0), "'share' parameter of Bucket"),
        (BelowShare(-1), "'factor' parameter of BelowShare"),
    ],
)
def test_bad_parameters_are_named(strategy, message):
    with pytest.raises(ValueError, match=message):
        strategy.leavers([0.1, 0.2])


def test_strategies_are_estimators():
    assert clone(Bucket(0.3)).get_params() == {"share": 0.3}
    assert repr(BelowShare(0.7)) == "BelowShare(factor=0.7)"
