"""Twelve usual accidents: each pruner gives the right result or a clear error."""

import inspect
import os
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.datasets import load_wine
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import KFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skprune
from skprune import (
    EquilibriumPrunedMLP,
    EquilibriumPrunedMLPRegressor,
    EquilibriumPruner,
    GTAPPruner,
    PowerIndexSelector,
    ShapleyBucketPruner,
    mlp_classifier,
    mlp_regressor,
)
from skprune.exceptions import SkpruneWarning

pytestmark = pytest.mark.filterwarnings("ignore:the pruned network")

WIDTH = 13
FITS = {
    EquilibriumPrunedMLP: {"n_players_to_keep": 6, "n_rivals": 2},
    EquilibriumPrunedMLPRegressor: {"n_players_to_keep": 6, "n_rivals": 2},
    EquilibriumPruner: {"n_players_to_keep": 6, "n_rivals": 2},
    GTAPPruner: {"n_players_to_keep": 6},
    PowerIndexSelector: {"n_features_to_select": 6},
    ShapleyBucketPruner: {"tol": 0.1, "retrain_epochs": 1},
}
CLASSIFIERS = [kind for kind in FITS if kind is not EquilibriumPrunedMLPRegressor]
PREDICTING = [kind for kind in CLASSIFIERS if kind is not PowerIndexSelector]
AROUND_NETS = [k for k in FITS if "estimator" in inspect.signature(k).parameters]


def named(kinds):
    return pytest.mark.parametrize("kind", kinds, ids=lambda kind: kind.__name__)


def pruner_of(kind, net=mlp_classifier, **params):
    # Where players leave during the training, it takes more steps.
    max_epochs = 25 if kind.__name__.startswith("Equilibrium") else 10
    settings = {"max_epochs": max_epochs, "lr": 0.01, "device": "cpu"}
    params = FITS[kind] | {"random_state": 0} | params
    if kind in AROUND_NETS:
        return kind(net((12,), **settings), **params)
    return kind((12,), **settings, **params)


@pytest.fixture(scope="module")
def wine():
    X, y = load_wine(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def targets_for(kind, wine):
    """The classes, or for the regressor a column."""
    return wine[0][:, 0] if kind is EquilibriumPrunedMLPRegressor else wine[1]


def answers(pruner, X):
    """What it says of X: probabilities, values, or the selected columns."""
    names = ("predict_proba", "predict", "transform")
    return getattr(pruner, next(name for name in names if hasattr(pruner, name)))(X)


def is_fit_well(pruner, X, y):
    """Whether it learned something; a selector, whether another can learn from it."""
    if isinstance(pruner, PowerIndexSelector):
        return pruner.transform(X).shape[1] == 6
    return pruner.score(X, y) > 0.75


def test_all_public_estimators_are_here():
    public = [getattr(skprune, name) for name in skprune.__all__]
    kinds = [kind for kind in public if inspect.isclass(kind)]
    assert {k for k in kinds if issubclass(k, BaseEstimator)} == set(FITS)


# 1. Labels as strings, as booleans, as negative integers

LABELS = {
    "strings": lambda y: np.array(["red", "rosé", "white"])[y],
    "objects": lambda y: np.array(["red", "rosé", "white"], dtype=object)[y],
    "categories": lambda y: pd.Series(np.array(["red", "rosé", "white"])[y]),
    "booleans": lambda y: y == 1,
    "negative": lambda y: -3 * y - 2,
    "far apart": lambda y: y * 10**9,
    "floats": lambda y: y.astype(np.float32),
    "a column": lambda y: y[:, None],
}


@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@named(CLASSIFIERS)
def test_labels_of_any_kind(kind, labels, wine):
    X, y = wine
    given = labels(y)
    pruner = pruner_of(kind).fit(X, given)
    flat = np.ravel(given)
    assert pruner.classes_.tolist() == np.unique(flat).tolist()
    assert is_fit_well(pruner, X, flat)
    if kind in PREDICTING:
        predicted = pruner.predict(X)
        assert predicted.dtype == pruner.classes_.dtype
        assert set(predicted.tolist()) <= set(flat.tolist())
        order = pruner.predict_proba(X).argmax(1)
        assert (pruner.classes_[order] == predicted).all()


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(178), "one class"),
        (np.linspace(0, 1, 178), "Unknown label type: continuous"),
        ([None] * 178, "Input.*None|missing|NaN|Unknown label type"),
        (np.eye(178)[:, :3], "one label for each sample"),
    ],
    ids=["one class", "continuous", "missing", "one-hot"],
)
@named(CLASSIFIERS)
def test_labels_that_are_none(kind, y, message, wine):
    with pytest.raises((ValueError, TypeError), match=message):
        pruner_of(kind).fit(wine[0], y)


