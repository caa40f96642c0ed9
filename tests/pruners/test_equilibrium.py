"""Equilibrium pruning, from X and y to predictions of a really smaller network."""

import itertools
import pickle

import joblib
import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import (
    Callback,
    EarlyStopping,
    EpochScoring,
    GradientNormClipping,
    LRScheduler,
)
from torch import nn

from skprune import (
    EquilibriumPrunedMLP,
    EquilibriumPrunedMLPRegressor,
    EquilibriumPruner,
)
from skprune.evaluation import SparseRows
from skprune.exceptions import SkpruneWarning
from skprune.networks import find_players, masked

HIDDEN = (16, 8)
N_PLAYERS = sum(HIDDEN)
KEPT = 12


def mlp(*widths, norm=None):
    torch.manual_seed(0)
    layers = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    if norm is not None:
        layers.insert(1, norm(widths[1]))
    return nn.Sequential(*layers[:-1])


def perceptron(kind=EquilibriumPrunedMLP, **params):
    """A small and fast one."""
    settings = {
        "hidden_layer_sizes": HIDDEN,
        "n_players_to_keep": KEPT,
        "max_epochs": 12,
        "batch_size": 16,
        "lr": 0.01,
        "n_rivals": 2,
        "random_state": 0,
    }
    return kind(**settings | params)


def net_of(kind, module, **params):
    settings = {
        "optimizer": torch.optim.Adam,
        "lr": 0.01,
        "max_epochs": 12,
        "batch_size": 16,
        "train_split": None,
        "verbose": 0,
        "iterator_train__shuffle": True,
    }
    if kind is NeuralNetClassifier:
        settings["criterion"] = nn.CrossEntropyLoss
    return kind(module, **settings | params)


def pruner_of(net, **params):
    settings = {"n_players_to_keep": 0.4, "n_rivals": 2, "random_state": 0}
    return EquilibriumPruner(net, **settings | params)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(192, 6))
    return X, X[:, :3].argmax(1)


@pytest.fixture(scope="module")
def values(data):
    """Targets far from 0, on a large scale."""
    X, _ = data
    return 1e5 + 2e3 * (X[:, 0] - X[:, 1] + np.abs(X[:, 2]))


@pytest.fixture(scope="module")
def fitted(data):
    return perceptron(condition_numbers=True).fit(*data)


def widths_of(module):
    return [part.out_features for part in module if isinstance(part, nn.Linear)]


def has_hooks(module):
    return any(
        part._forward_hooks or part._forward_pre_hooks for part in module.modules()
    )


# From X and y to a smaller network


def test_the_network_is_really_smaller(data, fitted):
    X, y = data
    assert fitted.score(X, y) > 0.75
    assert widths_of(fitted.module_) == [*fitted.active_players_.values(), 3]
    assert sum(fitted.active_players_.values()) == KEPT
    before, after = fitted.size_report_["before"], fitted.size_report_["after"]
    assert (before.n_players, after.n_players) == (N_PLAYERS, KEPT)
    assert after.n_parameters == sum(p.numel() for p in fitted.module_.parameters())
    dense = 6 * 16 + 16 + 16 * 8 + 8 + 8 * 3 + 3
    assert before.n_parameters == dense > after.n_parameters
    assert after.n_flops < before.n_flops
    assert not has_hooks(fitted.module_)
    assert not fitted.collapsed_


@pytest.mark.parametrize(
    ("labels", "n_classes"),
    [
        (np.array(["no", "yes"]), 2),
        (np.array([-7, -2, 5]), 3),
        (np.array([False, True]), 2),
        (np.array(["a", "b", "c"], dtype=object), 3),
        (np.array([0.0, 1.0, 2.0]), 3),
    ],
    ids=["binary strings", "negative", "booleans", "objects", "floats"],
)
def test_labels_of_every_kind(data, labels, n_classes):
    X, y = data
    y = labels[y if n_classes == 3 else (X[:, 0] > X[:, 1]).astype(int)]
    model = perceptron().fit(X, y)
    assert is_classifier(model)
    assert model.classes_.tolist() == labels.tolist()
    predicted = model.predict(X)
    assert predicted.dtype == model.classes_.dtype
    assert set(predicted) <= set(labels)
    assert model.score(X, y) > 0.75
    probabilities = model.predict_proba(X)
    assert probabilities.shape == (len(X), n_classes)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(labels[probabilities.argmax(1)], predicted)


def test_regression_in_the_units_of_y(data, values):
    X, _ = data
    model = perceptron(EquilibriumPrunedMLPRegressor, max_epochs=30).fit(X, values)
    assert is_regressor(model)
    assert not hasattr(model, "predict_proba")
    predicted = model.predict(X)
    assert predicted.shape == values.shape
    assert model.score(X, values) > 0.8
    assert abs(predicted.mean() - values.mean()) < 0.2 * values.std()
    assert sum(model.active_players_.values()) == KEPT
    raw = model.module_(torch.from_numpy(X.astype(np.float32))).detach().numpy()
    np.testing.assert_allclose(raw[:, 0], predicted, rtol=1e-5)


def test_what_the_units_of_y_are_does_not_matter(data, values):
    X, _ = data
    one = perceptron(EquilibriumPrunedMLPRegressor, max_epochs=3).fit(X, values)
    unit = (values - 1e5) / 2e3
    other = perceptron(EquilibriumPrunedMLPRegressor, max_epochs=3).fit(X, unit)
    np.testing.assert_allclose(
        (one.predict(X) - 1e5) / 2e3, other.predict(X), atol=0.02 * unit.std()
    )


