"""scikit-learn's conventions, for everything public that has parameters."""

import importlib
import inspect
import pickle
import re

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from joblib import Parallel, delayed
from scipy import sparse
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_wine
from sklearn.ensemble import BaggingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks, get_tags
from sklearn.utils._param_validation import (
    InvalidParameterError,
    generate_invalid_param_val,
    make_constraint,
)
from sklearn.utils.validation import has_fit_parameter
from skorch.callbacks import Callback

from skprune import (
    EquilibriumPrunedMLPRegressor,
    EquilibriumPruner,
    GTAPPruner,
    PowerIndexSelector,
    ShapleyBucketPruner,
    mlp_classifier,
    mlp_regressor,
)
from skprune.games import un_security_council
from skprune.metrics import (
    flops_scorer,
    latency_scorer,
    parameters_scorer,
    size_penalized_scorer,
    sparsity_scorer,
)
from skprune.scorers import (
    BanzhafScorer,
    BiasedBanzhafScorer,
    PowerIndexScorer,
    ShapleyScorer,
)
from skprune.strategies import (
    BelowShare,
    Bottom,
    Bucket,
    IteratedBuilding,
    IteratedLocalSearch,
    IteratedPruning,
    Refinement,
    RemovalStrategy,
    Search,
    SwapRefinement,
    TopN,
)

# Where few epochs or steps leave a network that tells nothing apart.
pytestmark = pytest.mark.filterwarnings("ignore:the pruned network")

# What an object must be given, and one change that its representation has to show.
REQUIRED = {BiasedBanzhafScorer: {"inclusion_probability": 0.3}}
CHANGES = {
    BelowShare: {"factor": 0.25},
    Bottom: {"n": 3},
    Bucket: {"share": 0.1},
    BanzhafScorer: {"n_evaluations": 500},
    BiasedBanzhafScorer: {"n_evaluations": 500},
    ShapleyScorer: {"n_evaluations": 500},
    IteratedBuilding: {"step": 2},
    IteratedLocalSearch: {"refinement": SwapRefinement(max_rounds=3)},
    IteratedPruning: {"step": 2},
    SwapRefinement: {"n_candidates": 4},
    TopN: {"layerwise": True},
}


def classes_of(*packages):
    """Every estimator that a package exports and that can be made."""
    found = []
    for package in packages:
        module = importlib.import_module(package)
        values = [getattr(module, name) for name in module.__all__]
        found += [v for v in values if inspect.isclass(v)]
    return [
        kind
        for kind in found
        if issubclass(kind, BaseEstimator) and not inspect.isabstract(kind)
    ]


PARTS = classes_of("skprune.samplers", "skprune.scorers", "skprune.strategies")
PRUNERS = classes_of("skprune")
SIZE_SCORERS = [
    flops_scorer(),
    latency_scorer(n_repeats=1),
    parameters_scorer(),
    size_penalized_scorer(),
    sparsity_scorer(),
]
by_name = pytest.mark.parametrize("kind", PARTS, ids=lambda kind: kind.__name__)
of_pruners = pytest.mark.parametrize("kind", PRUNERS, ids=lambda kind: kind.__name__)


def part(kind, **params):
    return kind(**(REQUIRED.get(kind, {}) | params))


def net_of(kind=mlp_classifier, sizes=(12,), **params):
    return kind(sizes, **({"max_epochs": 8, "lr": 0.01, "device": "cpu"} | params))


def pruner_of(kind, net=mlp_classifier, **params):
    """A quick one: of 12 neurons most pruners keep 6."""
    if "estimator" not in inspect.signature(kind).parameters:
        quick = {"max_epochs": 8, "n_rivals": 2, "n_players_to_keep": 6}
        return kind((12,), **({"random_state": 0, "device": "cpu"} | quick | params))
    if kind in (EquilibriumPruner, GTAPPruner):
        params = {"n_players_to_keep": 6} | params
    if kind is EquilibriumPruner:
        params = {"n_rivals": 2} | params
    if kind is ShapleyBucketPruner:
        params = {"tol": 0.1, "retrain_epochs": 1} | params
    if kind is PowerIndexSelector:
        params = {"n_features_to_select": 6} | params
    net = net_of(net) if callable(net) else net
    return kind(net, **({"random_state": 0} | params))


