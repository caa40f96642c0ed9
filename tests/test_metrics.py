"""Scores of size in the searches of scikit-learn, and the smallest that is enough."""

import pickle
from functools import partial

import numpy as np
import pytest
from scipy import sparse
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_wine, make_regression
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import FitFailedWarning, NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import RFE, SelectFromModel
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, check_scoring, make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skprune import (
    EquilibriumPrunedMLP,
    EquilibriumPruner,
    GTAPPruner,
    ShapleyBucketPruner,
    mlp_classifier,
    mlp_regressor,
)
from skprune.evaluation import SparseRows
from skprune.metrics import (
    _scorers,
    flops_scorer,
    latency_scorer,
    parameters_scorer,
    size_penalized_scorer,
    smallest_within_one_standard_error,
    sparsity_scorer,
)
from skprune.networks import NetworkSize

SCORERS = [
    flops_scorer(),
    latency_scorer(n_repeats=1),
    parameters_scorer(),
    size_penalized_scorer(),
    sparsity_scorer(),
]
TWO_SCORES = {"score": "accuracy", "size": parameters_scorer()}


def net_of(kind=mlp_classifier, sizes=(12,)):
    return kind(sizes, max_epochs=5, lr=0.01, device="cpu")


def gtap(n_kept=6, kind=mlp_classifier):
    return GTAPPruner(net_of(kind), n_players_to_keep=n_kept, random_state=0)


class Sized(ClassifierMixin, BaseEstimator):
    """A pruner for searches: the wider it is, the more labels it gets right."""

    def __init__(self, width=10, fails=False):
        self.width = width
        self.fails = fails

    def fit(self, X, y, sample_weight=None):
        if self.fails:
            raise RuntimeError("fails")
        self.classes_ = np.unique(y)
        self.size_report_ = {
            "before": NetworkSize(100, 1000, 10),
            "after": NetworkSize(10 * self.width, 100 * self.width, self.width),
        }
        return self

    def predict(self, X):
        return X[:, 0] * (X[:, 1] < self.width)


@pytest.fixture(scope="module")
def wine():
    X, y = load_wine(return_X_y=True)
    return StandardScaler().fit_transform(X), y


@pytest.fixture(scope="module")
def pruned(wine):
    return gtap().fit(*wine)


@pytest.fixture
def easy():
    """Labels that `Sized(width)` gets right in `width` of 10 samples."""
    labels = np.tile([1, 2], 50)
    return np.column_stack([labels, np.arange(100) // 2 % 10]), labels


@pytest.mark.parametrize(
    "pruner",
    [
        gtap(),
        EquilibriumPruner(net_of(), n_players_to_keep=6, random_state=0),
        EquilibriumPrunedMLP((12,), n_players_to_keep=6, max_epochs=5, random_state=0),
        ShapleyBucketPruner(net_of(), tol=0.3, random_state=0),
    ],
    ids=lambda pruner: type(pruner).__name__,
)
def test_sizes_of_every_pruner(pruner, wine):
    pruner = clone(pruner).fit(*wine)
    n_kept = pruner.support_.sum()
    assert n_kept < 12
    assert sparsity_scorer()(pruner, *wine) == pytest.approx(1 - n_kept / 12)
    assert parameters_scorer()(pruner, *wine) == -(14 * n_kept + 3 * (n_kept + 1))
    assert flops_scorer()(pruner, *wine) == -2 * (13 + 3) * n_kept
    assert isinstance(sparsity_scorer()(pruner, *wine), float)


def test_the_smaller_network_has_the_higher_score(wine, pruned):
    larger = gtap(9).fit(*wine)
    for scorer in (flops_scorer(), parameters_scorer(), sparsity_scorer()):
        assert scorer(pruned) > scorer(larger)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda p: make_pipeline(StandardScaler(), p),
        lambda p: make_pipeline("passthrough", p, LogisticRegression()),
        lambda p: make_pipeline(StandardScaler(), make_pipeline(None, p)),
        lambda p: GridSearchCV(p, {"n_players_to_keep": [6]}, cv=2),
        lambda p: make_pipeline(GridSearchCV(p, {"min_per_layer": [1]}, cv=2)),
        lambda p: GridSearchCV(
            make_pipeline(p), {"gtappruner__min_per_layer": [1]}, cv=2
        ),
    ],
)
def test_pruners_inside_others(wrap, wine):
    wrapped = wrap(gtap()).fit(*wine)
    assert sparsity_scorer()(wrapped, *wine) == 0.5
    assert parameters_scorer()(wrapped, *wine) == -105
    assert latency_scorer(n_repeats=1)(wrapped, *wine) < 0