def test_several_outputs(data):
    X, _ = data
    y = np.stack([1e4 * X[:, 0], X[:, 1] - 3, np.full(len(X), 7.0)], axis=1)
    model = perceptron(
        EquilibriumPrunedMLPRegressor, n_players_to_keep=12, max_epochs=30
    ).fit(X, y)
    predicted = model.predict(X)
    assert predicted.shape == y.shape
    errors = ((predicted - y) ** 2).mean(0) / np.array([y[:, 0].var(), 1.0, 1.0])
    assert (errors < 0.25).all()


def test_one_column_of_targets_stays_one(data, values):
    model = perceptron(EquilibriumPrunedMLPRegressor, max_epochs=2)
    assert model.fit(data[0], values[:, None]).predict(data[0]).shape == (192, 1)


# How many stay


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0.5, [8, 4]),
        (9, [6, 3]),
        ([5, 2], [5, 2]),
        (np.array([1, 8]), [1, 8]),
        (0.001, [1, 1]),
        (1.0, [16, 8]),
        (24, [16, 8]),
    ],
    ids=str,
)
def test_sizes(data, size, expected):
    model = perceptron(n_players_to_keep=size, max_epochs=5).fit(*data)
    assert list(model.active_players_.values()) == expected
    assert widths_of(model.module_)[:-1] == expected
    assert model.support_.sum() == sum(expected)


def test_nobody_leaves(data):
    model = perceptron(n_players_to_keep=1.0).fit(*data)
    assert model.support_.all()
    assert (model.participation_history_ == 1).all()
    assert (model.sparsity_history_ == 0).all()
    assert all(len(column) == 0 for column in model.price_history_.values())
    assert model.score(*data) > 0.8


def test_enough_stay_in_each_layer(data):
    model = perceptron(n_players_to_keep=9, min_per_layer=4, max_epochs=4).fit(*data)
    assert list(model.active_players_.values()) == [5, 4]
    model = perceptron(n_players_to_keep=0.01, min_per_layer=3, max_epochs=4).fit(*data)
    assert list(model.active_players_.values()) == [3, 3]
    wide = perceptron(n_players_to_keep=19, min_per_layer=11, max_epochs=4).fit(*data)
    assert list(wide.active_players_.values()) == [11, 8]


@pytest.mark.filterwarnings("ignore:the pruned network")
def test_at_any_price_the_floors_stay(data):
    model = perceptron(n_players_to_keep=None, gamma=50.0, min_per_layer=2).fit(*data)
    assert list(model.active_players_.values()) == [2, 2]


# The pure dynamics


