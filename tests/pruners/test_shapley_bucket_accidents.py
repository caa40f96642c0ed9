"""What users run into with ShapleyBucketPruner: the right result or a clear error."""

import copy
import re

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, EarlyStopping, EpochScoring, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn

from skprune import ShapleyBucketPruner
from skprune.exceptions import SkpruneWarning, UnsupportedNetworkError
from skprune.strategies import BelowShare, Bottom, Bucket


class MLP(nn.Module):
    def __init__(self, hidden=(12,), outputs=3, dropout=0.0, norm=False):
        super().__init__()
        layers, width = [], 12
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
            layers += [nn.BatchNorm1d(size)] if norm else []
            width = size
        self.hidden, self.last = nn.Sequential(*layers), nn.Linear(width, outputs)

    def forward(self, x):
        return self.last(self.hidden(x))


class Countdown(MLP):
    """Raises what the user's Ctrl-C does, in the forward pass of a given number."""

    n_left = None

    def forward(self, x):
        if Countdown.n_left is not None:
            Countdown.n_left -= 1
            if Countdown.n_left == 0:
                raise KeyboardInterrupt
        return super().forward(x)


class NeverTrained(Callback):
    def on_train_begin(self, net, **_):
        raise AssertionError("training began before the settings were checked")


def classifier(module=MLP, **params):
    settings = {
        "criterion": nn.CrossEntropyLoss,
        "optimizer": torch.optim.Adam,
        "lr": 0.01,
        "max_epochs": 15,
        "train_split": None,
        "verbose": 0,
    }
    return NeuralNetClassifier(module, **settings | params)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 12)).astype(np.float32)
    return X, (X[:, :3] + 0.3 * X[:, 3:6]).argmax(1)


@pytest.fixture(scope="module")
def net(data):
    torch.manual_seed(0)
    return classifier(module__norm=True, module__dropout=0.1).fit(*data)


def frozen(net, **params):
    params = {"tol": 0.1, "random_state": 0} | params
    return ShapleyBucketPruner(FrozenEstimator(net), **params)


def assert_pruned(pruner, X, y, least=0.6):
    assert 0 < pruner.support_.sum() < pruner.support_.size
    assert pruner.validation_score_ >= pruner.min_score_
    np.testing.assert_array_equal(
        pruner.steps_["held"], pruner.steps_["score"] >= pruner.min_score_
    )
    assert pruner.score(X, y) > least


PIECES = [
    "skprune.pruners._descent.Bottom.leavers",
    "skprune.pruners._descent.Descent._step",
    "skprune.pruners._descent.Descent._values",
    "skprune.pruners._worth.PlayerIndex._scorer",
    "skprune.pruners._stage.Stage.finish",
    "skprune.pruners._stage.remove_players",
    "skprune.pruners._stage.retrain",
    "skprune.pruners._stage.transplant",
    "skprune.pruners._shapley_bucket.size_of",
]


@pytest.mark.parametrize("piece", PIECES)
def test_an_interrupted_descent_leaves_everything_alone(data, net, monkeypatch, piece):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(piece, interrupted)
    pruner = frozen(net)
    assert_interrupted(pruner, net, data)


def assert_interrupted(pruner, net, data):
    """The fit is interrupted, and neither the net nor torch is other than before."""
    module = net.module_
    before = copy.deepcopy(module.state_dict())
    moments = copy.deepcopy(net.optimizer_.state_dict()["state"])
    n_threads = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        pruner.fit(*data)
    assert not hasattr(pruner, "estimator_")
    assert not pruner.__sklearn_is_fitted__()
    assert net.module_ is module
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    for number, parts in net.optimizer_.state_dict()["state"].items():
        for name, value in parts.items():
            assert torch.equal(value, moments[number][name])
    for part in module.modules():
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
    assert all(p.requires_grad for p in module.parameters())
    assert torch.get_num_threads() == n_threads