# 2. X of float64 and of integers


@named(FITS)
def test_precision_and_integers(kind, wine):
    y = targets_for(kind, wine)
    X = np.round(wine[0] * 10)
    expected = answers(pruner_of(kind).fit(X.astype(np.float32), y), X)
    for dtype in (np.float64, np.int64, np.int16, np.float16):
        pruner = pruner_of(kind).fit(X.astype(dtype), y)
        got = answers(pruner, X.astype(dtype))
        np.testing.assert_allclose(np.asarray(got, float), expected, rtol=1e-6)


@named(FITS)
def test_numbers_that_do_not_fit(kind, wine):
    X, y = wine[0].copy(), targets_for(kind, wine)
    for value, message in ((np.nan, "contains NaN"), (1e300, "beyond the range of")):
        X[3, 2] = value
        with pytest.raises(ValueError, match=message):
            pruner_of(kind).fit(X, y)
    with pytest.raises(ValueError, match=r"could not convert|dtype='numeric'"):
        pruner_of(kind).fit([["a"]] * 178, y)


# 3. A DataFrame with columns in another order at predict


@named(FITS)
def test_columns_in_another_order(kind, wine):
    names = [f"x{number}" for number in range(WIDTH)]
    frame = pd.DataFrame(wine[0], columns=names)
    pruner = pruner_of(kind).fit(frame, targets_for(kind, wine))
    with pytest.raises(ValueError, match=r"feature names should match.*(\n.*)*order"):
        answers(pruner, frame[names[::-1]])
    with pytest.raises(ValueError, match="unseen at fit time"):
        answers(pruner, frame.rename(columns={"x0": "other"}))
    with pytest.raises(ValueError, match=r"features|feature names"):
        answers(pruner, frame[names[:5]])
    assert len(answers(pruner, frame[names])) == 178


# 4. CSR at fit and dense at predict


@named(FITS)
def test_sparse_at_fit_and_dense_at_predict(kind, wine):
    X = np.where(np.abs(wine[0]) > 0.5, wine[0], 0)
    y = targets_for(kind, wine)
    for cast in (sparse.csr_matrix, sparse.csr_array):
        pruner = pruner_of(kind).fit(cast(X), y)
        of_dense, of_sparse = answers(pruner, X), answers(pruner, cast(X))
        if sparse.issparse(of_sparse):
            of_sparse = of_sparse.toarray()
        np.testing.assert_allclose(of_dense, of_sparse, rtol=1e-5, atol=1e-6)
        other = pruner_of(kind).fit(X, y)
        turned = answers(other, cast(X))
        turned = turned.toarray() if sparse.issparse(turned) else turned
        np.testing.assert_allclose(turned, answers(other, X), rtol=1e-5, atol=1e-6)


# 5. Fewer samples in a fold than classes


@named(CLASSIFIERS)
def test_fewer_samples_than_classes(kind):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 8))
    y = np.arange(40) % 20
    pruner = pruner_of(kind)
    # Classes of one sample cannot be held out, and it is said that nothing is.
    judged = kind not in (EquilibriumPrunedMLP, EquilibriumPruner)
    if judged:
        with pytest.warns(SkpruneWarning, match="no hold-out is possible"):
            pruner.fit(X[:20], y[:20])
    else:
        pruner.fit(X[:20], y[:20])
    assert pruner.classes_.tolist() == list(range(20))
    assert np.isfinite(answers(pruner, X)).all()


@pytest.mark.filterwarnings(
    "ignore:no hold-out", "ignore:Number of classes in training"
)
@named(PREDICTING)
def test_folds_without_some_classes(kind):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(36, 4)), np.arange(36) // 3
    probabilities = cross_val_predict(
        pruner_of(kind), X, y, cv=KFold(4, shuffle=False), method="predict_proba"
    )
    assert probabilities.shape == (36, 12)
    # A fold's own three classes were never seen.
    assert (probabilities[np.arange(36), y] == 0).all()
    scores = cross_val_score(pruner_of(kind), X, y, cv=KFold(4))
    assert scores.tolist() == [0, 0, 0, 0]


# 6. One constant feature