@pytest.fixture(scope="module")
def wine():
    X, y = load_wine(return_X_y=True)
    return StandardScaler().fit_transform(X), np.array(["red", "rosé", "white"])[y]


@pytest.fixture(scope="module")
def fitted(wine):
    """A fitted pruner of each kind; tests leave them as they are."""
    made = {}

    def get(kind):
        if kind not in made:
            y = wine[1]
            if kind is EquilibriumPrunedMLPRegressor:
                y = wine[0][:, 0]
            made[kind] = pruner_of(kind).fit(wine[0], y)
        return made[kind]

    return get


def answers(pruner, X):
    """What it says of X: probabilities, values, or the selected columns."""
    names = ("predict_proba", "predict", "transform")
    return getattr(pruner, next(name for name in names if hasattr(pruner, name)))(X)


# Scorers, searches, refinements and strategies


def test_every_public_class_is_found():
    kinds = (PowerIndexScorer, RemovalStrategy, Refinement, Search)
    assert set(PARTS) == set(CHANGES)
    assert {next(k for k in kinds if issubclass(p, k)) for p in PARTS} == set(kinds)
    assert len(PRUNERS) == 6


@pytest.mark.parametrize(
    "check",
    [
        "check_parameters_default_constructible",
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_no_attributes_set_in_init",
        "check_get_params_invariance",
        "check_set_params",
        "check_estimator_repr",
        "check_estimator_cloneable",
        "check_mixin_order",
    ],
)
@by_name
def test_scikit_learn_s_checks_of_parameters(kind, check):
    getattr(estimator_checks, check)(kind.__name__, part(kind))


@by_name
def test_construction_clone_and_set_params(kind):
    changed = part(kind, **CHANGES[kind])
    params = changed.get_params(deep=False)
    for copy in (clone(changed), part(kind).set_params(**params)):
        assert copy is not changed
        assert repr(copy) == repr(changed)
        assert copy.get_params(deep=False).keys() == params.keys()
    pickled = pickle.loads(pickle.dumps(changed))
    assert repr(pickled) == repr(changed)
    with pytest.raises(ValueError, match="Invalid parameter 'no_such'"):
        changed.set_params(no_such=1)


@by_name
def test_a_representation_shows_what_was_changed_and_makes_another(kind):
    names = {made.__name__: made for made in PARTS}
    changed = part(kind, **CHANGES[kind])
    assert repr(eval(repr(changed), names)) == repr(changed)
    shown = re.findall(r"(\w+)=", repr(changed))
    assert shown[: len(CHANGES[kind])]
    assert set(shown) <= {
        name.rpartition("__")[2]
        for name, value in changed.get_params().items()
        if name in {**REQUIRED.get(kind, {}), **CHANGES[kind]} or "__" in name
    }
    required = REQUIRED.get(kind, {})
    inside = ", ".join(f"{name}={value}" for name, value in required.items())
    assert repr(part(kind)) == f"{kind.__name__}({inside})"


def used(thing):
    """Ask for what an object is there for."""
    game, keep = un_security_council(), np.arange(15) > 5
    if isinstance(thing, PowerIndexScorer):
        return thing.estimate(game)
    if isinstance(thing, RemovalStrategy):
        return thing.leavers(np.arange(15.0))
    if isinstance(thing, Refinement):
        return thing.refine(game, keep)
    return thing.search(game, ShapleyScorer(), [9])


def bad_values_of(constraints):
    yield object()
    for constraint in map(make_constraint, constraints):
        try:
            yield generate_invalid_param_val(constraint)
        except NotImplementedError:
            continue


# Numbered: scikit-learn writes a bad string from a set, in another order each time.
BAD_VALUES = [
    pytest.param(kind, name, value, id=f"{kind.__name__}-{name}-{number}")
    for kind in PARTS
    for name, constraints in kind._parameter_constraints.items()
    for number, value in enumerate(bad_values_of(constraints))
]


@pytest.mark.parametrize(("kind", "name", "value"), BAD_VALUES)
def test_bad_values_are_refused_by_name_value_and_range(kind, name, value):
    thing = part(kind).set_params(**{name: value})
    with pytest.raises(InvalidParameterError) as caught:
        used(thing)
    start = f"The '{name}' parameter of {kind.__name__} must be "
    assert str(caught.value).startswith(start)
    assert str(caught.value).endswith(f" Got {value!r} instead.")


