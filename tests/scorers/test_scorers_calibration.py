"""Standard errors say how far estimates are off: z has a standard deviation near 1."""

import numpy as np
import pytest

from skprune.games import (
    AirportGame,
    CallableGame,
    GloveGame,
    PerturbedUniformGame,
    un_security_council,
)
from skprune.scorers import BanzhafScorer, BiasedBanzhafScorer, ShapleyScorer

N_RUNS = 150

SHAPLEY = [ShapleyScorer(sampler=s) for s in ("antithetic", "sobol", "uniform")]
BANZHAF = [
    scorer.set_params(sampler=s)
    for s in ("flips", "least_squares", "sample_reuse")
    for scorer in (BanzhafScorer(), BiasedBanzhafScorer(0.75))
]


def z_scores(scorer, game, n_evaluations):
    exact = scorer.set_params(method="exact").estimate(game).values
    scorer.set_params(method="sampling", n_evaluations=n_evaluations)
    scores = [
        scorer.set_params(random_state=seed).estimate(game) for seed in range(N_RUNS)
    ]
    errors = np.array([run.values for run in scores]) - exact
    return errors / np.array([run.standard_errors for run in scores])


@pytest.mark.parametrize("scorer", SHAPLEY + BANZHAF, ids=repr)
@pytest.mark.parametrize("n_evaluations", [1500, 3000])
def test_permanent_members(scorer, n_evaluations):
    z = z_scores(scorer, un_security_council(), n_evaluations)[:, :5]
    assert 0.8 < z.std() < 1.25
    assert abs(z.mean()) < 0.3


@pytest.mark.parametrize("scorer", SHAPLEY + BANZHAF, ids=repr)
@pytest.mark.parametrize(
    "game",
    [PerturbedUniformGame(10, random_state=0), GloveGame(4, 5)],
    ids=["perturbed", "glove"],
)
def test_all_players(scorer, game):
    z = z_scores(scorer, game, 600)
    assert 0.8 < z.std() < 1.25
    # Players one by one: wider, for each has few runs.
    assert z.std(axis=0).min() > 0.7
    assert z.std(axis=0).max() < 1.4


@pytest.mark.parametrize("scorer", BANZHAF[2:], ids=repr)
def test_estimates_from_coalitions_of_rare_members(scorer):
    z = z_scores(scorer, un_security_council(), 600)[:, 5:]
    assert 0.8 < z.std() < 1.25


@pytest.mark.parametrize("scorer", [*SHAPLEY, BANZHAF[0]], ids=repr)
def test_a_swing_never_seen_is_not_certain(scorer):
    # The last player swings in few samples or none: an error of 0 would be a lie.
    game = AirportGame([5.0] * 9 + [5.01])
    scorer.set_params(method="sampling", n_evaluations=1500, random_state=0)
    scores = scorer.estimate(un_security_council())
    assert (scores.standard_errors > 0).all()
    assert scorer.estimate(game).standard_errors[-1] > 0


def test_no_spread_no_error():
    # Additive games have the same marginals everywhere.
    game = CallableGame(lambda c: c @ np.arange(6.0), 6)
    scores = ShapleyScorer(method="sampling", n_evaluations=100).estimate(game)
    np.testing.assert_allclose(scores.values, np.arange(6.0))
    assert not scores.standard_errors.any()


def test_one_sample_leaves_the_error_unknown():
    scorer = ShapleyScorer(method="sampling", n_evaluations=12)
    assert np.isinf(scorer.estimate(AirportGame(np.ones(10))).standard_errors).all()
