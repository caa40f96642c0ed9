"""What every scorer promises, checked over one list of them."""

import inspect
import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone

from skprune import scorers
from skprune.exceptions import ConvergenceWarning
from skprune.games import (
    AirportGame,
    CallableGame,
    Game,
    GloveGame,
    PerturbedUniformGame,
    TableGame,
    un_security_council,
)
from skprune.scorers import (
    BanzhafScorer,
    BiasedBanzhafScorer,
    PowerIndexScorer,
    ShapleyScorer,
)


class LeaveOneOutScorer(PowerIndexScorer):
    """An index of a user: the base class alone must carry it."""

    def coalition_weights(self, n_players):
        return np.append(np.zeros(n_players - 1), 1.0)

    def draw_marginals(self, game, n_samples, rng):
        return game.flip(np.ones((n_samples, game.n_players), dtype=bool))


SCORERS = [
    *(ShapleyScorer(sampler=s) for s in ("antithetic", "sobol", "uniform")),
    *(
        scorer.set_params(sampler=s)
        for s in ("auto", "flips", "least_squares", "sample_reuse")
        for scorer in (BanzhafScorer(), BiasedBanzhafScorer(0.4))
    ),
    LeaveOneOutScorer(),
]

each_scorer = pytest.mark.parametrize("scorer", SCORERS, ids=repr)


class PaidGame(Game):
    """Counts the payoffs that are played."""

    def __init__(self, game):
        self.game, self.n_players, self.paid = game, game.n_players, 0

    def _payoffs(self, coalitions):
        self.paid += len(coalitions)
        return self.game(coalitions)


def sampling(scorer, **params):
    defaults = {"method": "sampling", "random_state": 0}
    return clone(scorer).set_params(**{**defaults, **params})


def test_every_public_scorer_is_in_the_list():
    public = {
        obj
        for _, obj in inspect.getmembers(scorers, inspect.isclass)
        if issubclass(obj, PowerIndexScorer) and not inspect.isabstract(obj)
    }
    assert public <= {type(scorer) for scorer in SCORERS}


@each_scorer
def test_estimator_conventions(scorer):
    copy = clone(scorer)
    assert copy.get_params() == scorer.get_params()
    assert copy.set_params(n_evaluations=77).n_evaluations == 77
    assert "n_evaluations=77" in repr(copy)
    before = copy.get_params()
    sampling(copy, n_evaluations=300).estimate(GloveGame(2, 3))
    assert copy.get_params() == before


@each_scorer
def test_scores_are_complete(scorer):
    scores = sampling(scorer, n_evaluations=500).estimate(GloveGame(3, 4))
    assert scores.values.shape == scores.standard_errors.shape == (7,)
    assert scores.values.dtype == scores.standard_errors.dtype == np.float64
    assert (scores.standard_errors >= 0).all()
    assert scores.stop_reason == "budget"
    assert scores.converged
    np.testing.assert_array_equal(np.sort(scores.ranking()), np.arange(7))
    assert (np.diff(scores.values[scores.ranking()]) <= 0).all()


@each_scorer
@pytest.mark.parametrize("n_evaluations", [100, 333, 2000])
def test_budget_is_kept(scorer, n_evaluations):
    game = PaidGame(GloveGame(3, 4))
    scores = sampling(scorer, n_evaluations=n_evaluations).estimate(game)
    assert scores.n_evaluations <= n_evaluations
    if isinstance(scorer, ShapleyScorer):
        assert scores.n_evaluations == 7 * scores.n_samples + 2
        assert game.paid <= scores.n_evaluations
    else:
        assert game.paid == scores.n_evaluations
        # The coalition in the middle of a flip is played too.
        assert scores.n_evaluations in (scores.n_samples, 8 * scores.n_samples)


@each_scorer
def test_same_seed_same_bits_whatever_the_chunk(scorer):
    scorer = sampling(scorer, n_evaluations=700)
    game, chunked = AirportGame(np.arange(9.0)), AirportGame(np.arange(9.0))
    chunked._chunk_elements = 40
    first, second = scorer.estimate(game), scorer.estimate(chunked)
    np.testing.assert_array_equal(first.values, second.values)
    np.testing.assert_array_equal(first.standard_errors, second.standard_errors)
    if not isinstance(scorer, LeaveOneOutScorer):
        other = sampling(scorer, n_evaluations=700, random_state=1).estimate(game)
        assert (first.values != other.values).any()


