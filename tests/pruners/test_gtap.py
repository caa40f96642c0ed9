"""GTAPPruner: from X, y to a smaller network, and what bad input gets."""

import copy
import itertools
import pickle
import threading
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from skprune import GTAPPruner, mlp_regressor
from skprune.evaluation import _repair
from skprune.exceptions import SkpruneWarning
from skprune.pruners._stage import one_thread
from skprune.scorers import BanzhafScorer, ShapleyScorer
from skprune.strategies import (
    IteratedBuilding,
    IteratedLocalSearch,
    IteratedPruning,
    SwapRefinement,
    TopN,
)


def mlp(*widths, activation=nn.ReLU):
    # Weights are drawn here: what a test finds must not depend on those before it.
    torch.manual_seed(0)
    layers = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def classifier(module, **params):
    torch.manual_seed(0)
    settings = {"max_epochs": 10, "lr": 5e-3, "verbose": 0, "train_split": None}
    return NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        **settings | params,
    )


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return train_test_split(
        (X / 16).astype(np.float32), y, test_size=0.3, stratify=y, random_state=0
    )


@pytest.fixture(scope="module")
def digits_net(digits):
    X, _, y, _ = digits
    return classifier(mlp(64, 48, 24, 10), max_epochs=20).fit(X, y)


@pytest.fixture(scope="module")
def pruned(digits, digits_net):
    X, _, y, _ = digits
    return GTAPPruner(
        FrozenEstimator(digits_net),
        n_players_to_keep=0.3,
        path_sizes=[0.1, 60, 1.0],
        random_state=0,
    ).fit(X, y)


def test_digits_get_smaller_and_stay_accurate(digits, digits_net, pruned):
    _, X_test, _, y_test = digits
    before, after = pruned.size_report_["before"], pruned.size_report_["after"]
    assert before.n_players == 72
    assert after.n_players == 22 == pruned.support_.sum() == pruned.players_.n_players
    assert after.n_parameters < before.n_parameters / 2
    assert after.n_flops < before.n_flops / 2
    assert after.n_parameters == sum(p.numel() for p in pruned.module_.parameters())
    assert pruned.score(X_test, y_test) > digits_net.score(X_test, y_test) - 0.05


def test_attributes(pruned):
    assert pruned.path_.sizes.tolist() == [7, 22, 60, 72]
    assert pruned.path_.masks.sum(1).tolist() == [7, 22, 60, 72]
    assert pruned.names_[0] == "0[0]"
    assert pruned.scores_.values.shape == (72,)
    assert (pruned.scores_.standard_errors >= 0).all()
    assert pruned.repair_ in {"none", "output", "layers"}
    assert pruned.critical_size_ is None
    assert pruned.n_features_in_ == 64
    assert pruned.classes_.tolist() == list(range(10))
    assert 0.5 < pruned.validation_payoff_ <= 1


def test_at_size(digits, digits_net, pruned):
    _, X_test, _, y_test = digits
    small = pruned.at_size(7)
    assert small.support_.sum() == 7
    assert small.module_[0].out_features + small.module_[2].out_features == 7
    assert pruned.support_.sum() == 22
    assert small.score(X_test, y_test) < pruned.at_size(60).score(X_test, y_test)
    whole = pruned.at_size(72)
    assert whole.score(X_test, y_test) > digits_net.score(X_test, y_test) - 0.02
    with pytest.raises(ValueError, match=r"size=5 was not searched.*\[7, 22, 60, 72\]"):
        pruned.at_size(5)


