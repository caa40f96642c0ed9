"""What users run into with equilibrium pruning: a clear error before any training."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from skorch import (
    NeuralNet,
    NeuralNetBinaryClassifier,
    NeuralNetClassifier,
    NeuralNetRegressor,
)
from skorch.callbacks import Callback
from torch import nn

from skprune import (
    EquilibriumPrunedMLP,
    EquilibriumPrunedMLPRegressor,
    EquilibriumPruner,
)
from skprune.exceptions import SkpruneWarning


class NeverTrained(Callback):
    def on_epoch_begin(self, net, **_):
        raise AssertionError("training began before the settings were checked")


def perceptron(kind=EquilibriumPrunedMLP, **params):
    """One that must not train."""
    settings = {
        "hidden_layer_sizes": (16, 8),
        "n_players_to_keep": 8,
        "max_epochs": 3,
        "n_rivals": 1,
        "net_callbacks": [NeverTrained()],
        "random_state": 0,
    }
    return kind(**settings | params)


def mlp(n_outputs=3):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 16),
        nn.ReLU(),
        nn.Linear(16, 8),
        nn.ReLU(),
        nn.Linear(8, n_outputs),
    )


def net_of(kind=NeuralNetClassifier, module=None, **params):
    settings = {"max_epochs": 2, "verbose": 0, "callbacks": [NeverTrained()]}
    if kind is NeuralNetClassifier:
        settings["criterion"] = nn.CrossEntropyLoss
    return kind(module or mlp(), **settings | params)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 6))
    return X, X[:, :3].argmax(1)


# What may be wrong with a parameter, and a word of the cure in the message.
WRONG_MARKET = [
    ("n_players_to_keep", 0, "range"),
    ("n_players_to_keep", -3, "range"),
    ("n_players_to_keep", 1, "from 2 to 24"),
    ("n_players_to_keep", 25, "from 2 to 24"),
    ("n_players_to_keep", 0.0, "range"),
    ("n_players_to_keep", 1.5, "range"),
    ("n_players_to_keep", "half", "must be"),
    ("n_players_to_keep", [5], "one whole number for each"),
    ("n_players_to_keep", [5, 3, 2], "one whole number for each"),
    ("n_players_to_keep", [0, 3], r"from \[1, 1\]"),
    ("n_players_to_keep", [17, 3], r"to \[16, 8\]"),
    ("n_players_to_keep", [5.0, 3.0], "whole number"),
    ("n_players_to_keep", [0.5, 0.5], "whole number"),
    ("n_players_to_keep", [[5, 3]], "whole number"),
    ("min_per_layer", 0, "range"),
    ("min_per_layer", 1.5, "must be"),
    ("utility", "up", "descent"),
    ("utility", None, "descent"),
    ("alpha", -1.0, "range"),
    ("alpha", "much", "range"),
    ("alpha", float("nan"), "range"),
    ("alpha", float("inf"), "range"),
    ("beta", -1e-3, "range"),
    ("gamma", -0.1, "range"),
    ("gamma", "high", "auto"),
    ("eta", -1, "range"),
    ("benefit", "money", "curvature"),
    ("participation_optimizer", "lbfgs", "adam"),
    ("participation_lr", 0, "range"),
    ("participation_lr", float("inf"), "range"),
    ("removal_period", (0.5, 0.2), "two shares"),
    ("removal_period", (0.1, 1.2), "two shares"),
    ("removal_period", (-0.1, 0.2), "two shares"),
    ("removal_period", (0, 0.1, 0.2), "two shares"),
    ("removal_period", ("a", "b"), "two shares"),
    ("removal_period", (float("nan"), 0.5), "two shares"),
    ("removal_period", 0.5, "auto"),
    ("removal_period", "soon", "auto"),
    ("n_rivals", 0, "range"),
    ("n_rivals", 1.5, "must be"),
    ("early_stopping", "yes", "must be"),
    ("validation_fraction", 0.0, "range"),
    ("validation_fraction", 1.0, "range"),
    ("validation_fraction", 5, "range"),
    ("n_iter_no_change", 0, "range"),
    ("condition_numbers", "all", "must be"),
    ("random_state", "seed", "must be"),
    ("verbose", "loud", "must be"),
]
WRONG_NET = [
    ("hidden_layer_sizes", (), "one whole number for each"),
    ("hidden_layer_sizes", 0, "range"),
    ("hidden_layer_sizes", (16, 0), "at least 1"),
    ("hidden_layer_sizes", (-16, 8), "at least 1"),
    ("hidden_layer_sizes", (16.0, 8.0), "whole number"),
    ("hidden_layer_sizes", [[16, 8]], "whole number"),
    ("hidden_layer_sizes", ["16", "8"], "whole number"),
    ("hidden_layer_sizes", (True, True), "whole number"),
    ("hidden_layer_sizes", "big", "must be"),
    ("hidden_layer_sizes", 2.5, "must be"),
    ("activation", "softmax", "relu"),
    ("max_epochs", 0, "range"),
    ("max_epochs", 2.5, "must be"),
    ("batch_size", 0, "range"),
    ("batch_size", -1, "range"),
    ("batch_size", "many", "auto"),
    ("weight_decay", "some", "auto"),
    ("lr", 0, "range"),
    ("lr", -0.1, "range"),
    ("lr", float("nan"), "range"),
    ("weight_decay", -1, "range"),
    ("net_callbacks", 3, "must be"),
    ("device", 3, "must be"),
]


@pytest.mark.parametrize(("name", "value", "cure"), WRONG_MARKET + WRONG_NET, ids=str)
@pytest.mark.parametrize("kind", [EquilibriumPrunedMLP, EquilibriumPrunedMLPRegressor])
def test_wrong_parameters(data, kind, name, value, cure):
    model = perceptron(kind, **{name: value})
    with pytest.raises((ValueError, TypeError), match=rf"(?s){name}.*{cure}") as error:
        model.fit(*data)
    assert repr(value) in str(error.value)
    assert not hasattr(model, "estimator_")


@pytest.mark.parametrize(("name", "value", "cure"), WRONG_MARKET, ids=str)
def test_wrong_parameters_around_a_net(data, name, value, cure):
    settings = {"n_players_to_keep": 8} | {name: value}
    pruner = EquilibriumPruner(net_of(), **settings)
    with pytest.raises((ValueError, TypeError), match=rf"(?s){name}.*{cure}") as error:
        pruner.fit(*data)
    assert repr(value) in str(error.value)


def test_an_unknown_device(data):
    with pytest.raises(ValueError, match=r"device='gpu7'"):
        perceptron(device="gpu7").fit(*data)


@pytest.mark.parametrize(("floor", "size"), [(4, 7), (4, [3, 8]), (8, 15)], ids=str)
def test_counts_below_the_floors(data, floor, size):
    model = perceptron(min_per_layer=floor, n_players_to_keep=size)
    with pytest.raises(ValueError, match=r"n_players_to_keep.*min_per_layer"):
        model.fit(*data)


# Data


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300], ids=str)
def test_x_is_not_finite(data, value):
    X, y = data[0].copy(), data[1]
    X[3, 2] = value
    message = "beyond the range" if value == 1e300 else "Input X contains"
    with pytest.raises(ValueError, match=message):
        perceptron().fit(X, y)
    with pytest.raises(ValueError, match=message):
        perceptron().fit(sparse.csr_matrix(X), y)


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
@pytest.mark.parametrize("kind", [EquilibriumPrunedMLP, EquilibriumPrunedMLPRegressor])
def test_y_is_not_finite(data, kind, value):
    y = data[1].astype(float)
    y[5] = value
    with pytest.raises(ValueError, match=r"(?i)nan|infinity"):
        perceptron(kind).fit(data[0], y)


@pytest.mark.parametrize("kind", [EquilibriumPrunedMLP, EquilibriumPrunedMLPRegressor])
def test_y_is_missing_or_of_another_length(data, kind):
    X, y = data
    with pytest.raises(ValueError, match="y is None"):
        perceptron(kind).fit(X, None)
    for rows in (y[:-1], np.append(y, 0)):
        with pytest.raises(ValueError, match=rf"60 samples where y has {len(rows)}"):
            perceptron(kind).fit(X, rows)


def test_labels_that_are_none(data):
    X, y = data
    with pytest.raises(ValueError, match=r"one class only, \[1\]"):
        perceptron().fit(X, np.ones(60, int))
    with pytest.raises(ValueError, match="Unknown label type"):
        perceptron().fit(X, X[:, 0])
    with pytest.raises(ValueError, match="one class only"):
        perceptron().fit(X[:1], y[:1])


def test_several_columns_of_labels(data):
    X, y = data
    with pytest.raises(ValueError, match=r"multioutput|1d array|\(60, 2\)"):
        perceptron().fit(X, np.stack([y, y], 1))


def test_no_samples_no_features_no_rows(data):
    X, y = data
    for kind in (EquilibriumPrunedMLP, EquilibriumPrunedMLPRegressor):
        with pytest.raises(ValueError, match="0 sample"):
            perceptron(kind).fit(X[:0], y[:0])
        with pytest.raises(ValueError, match="Expected 2D array"):
            perceptron(kind).fit(X[0], y)
    with pytest.raises(ValueError, match="0 feature"):
        perceptron().fit(X[:, :0], y)


def test_a_regressor_of_one_sample(data):
    X = data[0]
    model = perceptron(EquilibriumPrunedMLPRegressor, net_callbacks=None)
    model.fit(X[:1], [3.5])
    assert not model.collapsed_
    np.testing.assert_allclose(model.predict(X[:1]), 3.5, atol=2)


def test_targets_that_do_not_vary(data):
    X, _ = data
    model = perceptron(EquilibriumPrunedMLPRegressor, net_callbacks=None, max_epochs=10)
    model.fit(X, np.full(60, 42.0))
    np.testing.assert_allclose(model.predict(X), 42.0, atol=1.5)


@pytest.mark.filterwarnings("ignore:the pruned network")
def test_one_feature_one_column_of_zeros_and_two_samples(data):
    X, y = data
    X = X.copy()
    X[:, 1] = 0
    for some, labels in [(X[:, :1], y), (X, y), (X[:2], [0, 1])]:
        model = perceptron(net_callbacks=None).fit(some, labels)
        assert model.support_.sum() == 8
        assert np.isfinite(model.predict_proba(some)).all()


def test_half_a_validation_set(data):
    X, y = data
    for validation in ({"X_val": X}, {"y_val": y}):
        with pytest.raises(ValueError, match="pass X_val and y_val together"):
            perceptron().fit(X, y, **validation)


def test_a_validation_set_that_does_not_fit(data):
    X, y = data
    with pytest.raises(ValueError, match=r"y_val holds labels.*\[7\].*\[0, 1, 2\]"):
        perceptron().fit(X, y, X_val=X, y_val=np.where(y == 2, 7, y))
    with pytest.raises(ValueError, match="X has 4 features"):
        perceptron().fit(X, y, X_val=X[:, :4], y_val=y)
    with pytest.raises(ValueError, match="inconsistent numbers"):
        perceptron().fit(X, y, X_val=X[:5], y_val=y)
    with pytest.raises(ValueError, match="0 sample"):
        perceptron().fit(X, y, X_val=X[:0], y_val=y[:0])


def test_validation_targets_of_another_width(data):
    X, y = data
    two = np.stack([y, y], 1).astype(float)
    for targets, validation in ((two, two[:, 0]), (two[:, 0], two)):
        with pytest.raises(ValueError, match="y_val"):
            perceptron(EquilibriumPrunedMLPRegressor).fit(
                X, targets, X_val=X, y_val=validation
            )


def test_a_class_of_one_sample_leaves_nothing_to_stop_by(data):
    X, y = data[0], np.zeros(60, int)
    y[:1] = 1
    model = perceptron(early_stopping=True, net_callbacks=None)
    with pytest.warns(SkpruneWarning, match="no hold-out is possible"):
        model.fit(X, y)
    assert model.support_.sum() == 8


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.full(60, -1.0), r"(?i)negative.*sample_weight"),
        (np.zeros(60), r"sample_weight is 0|at least one non-zero"),
        (np.ones(59), r"sample_weight"),
        (np.ones((60, 2)), r"(?i)sample.weight"),
        (np.full(60, np.nan), r"sample_weight"),
        (["a"] * 60, r"could not convert|sample_weight"),
    ],
    ids=["negative", "zero", "short", "2d", "nan", "words"],
)
def test_wrong_sample_weights(data, weight, message):
    with pytest.raises(ValueError, match=message):
        perceptron().fit(*data, weight)
    with pytest.raises(ValueError, match=message):
        EquilibriumPruner(net_of(), n_players_to_keep=8).fit(*data, weight)


def test_weight_for_one_class_only(data):
    X, y = data
    model = perceptron(net_callbacks=None).fit(X, y, (y == 1).astype(float))
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.predict_proba(X).shape == (60, 3)


# Afterwards


def test_before_fit(data):
    for method in ("predict", "predict_proba", "transform"):
        with pytest.raises(NotFittedError):
            getattr(perceptron(), method)(data[0])
    with pytest.raises(NotFittedError):
        perceptron().get_feature_names_out()


@pytest.mark.parametrize("method", ["predict", "predict_proba", "transform"])
def test_other_features_at_predict(data, method):
    X, y = data
    model = perceptron(net_callbacks=None).fit(X, y)
    with pytest.raises(ValueError, match="X has 5 features"):
        getattr(model, method)(X[:, :5])
    with pytest.raises(ValueError, match="contains NaN"):
        getattr(model, method)(np.full((2, 6), np.nan))
    frame = pd.DataFrame(X, columns=list("abcdef"))
    model.fit(frame, y)
    with pytest.raises(ValueError, match="feature names"):
        getattr(model, method)(frame[list("fedcba")])


def test_a_failed_refit_leaves_no_half_a_model(data):
    X, y = data
    model = perceptron(net_callbacks=None).fit(X, y)
    expected = model.predict_proba(X)
    with pytest.raises(ValueError, match="lr"):
        model.set_params(lr=-1).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), expected)


def test_data_are_not_written_to(data):
    X, y = data[0].astype(np.float32), data[1]
    before = X.copy(), y.copy()
    weight = np.ones(60)
    perceptron(net_callbacks=None).fit(X, y, weight, X_val=X, y_val=y)
    X.flags.writeable = False
    perceptron(net_callbacks=None).fit(X, y)
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])
    assert (weight == 1).all()


# The net


def test_a_frozen_net(data):
    net = net_of(callbacks=None).fit(data[0].astype(np.float32), data[1])
    with pytest.raises(ValueError, match=r"FrozenEstimator.*GTAPPruner"):
        EquilibriumPruner(FrozenEstimator(net), n_players_to_keep=8).fit(*data)


@pytest.mark.parametrize("players", ["inputs", [("inputs", "0"), ("neurons", "2")]])
def test_inputs_do_not_play(data, players):
    pruner = EquilibriumPruner(net_of(), players=players, n_players_to_keep=5)
    with pytest.raises(ValueError, match=r"players=.*inputs.*'neurons'"):
        pruner.fit(*data)


@pytest.mark.parametrize(
    "players",
    ["nobody", "filters", [("neurons", "4")], [("neurons", "9")], []],
    ids=str,
)
def test_players_that_are_none(data, players):
    pruner = EquilibriumPruner(net_of(), players=players, n_players_to_keep=5)
    with pytest.raises(ValueError, match="players"):
        pruner.fit(*data)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (mlp(), "estimator"),
        (NeuralNet(mlp(), criterion=nn.MSELoss), "neither a classifier"),
    ],
    ids=["module", "bare net"],
)
def test_what_is_no_estimator(data, estimator, message):
    with pytest.raises((ValueError, TypeError), match=message):
        EquilibriumPruner(estimator, n_players_to_keep=8).fit(*data)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (net_of(module=mlp(5)), "outputs for 5 classes where y holds 3"),
        (net_of(NeuralNetBinaryClassifier, mlp(1)), "use a NeuralNetClassifier"),
        (net_of(NeuralNetRegressor, mlp(2)), r"outputs have shape \(16, 2\)"),
    ],
    ids=["wide", "binary", "regressor"],
)
def test_outputs_that_do_not_fit_y(data, net, message):
    with pytest.raises(ValueError, match=message):
        EquilibriumPruner(net, n_players_to_keep=8).fit(*data)


def test_weights_go_with_batches_that_know_their_rows(data):
    class Loader(torch.utils.data.DataLoader):
        pass

    net = net_of(iterator_train=Loader, callbacks=None)
    pruner = EquilibriumPruner(net, n_players_to_keep=8)
    with pytest.raises(ValueError, match="set it to TensorBatches"):
        pruner.fit(*data, np.arange(60.0))