@by_name
def test_every_parameter_has_its_range(kind):
    assert set(kind._parameter_constraints) == set(part(kind).get_params(deep=False))
    assert used(part(kind)) is not None


class NoTraining(Callback):
    def on_train_begin(self, net, **kwargs):
        raise AssertionError("training began")


@pytest.mark.parametrize(
    ("kind", "name", "value", "inside"),
    [
        (GTAPPruner, "search", IteratedBuilding(step=-1), "step"),
        (GTAPPruner, "power_index", ShapleyScorer(n_evaluations=0), "n_evaluations"),
        (GTAPPruner, "refine", SwapRefinement(max_rounds=-1), "max_rounds"),
        (
            GTAPPruner,
            "refine",
            IteratedLocalSearch(SwapRefinement(n_candidates=0)),
            "n_candidates",
        ),
        (ShapleyBucketPruner, "strategy", Bucket(share=0), "share"),
        (ShapleyBucketPruner, "power_index", BanzhafScorer(tol=-1), "tol"),
        (PowerIndexSelector, "power_index", BanzhafScorer(method="x"), "method"),
    ],
)
def test_parts_of_pruners_are_checked_before_training(kind, name, value, inside, wine):
    pruner = kind(net_of(callbacks=[NoTraining()]), random_state=0)
    with pytest.raises(ValueError, match=f"'{inside}' parameter of"):
        pruner.set_params(**{name: value}).fit(*wine)


# Parameters of pruners, down into the net


@of_pruners
def test_parameters_reach_into_the_net(kind):
    pruner = pruner_of(kind)
    if not hasattr(pruner, "estimator"):
        assert pruner.set_params(lr=0.5).get_params()["lr"] == 0.5
        return
    settings = {
        "estimator__lr": 0.123,
        "estimator__module__hidden_layer_sizes": (5, 4),
        "estimator__optimizer__weight_decay": 0.5,
        "estimator__class_weight": "balanced",
    }
    given = pruner.estimator
    copy = clone(pruner).set_params(**settings)
    for twin in (copy, clone(copy)):
        assert {name: twin.get_params()[name] for name in settings} == settings
    assert (given.lr, given.module__hidden_layer_sizes) == (0.01, (12,))
    with pytest.raises(ValueError, match="Invalid parameter 'nothing'"):
        pruner.set_params(nothing=1)


def test_parameters_of_the_net_are_obeyed(wine):
    pruner = pruner_of(GTAPPruner, n_players_to_keep=3)
    pruner.set_params(
        estimator__module__hidden_layer_sizes=(5, 4),
        estimator__optimizer__weight_decay=0.0,
        estimator__lr=0.02,
    ).fit(*wine)
    assert len(pruner.support_) == 9
    group = pruner.estimator_.optimizer_.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.02, 0.0)


def test_parameters_of_scorers_go_by_nesting(wine):
    pruner = pruner_of(
        GTAPPruner, search="top_n", payoff="accuracy", power_index=BanzhafScorer()
    )
    pruner.set_params(power_index__n_evaluations=300, refine=SwapRefinement())
    pruner.set_params(refine__n_candidates=2)
    assert pruner.fit(*wine).scores_.n_evaluations <= 300
    assert pruner.power_index.random_state is None


# Frames, names, tags


@of_pruners
def test_names_of_columns(kind, wine):
    X, y = wine
    names = [f"x{number}" for number in range(13)]
    y = X[:, 0] if kind is EquilibriumPrunedMLPRegressor else y
    pruner = pruner_of(kind).fit(pd.DataFrame(X, columns=names), y)
    assert pruner.feature_names_in_.tolist() == names
    assert pruner.n_features_in_ == 13
    out = pruner.get_feature_names_out()
    assert out.dtype == object
    assert out.shape == (pruner.transform(pd.DataFrame(X, columns=names)).shape[1],)
    with pytest.raises(ValueError, match="feature names"):
        answers(pruner, pd.DataFrame(X, columns=names[::-1]))
    pruner.fit(X, y)
    assert not hasattr(pruner, "feature_names_in_")