def test_transform_is_what_the_output_layer_reads(digits, pruned):
    X = digits[1][:20]
    hidden = pruned.transform(X)
    module = pruned.module_
    expected = module[:-1](torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(hidden, expected, rtol=1e-5, atol=1e-6)
    assert hidden.dtype == np.float32
    names = pruned.get_feature_names_out()
    kept = [n for n, s in zip(pruned.names_, pruned.support_, strict=True) if s]
    assert names.tolist() == [name for name in kept if name.startswith("2[")]


def test_probabilities(digits, pruned):
    probabilities = pruned.predict_proba(digits[1])
    assert probabilities.shape == (len(digits[1]), 10)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert (probabilities.argmax(1) == pruned.predict(digits[1])).all()


def test_survives_pickle_and_clone(digits, pruned):
    again = pickle.loads(pickle.dumps(pruned))
    assert (again.predict(digits[1]) == pruned.predict(digits[1])).all()
    fresh = clone(pruned)
    assert not hasattr(fresh, "estimator_")
    with pytest.raises(NotFittedError):
        fresh.predict(digits[1])
    with pytest.raises(NotFittedError):
        fresh.at_size(22)


def test_same_seed_same_network(digits):
    X, X_test, y, _ = digits
    net = classifier(mlp(64, 16, 10), max_epochs=2)
    probabilities = [
        GTAPPruner(
            net,
            n_players_to_keep=6,
            random_state=3,
        )
        .fit(X, y)
        .predict_proba(X_test)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*probabilities)


def test_given_net_is_not_trained_and_not_changed(digits, digits_net, pruned):
    state = {k: v.clone() for k, v in digits_net.module_.state_dict().items()}
    net = classifier(mlp(64, 16, 10), max_epochs=1)
    GTAPPruner(net, n_players_to_keep=4, random_state=0).fit(digits[0], digits[2])
    assert not net.initialized_
    GTAPPruner(FrozenEstimator(digits_net), n_players_to_keep=9, retrain_epochs=1).fit(
        digits[0], digits[2]
    )
    for name, value in digits_net.module_.state_dict().items():
        assert torch.equal(value, state[name])
    assert not any(m._forward_hooks for m in digits_net.module_.modules())
    assert not any(m._forward_pre_hooks for m in digits_net.module_.modules())


@pytest.mark.parametrize(
    ("params", "n_played"),
    [
        ({"payoff": "accuracy"}, 1024),
        (
            {
                "payoff": "f1_macro",
                "power_index": BanzhafScorer(n_evaluations=100, random_state=0),
            },
            1200,
        ),
    ],
    ids=["mean over samples", "metric"],
)
def test_searches_play_some_samples_and_score_steps_lightly(
    digits, digits_net, monkeypatch, params, n_played
):
    monkeypatch.setattr("skprune.pruners._worth.SEARCH_SAMPLES", 1024)
    played = []

    class Spy(IteratedBuilding):
        def _masks(self, game, scorer, *args):
            played.append((game._batched.n_samples, scorer.n_evaluations))
            return super()._masks(game, scorer, *args)

    X, _, y, _ = digits
    pruner = GTAPPruner(
        FrozenEstimator(digits_net),
        n_players_to_keep=0.1,
        search=Spy(step=4),
        refine=False,
        random_state=0,
        **params,
    ).fit(X[:1200], y[:1200])
    ((n_samples, step_budget),) = played
    assert n_samples == n_played
    if "power_index" in params:
        assert step_budget == 100
    else:
        # 64 blocks of samples: 9 flips for a step, 32 for the scores.
        assert step_budget == 9 * 72 + 2
        assert pruner.scores_.n_samples == 32
    assert np.isfinite(pruner.scores_.standard_errors).all()


@pytest.mark.parametrize(
    "params",
    [
        {"payoff": "accuracy"},
        {"payoff": "accuracy", "repair": "none", "refine": False},
        {"payoff": "log_likelihood", "search": "top_n", "power_index": "banzhaf"},
        {
            "payoff": "f1_macro",
            "search": TopN(),
            "power_index": ShapleyScorer(n_evaluations=300, random_state=0),
            "refine": False,
        },
        {
            "payoff": "true_class_probability",
            "search": IteratedPruning(step=0.2, layerwise=True),
            "refine": SwapRefinement(n_candidates=2, max_rounds=2),
        },
        {"search": "iterated_pruning"},
        {"search": "top_n", "power_index": ShapleyScorer(random_state=0)},
        {
            "search": IteratedBuilding(step=4),
            "power_index": BanzhafScorer(random_state=0),
            "refine": IteratedLocalSearch(n_restarts=1, random_state=0),
        },
        {"repair": "output"},
        {"n_players_to_keep": "auto"},
        {"players": "inputs"},
        {"players": [("neurons", "2")]},
        {"min_per_layer": 5},
    ],
    ids=str,
)
def test_every_option_gives_a_working_network(digits, digits_net, params):
    X, X_test, y, y_test = digits
    settings = {"n_players_to_keep": 0.6, "random_state": 0} | params
    pruner = GTAPPruner(FrozenEstimator(digits_net), **settings).fit(X[:400], y[:400])
    assert 0 < pruner.support_.sum() < pruner.support_.size
    assert pruner.score(X_test, y_test) > 0.5
    after, before = pruner.size_report_["after"], pruner.size_report_["before"]
    assert after.n_parameters < before.n_parameters
    group_of = pruner.players_.group_of
    assert np.bincount(group_of).min() >= pruner.min_per_layer


def test_auto_is_the_critical_size(digits, digits_net):
    X, _, y, _ = digits
    pruner = GTAPPruner(FrozenEstimator(digits_net), random_state=0).fit(X, y)
    critical = pruner.critical_size_
    assert critical.fraction == pytest.approx(1 - critical.elimination)
    assert pruner.support_.sum() == round(critical.fraction * 72)


def test_repairs_help(digits, digits_net):
    X, X_test, y, y_test = digits
    score = {
        repair: GTAPPruner(
            FrozenEstimator(digits_net),
            n_players_to_keep=0.2,
            repair=repair,
            random_state=0,
        )
        .fit(X, y)
        .score(X_test, y_test)
        for repair in ("none", "layers")
    }
    assert score["layers"] > score["none"] + 0.05


def test_retraining_is_kept_only_where_it_helps(digits, digits_net):
    X, _, y, _ = digits
    plain, trained, ruined = (
        GTAPPruner(
            FrozenEstimator(net), n_players_to_keep=8, random_state=0, **params
        ).fit(X, y)
        for net, params in [
            (digits_net, {}),
            (digits_net, {"retrain_epochs": 3}),
            (_with_rate(digits_net, 1e3), {"retrain_epochs": 1}),
        ]
    )
    assert trained.retrained_
    assert trained.validation_payoff_ >= plain.validation_payoff_
    assert not ruined.retrained_
    assert ruined.validation_payoff_ == plain.validation_payoff_


def _with_rate(net, rate):
    net = copy.deepcopy(net)
    net.lr = rate
    return net


def test_string_labels_dataframe_and_float64(digits):
    X, X_test, y, y_test = digits
    names = np.array([f"digit {label}" for label in range(10)])
    frame = pd.DataFrame(X.astype(np.float64), columns=[f"p{i}" for i in range(64)])
    pruner = GTAPPruner(
        classifier(mlp(64, 32, 10)), n_players_to_keep=16, random_state=0
    ).fit(frame, names[y])
    predicted = pruner.predict(frame.iloc[:50])
    assert set(predicted) <= set(names)
    assert pruner.feature_names_in_[0] == "p0"
    test = pd.DataFrame(X_test, columns=frame.columns)
    assert pruner.score(test, names[y_test]) > 0.8
    with pytest.raises(ValueError, match="feature names"):
        pruner.predict(test[test.columns[::-1]])


def test_sparse_input_gives_what_dense_input_gives(digits):
    X, X_test, y, _ = digits
    net = classifier(mlp(64, 16, 10), max_epochs=3)

    def fitted(X):
        return GTAPPruner(
            net,
            n_players_to_keep=8,
            random_state=0,
        ).fit(X, y)

    dense, csr = fitted(X), fitted(sparse.csr_matrix(X))
    assert (csr.support_ == dense.support_).all()
    np.testing.assert_allclose(
        csr.predict_proba(sparse.csr_array(X_test)),
        dense.predict_proba(X_test),
        atol=1e-5,
    )


def test_regression():
    X, y = load_diabetes(return_X_y=True)
    X, y = StandardScaler().fit_transform(X), (y - y.mean()) / y.std()
    torch.manual_seed(0)
    net = NeuralNetRegressor(
        mlp(10, 32, 16, 1),
        optimizer=torch.optim.Adam,
        lr=3e-3,
        max_epochs=30,
        verbose=0,
        train_split=None,
    )
    pruner = GTAPPruner(net, n_players_to_keep=0.25, random_state=0).fit(X, y)
    assert pruner.predict(X).shape == y.shape
    assert pruner.score(X, y) > 0.35
    assert is_regressor(pruner)
    assert not is_classifier(pruner)
    assert not hasattr(pruner, "predict_proba")
    assert not hasattr(pruner, "classes_")


def test_several_outputs():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 5)).astype(np.float32)
    y = np.stack([X[:, 0] - X[:, 1], np.abs(X[:, 2])], 1)
    torch.manual_seed(0)
    net = NeuralNetRegressor(
        mlp(5, 24, 2), optimizer=torch.optim.Adam, lr=0.01, max_epochs=40, verbose=0
    )
    pruner = GTAPPruner(net, n_players_to_keep=0.5, random_state=0).fit(X, y)
    assert pruner.predict(X).shape == (300, 2)
    assert pruner.score(X, y) > 0.8