def test_frozen_and_transformed(wine, pruned):
    assert sparsity_scorer()(FrozenEstimator(pruned)) == 0.5
    assert sparsity_scorer()(FrozenEstimator(make_pipeline(pruned))) == 0.5
    X, y = make_regression(60, 4, random_state=0)
    pruner = TransformedTargetRegressor(
        gtap(kind=mlp_regressor), transformer=StandardScaler()
    )
    assert sparsity_scorer()(pruner.fit(X, y)) == 0.5


def test_networks_of_a_pipeline_are_added_up(wine):
    pipeline = make_pipeline(gtap(6), gtap(3)).fit(*wine)
    first, second = pipeline[0], pipeline[1]
    assert sparsity_scorer()(pipeline) == pytest.approx(1 - (6 + 3) / (12 + 12))
    both = parameters_scorer()(first) + parameters_scorer()(second)
    assert parameters_scorer()(pipeline) == both
    scorer = size_penalized_scorer(make_scorer(accuracy_score), penalty=1)
    before = sum(p.size_report_["before"].n_parameters for p in (first, second))
    expected = pipeline.score(*wine) + both / before
    assert scorer(pipeline, *wine) == pytest.approx(expected)


@pytest.mark.parametrize("scorer", SCORERS, ids=str)
def test_what_has_no_size_is_refused(scorer, wine, pruned):
    X, y = wine
    with pytest.raises(NotFittedError, match="GTAPPruner instance is not fitted"):
        scorer(gtap(), X, y)
    with pytest.raises(NotFittedError, match="Pipeline"):
        scorer(make_pipeline(StandardScaler(), gtap()), X, y)
    with pytest.raises(TypeError, match="got LogisticRegression"):
        scorer(LogisticRegression().fit(X, y), X, y)
    with pytest.raises(TypeError, match="is not an estimator instance"):
        scorer(lambda X: X, X, y)
    grid = {"n_players_to_keep": [6]}
    search = GridSearchCV(gtap(), grid, cv=2, refit=False).fit(X, y)
    with pytest.raises(TypeError, match="got GridSearchCV"):
        scorer(search, X, y)


def test_a_network_that_only_selected_features_is_not_counted(wine):
    def importance(pruner):
        return np.arange(13)

    selector = SelectFromModel(gtap(), importance_getter=importance, threshold=6)
    pipeline = make_pipeline(selector, LogisticRegression()).fit(*wine)
    assert hasattr(pipeline[0].estimator_, "size_report_")
    with pytest.raises(TypeError, match="got Pipeline"):
        parameters_scorer()(pipeline)
    with_pruner = make_pipeline(selector, gtap()).fit(*wine)
    assert parameters_scorer()(with_pruner) == parameters_scorer()(with_pruner[-1])


@pytest.fixture
def timed(monkeypatch):
    """What would be timed, instead of the times."""
    calls = []

    def record(module, batch, *, n_repeats):
        calls.append((module, batch, n_repeats))
        return 2.0

    monkeypatch.setattr(_scorers, "latency", record)
    return calls