def test_an_interrupt_in_any_forward_pass_ends_the_descent(data):
    torch.manual_seed(0)
    scoring = EpochScoring("accuracy", on_train=True, name="train_accuracy")
    net = classifier(Countdown, module__dropout=0.1, callbacks=[scoring]).fit(*data)
    pruner = frozen(net, refine=False)
    Countdown.n_left = 10**6
    try:
        pruner.fit(*data)
        n_passes = 10**6 - Countdown.n_left
        assert n_passes > 20
        for number in np.linspace(1, n_passes, 15).astype(int):
            Countdown.n_left = int(number)
            assert_interrupted(frozen(net, refine=False), net, data)
            assert Countdown.n_left == 0
    finally:
        Countdown.n_left = None


def test_an_interrupted_second_fit_can_be_done_again(data, net, monkeypatch):
    pruner = frozen(net).fit(*data)
    expected = pruner.predict_proba(data[0])
    with monkeypatch.context() as patch:
        patch.setattr("skprune.pruners._descent.Descent.descend", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            pruner.fit(*data)
    np.testing.assert_array_equal(pruner.fit(*data).predict_proba(data[0]), expected)


def _interrupted(*args, **kwargs):
    raise KeyboardInterrupt


def test_a_score_out_of_reach_says_what_was_reached(data, net):
    pruner = frozen(net, min_score=0.999, scoring="f1_macro")
    with pytest.raises(ValueError, match=r"min_score=0\.999 is out of reach") as caught:
        pruner.fit(data[0], data[1], X_val=data[0], y_val=data[1])
    reached = float(re.search(r"network scores ([\d.]+)", str(caught.value))[1])
    pruner.set_params(min_score=reached - 1e-5).fit(
        data[0], data[1], X_val=data[0], y_val=data[1]
    )
    assert pruner.unpruned_score_ == pytest.approx(reached, abs=1e-5)
    assert 0.6 < reached < 0.999


REFUSED = [
    ({"min_score": 1.5}, "min_score=1.5 is above 1"),
    ({"min_score": 1.01, "scoring": "accuracy"}, "min_score=1.01 is above 1"),
    ({"min_score": np.nan}, "min_score.*nan"),
    ({"min_score": "high"}, "min_score.*high"),
    ({"tol": -0.1}, r"tol.*-0\.1"),
    ({"tol": np.nan}, "tol.*nan"),
    ({"strategy": "buckets"}, "strategy.*buckets"),
    ({"strategy": Bucket}, "strategy.*Bucket"),
    ({"strategy": Bucket(0.0)}, r"share.*Bucket.*0\.0"),
    ({"strategy": BelowShare(-1.0)}, r"factor.*BelowShare.*-1\.0"),
    ({"strategy": Bottom(0)}, "n.*Bottom.*0"),
    ({"power_index": "core"}, "power_index.*core"),
    ({"payoff": "acuracy"}, "payoff='acuracy' is unknown"),
    ({"payoff": "r2"}, "payoff='r2' does not fit a multiclass net"),
    ({"scoring": "acuracy"}, "'acuracy' is unknown"),
    ({"scoring": "reconstruction"}, "scoring='reconstruction'.*payoff"),
    ({"players": "units"}, "players.*units"),
    ({"players": "filters"}, "players='filters'"),
    ({"players": "layers"}, "players='layers'.*players='neurons'"),
    ({"players": [("neurons", "hidden.9")]}, "'hidden.9' does not exist.*hidden.0"),
    ({"players": [("neurons", "last")]}, "'last'"),
    ({"players": [("layers", "last")]}, "layer 'last'.*cannot be left out"),
    ({"repair": "all"}, "repair.*all"),
    ({"refine": "yes"}, "refine.*yes"),
    ({"normalize": None}, "normalize.*None"),
    ({"retrain_epochs": -1}, "retrain_epochs.*-1"),
    ({"min_per_layer": 0}, "min_per_layer.*0"),
    ({"validation_fraction": 1.0}, r"validation_fraction.*1\.0"),
    ({"n_jobs": 0}, "n_jobs"),
]


@pytest.mark.parametrize(("params", "message"), REFUSED, ids=str)
def test_settings_are_refused_before_training(data, params, message):
    net = classifier(module__hidden=(10,), callbacks=[NeverTrained()])
    with pytest.raises(ValueError, match=f"(?s){message}"):
        ShapleyBucketPruner(net, **params).fit(*data)


@pytest.mark.parametrize("players", ["layers", [("weights", "last")]], ids=str)
def test_players_without_a_reconstruction_are_refused_before_training(data, players):
    module = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), MLP())
    players = [("weights", "2.last")] if players != "layers" else players
    net = classifier(module, callbacks=[NeverTrained()])
    pruner = ShapleyBucketPruner(net, payoff="reconstruction", players=players)
    with pytest.raises(UnsupportedNetworkError, match="no reconstruction"):
        pruner.fit(*data)


