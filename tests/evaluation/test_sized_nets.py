"""Nets that take their widths from the data."""

import inspect
import pickle
import re

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import load_digits
from sklearn.ensemble import AdaBoostRegressor, VotingRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from skorch import NeuralNetRegressor
from torch import nn

from skprune import GTAPPruner, mlp_classifier, mlp_regressor
from skprune.evaluation import SparseRows, build_mlp, is_mlp, transplant
from skprune.networks import find_players, remove_players


def small(kind=mlp_classifier, sizes=(8,), **params):
    torch.manual_seed(0)
    return kind(sizes, **({"max_epochs": 3, "device": "cpu"} | params))


def samples(n_samples=60, n_features=5, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_samples, n_features)).astype(np.float32)
    return X, np.arange(n_samples) % n_classes


def widths(net):
    layers = [m for m in net.module_.modules() if isinstance(m, nn.Linear)]
    return [layers[0].in_features, *(m.out_features for m in layers)]


def test_widths_come_from_the_data():
    X, y = samples()
    assert widths(small(sizes=(8, 6)).fit(X, y)) == [5, 8, 6, 3]
    assert widths(small(sizes=7).fit(X, y % 2)) == [5, 7, 2]
    assert widths(small(sizes=()).fit(X, y)) == [5, 3]
    assert widths(small(mlp_regressor).fit(X, X[:, 0])) == [5, 8, 1]
    assert widths(small(mlp_regressor).fit(X, X[:, :2])) == [5, 8, 2]


def test_they_come_anew_with_each_fit():
    X, y = samples()
    net = small().fit(X, y)
    assert widths(net.fit(X[:, :2], y % 2)) == [2, 8, 2]
    assert widths(net.set_params(module__hidden_layer_sizes=(4, 4))) == [2, 4, 4, 2]
    assert widths(net.fit(X, y)) == [5, 4, 4, 3]


def test_a_warm_start_keeps_the_module():
    X, y = samples()
    net = small(warm_start=True).fit(X, y)
    module = net.module_
    assert net.fit(X, y).module_ is module
    assert len(net.history) == 6


def test_partial_fit_builds_the_module_where_there_is_none():
    X, y = samples()
    assert widths(small().partial_fit(X, y)) == [5, 8, 3]
    net = small().partial_fit(X[:2], y[:2], classes=[0, 1, 2, 3])
    module = net.module_
    assert widths(net) == [5, 8, 4]
    assert net.partial_fit(X, y).module_ is module


def test_classes_that_are_given_count():
    X, y = samples()
    net = small(classes=list(range(6))).fit(X, y)
    assert net.predict_proba(X).shape == (60, 6)


def test_what_is_set_by_hand_wins():
    X, y = samples()
    assert widths(small(module__n_outputs=9).fit(X, y)) == [5, 8, 9]


def test_initialize_needs_the_data_first():
    X, y = samples()
    with pytest.raises(ValueError, match=r"call fit\(X, y\), or sized_for\(X, y\)"):
        small().initialize()
    assert widths(small().sized_for(X, y).initialize()) == [5, 8, 3]


def test_what_a_module_is_built_with():
    X, y = samples()
    net = small(sizes=(8, 6), activation="tanh", dropout=0.2).fit(X, y)
    assert [name for name, _ in net.module_.named_children()] == [
        "hidden_1",
        "activation_1",
        "dropout_1",
        "hidden_2",
        "activation_2",
        "dropout_2",
        "output",
    ]
    assert isinstance(net.module_.activation_1, nn.Tanh)
    assert net.module_.dropout_1.p == 0.2


def test_it_learns():
    X, y = load_digits(return_X_y=True)
    X = X / 16
    torch.manual_seed(0)
    net = mlp_classifier(max_epochs=10, device="cpu").fit(X[:1200], y[:1200])
    assert net.score(X[1200:], y[1200:]) > 0.9
    X, _ = samples(400)
    y = X[:, 0] - 2 * np.abs(X[:, 1])
    net = small(mlp_regressor, (32,), max_epochs=60).fit(X[:300], y[:300])
    assert net.score(X[300:], y[300:]) > 0.9
    assert net.predict(X).shape == (400,)


def test_one_seed_gives_one_net():
    X, y = samples()
    first, again = small().fit(X, y), small().fit(X, y)
    assert np.array_equal(first.predict_proba(X), again.predict_proba(X))
    torch.manual_seed(1)
    other = mlp_classifier((8,), max_epochs=3, device="cpu").fit(X, y)
    assert not np.array_equal(first.predict_proba(X), other.predict_proba(X))


@pytest.mark.parametrize(
    "cast",
    [
        lambda X: X.astype(np.float64),
        pd.DataFrame,
        torch.from_numpy,
        np.ndarray.tolist,
        np.asfortranarray,
    ],
    ids=["float64", "frame", "tensor", "list", "fortran"],
)
def test_tables_of_any_kind(cast):
    X, y = samples()
    expected = small().fit(X, y).predict_proba(X)
    net = small().fit(cast(X), y)
    np.testing.assert_allclose(net.predict_proba(cast(X)), expected, rtol=1e-4)


