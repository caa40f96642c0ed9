"""What users run into with GTAPPruner, each the right result or a clear error."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, EarlyStopping
from torch import nn

from skprune import GTAPPruner
from skprune.exceptions import UnsupportedNetworkError
from skprune.scorers import ShapleyScorer
from skprune.strategies import IteratedLocalSearch


class MLP(nn.Module):
    def __init__(self, width=12, hidden=(16, 16), outputs=3, inplace=False):
        super().__init__()
        self.inplace = inplace
        self.first = nn.Linear(width, hidden[0])
        self.second = nn.Linear(hidden[0], hidden[1])
        self.dropout = nn.Dropout(0.2)
        self.last = nn.Linear(hidden[1], outputs)

    def forward(self, x):
        if self.inplace:
            x = x.clamp_(min=0)
        x = torch.relu(self.first(x))
        return self.last(self.dropout(torch.relu(self.second(x))))


class NeverTrained(Callback):
    def on_train_begin(self, net, X, y):
        raise AssertionError("training began before the settings were checked")


class SetsWidth(Callback):
    def on_train_begin(self, net, X, y):
        net.set_params(module__width=X.shape[1])


def classifier(module=MLP, **params):
    settings = {"max_epochs": 8, "lr": 0.01, "train_split": None, "verbose": 0}
    return NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        **settings | params,
    )


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 12)).astype(np.float32)
    return X, (X[:, :3] + 0.3 * X[:, 3:6]).argmax(1)


@pytest.fixture(scope="module")
def fitted(data):
    torch.manual_seed(0)
    return classifier().fit(*data)


def test_early_stopping_ends_the_retraining_only(data):
    stop = EarlyStopping(monitor="train_loss", patience=1, threshold=10.0)
    net = classifier(callbacks=[stop])
    pruner = GTAPPruner(net, n_players_to_keep=8, retrain_epochs=5, random_state=0)
    assert pruner.fit(*data).score(*data) > 0.5


def test_a_module_that_callbacks_rebuild_is_not_retrained(data):
    net = classifier(callbacks=[SetsWidth()], module__width=5)
    settings = {"n_players_to_keep": 0.5, "random_state": 0}
    pruner = GTAPPruner(net, **settings).fit(*data)
    assert pruner.module_.last.in_features < 16
    with pytest.raises(UnsupportedNetworkError, match="retrain_epochs=0"):
        GTAPPruner(net, retrain_epochs=1, **settings).fit(*data)


def test_labels_of_a_frozen_net_are_its_indices(data):
    X, y = data
    torch.manual_seed(0)
    net = classifier(module__outputs=10).fit(X, 1 + 3 * y)
    pruner = GTAPPruner(FrozenEstimator(net), n_players_to_keep=1.0, repair="none")
    pruner.fit(X, 1 + 3 * y)
    assert pruner.classes_.tolist() == list(range(10))
    assert pruner.predict_proba(X).shape == (300, 10)
    assert pruner.score(X, 1 + 3 * y) == net.score(X, 1 + 3 * y)
    assert pruner.score(X, 1 + 3 * y) > 0.6


def test_a_net_with_loaded_weights_is_as_good_as_a_fitted_one(data, fitted):
    loaded = classifier().initialize()
    loaded.module_.load_state_dict(fitted.module_.state_dict())
    scores = [
        GTAPPruner(FrozenEstimator(net), n_players_to_keep=9, random_state=0)
        .fit(*data)
        .score(*data)
        for net in (fitted, loaded)
    ]
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (classifier(module__outputs=5), "outputs for 5 classes where y holds 3"),
        (classifier(module__outputs=2), "outputs for 2 classes where y holds 3"),
        (
            NeuralNetBinaryClassifier(MLP, module__outputs=1),
            "NeuralNetBinaryClassifier; use a NeuralNetClassifier",
        ),
        (NeuralNetBinaryClassifier(MLP, threshold=0.8), "threshold=0.8"),
    ],
    ids=["wide", "narrow", "binary", "threshold"],
)
def test_outputs_that_do_not_fit_the_classes(data, net, message):
    net.set_params(callbacks=[NeverTrained()], verbose=0)
    with pytest.raises(ValueError, match=message):
        GTAPPruner(net, n_players_to_keep=8).fit(*data)


def test_regressors_of_another_width(data):
    X, _ = data
    net = NeuralNetRegressor(MLP, module__outputs=2, callbacks=[NeverTrained()])
    with pytest.raises(ValueError, match=r"outputs have shape \(16, 2\).*\(16, 1\)"):
        GTAPPruner(net, n_players_to_keep=8).fit(X, X[:, 0])


@pytest.mark.parametrize(
    "params",
    [
        {"payoff": "acuracy"},
        {"payoff": "r2"},
        {"n_players_to_keep": 5000},
        {"path_sizes": [8, "x"]},
        {"players": "filters"},
        {"players": [("neurons", "last")]},
    ],
    ids=str,
)
def test_settings_are_refused_before_training(data, params):
    net = classifier(callbacks=[NeverTrained()])
    settings = {"n_players_to_keep": 8} | params
    with pytest.raises(ValueError, match=str(next(iter(params)))):
        GTAPPruner(net, **settings).fit(*data)


def test_data_are_not_written_to(data):
    X, y = data[0].copy(), data[1]
    before = X.copy()
    torch.manual_seed(0)
    net = classifier(module__inplace=True, max_epochs=1).initialize()
    GTAPPruner(FrozenEstimator(net), n_players_to_keep=8).fit(X, y)
    np.testing.assert_array_equal(X, before)


def test_retraining_is_seeded_and_leaves_the_generator_alone(data):
    net = classifier(iterator_train__shuffle=True)
    settings = {"n_players_to_keep": 8, "retrain_epochs": 4, "random_state": 0}
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = GTAPPruner(net, **settings).fit(*data)
    assert torch.equal(torch.get_rng_state(), state)
    second = GTAPPruner(net, **settings).fit(*data)
    assert first.retrained_
    np.testing.assert_array_equal(
        first.predict_proba(data[0]), second.predict_proba(data[0])
    )


def test_a_narrow_layer_before_a_wide_one(data):
    net = classifier(module__hidden=(3, 700), max_epochs=1)
    pruner = GTAPPruner(net, n_players_to_keep=40, random_state=0).fit(*data)
    assert pruner.scores_.values.shape == (703,)


def test_set_output(data, fitted):
    pruner = GTAPPruner(FrozenEstimator(fitted), n_players_to_keep=9)
    frame = pruner.set_output(transform="pandas").fit_transform(*data)
    assert list(frame.columns) == list(pruner.get_feature_names_out())


def test_double_precision(data):
    X, y = data
    torch.manual_seed(0)
    net = classifier(module=MLP().double())
    pruner = GTAPPruner(net, n_players_to_keep=9, random_state=0).fit(X, y)
    assert next(pruner.module_.parameters()).dtype == torch.float64
    assert pruner.score(X, y) > 0.6
    assert pruner.transform(X).dtype == np.float64


def test_every_sparse_format(data, fitted):
    X, y = data
    pruner = GTAPPruner(FrozenEstimator(fitted), n_players_to_keep=9, random_state=0)
    expected = pruner.fit(X, y).predict_proba(X)
    for form in (sparse.dok_matrix, sparse.coo_array, sparse.csc_matrix):
        found = pruner.fit(form(X), y).predict_proba(form(X))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_numbers_beyond_float32(data, fitted):
    X = data[0].astype(np.float64)
    X[0, 0] = 1e300
    with pytest.raises(ValueError, match="beyond the range of float32"):
        GTAPPruner(FrozenEstimator(fitted)).fit(X, data[1])


def test_threads(data, fitted):
    def fit(seed):
        pruner = GTAPPruner(
            FrozenEstimator(fitted), n_players_to_keep=9, random_state=seed
        )
        return pruner.fit(*data).support_

    alone = [fit(seed) for seed in (0, 1, 2)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(fit, (0, 1, 2)))
    np.testing.assert_array_equal(together, alone)


def test_transform_in_threads(data, fitted):
    X = data[0]
    pruner = GTAPPruner(FrozenEstimator(fitted), n_players_to_keep=9).fit(*data)
    slices = [X[:40], X[40:140], X[140:]] * 5
    expected = [pruner.transform(part) for part in slices]
    with ThreadPoolExecutor(3) as pool:
        for found, wanted in zip(
            pool.map(pruner.transform, slices), expected, strict=True
        ):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_a_net_without_a_linear_layer_predicts_but_does_not_transform():
    class Convolutions(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv1d(1, 6, 3), nn.Conv1d(6, 3, 3)

        def forward(self, x):
            return self.b(torch.relu(self.a(x))).mean(-1)

    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 1, 12)).astype(np.float32)
    y = (X[:, 0, :6].sum(1) > 0).astype(int) + (X[:, 0].sum(1) > 1)
    torch.manual_seed(0)
    net = classifier(module=Convolutions()).fit(X, y)
    pruner = GTAPPruner(FrozenEstimator(net), n_players_to_keep=3, players="filters")
    pruner.fit(X, y)
    assert pruner.module_.a.out_channels == 3
    assert pruner.predict(X).shape == (120,)
    with pytest.raises(ValueError, match="last Linear layer"):
        pruner.transform(X)


def test_nobody_leaves_and_nothing_changes(data, fitted):
    X, y = data
    pruner = GTAPPruner(FrozenEstimator(fitted), n_players_to_keep=1.0).fit(X, y)
    assert pruner.repair_ == "none"
    np.testing.assert_array_equal(pruner.predict_proba(X), fitted.predict_proba(X))


@pytest.mark.parametrize(
    "params",
    [
        {"power_index": ShapleyScorer(n_evaluations=400), "search": "top_n"},
        {"refine": IteratedLocalSearch(n_restarts=2, kick=0.4), "payoff": "accuracy"},
    ],
    ids=["scorer", "refinement"],
)
def test_parts_without_a_seed_draw_by_the_pruners(data, fitted, params):
    settings = {"n_players_to_keep": 9, "random_state": 0} | params
    first, second = (
        GTAPPruner(FrozenEstimator(fitted), **settings).fit(*data) for _ in range(2)
    )
    np.testing.assert_array_equal(first.support_, second.support_)
    np.testing.assert_array_equal(first.scores_.values, second.scores_.values)


def test_classes_of_a_frozen_net_in_any_order(data):
    X, y = data
    torch.manual_seed(0)
    net = classifier(classes=["c", "a", "b"]).fit(X, y)
    labels = np.array(["c", "a", "b"])[y]
    pruner = GTAPPruner(FrozenEstimator(net), n_players_to_keep=1.0).fit(X, labels)
    assert pruner.score(X, labels) == (net.predict(X) == y).mean()


def test_n_jobs_of_zero_is_refused_before_training(data):
    net = classifier(callbacks=[NeverTrained()])
    with pytest.raises(ValueError, match="n_jobs"):
        GTAPPruner(net, n_players_to_keep=8, n_jobs=0).fit(*data)