@pytest.mark.parametrize("library", ["pandas", "polars"])
@of_pruners
def test_frames_out_of_transform(kind, library, fitted, wine):
    X = wine[0]
    pruner = pickle.loads(pickle.dumps(fitted(kind)))
    plain = pruner.transform(X)
    frame = pruner.set_output(transform=library).transform(X)
    expected = pd.DataFrame if library == "pandas" else pl.DataFrame
    assert isinstance(frame, expected)
    assert list(frame.columns) == pruner.get_feature_names_out().tolist()
    np.testing.assert_array_equal(frame.to_numpy(), plain)
    with config_context(transform_output=library):
        again = pickle.loads(pickle.dumps(fitted(kind)))
        assert isinstance(again.transform(X), expected)


def test_frames_go_through_a_pipeline(wine):
    pipeline = make_pipeline(StandardScaler(), pruner_of(GTAPPruner))
    pipeline.set_output(transform="polars").fit(*wine)
    assert pipeline[:-1].transform(wine[0]).columns == [f"x{i}" for i in range(13)]
    assert pipeline.transform(wine[0]).columns == list(
        pipeline[-1].get_feature_names_out()
    )
    assert pipeline.score(*wine) > 0.8


@of_pruners
def test_tags(kind):
    tags = get_tags(pruner_of(kind))
    is_regressor = kind is EquilibriumPrunedMLPRegressor
    if kind is not PowerIndexSelector:
        wanted = "regressor" if is_regressor else "classifier"
        assert tags.estimator_type == wanted
        if "estimator" in pruner_of(kind).get_params():
            around_values = get_tags(pruner_of(kind, mlp_regressor))
            assert around_values.estimator_type == "regressor"
            assert around_values.target_tags.multi_output
    assert tags.input_tags.sparse
    assert tags.target_tags.required
    assert tags.transformer_tags is not None


# Data of every kind


def cast_names():
    return {
        "list": lambda X: X.tolist(),
        "float32": lambda X: X.astype(np.float32),
        "fortran": np.asfortranarray,
        "backwards": lambda X: X[::-1].copy()[::-1],
        "read-only": read_only,
        "pandas": pd.DataFrame,
        "polars": lambda X: pl.DataFrame(X, schema=[f"x{i}" for i in range(13)]),
        "csr_matrix": sparse.csr_matrix,
        "csr_array": sparse.csr_array,
        "csc_matrix": sparse.csc_matrix,
        "csc_array": sparse.csc_array,
        "coo_array": sparse.coo_array,
        "int64 indices": with_long_indices,
    }


def read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


def with_long_indices(X):
    X = sparse.csr_matrix(X)
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    return X


@pytest.mark.parametrize("cast", cast_names().values(), ids=cast_names())
@of_pruners
def test_data_of_any_kind_give_the_same_network(kind, cast, fitted, wine):
    X, y = wine
    y = X[:, 0] if kind is EquilibriumPrunedMLPRegressor else y
    pruner = pruner_of(kind).fit(cast(X), y)
    got, expected = answers(pruner, cast(X)), answers(fitted(kind), X)
    if sparse.issparse(cast(X)):
        # Sums over stored entries round differently, and training amplifies that.
        got = got.toarray() if sparse.issparse(got) else got
        expected = answers(pruner, X)
    np.testing.assert_allclose(np.asarray(got), expected, rtol=1e-4, atol=1e-5)


@of_pruners
def test_arrays_of_other_libraries(kind, fitted, wine):
    X, y = wine
    expected = fitted(kind)
    labels = y if kind is not EquilibriumPrunedMLPRegressor else torch.tensor(X[:, 0])
    pruner = pruner_of(kind).fit(torch.tensor(X), labels)
    got = answers(pruner, torch.tensor(X))
    assert isinstance(got, np.ndarray)
    np.testing.assert_allclose(got, answers(expected, X), rtol=1e-4, atol=1e-5)


def test_labels_may_be_tensors_and_series(wine):
    X, y = wine
    labels = np.unique(y, return_inverse=True)[1]
    expected = pruner_of(GTAPPruner).fit(X, labels).predict_proba(X)
    for cast in (torch.tensor, pd.Series, lambda v: pl.Series(v), list):
        pruner = pruner_of(GTAPPruner).fit(X, cast(labels))
        np.testing.assert_array_equal(pruner.predict_proba(X), expected)


# Metadata


def recording(kind):
    """A pruner that writes down what its fit is given."""

    def fit(self, X, y, **metadata):
        self.given_ = metadata
        return kind.fit(self, X, y, **metadata)

    fit.__signature__ = inspect.signature(kind.fit)
    return type("Recording", (kind,), {"fit": fit})