@pytest.mark.parametrize(
    "cast",
    [np.int8, np.uint16, bool, list, torch.from_numpy, pd.Series],
)
def test_class_indices_of_any_kind(cast):
    X, y = samples(n_classes=2)
    expected = small().fit(X, y).predict_proba(X)
    y = y.astype(cast) if cast in {np.int8, np.uint16, bool} else cast(y)
    net = small().fit(X, y)
    assert np.array_equal(net.predict_proba(X), expected)
    assert net.classes_.tolist() == [0, 1]


@pytest.mark.parametrize(
    "layout", [sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix, sparse.coo_array]
)
def test_sparse_rows_are_never_made_dense(layout, monkeypatch):
    X, y = samples(n_features=40)
    X[np.abs(X) < 1.5] = 0
    expected = small().fit(X, y).predict_proba(X)

    def refuse(self):
        raise AssertionError("made dense")

    monkeypatch.setattr(SparseRows, "to_dense", refuse)
    net = small().fit(layout(X.astype(np.float64)), y)
    assert net.module_.hidden_1.weight.stride() == (1, 8)
    np.testing.assert_allclose(net.predict_proba(layout(X)), expected, rtol=1e-4)
    np.testing.assert_allclose(net.predict_proba(X), expected, rtol=1e-4)


def test_clones_and_pickles():
    X, y = samples()
    net = small().fit(X, y)
    again = pickle.loads(pickle.dumps(net))
    assert np.array_equal(again.predict_proba(X), net.predict_proba(X))
    assert widths(again.set_params(module__hidden_layer_sizes=(4,))) == [5, 4, 3]
    fresh = pickle.loads(pickle.dumps(clone(net)))
    assert not fresh.initialized_
    assert fresh.get_params()["module__hidden_layer_sizes"] == (8,)
    assert widths(fresh.fit(X[:, :3], y)) == [3, 8, 3]


@pytest.mark.parametrize("kind", [mlp_classifier, mlp_regressor])
def test_a_pruned_net_trains_and_needs_no_widths(kind):
    X, y = samples()
    net = small(kind).fit(X, y)
    example = torch.from_numpy(X[:2])
    players = find_players(net.module_, example, "neurons")
    drop = np.arange(8) >= 3
    pruned = transplant(net, remove_players(net.module_, players, drop))
    assert type(pruned) is type(net)
    assert not any(name.startswith("module__") for name in pruned.get_params())
    n_outputs = widths(net)[-1]
    for trained in (pruned, clone(pruned), pickle.loads(pickle.dumps(pruned))):
        before = [p.detach().clone() for p in trained.fit(X, y).module_.parameters()]
        trained.partial_fit(X, y)
        assert widths(trained) == [5, 3, n_outputs]
        assert not all(map(torch.equal, before, trained.module_.parameters()))
        assert trained.predict(X.astype(np.float64)).shape[0] == 60


def test_grids_and_pipelines():
    X, y = samples(90)
    y = (X[:, 0] > 0).astype(int)
    pipeline = make_pipeline(StandardScaler(), small(max_epochs=10))
    name = type(pipeline[-1]).__name__.lower()
    grid = {
        f"{name}__module__hidden_layer_sizes": [(2,), (8, 4)],
        f"{name}__lr": [0.0, 0.02],
    }
    search = GridSearchCV(pipeline, grid, cv=3, error_score="raise")
    search.fit(X.astype(np.float64), y)
    assert search.best_params_[f"{name}__lr"] == 0.02
    tried = {params[f"{name}__lr"] for params in search.cv_results_["params"]}
    assert tried == {0.0, 0.02}
    assert search.best_score_ > 0.7


def test_what_scikit_learn_sees():
    assert is_classifier(mlp_classifier())
    assert is_regressor(mlp_regressor())
    assert get_tags(mlp_regressor()).target_tags.multi_output
    assert not get_tags(mlp_classifier()).target_tags.multi_output


def test_other_parameters_reach_skorch():
    X, y = samples()
    weight = torch.tensor([1.0, 2.0, 3.0])
    net = small(criterion__weight=weight, optimizer=torch.optim.RMSprop, verbose=0)
    net.fit(X, y)
    assert isinstance(net.optimizer_, torch.optim.RMSprop)
    assert torch.equal(net.criterion_.weight, weight)
    default = small().fit(X, y).optimizer_
    assert isinstance(default, torch.optim.AdamW)
    assert default.defaults["fused"]
    with pytest.raises(ValueError, match="maximum_epochs"):
        small(maximum_epochs=3).fit(X, y)


