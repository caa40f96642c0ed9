"""ShapleyBucketPruner: from X, y to the smallest network that holds a score."""

import copy
import itertools
import pickle
import time

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone, is_regressor
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    make_classification,
)
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import balanced_accuracy_score, f1_score, mean_absolute_error
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from skprune import ShapleyBucketPruner
from skprune.evaluation import retrain
from skprune.scorers import BiasedBanzhafScorer, ShapleyScorer
from skprune.strategies import BelowShare, Bottom, Bucket


def mlp(*widths):
    torch.manual_seed(0)
    layers = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class SmallCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, 3)
        self.head = nn.Linear(8 * 4, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv1(x)))
        return self.head(torch.max_pool2d(torch.relu(self.conv2(x)), 2).flatten(1))


class Block(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.wide, self.back = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return x + self.back(torch.relu(self.wide(x)))


class ResidualMLP(nn.Module):
    def __init__(self, width=16, hidden=12, n_blocks=3):
        super().__init__()
        self.stem = nn.Linear(64, width)
        self.blocks = nn.Sequential(*(Block(width, hidden) for _ in range(n_blocks)))
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        return self.head(torch.relu(self.blocks(torch.relu(self.stem(x)))))


def net_of(kind, module, **params):
    torch.manual_seed(0)
    settings = {
        "optimizer": torch.optim.Adam,
        "lr": 0.01,
        "max_epochs": 10,
        "train_split": None,
        "verbose": 0,
    }
    return kind(module, **settings | params)


def classifier(module, **params):
    return net_of(NeuralNetClassifier, module, criterion=nn.CrossEntropyLoss, **params)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    return train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)


@pytest.fixture(scope="module")
def images(digits):
    X, X_test, y, y_test = digits
    return X.reshape(-1, 1, 8, 8), X_test.reshape(-1, 1, 8, 8), y, y_test


@pytest.fixture(scope="module")
def digits_net(digits):
    return classifier(mlp(64, 16, 8, 10)).fit(digits[0], digits[2])


@pytest.fixture(scope="module")
def residual(digits):
    return classifier(ResidualMLP).fit(digits[0], digits[2])


@pytest.fixture(scope="module")
def table():
    X, y = make_classification(
        400,
        10,
        n_informative=6,
        n_redundant=0,
        n_classes=3,
        class_sep=1.5,
        random_state=0,
    )
    X = X.astype(np.float32)
    return train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)


@pytest.fixture(scope="module")
def table_net(table):
    net = classifier(mlp(10, 16, 3), max_epochs=20, classes=[0, 1, 2])
    return net.fit(table[0], table[2])


@pytest.fixture(scope="module")
def two_layers(table):
    return classifier(mlp(10, 8, 8, 3), max_epochs=20).fit(table[0], table[2])


def fit(net, table, **params):
    """Go down from a trained net, judged on the second half of the table."""
    X, X_val, y, y_val = table
    pruner = ShapleyBucketPruner(FrozenEstimator(net), random_state=0)
    return pruner.set_params(**params).fit(X, y, X_val=X_val, y_val=y_val)


def assert_consistent(pruner):
    """The descent as it is recorded, and its end, agree with each other."""
    steps, n_players = pruner.steps_, len(pruner.support_)
    assert {len(column) for column in steps.values()} == {len(steps["score"])}
    np.testing.assert_array_equal(steps["n_players"], steps["support"].sum(1))
    np.testing.assert_array_equal(steps["held"], steps["score"] >= pruner.min_score_)
    assert (steps["seconds"] > 0).all()
    assert (steps["n_players"] < n_players).all()
    is_frozen = isinstance(pruner.estimator, FrozenEstimator)
    first = 0 if is_frozen else pruner.estimator.max_epochs
    assert pruner.n_epochs_ == first + steps["n_epochs"].sum()

    sizes = np.append(steps["n_players"][steps["held"]], n_players)
    supports = [*steps["support"][steps["held"]], np.ones(n_players, bool)]
    scores = np.append(steps["score"][steps["held"]], pruner.unpruned_score_)
    smallest = sizes.argmin()
    np.testing.assert_array_equal(pruner.support_, supports[smallest])
    assert pruner.validation_score_ == scores[smallest] >= pruner.min_score_

    assert (np.diff(pruner.path_.sizes) > 0).all()
    assert pruner.path_.payoffs[-1] == pruner.unpruned_score_
    assert set(pruner.path_.sizes) == {*steps["n_players"], n_players}
    for size, payoff in zip(pruner.path_.sizes, pruner.path_.payoffs, strict=True):
        at_size = steps["n_players"] == size
        assert size == n_players or payoff == steps["score"][at_size].max()