def test_binary_net_with_one_logit():
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    torch.manual_seed(0)
    net = NeuralNetBinaryClassifier(
        mlp(30, 24, 1), optimizer=torch.optim.Adam, lr=0.01, max_epochs=10, verbose=0
    )
    labels = np.array(["malignant", "benign"])[y]
    pruner = GTAPPruner(net, n_players_to_keep=3, random_state=0).fit(X, labels)
    assert pruner.score(X, labels) > 0.93
    assert pruner.predict_proba(X).shape == (569, 2)


class SmallCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, 3)
        self.fc1 = nn.Linear(12 * 9, 20)
        self.fc2 = nn.Linear(20, 10)

    def forward(self, x):
        x = torch.max_pool2d(torch.relu(self.norm(self.conv1(x))), 1)
        x = torch.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


def test_convolutional_net(digits):
    X, X_test, y, y_test = digits
    X, X_test = X.reshape(-1, 1, 8, 8), X_test.reshape(-1, 1, 8, 8)
    players = [("filters", "conv1"), ("filters", "conv2"), ("neurons", "fc1")]
    pruner = GTAPPruner(
        classifier(SmallCNN, max_epochs=5),
        n_players_to_keep=0.5,
        players=players,
        random_state=0,
    ).fit(X, y)
    assert pruner.support_.size == 40
    assert pruner.module_.conv1.out_channels < 8
    assert pruner.module_.norm.num_features == pruner.module_.conv1.out_channels
    assert pruner.score(X_test, y_test) > 0.85