@each_scorer
@pytest.mark.parametrize(
    "make",
    [lambda: 5, lambda: np.random.RandomState(5), lambda: np.random.default_rng(5)],
)
def test_every_kind_of_random_state(scorer, make):
    game = GloveGame(2, 3)
    first = sampling(scorer, n_evaluations=200, random_state=make()).estimate(game)
    again = sampling(scorer, n_evaluations=200, random_state=make()).estimate(game)
    np.testing.assert_array_equal(first.values, again.values)


@each_scorer
def test_exact_where_the_budget_allows_it(scorer):
    scorer = clone(scorer).set_params(n_evaluations=128)
    scores = scorer.estimate(GloveGame(3, 4))
    assert (scores.stop_reason, scores.converged) == ("exact", True)
    assert scores.n_evaluations == 128
    assert not scores.standard_errors.any()
    scorer.set_params(n_evaluations=127, random_state=0)
    assert scorer.estimate(GloveGame(3, 4)).stop_reason == "budget"


@each_scorer
def test_exact_is_guarded(scorer):
    scorer = clone(scorer).set_params(method="exact", n_evaluations=2**22)
    with pytest.raises(ValueError, match=r"n_players=21 .*use method='sampling'"):
        scorer.estimate(AirportGame(np.ones(21)))


@each_scorer
def test_budget_below_one_sample(scorer):
    if getattr(scorer, "sampler", None) == "sample_reuse":
        pytest.skip("one sample is one coalition")
    with pytest.raises(ValueError, match=r"n_evaluations=14 .*must be at least \d+"):
        sampling(scorer, n_evaluations=14).estimate(un_security_council())


@each_scorer
@pytest.mark.parametrize("method", ["exact", "sampling"])
def test_nan_payoffs_are_named(scorer, method):
    table = np.arange(16.0)
    table[[5, 15]] = np.nan
    scorer = sampling(scorer, method=method, n_evaluations=200)
    with pytest.raises(ValueError, match="payoff of a coalition is NaN"):
        scorer.estimate(TableGame(table))


@each_scorer
def test_nan_marginals_of_a_native_game_are_refused(scorer):
    class Broken(GloveGame):
        def walk(self, orders):
            return np.full(orders.shape, np.nan)

        flip = walk

    game = Broken(2, 3)
    if getattr(scorer, "sampler", None) in ("least_squares", "sample_reuse"):
        pytest.skip("plays coalitions")
    with pytest.raises(ValueError, match="is NaN or infinite: so are marginals"):
        sampling(scorer, n_evaluations=200).estimate(game)


@each_scorer
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", "guess"),
        ("n_evaluations", 0),
        ("n_evaluations", 10.5),
        ("tol", 0.0),
        ("tol", -1),
        ("stable_ranking", 1.5),
        ("random_state", "seed"),
        ("sampler", "best"),
        ("inclusion_probability", 0.0),
        ("inclusion_probability", 1),
        ("inclusion_probability", "critical"),
    ],
)
def test_bad_parameters_are_refused_before_any_payoff(scorer, name, value):
    if name not in scorer.get_params():
        pytest.skip(f"has no {name}")
    game = PaidGame(GloveGame(2, 3))
    with pytest.raises(
        ValueError, match=f"'{name}' parameter .* Got {value!r} instead"
    ):
        clone(scorer).set_params(**{name: value}).estimate(game)
    assert game.paid == 0


@each_scorer
def test_tolerance_stops_early(scorer):
    if isinstance(scorer, LeaveOneOutScorer):
        pytest.skip("its marginals never vary")
    game = PerturbedUniformGame(8, random_state=0)
    scores = sampling(scorer, tol=0.02, n_evaluations=50_000).estimate(game)
    assert (scores.stop_reason, scores.converged) == ("tolerance", True)
    assert scores.standard_errors.max() <= 0.02
    assert scores.n_evaluations < 50_000


