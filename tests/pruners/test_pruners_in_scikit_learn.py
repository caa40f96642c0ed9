"""Pruners in pipelines and grids, around nets that take their widths from the data."""

import pickle

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from scipy import sparse
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import load_digits, load_wine, make_regression
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn

from skprune import (
    EquilibriumPruner,
    GTAPPruner,
    ShapleyBucketPruner,
    mlp_classifier,
    mlp_regressor,
)
from skprune.evaluation import SparseRows
from skprune.pruners._data import split_data

PRUNERS = [EquilibriumPruner, GTAPPruner, ShapleyBucketPruner]


def net_of(kind=mlp_classifier, sizes=(12,), **params):
    return kind(sizes, **({"max_epochs": 10, "lr": 0.01, "device": "cpu"} | params))


def pruner_of(kind, net=mlp_classifier, **params):
    if kind is not ShapleyBucketPruner:
        params = {"n_players_to_keep": 6} | params
    return kind(net_of(net), **({"random_state": 0} | params))


@pytest.fixture(scope="module")
def wine():
    X, y = load_wine(return_X_y=True)
    return StandardScaler().fit_transform(X), np.array(["red", "rosé", "white"])[y]


@pytest.mark.parametrize("kind", PRUNERS)
def test_without_an_estimator_it_is_a_perceptron(kind, wine):
    X, y = wine
    pruner = kind(random_state=0).fit(X, y)
    assert pruner.estimator is None
    assert is_classifier(pruner)
    assert len(pruner.support_) == 100
    assert pruner.module_.hidden_1.in_features == 13
    assert set(pruner.predict(X)) <= set(y)
    assert pruner.score(X, y) > 0.8


@pytest.mark.parametrize("kind", PRUNERS)
def test_regressors(kind):
    X, y = make_regression(200, 6, n_targets=2, random_state=0)
    X, y = StandardScaler().fit_transform(X), StandardScaler().fit_transform(y)
    pruner = pruner_of(kind, mlp_regressor)
    assert is_regressor(pruner)
    assert get_tags(pruner).target_tags.multi_output
    assert pruner.fit(X, y).predict(X).shape == (200, 2)
    assert pruner.score(X, y) > 0.5
    assert pruner.fit(X, y[:, 0]).predict(X).shape == (200,)
    assert not hasattr(pruner, "predict_proba")


class NoTraining(Callback):
    def on_train_begin(self, net, **kwargs):
        raise AssertionError("training began")


@pytest.mark.parametrize("kind", PRUNERS)
def test_what_cannot_be_is_refused_before_training(kind, wine):
    net = net_of(callbacks=[NoTraining()])
    with pytest.raises(AssertionError, match="training began"):
        kind(net, random_state=0).fit(*wine)
    wrong = {"players": [("neurons", "hidden_7")]}
    with pytest.raises(ValueError, match="hidden_7"):
        kind(net, random_state=0, **wrong).fit(*wine)


@pytest.mark.parametrize("kind", [EquilibriumPruner, GTAPPruner])
def test_a_size_out_of_reach_is_refused_before_training(kind, wine):
    net = net_of(callbacks=[NoTraining()])
    with pytest.raises(ValueError, match="n_players_to_keep=13"):
        kind(net, n_players_to_keep=13, random_state=0).fit(*wine)


# With a rate of 1e-7 nothing is learned.
@pytest.mark.filterwarnings("ignore:the pruned network")
@pytest.mark.parametrize("kind", PRUNERS)
def test_a_grid_over_the_net(kind, wine):
    pipeline = make_pipeline(StandardScaler(), pruner_of(kind))
    name = kind.__name__.lower()
    grid = {
        f"{name}__estimator__module__hidden_layer_sizes": [(8,), (8, 6)],
        f"{name}__estimator__lr": [1e-7, 0.02],
    }
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(*wine)
    assert search.best_params_[f"{name}__estimator__lr"] == 0.02
    best = search.best_estimator_[-1]
    sizes = search.best_params_[f"{name}__estimator__module__hidden_layer_sizes"]
    assert len(best.support_) == sum(sizes)
    assert search.score(*wine) > 0.8


@pytest.mark.parametrize("kind", PRUNERS)
def test_frames_out_of_transform(kind, wine):
    pruner = pruner_of(kind).fit(*wine)
    hidden = pruner.transform(wine[0])
    frame = pruner.set_output(transform="pandas").transform(wine[0])
    assert frame.columns.tolist() == pruner.get_feature_names_out().tolist()
    assert all(name.startswith("hidden_1[") for name in frame.columns)
    assert np.array_equal(frame.to_numpy(), hidden)
    assert hidden.dtype == np.float32


@pytest.mark.parametrize("kind", PRUNERS)
def test_clones_pickles_and_other_widths(kind, wine):
    X, y = wine
    pruner = pruner_of(kind).fit(X, y)
    expected = pruner.predict_proba(X)
    again = pickle.loads(pickle.dumps(pruner))
    assert np.array_equal(again.predict_proba(X), expected)
    fresh = clone(pruner)
    with pytest.raises(NotFittedError):
        fresh.predict(X)
    assert np.array_equal(fresh.fit(X, y).predict_proba(X), expected)
    red = y == "red"
    narrow = clone(pruner).fit(X[:, :4], red)
    assert narrow.module_.hidden_1.in_features == 4
    assert narrow.predict_proba(X[:, :4]).shape == (len(X), 2)
    # An unfitted net stays one, whatever a pruner does with its clones.
    assert not pruner.estimator.initialized_