def test_in_a_pipeline_and_a_grid(digits):
    X, X_test, y, y_test = digits
    net = classifier(mlp(64, 24, 10), max_epochs=4)
    pipeline = make_pipeline(StandardScaler(), GTAPPruner(net, random_state=0))
    grid = GridSearchCV(
        pipeline, {"gtappruner__n_players_to_keep": [4, 16]}, cv=2, error_score="raise"
    ).fit(X, y)
    assert grid.best_params_ == {"gtappruner__n_players_to_keep": 16}
    assert grid.score(X_test, y_test) > 0.8
    features = make_pipeline(
        GTAPPruner(net, n_players_to_keep=16, random_state=0),
        LogisticRegression(max_iter=500),
    ).fit(X, y)
    assert features.score(X_test, y_test) > 0.8


def test_validation_set_is_used_as_given(digits):
    X, X_test, y, y_test = digits
    pruner = GTAPPruner(
        classifier(mlp(64, 16, 10), max_epochs=2), n_players_to_keep=5, random_state=0
    ).fit(X, y, X_val=X_test, y_val=y_test)
    assert pruner.validation_payoff_ == pytest.approx(pruner.score(X_test, y_test))


def test_verbose_prints_steps(digits, digits_net, capsys):
    GTAPPruner(
        FrozenEstimator(digits_net), n_players_to_keep=20, random_state=0, verbose=1
    ).fit(digits[0], digits[2])
    assert "kept 20 of 72 players" in capsys.readouterr().out