def assert_smaller(pruner, X):
    """The module is smaller, and the pruner lives on in copies and in training."""
    after, before = pruner.size_report_["after"], pruner.size_report_["before"]
    assert after.n_parameters < before.n_parameters
    assert after.n_parameters == sum(p.numel() for p in pruner.module_.parameters())
    n_left = pruner.support_.sum()
    assert after.n_players == n_left == pruner.players_.n_players < before.n_players
    kept = [n for n, s in zip(pruner.names_, pruner.support_, strict=True) if s]
    assert pruner.players_.names == kept

    predicted = pruner.predict(X)
    again = pickle.loads(pickle.dumps(pruner))
    np.testing.assert_array_equal(again.predict(X), predicted)
    with pytest.raises(NotFittedError):
        clone(pruner).predict(X)


def assert_trains_on(pruner, X, y):
    """The net goes on training, and one that is trained anew is as small."""
    net, X = copy.deepcopy(pruner.estimator_), X[:64]
    shapes = [p.shape for p in net.module_.parameters()]
    old = [p.detach().clone() for p in net.module_.parameters()]
    net.partial_fit(X, y[:64])
    moved = zip(old, net.module_.parameters(), strict=True)
    assert any(not torch.equal(before, after) for before, after in moved)
    anew = clone(pruner.estimator_).set_params(max_epochs=1).fit(X, y[:64])
    assert [p.shape for p in anew.module_.parameters()] == shapes


@pytest.mark.parametrize("hidden", [(24,), (16, 12), (16, 12, 8)], ids=str)
def test_hidden_layers_get_narrower(digits, hidden):
    X, X_test, y, y_test = digits
    net = classifier(mlp(64, *hidden, 10), max_epochs=20)
    pruner = ShapleyBucketPruner(net, min_score=0.85, random_state=0).fit(X, y)
    assert_consistent(pruner)
    assert_smaller(pruner, X_test)
    assert_trains_on(pruner, X, y)
    widths = [m.out_features for m in pruner.module_ if isinstance(m, nn.Linear)]
    assert sum(widths[:-1]) == pruner.support_.sum() < sum(hidden) / 2
    assert widths[-1] == 10
    assert pruner.score(X_test, y_test) > 0.75
    assert pruner.transform(X_test).shape == (len(X_test), widths[-2])
    assert not net.initialized_


def test_filters(images):
    X, X_test, y, y_test = images
    players = [("filters", "conv1"), ("filters", "conv2")]
    pruner = ShapleyBucketPruner(
        classifier(SmallCNN), min_score=0.85, players=players, random_state=0
    ).fit(X, y)
    assert_consistent(pruner)
    assert_smaller(pruner, X_test)
    assert_trains_on(pruner, X, y)
    n_first, n_second = pruner.support_[:6].sum(), pruner.support_[6:].sum()
    assert pruner.module_.conv1.weight.shape == (n_first, 1, 3, 3)
    assert pruner.module_.norm.num_features == n_first
    assert pruner.module_.conv2.weight.shape == (n_second, n_first, 3, 3)
    assert pruner.module_.head.in_features == n_second * 4
    assert pruner.score(X_test, y_test) > 0.8


