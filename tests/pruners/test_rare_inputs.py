"""What is legal and rare works, and what is refused leaves the pruner what it was."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.pipeline import make_pipeline
from skorch import NeuralNetClassifier
from skorch.dataset import Dataset
from torch import nn

from skprune import (
    EquilibriumPrunedMLP,
    EquilibriumPruner,
    GTAPPruner,
    PowerIndexSelector,
    ShapleyBucketPruner,
    mlp_classifier,
    mlp_regressor,
)
from skprune.evaluation import CoalitionEvaluator
from skprune.exceptions import SkpruneWarning


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return ((X - X.mean(axis=0)) / X.std(axis=0)).astype(np.float32), y


def quick():
    return mlp_classifier((16,), max_epochs=3, lr=0.01)


PRUNERS = {
    "gtap": GTAPPruner(quick(), random_state=0),
    "equilibrium": EquilibriumPrunedMLP((16,), max_epochs=3, random_state=0),
    "around a net": EquilibriumPruner(quick(), random_state=0),
}


@pytest.mark.parametrize("pruner", PRUNERS.values(), ids=PRUNERS)
def test_a_fit_that_fails_leaves_the_pruner_what_it_was(pruner, iris):
    X, y = iris
    pruner = clone(pruner).set_params(n_players_to_keep=6)
    pruner.fit(X, np.array(["a", "b", "c"])[y])
    before = pruner.predict(X)
    pruner.set_params(n_players_to_keep=100)
    with pytest.raises(ValueError, match="n_players_to_keep=100"):
        pruner.fit(X[:, :2], np.array(["c", "b", "a"])[y])
    assert pruner.n_players_to_keep == 100
    assert pruner.n_features_in_ == 4
    np.testing.assert_array_equal(pruner.predict(X), before)


def test_what_was_never_fitted_stays_so(iris):
    pruner = ShapleyBucketPruner(quick(), random_state=0)
    params = dict(vars(pruner))
    with pytest.raises(ValueError, match="one class only"):
        pruner.fit(iris[0], np.zeros(150))
    assert vars(pruner) == params


@pytest.mark.parametrize("kind", [GTAPPruner, EquilibriumPruner])
def test_a_dict_for_a_perceptron(kind, iris):
    X, y = iris
    mlp = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    net = NeuralNetClassifier(mlp, criterion=nn.CrossEntropyLoss, verbose=0)
    pruner = kind(net, n_players_to_keep=6, random_state=0).fit({"input": X}, y)
    twin = kind(net, n_players_to_keep=6, random_state=0).fit(X, y)
    np.testing.assert_array_equal(
        pruner.predict_proba({"input": X}), twin.predict_proba(X)
    )


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = x + self.first(x).relu()
        return self.head(x + self.second(x).relu())


def test_a_small_share_of_few_layers_is_one_of_them(iris):
    X, y = iris
    net = NeuralNetClassifier(Residual, criterion=nn.CrossEntropyLoss, verbose=0)
    pruner = GTAPPruner(
        net, players="layers", payoff="accuracy", n_players_to_keep=0.2, random_state=0
    ).fit(X, y)
    assert pruner.support_.sum() == 1


def test_one_sample_has_an_axis_too(iris):
    X, y = iris
    net = quick().fit(X, y.astype(np.int64))
    game = CoalitionEvaluator(net, X[:1], y[:1])
    assert game.sample_payoffs(np.ones((5, 16), bool)).shape == (5, 1)
    assert game.predict(np.ones((5, 16), bool)).shape == (5, 1)
    X, y = load_diabetes(return_X_y=True)
    selector = PowerIndexSelector(mlp_regressor((16,), max_epochs=2), random_state=0)
    selector.fit(X[1:60], y[1:60], X_val=X[:1], y_val=y[:1])
    assert 0 < selector.get_support().sum() <= 10


@pytest.mark.parametrize(
    "kind", [GTAPPruner, ShapleyBucketPruner, EquilibriumPruner, PowerIndexSelector]
)
def test_data_sets_are_refused(kind, iris):
    X, y = iris
    with pytest.raises(TypeError, match="X is a Dataset; give X and y as arrays"):
        kind(quick()).fit(Dataset(X, y), y)


def test_images_are_no_table():
    X, y = load_digits().images[:40], load_digits().target[:40]
    with pytest.raises(ValueError, match=r"X must be a table.*\(40, 8, 8\)"):
        EquilibriumPrunedMLP().fit(X, y)


def test_a_y_that_is_too_short_is_called_that(iris):
    X, y = iris
    with pytest.raises(ValueError, match="X has 150 samples where y has 50"):
        GTAPPruner(quick()).fit(X, y[:50])


def test_numbers_of_columns_are_those_of_the_last_fit(iris):
    X, y = iris
    pruner = GTAPPruner(quick(), n_players_to_keep=6, random_state=0)
    pruner.fit(pd.DataFrame(X, columns=list("abcd")), y)
    pruner.fit(torch.from_numpy(X[:, :2].astype(np.float16)), y)
    assert not hasattr(pruner, "feature_names_in_")
    assert pruner.predict(X[:, :2]).shape == (150,)


def test_parts_of_a_validation_set_are_of_one_length(iris):
    X, y = iris
    net = NeuralNetClassifier(TwoParts(), criterion=nn.CrossEntropyLoss, verbose=0)
    parts = {"left": X[:, :2], "right": X[:, 2:]}
    pruner = GTAPPruner(net, n_players_to_keep=6, random_state=0)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        pruner.fit(parts, y, X_val=parts, y_val=y[:50])


class TwoParts(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(4, 16), nn.Linear(16, 3)

    def forward(self, left, right):
        return self.out(self.hidden(torch.cat([left, right], dim=1)).relu())


WARNED = {
    "gtap": GTAPPruner(quick(), random_state=0),
    "bucket": ShapleyBucketPruner(quick(), random_state=0),
    "equilibrium": EquilibriumPrunedMLP(
        (16,), max_epochs=3, early_stopping=True, random_state=0
    ),
    "around a net": EquilibriumPruner(quick(), early_stopping=True, random_state=0),
}


@pytest.mark.parametrize("wrap", [lambda pruner: pruner, make_pipeline])
@pytest.mark.parametrize("pruner", WARNED.values(), ids=WARNED)
def test_warnings_point_to_the_line_of_the_user(pruner, wrap, iris):
    X, y = iris
    # The rarest class has one sample, so that nothing can be held out.
    rows = np.r_[:60, 100]
    with pytest.warns(SkpruneWarning, match="no hold-out is possible") as seen:
        wrap(clone(pruner)).fit(X[rows], y[rows])
    assert {warning.filename for warning in seen} == {__file__}