@named(FITS)
def test_one_constant_feature(kind, wine):
    y = targets_for(kind, wine)
    for value in (0.0, 1.0, 1e4):
        X = wine[0].copy()
        X[:, 5] = value
        X = StandardScaler(with_std=False).fit_transform(X) if value > 1 else X
        pruner = pruner_of(kind).fit(X, y)
        assert np.isfinite(answers(pruner, X)).all()
        assert is_fit_well(pruner, X, y)


@named(FITS)
def test_only_constant_features(kind, wine):
    X, y = np.ones((178, 7)), targets_for(kind, wine)
    pruner = pruner_of(kind)
    refused = "same for every sample|no feature is worth anything"
    if kind.__name__.startswith("Equilibrium"):
        assert np.ptp(answers(pruner.fit(X, y), X), axis=0).max() < 1e-6
        assert pruner.collapsed_
        return
    with pytest.raises((ValueError, SkpruneWarning), match=refused):
        pruner.fit(X, y)


# 7. n_jobs=2 with spawn: in a script of its own, as users start it

_SPAWNED = """
import sys
import joblib
import numpy as np
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skprune import *

if __name__ == "__main__":
    import multiprocessing
    multiprocessing.set_start_method("spawn")
    X, y = load_wine(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    net = mlp_classifier((8,), max_epochs=5, lr=0.01, device="cpu")
    for pruner, grid in (
        (GTAPPruner(net, random_state=0), {"n_players_to_keep": [2, 6]}),
        (ShapleyBucketPruner(net, retrain_epochs=1, random_state=0), {"tol": [0.1]}),
        (EquilibriumPruner(net, n_rivals=2, random_state=0), {"utility": ["descent"]}),
        (
            make_pipeline(
                PowerIndexSelector(net, random_state=0), LogisticRegression()
            ),
            {"powerindexselector__n_features_to_select": [2, 6]},
        ),
        (
            EquilibriumPrunedMLP((8,), max_epochs=5, n_rivals=2, random_state=0),
            {"n_players_to_keep": [4]},
        ),
    ):
        scores = []
        for n_jobs in (1, 2):
            search = GridSearchCV(pruner, grid, cv=2, n_jobs=n_jobs)
            search.set_params(error_score="raise")
            with joblib.parallel_config(sys.argv[1]):
                scores.append(search.fit(X, y).cv_results_["mean_test_score"])
        print(type(pruner).__name__, np.array_equal(*scores))
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_two_processes_that_are_spawned(backend, tmp_path):
    script = tmp_path / "search.py"
    script.write_text(_SPAWNED)
    done = run(script, backend)
    names = ["GTAPPruner", "ShapleyBucketPruner", "EquilibriumPruner", "Pipeline"]
    expected = [f"{name} True" for name in [*names, "EquilibriumPrunedMLP"]]
    assert done.stdout.split("\n")[:-1] == expected, done.stderr


def run(*arguments):
    """A fresh process of Python."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )


# 8. A clone of a fitted pruner, fitted on data of another width


@named(FITS)
def test_a_clone_fitted_on_another_width(kind, wine):
    X, y = wine[0], targets_for(kind, wine)
    first = pruner_of(kind).fit(X, y)
    before = answers(first, X)
    narrow = X[:, :7]
    with pytest.raises(ValueError, match=r"X has 7 features.*13 features"):
        answers(first, narrow)
    copy = clone(first)
    with pytest.raises(NotFittedError):
        answers(copy, X)
    copy.fit(narrow, y)
    assert copy.n_features_in_ == 7
    expected = answers(pruner_of(kind).fit(narrow, y), narrow)
    np.testing.assert_array_equal(answers(copy, narrow), expected)
    np.testing.assert_array_equal(answers(first, X), before)
    # The same pruner, once more.
    np.testing.assert_array_equal(answers(first.fit(narrow, y), narrow), expected)


# 9. cross_val_predict


@named(PREDICTING)
def test_cross_val_predict(kind, wine):
    X, y = wine[0], np.array(["red", "rosé", "white"])[wine[1]]
    pruner = pruner_of(kind)
    predicted = cross_val_predict(pruner, X, y, cv=2)
    probabilities = cross_val_predict(pruner, X, y, cv=2, method="predict_proba")
    assert (predicted == y).mean() > 0.8
    np.testing.assert_array_equal(np.unique(y)[probabilities.argmax(1)], predicted)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert not hasattr(pruner, "estimator_")


@named([EquilibriumPrunedMLPRegressor, GTAPPruner])
def test_cross_val_predict_of_values(kind, wine):
    X = wine[0]
    pruner = pruner_of(kind, mlp_regressor)
    predicted = cross_val_predict(pruner, X[:, 1:], X[:, 0], cv=2)
    assert predicted.shape == (178,)
    assert np.isfinite(predicted).all()
    two = cross_val_predict(pruner, X[:, 2:], X[:, :2], cv=2)
    assert two.shape == (178, 2)