def test_whole_layers_are_bypassed(digits, residual):
    X, X_test, y, y_test = digits
    pruner = fit(residual, digits, players="layers", min_score=0.8)
    assert_consistent(pruner)
    assert_smaller(pruner, X_test)
    assert_trains_on(pruner, X, y)
    assert pruner.names_ == ["blocks.0", "blocks.1", "blocks.2"]
    for block, stays in zip(pruner.module_.blocks, pruner.support_, strict=True):
        assert type(block) is (Block if stays else nn.Identity)
    assert pruner.score(X_test, y_test) > 0.8


@pytest.mark.parametrize("power_index", ["shapley", "random", "weight_norm"])
@pytest.mark.parametrize("players", ["layers", [("layers", "blocks.1")]], ids=str)
def test_all_whole_layers_may_leave(digits, residual, players, power_index):
    pruner = fit(
        residual, digits, players=players, min_score=0.1, power_index=power_index
    )
    assert_consistent(pruner)
    assert_smaller(pruner, digits[1])
    assert pruner.players_.n_players == 0
    assert pruner.steps_["n_players"][-1] == 0
    assert pruner.transform(digits[1]).shape == (len(digits[1]), 16)


def test_layers_and_neurons_play_together(digits, residual):
    players = [
        ("layers", "blocks.1"),
        ("neurons", "blocks.1.wide"),
        ("neurons", "blocks.2.wide"),
    ]
    pruner = fit(residual, digits, players=players, min_score=0.8)
    assert_consistent(pruner)
    assert_smaller(pruner, digits[1])
    assert_trains_on(pruner, digits[0], digits[2])
    assert pruner.score(digits[1], digits[3]) > 0.75


def test_who_is_inside_a_layer_leaves_with_it_and_counts(digits, residual):
    pruner = fit(
        residual,
        digits,
        players=[("layers", "blocks.0"), ("neurons", "blocks.0.wide")],
        strategy="bottom",
        power_index="weight_norm",
        normalize=False,
        repair="none",
        retrain_epochs=0,
        refine=False,
        min_score=0.1,
    )
    # The layer's norm is that of all in it, so that its neurons leave one by one,
    # until the floor keeps one of them, who leaves with the layer.
    assert pruner.steps_["n_players"].tolist() == [*range(12, 1, -1), 0]
    block = residual.module_.blocks[0]
    last = pruner.steps_["support"][-2][:-1].argmax()
    own = block.wide.weight[last].norm()
    both = torch.stack([own, block.back.weight[:, last].norm()]).norm()
    assert pruner.steps_["removed_value"][-1] == pytest.approx((own + both).item())
    np.testing.assert_allclose(
        pruner.steps_["removed_value"][:-1], np.sort(pruner.scores_.values)[:11]
    )
    assert_consistent(pruner)


def test_input_features(digits, digits_net):
    X, X_test, y, y_test = digits
    pruner = fit(
        digits_net, digits, players="inputs", strategy=Bottom(12), min_score=0.7
    )
    assert_consistent(pruner)
    assert_smaller(pruner, X_test)
    assert_trains_on(pruner, X, y)
    assert pruner.names_[:2] == ["0.input[0]", "0.input[1]"]
    assert pruner.n_features_in_ == 64
    assert pruner.support_.sum() < 50
    noisy = X_test.copy()
    noisy[:, ~pruner.support_] = 7.0
    np.testing.assert_array_equal(pruner.predict(noisy), pruner.predict(X_test))
    assert pruner.score(X_test, y_test) > 0.65


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_single_weights_that_left_stay_zero(digits, digits_net, optimizer):
    X, _, y, _ = digits
    net = classifier(
        digits_net.module_,
        optimizer=optimizer,
        optimizer__weight_decay=0.01,
        max_epochs=1,
    ).fit(X, y)
    pruner = fit(net, digits, players=[("weights", "2")], strategy=Bottom(25), tol=0.05)
    assert_consistent(pruner)
    weight = pruner.module_[2].weight
    assert pruner.names_[:2] == ["2.weight[0,0]", "2.weight[0,1]"]
    assert weight.shape == (8, 16)
    assert (weight != 0).sum() == pruner.support_.sum() < 100
    np.testing.assert_array_equal(
        (weight != 0).numpy().ravel(), pruner.support_, strict=True
    )
    assert pruner.steps_["n_epochs"].sum() > 0
    assert not torch.equal(pruner.module_[0].weight, net.module_[0].weight)
    assert pruner.size_report_["after"].n_players == pruner.support_.sum()