def test_a_device_by_itself(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert mlp_classifier().device == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert mlp_classifier().device == "cpu"
    assert mlp_classifier(device=torch.device("cpu")).device == torch.device("cpu")
    with pytest.raises(ValueError, match="device='gpu' is none that torch knows"):
        mlp_classifier(device="gpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X[:, 0], y), r"a table of shape \(n_samples, n_features\)"),
        (lambda X, y: ({"x": X}, y), r"a table of shape .* got dict"),
        (lambda X, y: (X, y.astype(str)), r"one class index .* got dtype <U"),
        (lambda X, y: (X, y - 1), "one class index"),
        (lambda X, y: (X, y.astype(float)), "got dtype float64"),
        (lambda X, y: (X, np.eye(3, dtype=int)[y]), r"shape \(60, 3\)"),
        (lambda X, y: (X, y[:0]), r"shape \(0,\)"),
    ],
)
def test_data_that_give_no_widths(change, message):
    with pytest.raises(ValueError, match=message):
        small().fit(*change(*samples()))


@pytest.mark.parametrize("sizes", [(0,), (4, -1), (2.5,), "8", [[4, 4]]])
def test_layers_without_neurons(sizes):
    X, y = samples()
    with pytest.raises(ValueError, match=r"hidden_layer_sizes=.* must hold one whole"):
        small(sizes=sizes).fit(X, y)


def test_which_modules_are_perceptrons():
    assert is_mlp(build_mlp(3, (4, 4), 2, "tanh", dropout=0.5))
    assert is_mlp(build_mlp(3, (), 2, is_sparse=True))
    assert not is_mlp(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)))
    assert not is_mlp(nn.Linear(3, 2))


def test_representations_name_what_was_changed():
    net = mlp_classifier((16,), lr=0.01, device="cpu", class_weight="balanced")
    pruner = GTAPPruner(net, random_state=0)
    named = set(re.findall(r"(\w+)=", repr(pruner)))
    own = {"module__hidden_layer_sizes", "lr", "class_weight"}
    assert named == {"estimator", "random_state", *own}
    assert "_params_to_validate" not in net.get_params()
    default = repr(GTAPPruner(mlp_regressor(device="cpu")))
    assert default == "GTAPPruner(estimator=SizedNetRegressor())"
    copy = clone(net).set_params(optimizer__weight_decay=0.5)
    assert clone(copy).optimizer__weight_decay == 0.5
    with pytest.raises(ValueError, match="mdule__activation"):
        mlp_classifier(mdule__activation="relu").fit(*samples())
    # skorch's own nets are as they were.
    names = inspect.signature(NeuralNetRegressor.__init__).parameters
    assert "module__activation" not in names


@pytest.mark.parametrize("columns", [1, 2])
def test_values_have_the_shape_of_y(columns):
    X, _ = samples()
    two = X[:, :columns]
    net = small(mlp_regressor).fit(X, two)
    assert net.predict(X).shape == (60, columns)
    assert net.fit(X, X[:, 0]).predict(X).shape == (60,)
    assert net.partial_fit(X, X[:, 0]).predict(X).shape == (60,)
    assert clone(net).fit(X, two).predict(X).shape == (60, columns)


def test_regressors_of_scikit_learn_around_a_net():
    X, _ = samples()
    net, y = small(mlp_regressor), X[:, 0]
    voting = VotingRegressor([("one", net), ("other", clone(net))]).fit(X, y)
    assert voting.predict(X).shape == (60,)
    many = MultiOutputRegressor(net).fit(X, X[:, :2])
    assert many.predict(X).shape == (60, 2)
    boosted = AdaBoostRegressor(net, n_estimators=2, random_state=0).fit(X, y)
    assert boosted.predict(X).shape == (60,)


@pytest.mark.parametrize("kind", [mlp_classifier, mlp_regressor])
@pytest.mark.parametrize(
    "cast", [np.asarray, sparse.csr_matrix, torch.as_tensor, pd.DataFrame]
)
def test_gaps_are_refused(kind, cast):
    X, y = samples()
    X = X.copy()
    X[3, 1] = np.nan
    with pytest.raises(ValueError, match="X holds NaN, infinity or values beyond"):
        small(kind).fit(cast(X), y)


def test_columns_are_those_of_fit():
    X, y = samples()
    table = pd.DataFrame(X, columns=list("abcde"))
    net = small().fit(table, y)
    assert net.n_features_in_ == 5
    assert list(net.feature_names_in_) == list("abcde")
    with pytest.raises(ValueError, match="feature names should match"):
        net.predict(table[list("edcba")])
    net.fit(X, y)
    assert not hasattr(net, "feature_names_in_")
    with pytest.raises(ValueError, match="expecting 5 features"):
        net.predict(X[:, :4])
    assert net.fit(X[:, :4], y).predict(X[:, :4]).shape == (60,)


def test_what_the_signature_names_may_be_set_by_its_long_name():
    net = small(module__dropout=0.5, module__activation="tanh")
    assert net.module__dropout == 0.5
    assert net.module__activation == "tanh"


def test_a_gpu_that_is_not_there():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="device='cuda:0', and torch finds no GPU"):
        small(device="cuda:0")