def test_latency_is_of_all_samples_as_the_network_reads_them(wine, timed):
    half = FunctionTransformer(lambda X: X / 2)
    pipeline = make_pipeline(half, gtap(6), gtap(3)).fit(*wine)
    X = wine[0][:50]
    assert latency_scorer(n_repeats=7)(pipeline, X) == -4.0
    (first, batch, n_repeats), (second, hidden, _) = timed
    assert (first, second) == (pipeline[1].module_, pipeline[2].module_)
    assert n_repeats == 7
    np.testing.assert_array_equal(batch, (X / 2).astype(np.float32))
    np.testing.assert_array_equal(hidden, pipeline[:2].transform(X))


def test_latency_never_makes_sparse_samples_dense(pruned, wine, timed, monkeypatch):
    X = sparse.csr_array(wine[0] * (wine[0] > 1))

    def refuse(self):
        raise AssertionError("made dense")

    expected = pruned.predict_proba(X)
    with monkeypatch.context() as patch:
        patch.setattr(SparseRows, "to_dense", refuse)
        latency_scorer()(pruned, X)
        batch = timed[0][1]
        outputs = pruned.module_(batch).detach()
    assert batch.shape == X.shape
    np.testing.assert_allclose(outputs.softmax(1), expected, atol=1e-6)


@pytest.mark.cuda
def test_latency_on_a_gpu(wine):
    pruner = gtap().set_params(estimator__device="cuda").fit(*wine)
    assert latency_scorer()(pruner, *wine) < 0
    assert latency_scorer()(pruner, sparse.csr_array(wine[0] * (wine[0] > 1))) < 0


@pytest.mark.parametrize(
    ("size", "kept"), [("parameters", 105 / 207), ("flops", 0.5), ("players", 0.5)]
)
def test_the_penalty(size, kept, wine, pruned):
    scorer = size_penalized_scorer("accuracy", penalty=0.3, size=size)
    expected = pruned.score(*wine) - 0.3 * kept
    assert scorer(pruned, *wine) == pytest.approx(expected)
    own = size_penalized_scorer(penalty=0.3, size=size)
    assert own(pruned, *wine) == pytest.approx(expected)
    free = size_penalized_scorer("neg_log_loss", penalty=0)
    assert free(pruned, *wine) == check_scoring(pruned, "neg_log_loss")(pruned, *wine)


def test_full_size_makes_different_widths_comparable(wine):
    wide = GTAPPruner(net_of(sizes=(20,)), n_players_to_keep=10, random_state=0)
    narrow = GTAPPruner(net_of(sizes=(10,)), n_players_to_keep=5, random_state=0)
    wide.fit(*wine), narrow.fit(*wine)

    def constant(estimator, X, y):
        return 1.0

    by_itself = size_penalized_scorer(constant, penalty=1, size="players")
    assert by_itself(wide, *wine) == by_itself(narrow, *wine) == 0.5
    by_number = clone(by_itself).set_params(full_size=20)
    assert by_number(wide, *wine) == 0.5
    assert by_number(narrow, *wine) == 0.75


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: size_penalized_scorer(penalty=-1), "'penalty'.*Got -1"),
        (lambda: size_penalized_scorer(size="latency"), "'size'.*Got 'latency'"),
        (lambda: size_penalized_scorer(full_size=0), "'full_size'.*Got 0"),
        (lambda: size_penalized_scorer(["accuracy"]), "'scoring'"),
        (lambda: size_penalized_scorer("acuracy"), "Got 'acuracy'"),
        (lambda: size_penalized_scorer(accuracy_score), "metric function"),
        (lambda: latency_scorer(n_repeats=0), "'n_repeats'.*Got 0"),
    ],
)
def test_parameters_are_checked(make, text):
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.parametrize(
    ("scorer", "params"),
    [(size_penalized_scorer(), {"penalty": -1}), (latency_scorer(), {"n_repeats": 0})],
)
def test_parameters_that_are_set_later_are_checked(scorer, params, pruned, wine):
    scorer = clone(scorer).set_params(**params)
    with pytest.raises(ValueError, match=f"'{next(iter(params))}' parameter"):
        scorer(pruned, *wine)