@pytest.mark.parametrize("utility", ["descent", "joint"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_those_who_want_to_stay_do(data, utility, optimizer):
    X, y = data
    model = perceptron(
        n_players_to_keep=None,
        utility=utility,
        gamma=0.003,
        beta=0.001,
        max_epochs=25,
        participation_optimizer=optimizer,
        participation_lr=0.05,
    ).fit(X, y)
    played = model.participation_history_
    assert ((played >= 0) & (played <= 1)).all()
    assert ((played > 0) & (played < 1)).any()
    assert 2 <= model.support_.sum() <= N_PLAYERS
    assert model.score(X, y) > 0.7
    assert np.isfinite(model.exploitability_)
    assert model.exploitability_ >= 0
    assert not has_hooks(model.module_)


@pytest.mark.parametrize("seed", range(2))
def test_the_defaults_do_not_destroy_a_small_network(seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(400, 6))
    y = X[:, :3].argmax(1)
    model = EquilibriumPrunedMLP(HIDDEN, random_state=seed).fit(X, y)
    assert (model.sparsity_history_ < 1).all()
    assert model.score(X, y) > 0.75


def test_the_price_decides_who_stays(data):
    kept = [
        perceptron(n_players_to_keep=None, gamma=price, participation_lr=0.05)
        .fit(*data)
        .support_.sum()
        for price in (0.0, 0.02)
    ]
    assert kept[0] > kept[1]


@pytest.mark.filterwarnings("ignore:the pruned network")
@pytest.mark.parametrize("period", [(0.0, 0.0), (0.5, 0.5), (0.0, 1.0), (1.0, 1.0)])
def test_whatever_the_period_the_game_ends(data, period):
    """What was trained is what is left: no participation is lost at the end."""
    X, y = data
    model = perceptron(
        n_players_to_keep=None,
        gamma=0.02,
        participation_lr=0.05,
        removal_period=period,
        max_epochs=6,
    ).fit(X, y, X_val=X, y_val=y)
    with torch.no_grad():
        outputs = model.module_(torch.from_numpy(X.astype(np.float32)))
    loss = float(nn.functional.cross_entropy(outputs, torch.from_numpy(y)))
    assert loss == pytest.approx(model.estimator_.history[-1, "valid_loss"], rel=1e-4)
    assert not has_hooks(model.module_)


@pytest.mark.filterwarnings("ignore:utility='ascent'")
def test_ascent_destroys_the_network(data):
    model = perceptron(
        n_players_to_keep=None,
        utility="ascent",
        beta=0.1,
        gamma=0.0,
        participation_lr=0.1,
        removal_period=(0.0, 1.0),
    )
    with pytest.warns(SkpruneWarning, match="one class for every sample, of 3"):
        model.fit(*data)
    assert model.collapsed_
    assert model.score(*data) < 0.6
    np.testing.assert_allclose(np.ptp(model.predict_proba(data[0]), axis=0), 0)


def test_ascent_warns(data):
    with pytest.warns(SkpruneWarning, match=r"utility='ascent'.*Use 'descent'"):
        perceptron(utility="ascent", max_epochs=2).fit(*data)


@pytest.mark.parametrize(
    "params",
    [
        {"benefit": "weight_norm"},
        {"benefit": "participation"},
        {"benefit": "participation", "beta": 0.01, "eta": 1e-4},
        {"activation": "tanh"},
        {"n_rivals": 1},
        {"n_rivals": 5},
        {"removal_period": (0.0, 0.0)},
        {"removal_period": [0.9, 1.0]},
        {"removal_period": (0.2, 0.6), "weight_decay": 0.0},
        {"hidden_layer_sizes": 20},
        {"hidden_layer_sizes": [9, 9, 9]},
        {"batch_size": 1000},
    ],
    ids=str,
)
def test_every_option_gives_a_working_network(data, params):
    model = perceptron(**{"max_epochs": 15} | params).fit(*data)
    assert model.support_.sum() == KEPT
    assert sum(widths_of(model.module_)[:-1]) == KEPT
    assert not model.collapsed_
    assert len(model.estimator_.history) == 15


# One seed, one network


@pytest.mark.parametrize(
    "params",
    [{}, {"n_rivals": 4}, {"n_players_to_keep": None, "gamma": 0.003}],
    ids=["price", "rivals", "dynamics"],
)
def test_one_seed_one_network(data, params):
    X, y = data
    model = perceptron(max_epochs=6, **params)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = clone(model).fit(X, y)
    assert torch.equal(torch.get_rng_state(), state)
    second = clone(model).fit(X, y)
    for one, other in zip(
        first.module_.parameters(), second.module_.parameters(), strict=True
    ):
        assert torch.equal(one, other)
    np.testing.assert_array_equal(
        first.participation_history_, second.participation_history_
    )
    third = clone(model).set_params(random_state=1).fit(X, y)
    assert not np.array_equal(first.predict_proba(X), third.predict_proba(X))


def test_a_second_fit_starts_anew(data):
    X, y = data
    model = perceptron(max_epochs=4)
    first = model.fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(model.fit(X, y).predict_proba(X), first)
    model.fit(X[:, :4], (X[:, 0] > 0).astype(int))
    assert model.n_features_in_ == 4
    assert model.predict_proba(X[:, :4]).shape == (len(X), 2)


# Sample weights


def test_equal_weights_are_none(data):
    X, y = data
    plain = perceptron(max_epochs=5).fit(X, y).predict_proba(X)
    weighted = perceptron(max_epochs=5).fit(X, y, np.full(len(y), 2.5))
    np.testing.assert_allclose(weighted.predict_proba(X), plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [EquilibriumPrunedMLP, EquilibriumPrunedMLPRegressor])
def test_whole_weights_are_repeated_rows_for_full_batches(data, values, kind):
    X, y = data
    if kind is EquilibriumPrunedMLPRegressor:
        y = (values - 1e5) / 1e3
    weight = np.random.default_rng(1).integers(0, 4, size=len(y))
    full = perceptron(kind, n_players_to_keep=1.0, n_rivals=1, batch_size=10_000)
    weighted = clone(full).fit(X, y, sample_weight=weight)
    rows = np.repeat(np.arange(len(y)), weight)
    repeated = clone(full).fit(X[rows], y[rows])
    method = "predict_proba" if is_classifier(full) else "predict"
    found, expected = (getattr(m, method)(X) for m in (weighted, repeated))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [1.0, KEPT], ids=["dense", "pruned"])
def test_rows_of_no_weight_do_not_matter(data, size):
    X, y = data
    weight = np.ones(len(y))
    weight[::3] = 0
    other, labels = X.copy(), y.copy()
    other[::3] = 5 * X[::3][::-1]
    labels[::3] = 0
    model = perceptron(n_players_to_keep=size, max_epochs=4)
    first = clone(model).fit(X, y, weight).predict_proba(X)
    second = clone(model).fit(other, labels, weight).predict_proba(X)
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_weights_say_who_counts(data):
    X, y = data
    left = X[:, 0] < 0
    conflict = np.where(left, y, (y + 1) % 3)
    scores = [
        perceptron(max_epochs=15)
        .fit(X, conflict, np.where(rows, 1.0, 1e-3))
        .score(X[rows], conflict[rows])
        for rows in (left, ~left)
    ]
    assert min(scores) > 0.75


# Validation and early stopping


def test_a_validation_set_is_in_the_history(data):
    X, y = data
    names = np.array(["a", "b", "c"])[y]
    model = perceptron(max_epochs=4, n_rivals=1)
    model.fit(X[:128], names[:128], X_val=X[128:], y_val=names[128:])
    module = model.module_
    with torch.no_grad():
        outputs = module(torch.from_numpy(X[128:].astype(np.float32)))
    loss = nn.functional.cross_entropy(outputs, torch.from_numpy(y[128:]))
    history = model.estimator_.history
    assert len(history) == 4
    assert history[-1, "valid_loss"] == pytest.approx(float(loss), rel=1e-5)
    without = perceptron(max_epochs=4).fit(X[:128], names[:128])
    assert "valid_loss" not in without.estimator_.history[-1]


def test_early_stopping_waits_for_the_market_and_restores_the_best(data):
    X, y = data
    noise = np.random.default_rng(3).permutation(y)
    model = perceptron(
        max_epochs=60,
        early_stopping=True,
        n_iter_no_change=3,
        removal_period=(0.1, 0.3),
    )
    model.fit(X, y, X_val=X, y_val=noise)
    history = model.estimator_.history
    last_removal = model.price_history_["step"][-1]
    assert 0.1 * 60 * 12 < last_removal < 12 * len(history)
    assert len(history) < 60
    assert model.support_.sum() == KEPT
    with torch.no_grad():
        outputs = model.module_(torch.from_numpy(X.astype(np.float32)))
    loss = float(nn.functional.cross_entropy(outputs, torch.from_numpy(noise)))
    assert loss == pytest.approx(history[-4, "valid_loss"], rel=1e-5)
    assert loss < min(history[-3:, "valid_loss"])


def test_early_stopping_holds_some_out(data):
    model = perceptron(early_stopping=True, n_iter_no_change=2).fit(*data)
    assert "valid_loss" in model.estimator_.history[-1]
    assert model.support_.sum() == KEPT


class Recorder(Callback):
    """Keeps the learning rate of each batch, and the size after each epoch."""

    def __init__(self, rates, sizes):
        self.rates, self.sizes = rates, sizes

    def on_batch_end(self, net, batch=None, training=False, **_):
        if training:
            self.rates.append(net.optimizer_.param_groups[0]["lr"])

    def on_epoch_end(self, net, **_):
        self.sizes.append(sum(p.numel() for p in net.module_.parameters()))


class Breaks(Callback):
    """Raises after some epochs."""

    def __init__(self, error, n_epochs=2):
        self.error, self.n_epochs = error, n_epochs

    def on_epoch_end(self, net, **_):
        self.net_ = net
        if len(net.history) == self.n_epochs:
            raise self.error


def test_callbacks_are_asked(data):
    scoring = EpochScoring(
        "accuracy", on_train=True, name="train_accuracy", lower_is_better=False
    )
    sizes = []
    callbacks = [("scores", scoring), ("record", Recorder([], sizes))]
    model = perceptron(net_callbacks=callbacks, removal_period=(0.3, 0.5)).fit(*data)
    assert sizes[0] == sizes[2] > sizes[6] == sizes[-1]
    assert sizes[-1] == sum(p.numel() for p in model.module_.parameters())
    accuracies = model.estimator_.history[:, "train_accuracy"]
    assert len(accuracies) == 12
    assert accuracies[-1] > 0.6
    assert model.net_callbacks is callbacks


def test_a_schedule_of_the_users_is_kept(data):
    schedule = LRScheduler("StepLR", step_size=3, gamma=0.1)
    rates = []
    model = perceptron(net_callbacks=[schedule, Recorder(rates, [])], lr=0.02)
    model.fit(*data)
    epochs = np.repeat(np.arange(12), 12)
    np.testing.assert_allclose(rates, 0.02 * 0.1 ** (epochs // 3))
    assert model.support_.sum() == KEPT


def test_without_one_the_course_sets_the_rate(data):
    rates = []
    perceptron(net_callbacks=[Recorder(rates, [])], lr=0.02).fit(*data)
    assert len(rates) == 144
    assert max(rates) >= 0.02
    assert rates[-1] < 0.01 * max(rates)


def test_the_rate_of_a_net_that_nobody_leaves_does_not_rise(data):
    rates = []
    perceptron(net_callbacks=[Recorder(rates, [])], lr=0.02, n_players_to_keep=1.0).fit(
        *data
    )
    assert max(rates) <= 0.02 * (1 + 1e-9)
    assert rates[-1] < 0.01 * max(rates)


@pytest.mark.parametrize(
    "ends",
    [
        EarlyStopping("train_loss", patience=1, threshold=10.0, sink=lambda *_: None),
        Breaks(KeyboardInterrupt(), 1),
    ],
    ids=["early stopping", "interrupt"],
)
@pytest.mark.parametrize("size", [KEPT, None])
@pytest.mark.filterwarnings("ignore:the pruned network")
def test_a_training_that_ends_at_once_still_gives_the_number(data, ends, size):
    model = perceptron(
        n_players_to_keep=size,
        max_epochs=40,
        net_callbacks=[ends],
        n_rivals=3,
    ).fit(*data)
    n_epochs = len(model.estimator_.history)
    assert n_epochs <= 2
    assert model.participation_history_.shape == (n_epochs, N_PLAYERS)
    assert model.support_.sum() == (size or N_PLAYERS)
    assert sum(widths_of(model.module_)[:-1]) == model.support_.sum()
    assert model.predict(data[0]).shape == (192,)
    assert not has_hooks(model.module_)


class Interrupts(Callback):
    """As a user's Ctrl+C in the middle of an epoch."""

    def __init__(self, n_batches):
        self.n_batches = n_batches

    def on_batch_end(self, net, batch=None, training=False, **_):
        self.n_batches -= training
        if self.n_batches == 0:
            raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore:the pruned network")
@pytest.mark.parametrize("n_batches", [16, 25, 30, 40, 100])
@pytest.mark.parametrize("size", [KEPT, None])
def test_an_interrupt_at_any_time_ends_the_training(data, size, n_batches):
    """Before, while and after players leave, and while rivals compete."""
    X, y = data
    model = perceptron(
        n_players_to_keep=size,
        net_callbacks=[Interrupts(n_batches)],
        removal_period=(0.15, 0.25),
        n_rivals=3,
    ).fit(X, y)
    assert model.support_.sum() == size or size is None
    assert widths_of(model.module_)[:-1] == list(model.active_players_.values())
    assert len(model.estimator_.history) == -(-n_batches // 12)
    assert not has_hooks(model.module_)
    kept = [n for n, s in zip(model.names_, model.support_, strict=True) if s]
    assert model.players_.names == kept


@pytest.mark.parametrize("size", [KEPT, None])
def test_an_error_in_training_leaves_nothing_behind(data, size):
    X, y = data
    module = mlp(6, 16, 8, 3)
    before = [p.detach().clone() for p in module.parameters()]
    seen = []

    class Fails(Callback):
        def on_epoch_end(self, net, **_):
            seen.append((net, list(net.callbacks_)))
            if len(net.history) == 3:
                raise RuntimeError("no more")

    net = net_of(NeuralNetClassifier, module, callbacks=[Fails()])
    pruner = pruner_of(
        net, n_players_to_keep=size, gamma=0.0, removal_period=(0.0, 0.8)
    )
    with pytest.raises(RuntimeError, match="no more"):
        pruner.fit(X.astype(np.float32), y, sample_weight=np.arange(len(y)))
    assert not hasattr(pruner, "estimator_")
    assert pruner.estimator is net
    assert not net.initialized_
    assert net.module is module
    for old, new in zip(before, module.parameters(), strict=True):
        assert torch.equal(old, new)
    trained, callbacks = seen[-1]
    assert not has_hooks(module)
    assert not has_hooks(trained.module_)
    assert not has_hooks(trained.criterion_)
    assert len(trained.callbacks_) < len(callbacks)
    with pytest.raises(NotFittedError):
        pruner.predict(X)


# Sparse input


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csr_array])
def test_sparse_rows_give_what_dense_ones_give(data, form):
    X, y = data
    X = np.where(np.abs(X) > 0.4, X, 0.0)
    model = perceptron(max_epochs=6, n_rivals=1)
    dense, rows = clone(model).fit(X, y), clone(model).fit(form(X), y)
    np.testing.assert_allclose(
        rows.estimator_.history[:, "train_loss"],
        dense.estimator_.history[:, "train_loss"],
        atol=1e-4,
    )
    np.testing.assert_array_equal(rows.support_, dense.support_)
    np.testing.assert_allclose(
        rows.predict_proba(form(X)), dense.predict_proba(X), atol=1e-3
    )
    np.testing.assert_allclose(rows.predict_proba(X), rows.predict_proba(form(X)))
    assert rows.transform(form(X)).shape == (192, rows.active_players_["hidden_2"])


@pytest.mark.parametrize(
    "params", [{}, {"n_players_to_keep": None, "gamma": 0.0}], ids=["price", "dynamics"]
)
def test_a_large_vocabulary_is_never_made_dense(monkeypatch, params):
    rng = np.random.default_rng(0)
    n_rows, n_words = 600, 50_000
    X = sparse.random_array(
        (n_rows, n_words), density=3e-4, format="csr", rng=rng, dtype=np.float32
    )
    y = rng.integers(2, size=n_rows)

    def refuse(self, *args, **kwargs):
        if self.shape[0] > 16:
            raise AssertionError(f"{self.shape} was made dense")
        return originals[type(self)](self, *args, **kwargs)

    originals = {}
    for kind, name in [
        (sparse.csr_array, "toarray"),
        (sparse.csr_matrix, "toarray"),
        (SparseRows, "to_dense"),
    ]:
        originals[kind] = getattr(kind, name)
        monkeypatch.setattr(kind, name, refuse)
    model = perceptron(max_epochs=2, **params).fit(X, y)
    assert model.predict(X).shape == (n_rows,)
    assert model.transform(X).shape[0] == n_rows


# What can be looked at


def test_histories(fitted):
    played, sparsity = fitted.participation_history_, fitted.sparsity_history_
    assert played.shape == (12, N_PLAYERS)
    assert ((played >= 0) & (played <= 1)).all()
    np.testing.assert_array_equal(sparsity, (played == 0).mean(1))
    assert sparsity[-1] == pytest.approx(1 - KEPT / N_PLAYERS)
    assert (np.diff(sparsity) >= 0).all()
    np.testing.assert_array_equal(played[-1] > 0, fitted.support_)


def test_prices(data):
    model = perceptron(removal_period=(0.25, 0.5)).fit(*data)
    prices = model.price_history_
    assert set(prices) == {"step", "hidden_1", "hidden_2"}
    steps = prices["step"]
    assert (np.diff(steps) > 0).all()
    assert 36 <= steps[0] < steps[-1] <= 72
    for group in ("hidden_1", "hidden_2"):
        assert prices[group].shape == steps.shape
        assert (prices[group] >= 0).all()
        assert (prices[group] > 0).any()
    assert model.sparsity_history_[2] == 0
    assert model.sparsity_history_[5] == pytest.approx(1 - KEPT / N_PLAYERS)


def test_players_keep_their_names(fitted):
    assert fitted.names_[0] == "hidden_1[0]"
    kept = [n for n, s in zip(fitted.names_, fitted.support_, strict=True) if s]
    assert fitted.players_.names == kept
    assert list(fitted.active_players_) == ["hidden_1", "hidden_2"]
    for group, count in fitted.active_players_.items():
        assert sum(name.startswith(f"{group}[") for name in kept) == count


def by_hand(module, players, loss):
    """Loss without one player each, less the loss with all of them."""
    n = players.n_players
    with torch.no_grad():
        whole = loss(module)
        without = []
        for player in range(n):
            with masked(module, players, np.arange(n) != player):
                without.append(loss(module))
    return np.array([float(part - whole) for part in without])


def test_leave_one_out_is_the_loss_without_one(data, fitted):
    X, y = torch.from_numpy(data[0].astype(np.float32)), torch.from_numpy(data[1])
    found = by_hand(
        fitted.module_,
        find_players(fitted.module_, X[:2]),
        lambda module: nn.functional.cross_entropy(module(X), y),
    )
    assert fitted.leave_one_out_.shape == (KEPT,)
    np.testing.assert_allclose(fitted.leave_one_out_, found, atol=1e-5)
    assert np.abs(found).max() > 0.01


def test_leave_one_out_of_a_regressor_is_in_variances_of_y(data, values):
    X = torch.from_numpy(data[0].astype(np.float32))
    model = perceptron(EquilibriumPrunedMLPRegressor).fit(data[0], values)
    y = torch.from_numpy(values.astype(np.float32))[:, None]
    found = by_hand(
        model.module_,
        find_players(model.module_, X[:2]),
        lambda module: (module(X) - y).square().mean() / y.var(correction=0),
    )
    np.testing.assert_allclose(model.leave_one_out_, found, atol=1e-3)


def test_exploitability_is_the_largest_gain_of_leaving(fitted):
    last = np.array([fitted.price_history_[g][-1] for g in fitted.active_players_])
    gains = last[fitted.players_.group_of] - fitted.leave_one_out_
    assert fitted.exploitability_ == pytest.approx(max(0.0, gains.max()))
    dominated = (N_PLAYERS - KEPT + (gains > 0).sum()) / N_PLAYERS
    assert fitted.dominated_fraction_ == pytest.approx(dominated)


@pytest.mark.parametrize(
    "params",
    [
        {"benefit": "weight_norm"},
        {"benefit": "participation"},
        {"n_players_to_keep": None, "gamma": 0.005},
        {"n_players_to_keep": 1.0},
    ],
    ids=str,
)
def test_exploitability_in_range(data, params):
    model = perceptron(max_epochs=6, **params).fit(*data)
    assert np.isnan(model.exploitability_) or model.exploitability_ >= 0
    n_gone = (~model.support_).sum()
    assert n_gone <= round(N_PLAYERS * model.dominated_fraction_) <= N_PLAYERS


def test_condition_numbers(fitted):
    assert set(fitted.condition_numbers_) == {"hidden_1", "hidden_2"}
    for group, numbers in fitted.condition_numbers_.items():
        assert numbers.shape == (12,)
        assert (numbers >= 1).all()
        layer = fitted.module_.get_submodule(group)
        theta = torch.column_stack([layer.weight, layer.bias]).detach().numpy()
        assert numbers[-1] == pytest.approx(np.linalg.cond(theta), rel=1e-3)


def test_scores_around_the_last_removal(data):
    X, y = data
    model = perceptron(removal_period=(0.9, 1.0), n_rivals=1).fit(X, y)
    assert model.hard_score_ == pytest.approx(model.score(X, y))
    assert 0 <= model.soft_score_ <= 1


def test_transform_is_what_the_output_layer_reads(data, fitted):
    X = data[0][:30]
    hidden = fitted.transform(X)
    expected = fitted.module_[:-1](torch.from_numpy(X.astype(np.float32)))
    np.testing.assert_allclose(hidden, expected.detach(), rtol=1e-4, atol=1e-5)
    names = fitted.get_feature_names_out().tolist()
    kept = [n for n, s in zip(fitted.names_, fitted.support_, strict=True) if s]
    assert names == [name for name in kept if name.startswith("hidden_2[")]
    assert hidden.shape == (30, len(names))


def test_verbose_prints_epochs(data, capsys):
    perceptron(max_epochs=3, verbose=1).fit(*data)
    out = capsys.readouterr().out
    assert f"epoch 3: {KEPT} players" in out
    assert perceptron(max_epochs=3).fit(*data) is not None
    assert capsys.readouterr().out == ""


# As scikit-learn and skorch have it


def test_copies(data, fitted, tmp_path):
    X, _ = data
    joblib.dump(fitted, tmp_path / "model")
    for again in (pickle.loads(pickle.dumps(fitted)), joblib.load(tmp_path / "model")):
        np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    fresh = clone(fitted)
    assert fresh.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        fresh.predict(X)
    assert fresh.set_params(lr=0.5, hidden_layer_sizes=(3,)).lr == 0.5


def test_fit_leaves_the_parameters_alone(data):
    model = perceptron(hidden_layer_sizes=[16, 8], n_players_to_keep=[4, 2])
    before = dict(model.get_params())
    model.fit(*data)
    for name, value in model.get_params().items():
        assert value is before[name]


def test_in_a_pipeline_and_a_grid(data):
    X, y = data
    pipeline = make_pipeline(StandardScaler(), perceptron(max_epochs=8))
    name = "equilibriumprunedmlp__n_players_to_keep"
    grid = GridSearchCV(pipeline, {name: [2, 12]}, cv=2, error_score="raise")
    grid.fit(X, y)
    assert grid.best_params_ == {name: 12}
    assert grid.best_estimator_[-1].support_.sum() == 12


def test_a_refit_of_the_net_trains_at_the_small_size(data, fitted):
    X, y = data[0].astype(np.float32), data[1]
    sizes = widths_of(fitted.module_)
    again = clone(fitted.estimator_).set_params(max_epochs=15).fit(X, y)
    assert widths_of(again.module_) == sizes
    assert (again.predict(X) == y).mean() > 0.6
    weights = fitted.module_[0].weight.detach().clone()
    assert torch.equal(fitted.module_[0].weight, weights)


def test_the_device_is_a_parameter(data):
    for device in ("cpu", torch.device("cpu")):
        model = perceptron(max_epochs=2, device=device).fit(*data)
        assert next(model.module_.parameters()).device.type == "cpu"


def test_a_row_gets_the_same_answer_in_any_batch(data, fitted):
    X, _ = data
    alone = np.concatenate([fitted.predict_proba(row[None]) for row in X[:20]])
    np.testing.assert_allclose(alone, fitted.predict_proba(X)[:20], rtol=1e-6)


# Any skorch net


def test_a_classifier_net(data):
    X, y = data
    net = net_of(NeuralNetClassifier, mlp(6, 16, 8, 3))
    labels = np.array(["a", "b", "c"])[y]
    pruner = pruner_of(net, n_players_to_keep=[6, 4]).fit(X, labels)
    assert list(pruner.active_players_.values()) == [6, 4]
    assert widths_of(pruner.module_) == [6, 4, 3]
    assert pruner.classes_.tolist() == ["a", "b", "c"]
    assert pruner.score(X, labels) > 0.75
    assert not net.initialized_
    assert len(pruner.estimator_.history) == 12


def test_one_logit(data):
    X, _ = data
    y = np.where(X[:, 0] > X[:, 1], "more", "less")
    net = net_of(NeuralNetBinaryClassifier, mlp(6, 16, 1))
    pruner = pruner_of(net, n_players_to_keep=3).fit(X, y)
    assert pruner.support_.sum() == 3
    assert pruner.predict_proba(X).shape == (192, 2)
    assert pruner.score(X, y) > 0.85


def test_a_regressor_net(data):
    X, _ = data
    y = X[:, 0] - X[:, 1]
    net = net_of(NeuralNetRegressor, mlp(6, 16, 8, 1), max_epochs=20)
    pruner = pruner_of(net).fit(X, y)
    assert is_regressor(pruner)
    assert pruner.predict(X).shape == y.shape
    assert pruner.score(X, y) > 0.8


class SmallCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, 3)
        self.fc = nn.Linear(8 * 4, 2)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv1(x)))
        x = torch.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.fc(x.flatten(1))