def test_no_hold_out_warns(digits):
    X, _, y, _ = digits
    rows = [np.flatnonzero(y == label)[0] for label in range(10)]
    rows += np.flatnonzero(y < 9)[:60].tolist()
    net = classifier(mlp(64, 16, 10), max_epochs=1)
    pruner = GTAPPruner(net, n_players_to_keep=4, random_state=0)
    with pytest.warns(SkpruneWarning, match="no hold-out is possible"):
        pruner.fit(X[rows], y[rows])


BAD_PARAMETERS = [
    ({"n_players_to_keep": 0}, "n_players_to_keep.*0"),
    ({"n_players_to_keep": -0.1}, "n_players_to_keep.*-0.1"),
    ({"n_players_to_keep": 1.5}, "n_players_to_keep.*1.5"),
    ({"n_players_to_keep": "half"}, "n_players_to_keep.*half"),
    ({"n_players_to_keep": 73}, "n_players_to_keep=73.*72"),
    ({"n_players_to_keep": 1}, "n_players_to_keep=1 .*min_per_layer"),
    ({"path_sizes": [0]}, "path_sizes.*0"),
    ({"path_sizes": [10, 100]}, "path_sizes=100.*72"),
    ({"path_sizes": ["a"]}, "path_sizes.*'a'"),
    ({"search": "best"}, "search.*best"),
    ({"power_index": "core"}, "power_index.*core"),
    ({"payoff": "r2"}, "payoff='r2' does not fit a multiclass net"),
    ({"payoff": "acuracy"}, "payoff='acuracy' is unknown"),
    ({"repair": "all"}, "repair.*all"),
    ({"refine": "yes"}, "refine.*yes"),
    ({"min_per_layer": 0}, "min_per_layer.*0"),
    ({"retrain_epochs": -1}, "retrain_epochs.*-1"),
    ({"validation_fraction": 1.0}, "validation_fraction.*1.0"),
    ({"players": "units"}, "units"),
    ({"players": [("neurons", "1")]}, "'1'"),
    ({"players": [("neurons", "9")]}, "'9'"),
    ({"players": [("neurons", "4")]}, "'4'"),
]


@pytest.mark.parametrize(("params", "message"), BAD_PARAMETERS, ids=str)
def test_bad_parameters(digits, digits_net, params, message):
    pruner = GTAPPruner(FrozenEstimator(digits_net), **params)
    with pytest.raises((ValueError, TypeError), match=message):
        pruner.fit(digits[0], digits[2])


def test_bad_estimators(digits):
    X, _, y, _ = digits
    with pytest.raises(TypeError, match=r"estimator must be a skorch net.*Logistic"):
        GTAPPruner(LogisticRegression()).fit(X, y)
    unfitted = FrozenEstimator(classifier(mlp(64, 8, 10)))
    with pytest.raises(NotFittedError, match="NeuralNetClassifier"):
        GTAPPruner(unfitted).fit(X, y)
    linear = classifier(nn.Sequential(nn.Linear(64, 10)), max_epochs=1)
    with pytest.raises(ValueError, match=r"[Nn]o .*hidden|players"):
        GTAPPruner(linear, n_players_to_keep=2).fit(X, y)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_numbers(digits, digits_net, value):
    X = digits[0].copy()
    X[3, 5] = value
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        GTAPPruner(FrozenEstimator(digits_net)).fit(X, digits[2])


def test_bad_targets(digits, digits_net):
    X, _, y, _ = digits
    frozen = GTAPPruner(FrozenEstimator(digits_net), n_players_to_keep=9)
    with pytest.raises(
        ValueError, match=r"y holds labels that the net does not know: \[17\]"
    ):
        frozen.fit(X, np.where(y == 3, 17, y))
    with pytest.raises(ValueError, match="one class only"):
        GTAPPruner(classifier(mlp(64, 8, 10))).fit(X, np.zeros(len(X), int))
    with pytest.raises(ValueError, match="1257 samples where y has 1256"):
        frozen.fit(X, y[:-1])