def test_estimators_that_are_no_nets(data):
    with pytest.raises(TypeError, match=r"estimator must be a skorch net.*Logistic"):
        ShapleyBucketPruner(LogisticRegression()).fit(*data)
    linear = classifier(nn.Sequential(nn.Linear(12, 3)), callbacks=[NeverTrained()])
    with pytest.raises(ValueError, match="no players='neurons'"):
        ShapleyBucketPruner(linear).fit(*data)
    narrow = classifier(module__outputs=2, callbacks=[NeverTrained()])
    with pytest.raises(ValueError, match="outputs for 2 classes where y holds 3"):
        ShapleyBucketPruner(narrow).fit(*data)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none(data, net, value):
    X = data[0].copy()
    X[3, 5] = value
    with pytest.raises(ValueError, match=r"X contains NaN|X.*infinity"):
        frozen(net).fit(X, data[1])
    with pytest.raises(ValueError, match=r"X contains NaN|X.*infinity"):
        frozen(net).fit(*data, X_val=X, y_val=data[1])


def test_targets_that_do_not_fit(data, net):
    X, y = data
    unfitted = classifier(callbacks=[NeverTrained()])
    with pytest.raises(ValueError, match="one class only"):
        ShapleyBucketPruner(unfitted).fit(X, np.zeros(300, int))
    with pytest.raises(ValueError, match="300 samples where y has 299"):
        frozen(net).fit(X, y[:-1])
    names, some = np.array(["ash", "birch", "cedar"])[y], y < 2
    with pytest.raises(ValueError, match=r"y_val holds no sample of \['cedar'\]"):
        ShapleyBucketPruner(unfitted).fit(X, names, X_val=X[some], y_val=names[some])
    with pytest.raises(ValueError, match="only X_val was given"):
        frozen(net).fit(X, y, X_val=X)


def test_a_score_that_is_no_number(data, net):
    def broken(y_true, y_pred):
        return np.nan

    with pytest.raises(ValueError, match=r"scoring=.*broken.* gives nan"):
        frozen(net, scoring=broken, payoff="accuracy").fit(*data)


@pytest.mark.parametrize(
    ("fill", "message"), [(0.0, "same for every"), (np.nan, "NaN")]
)
def test_dead_networks(data, net, fill, message):
    dead = copy.deepcopy(net)
    with torch.no_grad():
        dead.module_.last.weight.fill_(fill)
    with pytest.raises(ValueError, match=message):
        frozen(dead).fit(*data)


@pytest.mark.parametrize("players", ["neurons", "inputs"])
@pytest.mark.parametrize("n_layers", [1, 2])
def test_one_player_in_each_layer_from_the_start(data, n_layers, players):
    X, y = data
    X = X if players == "neurons" else X[:, :1]
    torch.manual_seed(0)
    layers, width = [], X.shape[1]
    for _ in range(n_layers):
        layers += [nn.Linear(width, 1), nn.Tanh()]
        width = 1
    module = nn.Sequential(*layers, nn.Linear(1, 3))
    pruner = ShapleyBucketPruner(
        classifier(module, max_epochs=2), players=players, random_state=0
    ).fit(X, y)
    assert pruner.support_.all()
    assert pruner.n_epochs_ == 2
    assert {len(column) for column in pruner.steps_.values()} == {0}
    assert pruner.path_.sizes.tolist() == [pruner.support_.size]
    assert pruner.predict(X).shape == y.shape