@pytest.mark.parametrize(
    "params",
    [{"n_players_to_keep": 0.5}, {"n_players_to_keep": None, "gamma": 1e-3}],
    ids=["price", "dynamics"],
)
def test_filters_of_a_cnn(params):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(128, 1, 6, 6)).astype(np.float32)
    y = (X[:, 0, :3].mean((1, 2)) > X[:, 0, 3:].mean((1, 2))).astype(np.int64)
    net = net_of(NeuralNetClassifier, SmallCNN, max_epochs=15)
    pruner = pruner_of(net, players="filters", **params).fit(X, y)
    assert pruner.support_.size == 14
    module = pruner.module_
    assert module.conv1.out_channels == pruner.active_players_["conv1"]
    assert module.norm.num_features == module.conv1.out_channels
    assert module.conv2.in_channels == module.conv1.out_channels
    assert module.fc.in_features == 4 * module.conv2.out_channels
    if params["n_players_to_keep"]:
        assert pruner.support_.sum() == 7
    assert pruner.score(X, y) > 0.8


def test_batch_norm(data):
    net = net_of(NeuralNetClassifier, mlp(6, 16, 8, 3, norm=nn.BatchNorm1d))
    pruner = pruner_of(net).fit(*data)
    assert pruner.module_[1].num_features == pruner.module_[0].out_features
    assert pruner.score(*data) > 0.7