@pytest.mark.parametrize(
    ("strategy", "floor"), [("bucket", 3), ("below_share", 2), (Bottom(7), 5)], ids=str
)
def test_a_full_descent_goes_down_to_the_floor_of_each_layer(
    table, two_layers, strategy, floor
):
    pruner = fit(
        two_layers,
        table,
        strategy=strategy,
        min_per_layer=floor,
        full_descent=True,
        refine=False,
    )
    assert_consistent(pruner)
    group_of = np.repeat([0, 1], 8)
    counts = [np.bincount(group_of[mask]) for mask in pruner.steps_["support"]]
    assert np.min(counts) == floor
    assert counts[-1].tolist() == [floor, floor]


@pytest.mark.parametrize(
    "power_index",
    [
        "shapley",
        "banzhaf",
        "random",
        "weight_norm",
        BiasedBanzhafScorer(0.3, n_evaluations=200),
    ],
    ids=str,
)
@pytest.mark.parametrize("strategy", ["bucket", "below_share", "bottom"])
def test_every_strategy_with_every_index(table, table_net, strategy, power_index):
    pruner = fit(table_net, table, strategy=strategy, power_index=power_index, tol=0.1)
    assert_consistent(pruner)
    assert_smaller(pruner, table[0])
    assert pruner.scores_.values.shape == (16,)
    assert pruner.scores_.stop_reason == (
        "exact" if power_index in ("random", "weight_norm") else "budget"
    )


@pytest.mark.parametrize("power_index", ["shapley", "banzhaf", ShapleyScorer()])
@pytest.mark.parametrize(
    "payoff", ["log_likelihood", "reconstruction", "true_class_probability"]
)
def test_every_payoff(table, two_layers, payoff, power_index):
    pruner = fit(two_layers, table, payoff=payoff, power_index=power_index, tol=0.1)
    assert_consistent(pruner)
    assert_smaller(pruner, table[0])
    if payoff == "reconstruction" and power_index != "banzhaf":
        # What a whole layer explains of what the next one reads, for each of the two.
        assert pruner.scores_.values.sum() == pytest.approx(2, abs=0.02)


def macro_f1(y_true, y_pred):
    return f1_score(y_true, y_pred, average="macro")


@pytest.mark.parametrize(
    ("scoring", "metric"),
    [
        (None, lambda y, p: np.mean(y == p)),
        ("f1_macro", macro_f1),
        (balanced_accuracy_score, balanced_accuracy_score),
    ],
    ids=["accuracy", "name", "callable"],
)
def test_the_score_is_that_of_the_predictions(table, table_net, scoring, metric):
    pruner = fit(table_net, table, scoring=scoring, payoff="log_likelihood", tol=0.05)
    assert_consistent(pruner)
    X_val, y_val = table[1], table[3]
    scores = [metric(y_val, model.predict(X_val)) for model in (pruner, table_net)]
    np.testing.assert_allclose(
        [pruner.validation_score_, pruner.unpruned_score_], scores
    )
    assert pruner.min_score_ == pruner.unpruned_score_ - 0.05