class BestFirst(Bottom):
    """A strategy of the user's own."""

    def leavers(self, values, **settings):
        return super().leavers(-np.asarray(values), **settings)


@pytest.mark.filterwarnings("ignore:the pruned network")
@pytest.mark.parametrize("payoff", ["accuracy", "log_likelihood", "reconstruction"])
def test_a_network_that_dies_on_the_descent(data, payoff):
    X, y = data
    torch.manual_seed(0)
    net = classifier().fit(X, y)
    with torch.no_grad():
        net.module_.hidden[0].weight[1:] *= 1e-3
        net.module_.hidden[0].bias[1:] = -1.0
    net.partial_fit(X, y)
    pruner = frozen(
        net,
        payoff=payoff,
        strategy=BestFirst(),
        repair="none",
        retrain_epochs=0,
        tol=1.0,
        refine=False,
    ).fit(X, y)
    assert pruner.steps_["n_players"].tolist() == list(range(11, 0, -1))
    # The only neuron that was alive left first.
    assert not pruner.steps_["support"][0, 0]
    assert len(set(pruner.predict(X))) == 1
    assert pruner.collapsed_
    assert np.isfinite(pruner.steps_["score"]).all()
    assert np.isfinite(pruner.steps_["removed_value"]).all()


def test_trainings_that_diverge_are_not_kept(data, net):
    wild = copy.deepcopy(net)
    wild.lr = 1e30
    pruner = frozen(wild).fit(*data)
    assert_pruned(pruner, *data)
    calm = frozen(net, retrain_epochs=0).fit(*data)
    np.testing.assert_array_equal(
        pruner.steps_["support"][0], calm.steps_["support"][0]
    )
    assert pruner.steps_["score"][0] == calm.steps_["score"][0]
    assert np.isfinite(pruner.predict_proba(data[0])).all()