@pytest.mark.parametrize(
    "params",
    [
        {"n_players_to_keep": 0.5},
        {"n_players_to_keep": 0.5, "benefit": "weight_norm"},
        {"n_players_to_keep": 0.5, "n_rivals": 1},
        {"n_players_to_keep": None, "gamma": 2e-3, "participation_lr": 0.05},
    ],
    ids=["price", "norm", "alone", "dynamics"],
)
def test_single_weights_that_left_stay_zero(data, params):
    net = net_of(NeuralNetClassifier, mlp(6, 16, 3))
    pruner = pruner_of(net, players="weights", **params).fit(*data)
    n_zeros = 0
    for name, owners in pruner.players_.weights.items():
        weight = pruner.module_.get_submodule(name).weight.detach().numpy()
        np.testing.assert_array_equal(weight[owners < 0], 0)
        n_zeros += (weight == 0).sum()
    assert n_zeros == (~pruner.support_).sum() > 0
    assert pruner.score(*data) > 0.7
    assert pruner.leave_one_out_ is None


@pytest.mark.filterwarnings("ignore:the pruned network")
def test_a_users_own_loop_of_batches_goes_on(data):
    """Nets that come with a DataLoader of their own settings are trained by it."""
    net = net_of(
        NeuralNetClassifier,
        mlp(6, 16, 3),
        iterator_train__drop_last=True,
        batch_size=50,
        max_epochs=3,
    )
    pruner = pruner_of(net, n_players_to_keep=4).fit(*data)
    assert pruner.support_.sum() == 4
    assert pruner.estimator_.iterator_train is net.iterator_train