@pytest.mark.parametrize(
    "kind", [k for k in PRUNERS if k is not EquilibriumPrunedMLPRegressor]
)
def test_validation_sets_go_through_a_pipeline(kind, wine):
    X, y = wine
    train, valid = np.arange(0, 178, 2), np.arange(1, 178, 2)
    with config_context(enable_metadata_routing=True):
        pruner = pruner_of(kind).set_fit_request(X_val=True, y_val=True)
        pipeline = Pipeline(
            [("scale", StandardScaler()), ("prune", pruner)], transform_input=["X_val"]
        )
        pipeline.fit(X[train] * 9, y[train], X_val=X[valid] * 9, y_val=y[valid])
    scaler = StandardScaler().fit(X[train] * 9)
    X_train, X_val = scaler.transform(X[train] * 9), scaler.transform(X[valid] * 9)
    expected = pruner_of(kind).fit(X_train, y[train], X_val=X_val, y_val=y[valid])
    np.testing.assert_array_equal(
        answers(pipeline, X * 9), answers(expected, scaler.transform(X * 9))
    )


@pytest.mark.parametrize(
    "kind", [k for k in PRUNERS if has_fit_parameter(pruner_of(k), "sample_weight")]
)
def test_sample_weights_go_through_a_pipeline(kind, wine):
    X, y = wine
    y = X[:, 0] if kind is EquilibriumPrunedMLPRegressor else y
    weight = np.random.default_rng(0).uniform(0.1, 3, len(y))
    expected = pruner_of(kind).fit(X, y, sample_weight=weight)
    by_name = make_pipeline("passthrough", pruner_of(kind))
    by_name.fit(X, y, **{f"{kind.__name__.lower()}__sample_weight": weight})
    with config_context(enable_metadata_routing=True):
        pruner = pruner_of(kind).set_fit_request(sample_weight=True)
        routed = make_pipeline("passthrough", pruner).fit(X, y, sample_weight=weight)
    plain = pruner_of(kind).fit(X, y)
    for pipeline in (by_name, routed):
        assert np.array_equal(answers(pipeline, X), answers(expected, X))
    assert not np.array_equal(answers(plain, X), answers(expected, X))


def test_metadata_that_no_one_asked_for_is_refused(wine):
    with config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(StandardScaler(), pruner_of(GTAPPruner))
        with pytest.raises(ValueError, match=r"X_val.* are passed but are not"):
            pipeline.fit(*wine, X_val=wine[0], y_val=wine[1])


@pytest.mark.parametrize("n_valid", [60, 178])
def test_a_grid_slices_a_validation_set_of_as_many_rows_as_x(n_valid, wine):
    """What the guide warns of: to scikit-learn such an X_val is one row a sample."""
    X, y = wine
    rows = np.random.default_rng(0).permutation(178)[:n_valid]
    with config_context(enable_metadata_routing=True):
        pruner = recording(GTAPPruner)(net_of(), n_players_to_keep=6, random_state=0)
        search = GridSearchCV(
            pruner.set_fit_request(X_val=True, y_val=True),
            {"n_players_to_keep": [6]},
            cv=2,
            scoring=lambda pruner, X, y: len(pruner.given_["X_val"]),
        ).fit(X, y, X_val=X[rows], y_val=y[rows])
    assert search.best_score_ == (89 if n_valid == 178 else 60)
    # The refit on all samples gets all of it.
    assert search.best_estimator_.given_["X_val"].shape == (n_valid, 13)


def test_sample_weights_of_a_grid_are_sliced_with_the_folds(wine):
    X, y = wine
    weight = np.arange(178.0) + 1
    with config_context(enable_metadata_routing=True):
        pruner = recording(EquilibriumPruner)(
            net_of(), n_players_to_keep=6, n_rivals=1, random_state=0
        )
        search = GridSearchCV(
            pruner.set_fit_request(sample_weight=True),
            {"n_players_to_keep": [6]},
            cv=[(np.arange(0, 178, 2), np.arange(1, 178, 2))],
            scoring=lambda pruner, X, y: pruner.given_["sample_weight"].sum(),
        ).fit(X, y, sample_weight=weight)
    assert search.best_score_ == weight[::2].sum()
    assert np.array_equal(search.best_estimator_.given_["sample_weight"], weight)