@pytest.mark.parametrize("scorer", SCORERS, ids=str)
def test_scorers_pickle_and_clone(scorer, pruned, wine):
    for copy in (pickle.loads(pickle.dumps(scorer)), clone(scorer)):
        assert copy is not scorer
        assert copy.get_params() == scorer.get_params()
        if scorer is not SCORERS[1]:
            assert copy(pruned, *wine) == scorer(pruned, *wine)


@pytest.mark.parametrize(
    ("penalty", "width"), [(0, 10), (0.5, 10), (1.5, 2)], ids=["free", "low", "high"]
)
def test_a_search_by_the_penalized_score(penalty, width, easy):
    search = GridSearchCV(Sized(), {"width": [2, 5, 10]}, cv=2)
    search.set_params(scoring=size_penalized_scorer("accuracy"))
    search.set_params(scoring__penalty=penalty).fit(*easy)
    assert search.best_params_ == {"width": width}
    expected = width / 10 - penalty * width / 10
    assert search.best_score_ == pytest.approx(expected)
    assert search.score(*easy) == pytest.approx(expected)


def weighted_score(estimator, X, y, sample_weight=None):
    return float(np.sum(sample_weight))


@pytest.mark.parametrize("scoring", ["accuracy", None, weighted_score])
def test_sample_weights_reach_the_score_inside(scoring, easy):
    X, y = easy
    weights = (X[:, 1] < 2).astype(float)
    scorer = size_penalized_scorer(scoring, penalty=0)
    scores = {"score": scorer, "size": parameters_scorer()}
    search = GridSearchCV(Sized(2), {}, scoring=scores, refit="score", cv=2)
    search.fit(X, y, sample_weight=weights)
    expected = 10 if scoring is weighted_score else 1
    assert search.best_score_ == expected
    single = GridSearchCV(Sized(2), {}, scoring=scorer, cv=2)
    assert single.fit(X, y, sample_weight=weights).best_score_ == expected


def test_metadata_is_routed_to_the_score_inside(easy):
    X, y = easy
    weights = (X[:, 1] < 2).astype(float)
    with config_context(enable_metadata_routing=True):
        accuracy = make_scorer(accuracy_score).set_score_request(sample_weight=True)
        scores = {
            "score": size_penalized_scorer(accuracy, penalty=0),
            "size": parameters_scorer(),
        }
        pruner = Sized(2).set_fit_request(sample_weight=False)
        search = GridSearchCV(pruner, {}, scoring=scores, refit="score", cv=2)
        assert search.fit(X, y, sample_weight=weights).best_score_ == 1


def results_of(folds, sizes, score="score", size="size", **columns):
    """The columns that a search makes of scores (folds, candidates) and sizes."""
    folds = np.array(folds, dtype=float)
    named = {f"split{i}_test_{score}": fold for i, fold in enumerate(folds)}
    return named | {
        f"mean_test_{score}": folds.mean(axis=0),
        f"mean_test_{size}": np.array(sizes, dtype=float),
        **columns,
    }


# Mean 0.9, standard error 0.0707.
BEST = np.array([0.7, 0.9, 1.0, 1.0])


@pytest.mark.parametrize(
    ("means", "sizes", "index"),
    [
        ([0.84, 0.85], [-10, -20, -30], 0),
        ([0.75, 0.85], [-10, -20, -30], 1),
        ([0.75, 0.75], [-10, -20, -30], 2),
        ([0.85, 0.85], [-40, -50, -30], 2),
        ([0.84, 0.85], [-10, -10, -30], 1),
        ([0.85, 0.85], [-10, -10, -30], 0),
        ([np.nan, 0.85], [-10, -20, -30], 1),
        ([0.85, 0.85], [np.nan, -20, -30], 1),
        ([np.inf, 0.85], [-10, -20, -30], 1),
    ],
)
def test_the_smallest_within_one_standard_error(means, sizes, index):
    spread = BEST - BEST.mean()
    # Twice the spread: what counts is that of the best.
    folds = np.column_stack([mean + 2 * spread for mean in means] + [BEST])
    found = smallest_within_one_standard_error(results_of(folds, sizes))
    assert found == index
    assert isinstance(found, int)