SETTINGS = {
    "early stopping": {
        "callbacks": [EarlyStopping(monitor="train_loss", patience=1, threshold=9.0)]
    },
    "early stopping that restores": {
        "callbacks": [EarlyStopping(monitor="train_loss", patience=2, load_best=True)]
    },
    "schedule": {"callbacks": [LRScheduler(policy="StepLR", step_size=5)]},
    "schedule with a monitor": {
        "callbacks": [LRScheduler(policy="ReduceLROnPlateau", monitor="train_loss")]
    },
    "scoring": {"callbacks": [EpochScoring("f1_macro", on_train=True, name="f1")]},
    "split": {"train_split": ValidSplit(5, stratified=True)},
    "momentum": {
        "optimizer": torch.optim.SGD,
        "optimizer__momentum": 0.9,
        "optimizer__nesterov": True,
        "lr": 0.05,
    },
    "LBFGS": {"optimizer": torch.optim.LBFGS, "batch_size": -1, "lr": 0.2},
    "dropout": {"module__dropout": 0.2},
    "BatchNorm": {"module__norm": True},
    "two layers": {"module__hidden": (12, 8), "module__norm": True},
    "weights of classes": {"criterion__weight": torch.tensor([1.0, 2.0, 1.0])},
    "warm start": {"warm_start": True},
    "large batches": {"batch_size": 10_000, "max_epochs": 30},
    "double precision": {"module": MLP().double()},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_kind_of_net(data, name):
    net = classifier(**{"max_epochs": 20} | SETTINGS[name])
    pruner = ShapleyBucketPruner(net, tol=0.15, random_state=0).fit(*data)
    least = 0.33 if name == "early stopping" else 0.55
    assert_pruned(pruner, *data, least=least)
    assert pruner.n_epochs_ > pruner.steps_["n_epochs"].sum() > 0
    assert not net.initialized_
    names = [name for name, _ in pruner.estimator_.callbacks_]
    assert "skprune_rate" not in names


def test_early_stopping_ends_each_training_and_not_the_descent(data):
    stop = EarlyStopping(monitor="train_loss", patience=1, threshold=9.0)
    net = classifier(callbacks=[stop])
    pruner = ShapleyBucketPruner(
        net, tol=0.3, retrain_epochs=6, refine=False, random_state=0
    ).fit(*data)
    assert len(pruner.steps_["n_epochs"]) > 1
    assert set(pruner.steps_["n_epochs"]) == {2}
    assert pruner.n_epochs_ == 2 + 2 * len(pruner.steps_["n_epochs"])


def test_no_hold_out_warns(data):
    X, y = data
    rows = np.append(np.flatnonzero(y == 2)[0], np.flatnonzero(y < 2)[:60])
    pruner = ShapleyBucketPruner(classifier(), tol=0.2, random_state=0)
    with pytest.warns(SkpruneWarning, match="no hold-out is possible"):
        pruner.fit(X[rows], y[rows])
    assert pruner.validation_score_ == pytest.approx(pruner.score(X[rows], y[rows]))


def test_validation_sets_of_few_samples(data, net):
    X, y = data
    rows = [np.flatnonzero(y == label)[0] for label in range(3)]
    pruner = frozen(net, tol=0.0).fit(X, y, X_val=X[rows], y_val=y[rows])
    assert pruner.validation_score_ >= pruner.min_score_
    assert pruner.validation_score_ == pytest.approx(pruner.score(X[rows], y[rows]))
    tiny = ShapleyBucketPruner(classifier(), tol=0.2, random_state=0)
    assert tiny.fit(X[:30], y[:30]).predict(X).shape == (300,)


@pytest.mark.filterwarnings("ignore:the pruned network")
def test_a_second_fit_forgets_the_first(data):
    X, y = data
    pruner = ShapleyBucketPruner(classifier(), tol=0.1, random_state=0).fit(X, y)
    assert pruner.classes_.tolist() == [0, 1, 2]
    pruner.set_params(
        estimator=NeuralNetRegressor(
            MLP, module__outputs=1, optimizer=torch.optim.Adam, lr=0.01, verbose=0
        )
    ).fit(X, X[:, 0])
    assert not hasattr(pruner, "classes_")
    assert pruner.predict(X).shape == (300,)
    assert pruner.score(X, X[:, 0]) > 0.3
    binary = NeuralNetBinaryClassifier(MLP, module__outputs=1, lr=0.1, verbose=0)
    pruner.set_params(estimator=binary).fit(X, y == 1)
    assert pruner.classes_.tolist() == [False, True]
    assert pruner.predict(X).dtype == bool


def test_inputs_in_parts():
    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(6, 8), nn.Linear(6, 8)
            self.last = nn.Linear(16, 3)

        def forward(self, left, right):
            parts = [torch.relu(self.left(left)), torch.relu(self.right(right))]
            return self.last(torch.cat(parts, -1))

    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 12)).astype(np.float32)
    y = (X[:, :3] + X[:, 6:9]).argmax(1)
    parts = {"left": X[:, :6].copy(), "right": X[:, 6:].copy()}
    torch.manual_seed(0)
    pruner = ShapleyBucketPruner(classifier(Parts()), tol=0.1, random_state=0)
    assert_pruned(pruner.fit(parts, y), parts, y)
    n_left = pruner.module_.left.out_features + pruner.module_.right.out_features
    assert n_left == pruner.support_.sum() == pruner.module_.last.in_features


def test_every_sparse_format(data):
    X, y = np.where(data[0] > 0, data[0], 0), data[1]
    net = classifier(max_epochs=10)
    expected = ShapleyBucketPruner(net, tol=0.1, random_state=0).fit(X, y).predict(X)
    for form in (sparse.csr_matrix, sparse.coo_array):
        pruner = ShapleyBucketPruner(net, tol=0.1, random_state=0).fit(form(X), y)
        found = pruner.predict(form(X))
        assert (found == expected).mean() > 0.98


def test_data_are_neither_written_to_nor_have_to_be(data, net):
    X, y = data[0].copy(), data[1].copy()
    X.setflags(write=False)
    y.setflags(write=False)
    pruner = frozen(net).fit(X, y, X_val=X[::-1], y_val=y[::-1])
    np.testing.assert_array_equal(X, data[0])
    assert_pruned(pruner, X, y)