def test_bad_validation_sets(digits, digits_net):
    X, X_test, y, y_test = digits
    pruner = GTAPPruner(FrozenEstimator(digits_net), n_players_to_keep=9)
    some = y_test != 4
    with pytest.raises(ValueError, match=r"y_val holds no sample of \[4\], which"):
        pruner.fit(X, y, X_val=X_test[some], y_val=y_test[some])
    with pytest.raises(ValueError, match=r"0 sample|no samples"):
        pruner.fit(X, y, X_val=X_test[:0], y_val=y_test[:0])
    with pytest.raises(ValueError, match="only X_val was given"):
        pruner.fit(X, y, X_val=X_test)
    with pytest.raises(ValueError, match="63 features"):
        pruner.fit(X, y, X_val=X_test[:, :-1], y_val=y_test)


@pytest.mark.parametrize(
    ("fill", "message"), [(0.0, "same for every"), (np.nan, "NaN")]
)
def test_dead_networks(digits, digits_net, fill, message):
    net = copy.deepcopy(digits_net)
    with torch.no_grad():
        net.module_[-1].weight.fill_(fill)
    with pytest.raises(ValueError, match=message):
        GTAPPruner(FrozenEstimator(net), n_players_to_keep=9).fit(digits[0], digits[2])


def test_interrupt_leaves_the_net_alone(digits, digits_net, monkeypatch):
    state = copy.deepcopy(digits_net.module_.state_dict())

    class Interrupted(TopN):
        def search(self, *args, **kwargs):
            raise KeyboardInterrupt

    pruner = GTAPPruner(
        FrozenEstimator(digits_net), search=Interrupted(), power_index="shapley"
    )
    with pytest.raises(KeyboardInterrupt):
        pruner.fit(digits[0], digits[2])
    assert not hasattr(pruner, "estimator_")
    for name, value in digits_net.module_.state_dict().items():
        assert torch.equal(value, state[name])
    assert not any(m._forward_hooks for m in digits_net.module_.modules())


def test_no_warnings_on_a_normal_fit(digits, digits_net):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GTAPPruner(FrozenEstimator(digits_net), n_players_to_keep=9).fit(
            digits[0], digits[2]
        )


def test_fits_side_by_side_leave_torch_its_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    inside, left = threading.Event(), threading.Event()

    def longer():
        with one_thread():
            inside.set()
            left.wait(10)
            seen.append(torch.get_num_threads())
        seen.append(torch.get_num_threads())

    seen = []
    worker = threading.Thread(target=longer)
    try:
        with one_thread():
            worker.start()
            inside.wait(10)
        seen.append(torch.get_num_threads())
        left.set()
        worker.join()
        assert seen == [2, 1, 2]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_many_survivors_do_not_learn_few_samples_by_heart(monkeypatch):
    X, y = load_diabetes(return_X_y=True)
    X, y = StandardScaler().fit_transform(X), (y - y.mean()) / y.std()
    gains = []
    for seed in (1, 2, 3):
        X_train, X_rest, y_train, y_rest = train_test_split(
            X, y, test_size=0.6, random_state=seed
        )
        held_out = train_test_split(X_rest, y_rest, test_size=0.5, random_state=seed)
        X_val, X_test, y_val, y_test = held_out
        torch.manual_seed(seed)
        net = mlp_regressor((100, 50), max_epochs=30).fit(X_train, y_train)
        pruner = GTAPPruner(FrozenEstimator(net), n_players_to_keep=0.4, random_state=0)
        scores = []
        for pulls in (_repair._PULLS, (1,)):
            monkeypatch.setattr(_repair, "_PULLS", pulls)
            pruner.fit(X_train, y_train, X_val=X_val, y_val=y_val)
            scores.append(pruner.score(X_test, y_test))
        gains.append(scores[0] - scores[1])
    assert min(gains) > -0.02
    assert np.mean(gains) > 0.02