@pytest.mark.parametrize(("below", "index"), [(0.0706, 0), (0.0708, 1)])
def test_the_standard_error_is_that_of_the_mean(below, index):
    results = results_of(np.column_stack([BEST - below, BEST]), [-1, -2])
    assert smallest_within_one_standard_error(results) == index


def test_with_one_fold_only_the_best_is_good_enough():
    results = results_of([[0.8, 0.9, 0.9]], [-1, -3, -2])
    assert smallest_within_one_standard_error(results) == 2


def test_only_the_last_iteration_is_compared():
    folds = np.column_stack([BEST, BEST + 0.05, BEST, BEST])
    sizes = [-1, -20, -30, -20]
    results = results_of(folds, sizes, iter=np.array([0, 0, 1, 1]))
    assert smallest_within_one_standard_error(results) == 3
    del results["iter"]
    assert smallest_within_one_standard_error(results) == 0


def test_scores_of_other_names():
    results = results_of([[0.9, 0.9]], [-2, -1], "r2", "flops (all)")
    find = partial(smallest_within_one_standard_error, score="r2", size="flops (all)")
    assert find(results) == 1
    # `split0_test_(x)` is a pattern only where it is not escaped.
    results = results_of([[0.9, 0.9]], [-2, -1], "(x)")
    assert smallest_within_one_standard_error(results, score="(x)") == 1


def test_a_score_whose_name_begins_another():
    results = results_of(np.column_stack([BEST - 0.0706, BEST]), [-1, -2], "f1")
    assert smallest_within_one_standard_error(results, score="f1") == 0
    results |= {f"split{i}_test_f1_macro": np.full(2, 0.9) for i in range(4)}
    assert smallest_within_one_standard_error(results, score="f1") == 0


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        ("mean_test_score", r"no 'mean_test_score', but \['mean_test_size'\]"),
        ("mean_test_size", r"no 'mean_test_size', but \['mean_test_score'\]"),
        ("split0_test_score", "no 'split0_test_score': the standard error"),
    ],
)
def test_missing_columns(missing, text):
    results = results_of([[0.9, 0.9]], [-2, -1])
    del results[missing]
    with pytest.raises(ValueError, match=text):
        smallest_within_one_standard_error(results)


def test_no_candidate_that_worked():
    results = results_of([[np.nan, 0.9]], [-2, np.nan])
    with pytest.raises(ValueError, match="no candidate with both 'score' and 'size'"):
        smallest_within_one_standard_error(results)


@pytest.mark.parametrize("kind", [GridSearchCV, RandomizedSearchCV])
def test_searches_refit_the_smallest(kind, easy):
    options = {} if kind is GridSearchCV else {"n_iter": 3, "random_state": 0}
    grid = {"width": [3, 9, 10]}
    rule = smallest_within_one_standard_error
    scores = TWO_SCORES | {"size": sparsity_scorer()}
    search = kind(Sized(), grid, scoring=scores, refit=rule, cv=2, **options)
    # Ten samples: width 9 is right in 9 of the first 10 and in all of the others.
    X, y = easy
    X = np.vstack([X[:20], X[:20] * [1, 0]])
    folds = [(np.arange(40), np.arange(20)), (np.arange(40), np.arange(20, 40))]
    search.set_params(cv=folds).fit(X, np.tile(y[:20], 2))
    assert search.best_params_ == {"width": 10}
    noisy = [(np.arange(40), np.arange(20)), (np.arange(40), np.arange(18))]
    y = np.tile(y[:20], 2)
    y[18:20] = 7
    search.set_params(cv=noisy).fit(X, y)
    assert search.best_params_ == {"width": 9}
    assert search.best_estimator_.width == 9