@pytest.mark.parametrize(
    ("module", "players", "power_index"),
    [
        (SmallCNN, "filters", "shapley"),
        (SmallCNN, [("weights", "conv2")], "weight_norm"),
        (lambda: nn.Sequential(nn.Flatten(), mlp(64, 8, 10)), "inputs", "shapley"),
        (
            lambda: nn.Sequential(
                nn.Flatten(),
                nn.Linear(64, 24),
                nn.BatchNorm1d(24),
                nn.ReLU(),
                nn.Dropout(0.3),
                nn.Linear(24, 10),
            ),
            "neurons",
            "banzhaf",
        ),
    ],
    ids=["filters", "weights of a convolution", "inputs", "dropout and norm"],
)
def test_the_score_is_that_of_the_predictions_in_every_net(
    images, module, players, power_index
):
    X, X_val, y, y_val = images
    torch.manual_seed(0)
    pruner = ShapleyBucketPruner(
        classifier(module(), max_epochs=4),
        players=players,
        power_index=power_index,
        strategy=BelowShare(1.0),
        tol=0.05,
        refine=False,
        random_state=0,
    ).fit(X, y, X_val=X_val, y_val=y_val)
    assert_consistent(pruner)
    assert pruner.support_.sum() < pruner.support_.size
    assert pruner.validation_score_ == pytest.approx(pruner.score(X_val, y_val))


def test_a_regressor():
    X, y = load_diabetes(return_X_y=True)
    X, y = StandardScaler().fit_transform(X), (y - y.mean()) / y.std()
    net = net_of(NeuralNetRegressor, mlp(10, 16, 8, 1), max_epochs=30)
    X, X_val, y, y_val = train_test_split(X, y, random_state=0)
    pruner = ShapleyBucketPruner(net, tol=0.05, random_state=0)
    pruner.fit(X, y, X_val=X_val, y_val=y_val)
    assert is_regressor(pruner)
    assert_consistent(pruner)
    assert_smaller(pruner, X)
    assert not hasattr(pruner, "classes_")
    assert pruner.predict(X).shape == y.shape
    assert pruner.validation_score_ == pytest.approx(pruner.score(X_val, y_val))
    assert pruner.validation_score_ > 0.2

    pruner.set_params(scoring="neg_mean_absolute_error", payoff="r2", tol=0.02)
    pruner.fit(X, y, X_val=X_val, y_val=y_val)
    assert_consistent(pruner)
    assert pruner.validation_score_ == pytest.approx(
        -mean_absolute_error(y_val, pruner.predict(X_val))
    )


def test_several_outputs():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 5)).astype(np.float32)
    y = np.stack([X[:, 0] - X[:, 1], np.abs(X[:, 2])], 1)
    net = net_of(NeuralNetRegressor, mlp(5, 24, 2), max_epochs=40)
    pruner = ShapleyBucketPruner(net, min_score=0.6, random_state=0).fit(X, y)
    assert_consistent(pruner)
    assert_smaller(pruner, X)
    assert pruner.predict(X).shape == (300, 2)
    assert pruner.score(X, y) > 0.5


def test_one_logit_and_string_labels():
    X, y = load_breast_cancer(return_X_y=True)
    X, labels = StandardScaler().fit_transform(X), np.array(["bad", "good"])[y]
    net = net_of(NeuralNetBinaryClassifier, mlp(30, 12, 1), max_epochs=5)
    pruner = ShapleyBucketPruner(net, min_score=0.9, random_state=0).fit(X, labels)
    assert_consistent(pruner)
    assert_smaller(pruner, X)
    assert pruner.classes_.tolist() == ["bad", "good"]
    assert set(pruner.predict(X)) == {"bad", "good"}
    assert pruner.score(X, labels) > 0.9
    np.testing.assert_allclose(pruner.predict_proba(X).sum(1), 1, rtol=1e-5)


def test_frames_and_sparse_rows_give_what_arrays_give(table):
    X, X_val, y, y_val = table
    net = classifier(mlp(10, 16, 3))
    names = [f"x{i}" for i in range(10)]
    forms = {
        "array": lambda X: X,
        "frame": lambda X: pd.DataFrame(X.astype(float), columns=names),
        "csr": sparse.csr_array,
    }
    found = {}
    for name, form in forms.items():
        pruner = ShapleyBucketPruner(net, tol=0.1, random_state=0)
        pruner.fit(form(X), y, X_val=form(X_val), y_val=y_val)
        found[name] = pruner.predict_proba(form(X_val))
        assert_consistent(pruner)
        assert pruner.support_.sum() < 16
        if name == "frame":
            assert pruner.feature_names_in_.tolist() == names
    np.testing.assert_allclose(found["frame"], found["array"], atol=1e-4)
    np.testing.assert_allclose(found["csr"], found["array"], atol=1e-4)