@each_scorer
def test_missed_tolerance_warns(scorer):
    if isinstance(scorer, LeaveOneOutScorer):
        pytest.skip("its marginals never vary")
    scorer = sampling(scorer, tol=1e-5, n_evaluations=300)
    with pytest.warns(ConvergenceWarning, match=r"tol=1e-05 .* Raise n_evaluations"):
        scores = scorer.estimate(PerturbedUniformGame(8, random_state=0))
    assert (scores.stop_reason, scores.converged) == ("budget", False)


@each_scorer
def test_stable_ranking_stops_early(scorer):
    game = AirportGame(2.0 ** np.arange(8))
    scores = sampling(scorer, stable_ranking=0.7, n_evaluations=50_000).estimate(game)
    assert (scores.stop_reason, scores.converged) == ("ranking", True)
    assert scores.n_evaluations < 50_000


@each_scorer
def test_tolerance_is_not_met_before_any_payoff_changes(scorer):
    # Hardly one coalition in a million sees a swing.
    game = CallableGame(lambda c: c.sum(axis=1) >= 20, 20)
    if isinstance(scorer, ShapleyScorer | LeaveOneOutScorer):
        pytest.skip("always reaches the grand coalition")
    scores = sampling(scorer, tol=1e-3, n_evaluations=2000).estimate(game)
    assert scores.stop_reason == "budget"


@each_scorer
def test_plain_functions_and_one_player(scorer):
    def count(coalitions):
        return coalitions.sum(axis=1)

    count.n_players = 1
    np.testing.assert_allclose(clone(scorer).estimate(count).values, [1.0])
    with pytest.raises(TypeError, match="number of players"):
        clone(scorer).estimate(len)


@each_scorer
def test_scores_and_scorers_pickle(scorer):
    scores = sampling(scorer, n_evaluations=200).estimate(GloveGame(2, 3))
    again = pickle.loads(pickle.dumps(scores))
    np.testing.assert_array_equal(scores.values, again.values)
    assert pickle.loads(pickle.dumps(scorer)).get_params() == scorer.get_params()


def test_ranking_is_stable():
    scores = BanzhafScorer().estimate(GloveGame(2, 2))
    np.testing.assert_array_equal(scores.ranking(), [0, 1, 2, 3])


def test_least_squares_names_its_smallest_budget():
    scorer = sampling(BanzhafScorer(sampler="least_squares"), n_evaluations=50)
    with pytest.raises(ValueError, match="at least 66, or use sampler='sample_reuse'"):
        scorer.estimate(un_security_council())


@pytest.mark.parametrize("sampler", ["sample_reuse", "least_squares"])
def test_players_seen_on_one_side_only_are_refused(sampler):
    scorer = BiasedBanzhafScorer(1e-6, sampler=sampler)
    with pytest.raises(ValueError, match="raise n_evaluations or use sampler='flips'"):
        sampling(scorer, n_evaluations=100).estimate(un_security_council())


@pytest.mark.parametrize(
    ("n_players", "inclusion_probability", "n_evaluations"),
    [(600, 0.225, 1500), (16, 0.02, 5000)],
    ids=["sample reuse", "least squares"],
)
def test_a_target_waits_until_all_players_were_seen(
    n_players, inclusion_probability, n_evaluations
):
    worth = np.random.default_rng(0).random(n_players)
    game = CallableGame(lambda coalitions: coalitions @ worth, n_players)
    scorer = BiasedBanzhafScorer(
        inclusion_probability, n_evaluations=n_evaluations, random_state=0
    )
    with warnings.catch_warnings():
        # An additive game is fitted exactly, as soon as it is fitted at all.
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = scorer.set_params(tol=1e-9, method="sampling").estimate(game)
    assert 16 < scores.n_evaluations <= n_evaluations
    assert np.isfinite(scores.values).all()


def test_what_is_never_seen_is_an_error_at_the_end():
    game = CallableGame(lambda coalitions: coalitions.sum(axis=1), 600)
    scorer = BiasedBanzhafScorer(sampler="sample_reuse", n_evaluations=20, tol=0.1)
    with pytest.raises(ValueError, match="raise n_evaluations"):
        scorer.set_params(random_state=0).estimate(game)