def test_a_fit_that_fails_is_passed_over(easy):
    search = GridSearchCV(
        Sized(),
        [{"width": [1], "fails": [True]}, {"width": [5, 10]}],
        scoring=TWO_SCORES,
        refit=smallest_within_one_standard_error,
        cv=2,
    )
    with (
        pytest.warns(FitFailedWarning, match="2 fits failed"),
        pytest.warns(UserWarning, match="non-finite"),
    ):
        search.fit(*easy)
    assert search.best_params_ == {"width": 10}


def test_successive_halving(easy):
    X, y = np.tile(easy[0], (10, 1)), np.tile(easy[1], 10)
    grid = {"width": [1, 2, 8, 9, 10]}
    scoring = check_scoring(Sized(), TWO_SCORES)
    search = HalvingGridSearchCV(
        Sized(), grid, scoring=scoring, refit="score", cv=2, factor=2, random_state=0
    ).fit(X, y)
    results = search.cv_results_
    assert results["iter"].max() > 0
    index = smallest_within_one_standard_error(results)
    assert results["iter"][index] == results["iter"].max()
    assert results["params"][index]["width"] == 10
    # As the guide says: scikit-learn goes by "score" here, whatever refits.
    never = partial(smallest_within_one_standard_error, size="nothing")
    assert search.set_params(refit=never).fit(X, y).best_params_ == {"width": 10}
    penalized = search.set_params(
        scoring=size_penalized_scorer(penalty=5), refit=True
    ).fit(X, y)
    assert penalized.best_params_ == {"width": 1}


def test_a_grid_over_a_pipeline_in_two_processes(wine):
    pipeline = make_pipeline(StandardScaler(), gtap())
    search = GridSearchCV(
        pipeline,
        {"gtappruner__n_players_to_keep": [1, 6, 12]},
        scoring=TWO_SCORES | {"penalized": size_penalized_scorer("accuracy")},
        refit=smallest_within_one_standard_error,
        cv=2,
        n_jobs=2,
        error_score="raise",
    ).fit(*wine)
    results = search.cv_results_
    assert results["mean_test_size"].tolist() == [-20, -105, -207]
    expected = results["mean_test_score"] + 0.1 * results["mean_test_size"] / 207
    np.testing.assert_allclose(results["mean_test_penalized"], expected)
    assert search.best_index_ == smallest_within_one_standard_error(results)
    kept = search.best_params_["gtappruner__n_players_to_keep"]
    assert search.best_estimator_[-1].support_.sum() == kept
    again = pickle.loads(pickle.dumps(search))
    assert parameters_scorer()(again) == results["mean_test_size"][search.best_index_]


def test_cross_validation(wine):
    scores = cross_val_score(gtap(), *wine, scoring=sparsity_scorer(), cv=2)
    assert scores.tolist() == [0.5, 0.5]


def first_weights(pruner):
    return np.abs(next(pruner.module_.parameters()).detach().numpy()).sum(axis=0)


def test_a_network_behind_the_features_that_it_selected(wine):
    selector = RFE(
        gtap(), n_features_to_select=9, step=4, importance_getter=first_weights
    )
    selector.fit(*wine)
    size = parameters_scorer()(selector.estimator_)
    assert parameters_scorer()(selector) == size
    assert latency_scorer(n_repeats=1)(selector, wine[0]) < 0
    assert parameters_scorer()(make_pipeline(StandardScaler(), selector)) == size
    pipeline = make_pipeline(selector, gtap()).fit(*wine)
    assert parameters_scorer()(pipeline) == parameters_scorer()(pipeline[-1])
    with pytest.raises(TypeError, match="got Pipeline"):
        parameters_scorer()(make_pipeline(selector, LogisticRegression()).fit(*wine))


@pytest.mark.parametrize("scorer", SCORERS, ids=str)
def test_the_template_of_an_ensemble_is_none_of_its_networks(scorer, wine, pruned):
    X, y = wine
    ensemble = BaggingClassifier(pruned, 2, random_state=0).fit(X, y)
    assert hasattr(ensemble.estimator_, "size_report_")
    with pytest.raises(TypeError, match="got BaggingClassifier"):
        scorer(ensemble, X, y)