# 10. A pruner inside a pruner's pipeline


@named(FITS)
def test_a_pruner_behind_a_pruner(kind, wine):
    X, y = wine[0], targets_for(kind, wine)
    first = GTAPPruner if kind is not EquilibriumPrunedMLPRegressor else kind
    pipeline = make_pipeline(StandardScaler(), pruner_of(first), pruner_of(kind))
    pipeline.fit(X, y)
    n_read = pipeline[1].transform(X).shape[1]
    assert pipeline[-1].n_features_in_ == n_read
    assert (
        len(pipeline.get_feature_names_out())
        == pipeline[-1].transform(pipeline[:-1].transform(X)).shape[1]
    )
    assert pickle.loads(pickle.dumps(pipeline)).n_features_in_ == WIDTH


@named(AROUND_NETS)
@pytest.mark.parametrize("inner", ["a pipeline", "a pruner", "another estimator"])
def test_what_is_no_net_is_refused(kind, inner, wine):
    wrong = {
        "a pipeline": make_pipeline(StandardScaler(), mlp_classifier((4,))),
        "a pruner": pruner_of(GTAPPruner),
        "another estimator": StandardScaler(),
    }[inner]
    pruner = pruner_of(kind).set_params(estimator=wrong)
    if inner == "another estimator":
        with pytest.raises(ValueError, match="'estimator' parameter of"):
            pruner.fit(*wine)
        return
    with pytest.raises(
        TypeError, match=f"must be a skorch net.* got {type(wrong).__name__}"
    ):
        pruner.fit(*wine)


# 11. set_params on a fitted pruner


@named(FITS)
def test_set_params_after_fit(kind, wine):
    X, y = wine[0], targets_for(kind, wine)
    pruner = pruner_of(kind).fit(X, y)
    before, names = answers(pruner, X), pruner.get_feature_names_out().tolist()
    nested = "estimator__module__hidden_layer_sizes"
    name = nested if kind in AROUND_NETS else "hidden_layer_sizes"
    change = {name: (9,), "random_state": 1}
    pruner.set_params(**change)
    np.testing.assert_array_equal(answers(pruner, X), before)
    assert pruner.get_feature_names_out().tolist() == names
    pickled = pickle.loads(pickle.dumps(pruner))
    np.testing.assert_array_equal(answers(pickled, X), before)
    expected = pruner_of(kind).set_params(**change).fit(X, y)
    np.testing.assert_array_equal(answers(pruner.fit(X, y), X), answers(expected, X))
    net = pruner.estimator_
    assert net.module_[0].in_features == WIDTH
    if hasattr(pruner, "size_report_"):
        assert pruner.size_report_["before"].n_players == 9


@named(AROUND_NETS)
def test_a_fitted_pruner_takes_another_task(kind, wine):
    X, y = wine
    pruner = pruner_of(kind).fit(X, y)
    other = pruner_of(kind, mlp_regressor)
    pruner.set_params(estimator=other.estimator).fit(X[:, 1:], X[:, 0])
    assert not is_classifier(pruner)
    assert not hasattr(pruner, "classes_")
    expected = other.fit(X[:, 1:], X[:, 0])
    np.testing.assert_array_equal(
        answers(pruner, X[:, 1:]), answers(expected, X[:, 1:])
    )


# 12. Unpickling in a fresh process

_UNPICKLED = """
import pickle, sys
import numpy as np
with open(sys.argv[1], "rb") as file:
    pruners, X = pickle.load(file)
for pruner, expected in pruners:
    names = ("predict_proba", "predict", "transform")
    ask = getattr(pruner, next(name for name in names if hasattr(pruner, name)))
    same = np.array_equal(ask(X), expected)
    print(type(pruner).__name__, same)
"""


def test_unpickled_in_a_fresh_process(wine, tmp_path):
    X, pruners = wine[0], []
    for kind in FITS:
        pruner = pruner_of(kind).fit(X, targets_for(kind, wine))
        pruners.append((pruner, answers(pruner, X)))
    path = tmp_path / "pruners.pickle"
    path.write_bytes(pickle.dumps((pruners, X)))
    done = run("-c", _UNPICKLED, path)
    expected = [f"{kind.__name__} True" for kind in FITS]
    assert done.stdout.split("\n")[:-1] == expected, done.stderr