def test_a_module_with_parameters(data):
    class Net(nn.Module):
        def __init__(self, width=4):
            super().__init__()
            self.hidden, self.out = nn.Linear(6, width), nn.Linear(width, 3)

        def forward(self, x):
            return self.out(torch.tanh(self.hidden(x)))

    net = net_of(NeuralNetClassifier, Net, module__width=12)
    pruner = pruner_of(net, n_players_to_keep=5).fit(*data)
    assert pruner.module_.hidden.out_features == 5
    assert pruner.names_[0] == "hidden[0]"


def test_double_precision(data):
    net = net_of(NeuralNetClassifier, mlp(6, 16, 3).double())
    pruner = pruner_of(net, n_players_to_keep=6).fit(*data)
    assert next(pruner.module_.parameters()).dtype == torch.float64
    assert pruner.predict_proba(data[0]).dtype == np.float64
    assert pruner.score(*data) > 0.7


def test_sample_weights_reach_any_net(data):
    X, y = data
    net = net_of(NeuralNetClassifier, mlp(6, 16, 3))
    weight = np.where(y == 0, 1.0, 0.0)
    pruner = pruner_of(net, n_players_to_keep=8).fit(X, y, sample_weight=weight)
    assert (pruner.predict(X) == 0).mean() > 0.9


