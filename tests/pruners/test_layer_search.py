"""How many players each layer keeps: the games' own split, or a clearly better one."""

from types import SimpleNamespace

import numpy as np
import pytest

from skprune.evaluation import clear_gain
from skprune.pruners._layers import LayerSearch, n_tried

START, N_SAMPLES = (14, 6), 2000
PLAYERS = SimpleNamespace(group_of=np.repeat([0, 1], 20), groups=["a", "b"])


class Games:
    """Games that give one split, and keep the first players of each layer."""

    players = PLAYERS

    def allocate(self, size, min_per_group):
        assert (size, min_per_group) == (20, 1)
        return START

    def select(self, counts, pick):
        return np.arange(40) % 20 < np.repeat(counts, 20)


def searched(earned, told=None):
    """The split that is found where networks earn what a function of it says."""
    stage = SimpleNamespace(
        players=PLAYERS,
        valid=range(N_SAMPLES),
        train=range(N_SAMPLES),
        are_few=lambda n_players: False,
        quick_repairer=SimpleNamespace(repaired=lambda keep, opened: keep),
        earned=lambda keep, samples: earned(int(keep[:20].sum())),
    )
    step = SimpleNamespace(spend=[].append if told is None else told.append)
    search = LayerSearch(stage, Games(), None, None, False, 1, step)
    keep = search.best(20)
    assert keep.sum() == 20
    return int(keep[:20].sum()), int(keep[20:].sum())


def test_a_split_that_may_be_better_by_chance_is_not_taken():
    rng = np.random.default_rng(0)
    before = rng.normal(size=N_SAMPLES)

    def earned(count, gain):
        if count == START[0]:
            return before
        noise = rng.normal(size=N_SAMPLES)
        # Exactly so large a gain, whatever the noise.
        return before + gain + noise - noise.mean()

    error = 1 / N_SAMPLES**0.5
    assert searched(lambda count: earned(count, 0.8 * error)) == START
    assert searched(lambda count: earned(count, 1.3 * error)) != START


def test_the_best_split_is_found_where_differences_are_clear():
    told = []
    found = searched(lambda count: np.full(N_SAMPLES, -abs(count - 4)), told)
    assert found == (4, 16)
    # All that may be tried is told, whether it was needed or not.
    assert sum(told) == n_tried(PLAYERS, 20, refinement=False) == 20


@pytest.mark.parametrize("worth", [np.nan, -1.0])
def test_worse_splits_and_nan_lose(worth):
    values = {START[0]: 0.0}
    assert searched(lambda n: np.full(N_SAMPLES, values.get(n, worth))) == START


def test_a_metric_is_one_number_whose_gain_is_clear():
    assert clear_gain(np.array([0.5]), np.array([0.25])) == 0.25
    assert clear_gain(np.array([1.0, 0.0]), np.array([0.0, 0.0])) == pytest.approx(
        0.5 - 0.5 / 2**0.5
    )