@pytest.mark.parametrize("kind", PRUNERS)
def test_the_pruned_net_trains_on_and_refits(kind, wine):
    X, y = wine
    pruner = pruner_of(kind).fit(X, y)
    net, y = clone(pruner.estimator_), np.searchsorted(pruner.classes_, y)
    n_kept = pruner.support_.sum()
    net.fit(X.astype(np.float32), y)
    assert net.module_.hidden_1.out_features == n_kept
    assert net.score(X.astype(np.float32), y) > 0.8


@pytest.mark.parametrize("kind", PRUNERS)
def test_texts_are_never_made_dense(kind, monkeypatch):
    to_dense = SparseRows.to_dense

    def refuse(self):
        # Of a few rows the shapes in a module are read off.
        assert self.shape[0] <= 16, "made dense"
        return to_dense(self)

    rng = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(300)])
    y = np.arange(120) % 3
    texts = [" ".join(rng.choice(words[100 * k : 100 * (k + 1)], 12)) for k in y]
    monkeypatch.setattr(SparseRows, "to_dense", refuse)
    monkeypatch.setattr(sparse.csr_matrix, "toarray", refuse)
    pipeline = make_pipeline(TfidfVectorizer(), pruner_of(kind)).fit(texts, y)
    assert pipeline.score(texts, y) > 0.8


@pytest.mark.parametrize("kind", [GTAPPruner, ShapleyBucketPruner])
def test_a_frozen_net(kind, wine):
    X, y = wine
    labels = np.unique(y, return_inverse=True)[1]
    torch.manual_seed(0)
    net = net_of().fit(X, labels)
    weights = net.module_.hidden_1.weight.detach().clone()
    pruner = kind(FrozenEstimator(net), random_state=0).fit(X, labels)
    assert pruner.classes_.tolist() == [0, 1, 2]
    assert pruner.score(X, labels) > 0.8
    assert torch.equal(net.module_.hidden_1.weight, weights)
    assert clone(pruner).estimator.estimator is net


def test_a_frozen_net_does_not_train():
    X, y = load_digits(return_X_y=True)
    net = net_of(max_epochs=1).fit(X[:200] / 16, y[:200])
    with pytest.raises(ValueError, match="is a FrozenEstimator"):
        EquilibriumPruner(FrozenEstimator(net)).fit(X[:200], y[:200])


def test_a_pipeline_of_nets(wine):
    # What one pruner makes of the data is what the next one learns from.
    pipeline = make_pipeline(
        StandardScaler(), pruner_of(GTAPPruner), pruner_of(GTAPPruner)
    )
    assert pipeline.fit(*wine).score(*wine) > 0.8
    assert pipeline[-1].n_features_in_ == 6


def test_folds_and_threads(wine):
    X, y = wine
    pruner = pruner_of(GTAPPruner)
    predicted = cross_val_predict(pruner, X, y, cv=3)
    assert (predicted == y).mean() > 0.8
    probabilities = Parallel(n_jobs=2, backend="threading")(
        delayed(lambda p: p.fit(X, y).predict_proba(X))(clone(pruner)) for _ in "ab"
    )
    assert np.array_equal(*probabilities)


class Named(nn.Module):
    """Not a Sequential: who knows what it can compute with."""

    def __init__(self):
        super().__init__()
        self.hidden, self.output = nn.Linear(13, 12), nn.Linear(12, 3)

    def forward(self, x):
        assert x.dtype == torch.float32
        return self.output(torch.relu(self.hidden(x)))


def test_modules_of_other_kinds_predict_in_their_own_precision(wine):
    net = NeuralNetClassifier(
        Named, criterion=nn.CrossEntropyLoss, lr=0.1, train_split=None, verbose=0
    )
    pruner = GTAPPruner(net, n_players_to_keep=6, random_state=0).fit(*wine)
    assert pruner.predict_proba(wine[0]).dtype == np.float32


@pytest.mark.parametrize("kind", PRUNERS)
def test_what_a_row_gets_does_not_depend_on_the_others(kind):
    X, y = load_digits(return_X_y=True)
    X, y = X[:400] / 16, y[:400]
    pruner = pruner_of(kind).fit(X, y)
    together = pruner.predict_proba(X)
    alone = np.concatenate([pruner.predict_proba(X[i : i + 1]) for i in range(50)])
    np.testing.assert_allclose(alone, together[:50], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.6, 0.8])
def test_both_parts_of_the_data_have_every_class(fraction):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2, 3], [200, 2, 3, 2])
    X = rng.normal(size=(len(y), 2))
    for seed in range(10):
        data = split_data(X, y, None, None, fraction, True, seed, frozen=False)
        assert set(data.y) == set(data.y_val) == {0, 1, 2, 3}
        rows = np.concatenate([data.X, data.X_val])
        assert len(np.unique(rows, axis=0)) == len(rows) == len(y)


def test_one_sample_is_not_enough_to_judge_by():
    with pytest.raises(ValueError, match="n_samples=1: networks cannot be judged"):
        GTAPPruner(net_of(mlp_regressor)).fit([[0.0, 1.0]], [1.0])