def test_the_bucket_holds_its_share(table, two_layers):
    pruner = fit(two_layers, table, strategy=Bucket(0.3), tol=0.2, refine=False)
    steps = pruner.steps_
    sizes = np.append(16, steps["n_players"])
    assert -np.diff(sizes).max() >= 1
    several = -np.diff(sizes) > 1
    assert several.any()
    assert (steps["removed_value"][several] < 0.3).all()


@pytest.mark.parametrize("normalize", [True, False])
def test_removed_values_are_in_the_units_of_the_strategy(table, table_net, normalize):
    pruner = fit(table_net, table, normalize=normalize, strategy="below_share")
    values, left = pruner.scores_.values, ~pruner.steps_["support"][0]
    total = values.sum()
    game = pruner.unpruned_score_ - np.mean(table[3] == 0)
    assert 0.2 < total < game + 0.2
    share = values[left].sum() / (total if normalize else 1)
    assert pruner.steps_["removed_value"][0] == pytest.approx(share)
    mean = values.mean() * 0.5
    np.testing.assert_array_equal(left, values < mean)


def test_the_bottom_of_the_weight_norms(table, table_net):
    pruner = fit(
        table_net,
        table,
        strategy=Bottom(3),
        power_index="weight_norm",
        full_descent=True,
        refine=False,
    )
    assert pruner.steps_["n_players"].tolist() == [13, 10, 7, 4, 1]
    norms = table_net.module_[0].weight.detach().norm(dim=1).numpy()
    np.testing.assert_allclose(pruner.scores_.values, norms, rtol=1e-6)
    assert set(np.flatnonzero(~pruner.steps_["support"][0])) == set(norms.argsort()[:3])


def nothing_pays(y_true, y_pred):
    return 0.0


def test_weights_that_read_players_decide_among_equals(table, table_net):
    pruner = fit(
        table_net, table, strategy=Bottom(4), payoff=nothing_pays, refine=False
    )
    assert (pruner.scores_.values == 0).all()
    norms = table_net.module_[2].weight.detach().norm(dim=0).numpy()
    left = np.flatnonzero(~pruner.steps_["support"][0])
    assert set(left) == set(norms.argsort()[:4])


def test_random_players_leave_in_another_order(table, table_net):
    orders = []
    for seed in (0, 1):
        pruner = fit(
            table_net,
            table,
            strategy=Bottom(4),
            power_index="random",
            full_descent=True,
            refine=False,
            random_state=seed,
        )
        assert pruner.steps_["n_players"].tolist() == [12, 8, 4, 1]
        orders.append(pruner.steps_["support"])
    assert (orders[0] != orders[1]).any()


def test_a_descent_ends_where_the_score_no_longer_holds(table, two_layers):
    short = fit(two_layers, table, refine=False, tol=0.1)
    whole = fit(two_layers, table, refine=False, tol=0.1, full_descent=True)
    held = short.steps_["held"]
    assert held[:-1].all()
    assert not held[-1]
    n_short = len(held)
    for name, column in short.steps_.items():
        if name != "seconds":
            np.testing.assert_array_equal(whole.steps_[name][:n_short], column)
    assert len(whole.steps_["held"]) > n_short
    assert whole.steps_["n_players"][-1] == 2
    assert whole.support_.sum() <= short.support_.sum()
    assert_consistent(whole)