# Copies that live elsewhere


@of_pruners
def test_pickles_joblib_and_frozen(kind, fitted, wine, tmp_path):
    X, _ = wine
    pruner = fitted(kind)
    joblib.dump(pruner, tmp_path / "pruner.joblib")
    frozen = FrozenEstimator(pruner)
    copies = [
        pickle.loads(pickle.dumps(pruner)),
        joblib.load(tmp_path / "pruner.joblib"),
        clone(frozen).fit(X[:4], np.array(["a", "b"] * 2)),
    ]
    for copy in copies:
        np.testing.assert_array_equal(answers(copy, X), answers(pruner, X))
    assert clone(frozen).estimator is pruner


@pytest.mark.parametrize(
    "kind", [k for k in PRUNERS if "estimator" in pruner_of(k).get_params()]
)
def test_frozen_nets(kind, wine):
    X, labels = wine[0], np.unique(wine[1], return_inverse=True)[1]
    torch.manual_seed(0)
    net = net_of().fit(X, labels)
    before = [parameter.detach().clone() for parameter in net.module_.parameters()]
    pruner = pruner_of(kind, FrozenEstimator(net))
    if kind is EquilibriumPruner:
        with pytest.raises(ValueError, match="estimator is a FrozenEstimator"):
            pruner.fit(X, labels)
        return
    pruner.fit(X, labels)
    assert clone(pruner).estimator.estimator is net
    after = net.module_.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("kind", PRUNERS, ids=lambda kind: kind.__name__)
def test_threads_that_fit_clones_at_once(kind, fitted, wine):
    X, y = wine
    y = X[:, 0] if kind is EquilibriumPrunedMLPRegressor else y
    with Parallel(n_jobs=2, backend="threading") as parallel:
        both = parallel(
            delayed(lambda p: answers(p.fit(X, y), X))(pruner_of(kind)) for _ in "ab"
        )
    for result in both:
        np.testing.assert_array_equal(result, answers(fitted(kind), X))


def test_an_ensemble_fits_in_threads(wine):
    X, y = wine
    one, two = (
        BaggingClassifier(pruner_of(GTAPPruner), 3, n_jobs=n_jobs, random_state=0)
        for n_jobs in (1, 2)
    )
    with joblib.parallel_config(backend="threading"):
        in_threads = two.fit(X, y).predict_proba(X)
    assert np.array_equal(one.fit(X, y).predict_proba(X), in_threads)


# The HTML representation, and where it links to

ADDRESS = "https://skprune.readthedocs.io/en/stable/generated/"


def documented():
    for kind in PARTS:
        home = kind.__module__.rpartition(".")[0]
        yield part(kind), f"{home}.{kind.__name__}"
    for kind in PRUNERS:
        yield pruner_of(kind), f"skprune.pruners.{kind.__name__}"
    for maker in (mlp_classifier, mlp_regressor):
        yield net_of(maker), f"skprune.evaluation.{maker.__name__}"
    names = ["flops", "latency", "parameters", "size_penalized", "sparsity"]
    for scorer, name in zip(SIZE_SCORERS, names, strict=True):
        yield scorer, f"skprune.metrics.{name}_scorer"


@pytest.mark.parametrize(
    ("thing", "page"), list(documented()), ids=[page for _, page in documented()]
)
def test_the_html_representation_links_to_the_page(thing, page):
    package, _, name = page.rpartition(".")
    assert name in importlib.import_module(package).__all__
    link = f"{ADDRESS}{page}.html"
    assert thing._get_doc_link() == link
    html = thing._repr_html_()
    assert f'href="{link}"' in html
    assert 'href="https://scikit-learn.org' not in html


def test_what_a_user_derives_has_no_page():
    class Half(RemovalStrategy):
        def n_leaving(self, free_values, values):
            return len(values) // 2

    assert Half()._get_doc_link() == ""
    assert "readthedocs" not in Half()._repr_html_()


def test_a_pipeline_shows_the_links_of_its_steps():
    html = make_pipeline(StandardScaler(), pruner_of(GTAPPruner))._repr_html_()
    assert f"{ADDRESS}skprune.pruners.GTAPPruner.html" in html
    assert f"{ADDRESS}skprune.evaluation.mlp_classifier.html" in html
