"""Survivors are replaced where the repaired network gains by it, and only there."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from skprune import GTAPPruner, mlp_classifier
from skprune.games import ReconstructionGame
from skprune.pruners._replacements import Replacements, n_replacements


class Players:
    group_of = np.repeat([0, 1], 6)


class Games:
    """Random reconstruction games of two layers; counts how often they are made."""

    players = Players

    def __init__(self):
        self.n_made = 0

    def game(self, group, keep):
        self.n_made += 1
        x = np.random.default_rng(group).normal(size=(50, 8))
        moments = np.cov(x.T)
        return ReconstructionGame(
            moments[:6, :6], moments[:6, 6:], moments[6:, 6:].trace()
        )


@pytest.fixture
def keep():
    return np.isin(np.arange(12), [0, 1, 6, 7, 8])


def test_nobody_is_replaced_where_nothing_is_gained(keep):
    told = []
    replacements = Replacements(Games(), lambda mask: 0.0, told.append)
    assert np.array_equal(replacements.improved(keep), keep)
    # One round was enough to see it; what the other would have tried is told as well.
    assert sum(told) == n_replacements(5) == 10


def test_each_layer_keeps_its_number_and_the_worth_never_falls(keep):
    worth = np.random.default_rng(3).uniform(size=12)
    seen = []

    def worth_of(mask):
        seen.append(mask)
        return worth[mask].sum()

    games = Games()
    better = Replacements(games, worth_of, lambda n: None).improved(keep)
    assert worth[better].sum() > worth[keep].sum()
    assert better[:6].sum() == 2
    assert better[6:].sum() == 3
    assert all(mask[:6].sum() == 2 and mask[6:].sum() == 3 for mask in seen)
    assert worth[better].sum() == max(worth[mask].sum() for mask in seen)
    assert keep.sum() == 5


def test_a_worth_that_is_no_number_replaces_nobody(keep):
    replacements = Replacements(Games(), lambda mask: np.nan, lambda n: None)
    assert np.array_equal(replacements.improved(keep), keep)


def test_a_layer_that_stays_whole_has_nobody_to_offer():
    everybody = np.ones(12, dtype=bool)
    tried = []
    Replacements(Games(), lambda mask: tried.append(mask) or 0.0, print).improved(
        everybody
    )
    assert len(tried) == 1


def test_games_are_made_again_only_where_a_layer_behind_changed(keep):
    games = Games()
    Replacements(games, lambda mask: 0.0, lambda n: None).improved(keep)
    assert games.n_made == 2


def test_many_survivors_are_left_alone():
    assert n_replacements(24) == 48
    assert n_replacements(25) == 0


def test_few_survivors_of_a_net_gain_by_it():
    X, y = load_digits(return_X_y=True)
    kept = {}
    for refine in (True, False):
        scores = []
        for seed in range(3):
            net = mlp_classifier((32, 32), max_epochs=10, lr=0.01, device="cpu")
            pruner = GTAPPruner(
                net, n_players_to_keep=6, refine=refine, random_state=seed
            )
            scores.append(pruner.fit(X / 16, y).score(X / 16, y))
        kept[refine] = np.mean(scores)
    assert kept[True] > kept[False]
