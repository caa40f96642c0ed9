"""Corners of equilibrium pruning that users of skorch reach: refused, or right."""

import joblib
import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Checkpoint, EarlyStopping, EpochTimer
from torch import nn

from skprune import (
    EquilibriumPrunedMLP,
    EquilibriumPrunedMLPRegressor,
    EquilibriumPruner,
)
from skprune.exceptions import UnsupportedNetworkError


class Encoded(NeuralNetClassifier):
    """A net of two modules."""

    def initialize_module(self):
        super().initialize_module()
        self.encoder_ = nn.Linear(6, 6)
        return self

    def infer(self, x, **params):
        return self.module_(self.encoder_(x))


class TwoAnswers(nn.Module):
    """Logits, and probabilities beside them."""

    def __init__(self):
        super().__init__()
        self.hidden, self.output = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x):
        logits = self.output(torch.relu(self.hidden(x)))
        return logits, logits.softmax(-1)


class FirstAnswer(NeuralNetClassifier):
    """Learns from the first of several outputs."""

    def get_loss(self, y_pred, *args, **params):
        return super().get_loss(y_pred[0], *args, **params)


def mlp(kind=EquilibriumPrunedMLP, **params):
    settings = {"n_players_to_keep": 8, "max_epochs": 4, "n_rivals": 2}
    return kind((16, 8), random_state=0, **settings | params)


def net(kind=NeuralNetClassifier, module=None, **params):
    torch.manual_seed(0)
    module = module or nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    settings = {
        "criterion": nn.CrossEntropyLoss,
        "optimizer": torch.optim.Adam,
        "max_epochs": 4,
        "batch_size": 16,
        "train_split": None,
        "verbose": 0,
    }
    return kind(module, **settings | params)


def pruner(net, **params):
    settings = {"n_players_to_keep": 8, "n_rivals": 2, "random_state": 0}
    return EquilibriumPruner(net, **settings | params)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(96, 6)).astype(np.float32)
    return X, X[:, :3].argmax(1)


def test_nets_of_several_modules_are_refused(data):
    with pytest.raises(UnsupportedNetworkError, match="several modules"):
        pruner(net(Encoded)).fit(*data)


def test_lbfgs_is_refused(data):
    with pytest.raises(ValueError, match=r"LBFGS.*use torch.optim.AdamW"):
        pruner(net(optimizer=torch.optim.LBFGS)).fit(*data)


@pytest.mark.parametrize(
    "callback", [EarlyStopping(load_best=True), Checkpoint(load_best=True)]
)
def test_callbacks_that_put_back_weights_are_refused(data, callback):
    with pytest.raises(ValueError, match=r"load_best=True.*early_stopping=True"):
        pruner(net(callbacks=[("mine", callback)])).fit(*data)


@pytest.mark.parametrize(
    "params",
    [{"max_epochs": 0}, {"iterator_train__drop_last": True, "batch_size": 500}],
    ids=["no epochs", "no batches"],
)
def test_no_training_at_all_is_refused(data, params):
    with pytest.raises(ValueError, match="nothing to train"):
        pruner(net(**params)).fit(*data)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("kept", [8, None])
@pytest.mark.parametrize("kind", [EquilibriumPrunedMLP, EquilibriumPrunedMLPRegressor])
def test_a_training_that_diverged_says_so(data, kind, kept):
    X, y = data
    y = y if kind is EquilibriumPrunedMLP else X[:, 0]
    model = mlp(kind, n_players_to_keep=kept, lr=1e30)
    with pytest.raises(ValueError, match="NaN or infinite after training"):
        model.fit(X, y)
    assert not model.__sklearn_is_fitted__()


def test_targets_beyond_float32_are_refused(data):
    y = data[0][:, 0].astype(float) * 1e150
    with pytest.raises(ValueError, match="y holds values beyond the range of float32"):
        mlp(EquilibriumPrunedMLPRegressor).fit(data[0], y)


def test_optimizers_with_factored_moments_go_on(data):
    fitted = pruner(net(optimizer=torch.optim.Adafactor, lr=0.05)).fit(*data)
    assert fitted.module_[0].out_features == 8
    losses = fitted.estimator_.history[:, "train_loss"]
    assert losses[-1] < losses[0]


def test_arrays_that_run_backwards(data):
    X, y = data
    found = mlp().fit(X[:, ::-1], y).predict_proba(X[:, ::-1])
    expected = mlp().fit(X[:, ::-1].copy(), y).predict_proba(X[:, ::-1].copy())
    np.testing.assert_array_equal(found, expected)


def test_one_seed_is_one_network_in_threads(data):
    expected = mlp().fit(*data).predict_proba(data[0])
    jobs = (joblib.delayed(mlp().fit)(*data) for _ in range(4))
    for model in joblib.Parallel(n_jobs=3, backend="threading")(jobs):
        np.testing.assert_array_equal(model.predict_proba(data[0]), expected)


def test_modules_with_several_outputs(data):
    fitted = pruner(net(FirstAnswer, TwoAnswers())).fit(*data)
    assert fitted.module_.hidden.out_features == 8


def test_a_refused_refit_changes_nothing(data):
    X, y = data
    model = mlp().fit(X, np.array(list("xyz"))[y])
    expected = model.predict(X)
    with pytest.raises(ValueError, match="sample_weight"):
        model.fit(X, y, sample_weight=np.ones(3))
    np.testing.assert_array_equal(model.predict(X), expected)


def test_weights_that_cannot_be_written(data):
    weights = np.linspace(0, 1, 96)
    weights.flags.writeable = False
    assert mlp().fit(*data, sample_weight=weights).players_.n_players == 8


def test_callbacks_in_a_tuple(data):
    model = mlp(net_callbacks=(("mine", EpochTimer()),)).fit(*data)
    assert model.players_.n_players == 8


def test_condition_numbers_do_not_outlive_a_fit(data):
    model = mlp(condition_numbers=True).fit(*data)
    model.set_params(condition_numbers=False).fit(*data)
    assert not hasattr(model, "condition_numbers_")