@pytest.mark.parametrize("full_descent", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_finer_end_gives_no_larger_network(table, two_layers, full_descent, seed):
    settings = {"tol": 0.1, "full_descent": full_descent, "random_state": seed}
    coarse, fine = (
        fit(two_layers, table, refine=refine, **settings) for refine in (False, True)
    )
    assert_consistent(fine)
    assert fine.support_.sum() <= coarse.support_.sum()
    refining = fine.steps_["refining"]
    assert not coarse.steps_["refining"].any()
    assert refining.any()
    n_coarse = (~refining).sum()
    assert refining[n_coarse:].all()
    np.testing.assert_array_equal(
        fine.steps_["support"][:n_coarse], coarse.steps_["support"]
    )
    # No step of the finer end is taken from a network that did not hold.
    last = coarse.support_
    for support, held in zip(
        fine.steps_["support"][n_coarse:], fine.steps_["held"][n_coarse:], strict=True
    ):
        assert (support <= last).all()
        last = support if held else last
    # It ends with single players of whom none can leave.
    ends = fine.steps_["n_players"][fine.steps_["n_players"] < fine.support_.sum()]
    assert fine.support_.sum() == 2 or fine.support_.sum() - 1 in ends


@pytest.mark.parametrize("epochs", [0, 1, 3])
def test_epochs_are_counted(table, epochs):
    X, X_val, y, y_val = table
    net = classifier(mlp(10, 12, 3), max_epochs=20)
    pruner = ShapleyBucketPruner(net, retrain_epochs=epochs, tol=0.02, random_state=0)
    assert_consistent(pruner.fit(X, y, X_val=X_val, y_val=y_val))
    refining = pruner.steps_["refining"]
    assert refining.any()
    expected = np.where(refining, 3 * epochs, epochs)
    np.testing.assert_array_equal(pruner.steps_["n_epochs"], expected)
    assert pruner.n_epochs_ == 20 + expected.sum()


def test_rates_rise_and_each_retraining_draws_anew(table, two_layers, monkeypatch):
    told, seeds = [], set()

    def spy(net, X, y, epochs, players, narrowing):
        told.append((epochs, players.n_players, narrowing))
        seeds.add(torch.initial_seed())
        return retrain(net, X, y, epochs, players, narrowing)

    monkeypatch.setattr("skprune.pruners._stage.retrain", spy)
    steps = fit(two_layers, table).steps_
    expected = zip(
        steps["n_epochs"], steps["n_players"], 16 / steps["n_players"], strict=True
    )
    assert told == list(expected)
    assert len(seeds) == len(told) > 1


def test_seconds_count_the_games_too(table, table_net, monkeypatch):
    estimate = ShapleyScorer.estimate

    def slow(self, game):
        time.sleep(0.05)
        return estimate(self, game)

    monkeypatch.setattr(ShapleyScorer, "estimate", slow)
    pruner = fit(table_net, table, strategy=Bottom(8), full_descent=True, refine=False)
    assert (pruner.steps_["seconds"] > 0.05).all()


@pytest.mark.parametrize("repair", ["none", "output", "layers"])
def test_every_repair(table, two_layers, repair):
    pruner = fit(two_layers, table, repair=repair, retrain_epochs=0, tol=0.1)
    assert_consistent(pruner)
    assert pruner.n_epochs_ == 0
    assert pruner.validation_score_ == pytest.approx(pruner.score(table[1], table[3]))


def test_without_repair_and_training_the_weights_are_the_given_ones(table, table_net):
    settings = {"repair": "none", "retrain_epochs": 0, "tol": 0.2}
    pruner = fit(table_net, table, **settings)
    kept = pruner.support_
    assert 0 < kept.sum() < 16
    old, new = table_net.module_, pruner.module_
    for given, own in [
        (old[0].weight[kept], new[0].weight),
        (old[0].bias[kept], new[0].bias),
        (old[2].weight[:, kept], new[2].weight),
    ]:
        torch.testing.assert_close(own, given, rtol=0, atol=0)


def test_a_given_score_wins_over_a_tolerance(table, table_net):
    pruner = fit(table_net, table, min_score=0.5, tol=0.0)
    assert pruner.min_score_ == 0.5
    assert pruner.support_.sum() < fit(table_net, table, tol=0.0).support_.sum()
    assert_consistent(pruner)


def test_a_looser_score_gives_a_smaller_network(table, table_net):
    sizes = [fit(table_net, table, tol=tol).support_.sum() for tol in (0, 0.1, 0.6)]
    assert sizes[0] > sizes[1] > sizes[2] == 1


@pytest.mark.parametrize("power_index", ["shapley", "random"])
def test_same_seed_same_descent(table, power_index):
    X, X_val, y, _ = table
    net = classifier(mlp(10, 12, 3), iterator_train__shuffle=True)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    pruners = [
        ShapleyBucketPruner(
            net, power_index=power_index, tol=0.1, n_jobs=n_jobs, random_state=3
        ).fit(X, y)
        for n_jobs in (None, None, 2)
    ]
    assert torch.equal(torch.get_rng_state(), state)
    first = pruners[0]
    for other in pruners[1:]:
        for name, column in first.steps_.items():
            if name != "seconds":
                np.testing.assert_array_equal(other.steps_[name], column)
        np.testing.assert_array_equal(
            other.predict_proba(X_val), first.predict_proba(X_val)
        )
    another = clone(first).set_params(random_state=4).fit(X, y)
    assert (another.predict_proba(X_val) != first.predict_proba(X_val)).any()


def test_a_frozen_net_is_not_changed_nor_the_generator(table, table_net):
    state = copy.deepcopy(table_net.module_.state_dict())
    optimizer = copy.deepcopy(table_net.optimizer_.state_dict())
    n_epochs, n_callbacks = len(table_net.history), len(table_net.callbacks_)
    torch.manual_seed(1)
    generator = torch.get_rng_state()
    pruner = fit(table_net, table, tol=0.3)
    assert torch.equal(torch.get_rng_state(), generator)
    assert pruner.n_epochs_ > 0
    for name, value in table_net.module_.state_dict().items():
        assert torch.equal(value, state[name])
    for number, moments in table_net.optimizer_.state_dict()["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, optimizer["state"][number][name])
    assert len(table_net.history) == n_epochs
    assert len(table_net.callbacks_) == n_callbacks


def test_a_network_that_cannot_be_smaller_is_given_back(table, table_net):
    X, _, y, _ = table
    pruner = fit(table_net, table, min_per_layer=16, tol=0.5)
    assert_consistent(pruner)
    assert pruner.steps_["support"].shape == (0, 16)
    assert pruner.steps_["held"].dtype == bool
    assert pruner.support_.all()
    np.testing.assert_array_equal(pruner.predict(table[1]), table_net.predict(table[1]))
    given = copy.deepcopy(table_net.module_.state_dict())
    assert_trains_on(pruner, X, y)
    pruner.estimator_.partial_fit(X, y)
    for name, value in table_net.module_.state_dict().items():
        assert torch.equal(value, given[name])


def test_in_a_pipeline_and_a_grid(table):
    X, X_val, y, y_val = table
    net = classifier(mlp(10, 12, 3), max_epochs=20)
    pruner = ShapleyBucketPruner(net, strategy=Bucket(), random_state=0)
    grid = GridSearchCV(
        make_pipeline(StandardScaler(), pruner),
        {
            "shapleybucketpruner__strategy__share": [0.1, 0.4],
            "shapleybucketpruner__tol": [0.02, 0.9],
        },
        cv=2,
        error_score="raise",
    ).fit(X, y)
    assert grid.best_params_["shapleybucketpruner__tol"] == 0.02
    assert grid.score(X_val, y_val) > 0.5
    frame = pruner.set_output(transform="pandas").fit_transform(X, y)
    kept = [n for n, s in zip(pruner.names_, pruner.support_, strict=True) if s]
    assert frame.columns.tolist() == kept


def test_verbose_prints_the_descent(table, table_net, capsys):
    pruner = fit(table_net, table, verbose=1, refine=False)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(pruner.steps_["score"])
    assert lines[0].startswith("[ShapleyBucketPruner] 16 players score")
    assert lines[0].endswith(f"{pruner.min_score_:.4f} has to hold")
    assert lines[-2].endswith("does not hold")
    assert lines[-1].endswith(f"ends at {pruner.players_.n_players} of 16 players")