@pytest.mark.filterwarnings("ignore::skprune.exceptions.SkpruneWarning")
def test_each_layer_can_tell_the_classes_apart():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 4)), np.arange(60) % 10
    for sizes, kept, expected in (
        ((64, 32), 0.1, [5, 5]),
        ((64, 32), 30, [20, 10]),
        ((64, 32), 4, [2, 2]),
        ((64, 4), 0.2, [10, 4]),
    ):
        mlp = EquilibriumPrunedMLP(sizes, n_players_to_keep=kept, max_epochs=1)
        mlp.set_params(n_rivals=1, random_state=0).fit(X, y)
        assert list(mlp.active_players_.values()) == expected
    values = EquilibriumPrunedMLPRegressor(
        (64, 32), n_players_to_keep=0.1, max_epochs=1
    )
    values.set_params(n_rivals=1, random_state=0).fit(X, X[:, 0])
    assert list(values.active_players_.values()) == [7, 3]


def losses_without_one(model, X, loss):
    """What a loss gains if one player is left out, from module outputs to a number."""
    module = model.module_
    players, n = model.players_, model.players_.n_players
    X = torch.from_numpy(X.astype(np.float32))
    with torch.no_grad():
        whole, gained = loss(module(X)), []
        for player in range(n):
            with masked(module, players, np.arange(n) != player):
                gained.append(float(loss(module(X)) - whole))
    return np.array(gained)


def test_leave_one_out_is_in_units_of_the_criterion(data, values):
    X, y = data[0].astype(np.float32), values.astype(np.float32)[:, None]
    net = net_of(NeuralNetRegressor, mlp(6, 16, 1), criterion=nn.L1Loss)
    pruner = EquilibriumPruner(net, n_players_to_keep=5, n_rivals=1, random_state=0)
    pruner.fit(X, y)
    expected = losses_without_one(
        pruner, X, lambda out: (out - torch.from_numpy(y)).abs().mean()
    )
    np.testing.assert_allclose(pruner.leave_one_out_, expected, atol=1e-5)
    assert np.abs(expected).max() > 0.01


def test_leave_one_out_weighs_the_samples(data, values):
    X, y = data[0], values
    weight = np.where(y > np.median(y), 1.0, 0.0) + (y > np.quantile(y, 0.8))
    model = perceptron(EquilibriumPrunedMLPRegressor).fit(X, y, sample_weight=weight)
    w = torch.from_numpy(weight / weight.sum())
    mean = np.average(y, weights=weight)
    variance = np.average((y - mean) ** 2, weights=weight)

    def loss(outputs):
        errors = (outputs[:, 0].double() - torch.from_numpy(y)).square()
        return (w * errors).sum() / variance

    expected = losses_without_one(model, X, loss)
    np.testing.assert_allclose(model.leave_one_out_, expected, atol=1e-4)
    assert np.abs(expected).max() > 0.01


def test_who_left_counts_as_dominated(data):
    model = perceptron(benefit="participation", n_players_to_keep=6).fit(*data)
    assert 1 - 6 / N_PLAYERS <= model.dominated_fraction_ <= 1


def test_prices_hold_where_nobody_leaves(data):
    model = perceptron(n_players_to_keep=[14, 3], removal_period=(0.1, 0.6), n_rivals=1)
    prices = model.fit(*data).price_history_
    for layer in ("hidden_1", "hidden_2"):
        paid = np.flatnonzero(prices[layer])
        assert len(paid)
        assert (prices[layer] >= 0).all()
        assert (prices[layer][paid[0] :] > 0).all()


@pytest.mark.parametrize("alpha", [1e-3, 10.0])
def test_who_would_leave_does_not_depend_on_the_unit_of_the_benefit(data, alpha):
    one = perceptron(n_rivals=1).fit(*data)
    other = perceptron(n_rivals=1, alpha=alpha).fit(*data)
    assert other.dominated_fraction_ == one.dominated_fraction_
    np.testing.assert_allclose(
        other.price_history_["hidden_1"], alpha * one.price_history_["hidden_1"]
    )
    assert other.exploitability_ == pytest.approx(alpha * one.exploitability_)


def test_a_fitted_pruner_holds_no_samples(data):
    X, y = data
    many = {"X_val": np.tile(X, (50, 1)), "y_val": np.tile(y, 50)}
    # In one batch, for the history has a line for each of them.
    model = perceptron(batch_size=len(many["y_val"]), max_epochs=20).fit(X, y, **many)
    assert len(pickle.dumps(model)) < many["X_val"].nbytes / 10
    module = net_of(NeuralNetClassifier, mlp(6, 16, 3), criterion=nn.CrossEntropyLoss)
    pruner = EquilibriumPruner(module, n_players_to_keep=5, n_rivals=1, random_state=0)
    assert pruner.fit(X, y, **many).estimator_.train_split is None


@pytest.mark.filterwarnings("ignore::skprune.exceptions.SkpruneWarning")
def test_callbacks_that_act_on_gradients_have_one_network(data):
    seen = []

    class Clipping(GradientNormClipping):
        def on_grad_computed(self, net, **kwargs):
            super().on_grad_computed(net, **kwargs)
            seen.append(id(net))

    model = perceptron(n_rivals=4, net_callbacks=[Clipping(1e-12)], lr=1e-9)
    model.fit(*data)
    n_batches = -(-len(data[0]) // 16)
    assert len(seen) == 12 * n_batches
    alone = perceptron(n_rivals=1, net_callbacks=[Clipping(1e-12)], lr=1e-9)
    np.testing.assert_array_equal(
        model.predict_proba(data[0]), alone.fit(*data).predict_proba(data[0])
    )


class Unclonable(Callback):
    def __init__(self, secret):
        self.other = secret


def test_what_cannot_be_copied_is_refused_before_training(data):
    with pytest.raises((TypeError, AttributeError, RuntimeError)):
        perceptron(net_callbacks=[Unclonable(1), Breaks(AssertionError(), 0)]).fit(
            *data
        )


def test_early_stopping_needs_a_validation_loss(data):
    net = net_of(
        NeuralNetClassifier,
        mlp(6, 16, 3),
        criterion=nn.CrossEntropyLoss,
        callbacks="disable",
    )
    pruner = EquilibriumPruner(net, n_players_to_keep=5, early_stopping=True)
    with pytest.raises(ValueError, match=r"callbacks='disable'; leave skorch's own"):
        pruner.fit(*data)


def test_a_training_that_never_began(data):
    class Refuses(Callback):
        def on_epoch_begin(self, net, **kwargs):
            raise KeyboardInterrupt

    with pytest.raises(ValueError, match="ended the training before its first epoch"):
        perceptron(net_callbacks=[Refuses()]).fit(*data)


def test_a_mean_that_single_precision_would_blur(data, values):
    model = perceptron(EquilibriumPrunedMLPRegressor, max_epochs=1)
    with pytest.warns(SkpruneWarning, match=r"y has mean 1.*TransformedTarget"):
        model.fit(data[0], values + 1e9)
