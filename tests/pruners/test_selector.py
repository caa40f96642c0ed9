"""PowerIndexSelector: features that are worth most, as a selector of scikit-learn."""

import itertools
import os
import pickle
import runpy
from math import factorial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, make_classification, make_regression
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from skorch import NeuralNetClassifier
from torch import nn

from skprune import PowerIndexSelector, mlp_classifier, mlp_regressor
from skprune.exceptions import SkpruneWarning, UnsupportedNetworkError
from skprune.pruners._data import split_data
from skprune.pruners._features import feature_players
from skprune.scorers import BanzhafScorer, ShapleyScorer

N_INFORMATIVE, N_FEATURES = 4, 16
EXAMPLES = Path(__file__).parents[2] / "examples"


def small_net(**params):
    return mlp_classifier((16,), **({"max_epochs": 15, "lr": 0.01} | params))


def selector_of(net=None, **params):
    net = small_net() if net is None else net
    return PowerIndexSelector(net, **({"random_state": 0} | params))


def around(module, **params):
    return NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        **({"lr": 0.01, "max_epochs": 15, "train_split": None, "verbose": 0} | params),
    )


@pytest.fixture(scope="module")
def table():
    """Four informative columns, and noise."""
    X, y = make_classification(
        400,
        N_FEATURES,
        n_informative=N_INFORMATIVE,
        n_redundant=0,
        n_clusters_per_class=2,
        class_sep=1.5,
        shuffle=False,
        random_state=0,
    )
    rows = np.random.default_rng(0).permutation(len(y))
    return X[rows], y[rows]


@pytest.fixture(scope="module")
def texts():
    """Texts of which some words tell the class, and their words."""
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=300)
    telling = [["sun", "sea"], ["snow", "ice"], ["rain", "fog"]]
    filler = [f"word{i}" for i in range(60)]
    lines = [
        " ".join([*rng.choice(filler, 6), *rng.choice(telling[own], 2)]) for own in y
    ]
    vectorizer = CountVectorizer()
    X = vectorizer.fit_transform(lines)
    names = vectorizer.get_feature_names_out()
    return SimpleNamespace(X=X, y=y, names=names, telling=np.ravel(telling))


@parametrize_with_checks(
    [
        selector_of(),
        selector_of(mlp_regressor((16,), max_epochs=10), n_features_to_select=1),
        PowerIndexSelector(small_net(max_epochs=5), power_index="banzhaf"),
    ]
)
# y is random in some of them.
@pytest.mark.filterwarnings("ignore:no feature is worth anything")
def test_scikit_learn_s_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("power_index", [None, "banzhaf", "biased_banzhaf"])
@pytest.mark.parametrize("payoff", ["auto", "log_likelihood"])
def test_informative_columns_are_found(table, power_index, payoff):
    selector = selector_of(
        n_features_to_select=N_INFORMATIVE, power_index=power_index, payoff=payoff
    ).fit(*table)
    assert selector.get_support(indices=True).tolist() == [*range(N_INFORMATIVE)]
    values, errors = selector.scores_.values, selector.scores_.standard_errors
    assert values[:N_INFORMATIVE].min() > values[N_INFORMATIVE:].max()
    assert (errors >= 0).all()
    assert errors.max() < values[:N_INFORMATIVE].min() / 4


def test_telling_words_are_found_in_a_sparse_matrix(texts):
    selector = selector_of(n_features_to_select=6).fit(texts.X, texts.y)
    assert set(texts.names[selector.support_]) == set(texts.telling)
    chosen = selector.transform(texts.X)
    assert sparse.issparse(chosen)
    assert (chosen != texts.X[:, selector.support_]).nnz == 0


def replaced(X, absent, center):
    """X with what absent columns are read as."""
    X = X.copy()
    X[:, absent] = center[absent]
    return X


@pytest.mark.parametrize("is_sparse", [False, True])
def test_values_are_those_of_all_coalitions(table, is_sparse):
    X, y = table[0][:, 2:7].astype(np.float32), table[1]
    if is_sparse:
        X[np.random.default_rng(0).random(X.shape) < 0.6] = 0
    net = small_net().fit(X, y)
    n, data = X.shape[1], sparse.csr_matrix(X) if is_sparse else X
    selector = selector_of(FrozenEstimator(net), n_features_to_select=2).fit(data, y)
    assert selector.scores_.stop_reason == "exact"
    # What is held out does not change what absent columns are: they are 0 where X is
    # sparse, and have the mean of the other samples where it is not.
    rows = training_rows(selector, X, y)
    center = np.zeros(n) if is_sparse else X[rows].mean(axis=0)
    payoffs = {
        subset: (net.predict(replaced(X, ~np.isin(range(n), subset), center)) == y)
        for size in range(n + 1)
        for subset in itertools.combinations(range(n), size)
    }
    expected = np.zeros(n)
    for subset, payoff in payoffs.items():
        for j in set(range(n)) - set(subset):
            size = len(subset)
            weight = factorial(size) * factorial(n - size - 1) / factorial(n)
            joined = payoffs[tuple(sorted({*subset, j}))]
            expected[j] += weight * (joined.mean() - payoff.mean())
    np.testing.assert_allclose(selector.scores_.values, expected, atol=1e-9)


def training_rows(selector, X, y):
    """Rows of X that the selector does not hold out."""
    data = split_data(
        np.arange(len(y))[:, None],
        y,
        None,
        None,
        selector.validation_fraction,
        True,
        selector._seed(),
        True,
    )
    return data.X[:, 0]


def test_auto_takes_the_fewest_within_one_standard_error(table):
    X, y = table[0][:300], table[1][:300]
    X_val, y_val = table[0][300:], table[1][300:]
    selector = selector_of().fit(X, y, X_val=X_val, y_val=y_val)
    path = selector.path_
    assert path.sizes.tolist() == [*range(1, N_FEATURES + 1)]
    ranking = selector.scores_.ranking()
    net, center = selector.estimator_, X.mean(axis=0)
    for size, mask, payoff in zip(path.sizes, path.masks, path.payoffs, strict=True):
        assert set(np.flatnonzero(mask)) == set(ranking[:size])
        left = replaced(X_val, ~mask, center).astype(np.float32)
        assert payoff == pytest.approx((net.predict(left) == y_val).mean())
    best = path.payoffs.max()
    error = np.sqrt(best * (1 - best) / (len(y_val) - 1))
    enough = path.sizes[path.payoffs >= best - error]
    assert selector.support_.sum() == enough[0] < N_FEATURES


def test_auto_of_a_metric_resamples_it(table):
    selector = selector_of(payoff="f1", power_index=BanzhafScorer(n_evaluations=400))
    selector.fit(*table)
    assert selector.support_[:N_INFORMATIVE].any()
    assert selector.support_.sum() < N_FEATURES
    assert selector.scores_.n_evaluations <= 400


def test_class_weights_of_the_net_count_in_its_payoff():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 6))
    # A rare class by the first column, two that are frequent by the second.
    y = np.where(X[:, 0] > 1.6, 2, X[:, 1] > 0)
    net = small_net(max_epochs=20)
    plain, weighted = (
        selector_of(own, n_features_to_select=2).fit(X, y).scores_.values
        for own in (net, clone(net).set_params(class_weight="balanced"))
    )
    assert plain[1] > 3 * plain[0]
    assert weighted[0] > 2 * plain[0]


def test_values_are_selected_for_too():
    X, y, weights = make_regression(
        300, 12, n_informative=3, coef=True, noise=1.0, random_state=0
    )
    y = (y / y.std()).astype(np.float32)
    net = mlp_regressor((16,), max_epochs=30, lr=0.01)
    selector = selector_of(net, n_features_to_select=3).fit(X, y)
    assert (selector.support_ == (weights != 0)).all()
    assert not hasattr(selector, "classes_")
    auto = selector_of(net).fit(X, y)
    assert 3 <= auto.support_.sum() <= 6


def test_a_frozen_net_is_not_changed(table):
    X, y = StandardScaler().fit_transform(table[0]).astype(np.float32), table[1]
    net = small_net().fit(X, y)
    before = {name: w.clone() for name, w in net.module_.state_dict().items()}
    selector = selector_of(FrozenEstimator(net), n_features_to_select=4).fit(X + 1, y)
    after = net.module_.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert selector.estimator_.module_ is not net.module_
    assert torch.equal(
        selector.estimator_.module_.hidden_1.bias, net.module_.hidden_1.bias
    )


def test_results_depend_on_the_seed_alone(table):
    params = {"n_features_to_select": 5, "power_index": "banzhaf"}
    one = selector_of(**params).fit(*table)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    other = selector_of(n_jobs=2, **params).fit(*table)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(one.scores_.values, other.scores_.values)
    assert np.array_equal(one.support_, other.support_)
    third = selector_of(random_state=1, **params).fit(*table)
    assert not np.array_equal(one.scores_.values, third.scores_.values)


def test_clones_and_pickles(table):
    X, y = table
    selector = selector_of(power_index=ShapleyScorer(n_evaluations=100)).fit(X, y)
    twin = pickle.loads(pickle.dumps(selector))
    assert np.array_equal(twin.transform(X), selector.transform(X))
    assert np.array_equal(twin.estimator_.predict(X), selector.estimator_.predict(X))
    fresh = clone(selector)
    assert not hasattr(fresh, "support_")
    assert "random_state=0" in repr(fresh)
    assert np.array_equal(fresh.fit(X, y).support_, selector.support_)


def test_names_and_containers_are_kept(table):
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    X, y = table
    names = [f"column {i}" for i in range(N_FEATURES)]
    frame = pd.DataFrame(X, columns=names)
    labels = np.array(["no", "yes"])[y]
    selector = selector_of(n_features_to_select=3).fit(frame, labels)
    assert selector.classes_.tolist() == ["no", "yes"]
    assert selector.feature_names_in_.tolist() == names
    chosen = selector.get_feature_names_out()
    assert chosen.tolist() == np.array(names)[selector.support_].tolist()
    out = clone(selector).set_output(transform="pandas").fit_transform(frame, labels)
    pd.testing.assert_frame_equal(out, frame[list(chosen)])
    selector.set_output(transform="polars")
    assert selector.transform(frame).columns == list(chosen)
    assert isinstance(selector.transform(frame), pl.DataFrame)
    back = selector.inverse_transform(X[:, selector.support_])
    assert np.array_equal(back, X * selector.support_)
    selector.set_output(transform="default").fit(X, y)
    assert not hasattr(selector, "feature_names_in_")
    with pytest.raises(ValueError, match="expecting 16 features"):
        selector.transform(X[:, :3])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix, sparse.csr_array])
def test_dtypes_are_kept(texts, dtype, container):
    X = container(texts.X.toarray().astype(dtype))
    net = small_net(max_epochs=3)
    selector = selector_of(net, n_features_to_select=5).fit(X, texts.y)
    out = selector.transform(X)
    assert out.dtype == dtype
    assert out.shape == (300, 5)
    assert sparse.issparse(out) == sparse.issparse(X)


def test_tensors_are_tables_too(table):
    X, y = table[0].astype(np.float32), table[1]
    one, other = (
        selector_of(n_features_to_select=4).fit(given, y)
        for given in (X, torch.from_numpy(X))
    )
    assert np.array_equal(one.support_, other.support_)
    assert np.array_equal(one.transform(X), other.transform(torch.from_numpy(X)))


def test_sparse_at_fit_and_dense_at_transform(texts):
    selector = selector_of(n_features_to_select=6).fit(texts.X, texts.y)
    dense = selector.transform(texts.X.toarray())
    assert np.array_equal(dense, selector.transform(texts.X).toarray())


def test_a_mangled_matrix_means_what_it_says(texts):
    clean = sparse.csr_matrix(texts.X, dtype=np.float32)
    entries = clean.tocoo()
    parts = [entries.row, entries.col, entries.data]
    # Every tenth entry in two halves, some zeros, all of it in any order.
    row, col, data = (np.concatenate([x, x[::10], x[:20]]) for x in parts)
    n = entries.nnz
    data[:n:10] /= 2
    data[n : n + len(entries.data[::10])] /= 2
    data[n + len(entries.data[::10]) :] = 0
    order = np.lexsort((np.random.default_rng(0).random(len(row)), row))
    indptr = np.append(0, np.cumsum(np.bincount(row, minlength=clean.shape[0])))
    mangled = sparse.csr_matrix(
        (data[order], col[order].astype(np.int32), indptr), shape=clean.shape
    )
    assert not mangled.has_sorted_indices
    assert abs(mangled - clean).max() < 1e-6
    frozen = FrozenEstimator(small_net(max_epochs=5).fit(clean, texts.y))
    one, other = (
        selector_of(frozen, n_features_to_select=9).fit(X, texts.y)
        for X in (clean, mangled)
    )
    np.testing.assert_allclose(one.scores_.values, other.scores_.values, atol=1e-12)


def test_columns_of_zeros_are_worth_nothing(texts):
    kept = ~np.isin(np.arange(texts.X.shape[1]), [3, 8])
    X = sparse.csr_matrix(texts.X.multiply(kept), dtype=np.float32)
    for given in (X, X.toarray()):
        selector = selector_of(n_features_to_select=6).fit(given, texts.y)
        assert not selector.scores_.values[[3, 8]].any()


@pytest.mark.parametrize("is_sparse", [False, True])
def test_one_column_is_selected(table, is_sparse):
    X = np.where(table[0][:, [1]] > 1, table[0][:, [1]], 0)
    X = sparse.csr_matrix(X) if is_sparse else X
    selector = selector_of().fit(X, table[1])
    assert selector.support_.tolist() == [True]


def test_a_net_to_which_all_columns_are_the_same_warns(table):
    X, y = table
    net = around(nn.Sequential(nn.Linear(N_FEATURES, 2)), max_epochs=0)
    with pytest.warns(SkpruneWarning, match="no feature is worth anything"):
        selector = selector_of(net, n_features_to_select=3).fit(X * 0, y)
    assert selector.support_.sum() == 3


def test_searched_in_a_pipeline_by_nested_parameters(table):
    pipeline = make_pipeline(
        StandardScaler(),
        selector_of(power_index=ShapleyScorer(n_evaluations=50)),
        KNeighborsClassifier(),
    )
    name = "powerindexselector"
    grid = {
        f"{name}__power_index__n_evaluations": [40, 400],
        f"{name}__n_features_to_select": [2, 0.25],
        f"{name}__estimator__lr": [0.01],
    }
    search = GridSearchCV(pipeline, grid, cv=2).fit(*table)
    found = search.best_estimator_[1]
    assert found.support_.sum() in (2, 4)
    assert found.scores_.n_evaluations <= found.power_index.n_evaluations
    assert found.power_index.n_evaluations in (40, 400)
    assert search.best_score_ > 0.9


def test_the_path_holds_the_size_that_is_asked_for(texts):
    selector = selector_of(n_features_to_select=17).fit(texts.X, texts.y)
    sizes = selector.path_.sizes
    assert {1, 17, 66} <= set(sizes.tolist())
    assert len(sizes) <= 31
    assert np.array_equal(selector.path_.mask_at(17), selector.support_)
    nested = selector.path_.masks
    assert (nested[:-1] <= nested[1:]).all()
    half = clone(selector).set_params(n_features_to_select=1e-9).fit(texts.X, texts.y)
    assert half.support_.sum() == 1


class WideAndDeep(nn.Module):
    def __init__(self):
        super().__init__()
        self.normalized = nn.BatchNorm1d(N_FEATURES)
        self.deep, self.out = nn.Linear(N_FEATURES, 8), nn.Linear(8, 2)
        self.wide = nn.Linear(N_FEATURES, 2)

    def forward(self, x):
        return self.out(torch.relu(self.deep(self.normalized(x)))) + self.wide(x)


class Past(nn.Module):
    """The first column also reaches the output past the Linear layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(N_FEATURES, 2)

    def forward(self, x):
        return self.layer(x) + x[:, :1]


class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(N_FEATURES, 2)

    def forward(self, x):
        return self.layer(torch.softmax(x, dim=1))


def test_a_column_leaves_all_layers_that_read_it(table):
    X, y = (table[0] * 2).astype(np.float32), table[1]
    selector = selector_of(around(WideAndDeep()), n_features_to_select=4).fit(X, y)
    assert selector.get_support(indices=True).tolist() == [0, 1, 2, 3]
    players = feature_players(selector.estimator_, X)
    assert players.n_players == N_FEATURES
    assert set(players.consumers) == {"deep", "wide"}


class NeverTrained(NeuralNetClassifier):
    def fit(self, X, y, **params):
        raise AssertionError("it was trained")


def never(module):
    return NeverTrained(module, criterion=nn.CrossEntropyLoss)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Past(), "past its layers .'layer'."),
        (Mixing(), "reads the 16 columns of X one by one"),
        (
            nn.Sequential(
                nn.Unflatten(1, (1, 4, 4)),
                nn.Conv2d(1, 3, 2),
                nn.Flatten(),
                nn.Linear(27, 2),
            ),
            "give an estimator whose first layer is a torch.nn.Linear",
        ),
    ],
)
def test_nets_that_columns_cannot_play_in_are_refused(table, module, message):
    with pytest.raises(UnsupportedNetworkError, match=message):
        selector_of(never(module)).fit(*table)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_features_to_select": 17}, "more than the 16 features of X; choose"),
        ({"n_features_to_select": 0}, "n_features_to_select"),
        ({"n_features_to_select": 1.5}, "n_features_to_select"),
        ({"payoff": "r2"}, "payoff='r2' does not fit"),
        ({"payoff": "accurate"}, "payoff='accurate' is unknown"),
        ({"payoff": "reconstruction"}, "a game of a layer's units"),
        ({"power_index": "random"}, "power_index"),
        ({"power_index": ShapleyScorer(sampler="none")}, "sampler"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
    ],
)
def test_parameters_are_refused_before_training(table, params, message):
    net = never(nn.Sequential(nn.Linear(N_FEATURES, 2)))
    with pytest.raises(ValueError, match=message):
        selector_of(net, **params).fit(*table)


def test_what_is_no_table_is_refused(table):
    X, y = table
    net = never(nn.Sequential(nn.Linear(N_FEATURES, 2)))
    for given in ({"x": X.astype(np.float32)}, X.reshape(400, 4, 4)):
        with pytest.raises(ValueError, match="X must be a table"):
            selector_of(net).fit(given, y)
    with pytest.raises(ValueError, match="only X_val was given"):
        selector_of(net).fit(X, y, X_val=X)
    with pytest.raises(TypeError, match="estimator must be a skorch net"):
        selector_of(LogisticRegression()).fit(X, y)


def test_it_says_how_far_it_is(table, capsys):
    selector_of(small_net(max_epochs=2), verbose=1).fit(*table)
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("[PowerIndexSelector] ") for line in lines)
    told = " ".join(lines)
    for step in ("train: ", "score: ", "judge sizes: ", "of 16 features"):
        assert step in told


def test_a_real_table_needs_few_columns():
    X, y = load_breast_cancer(return_X_y=True)
    pipeline = make_pipeline(
        StandardScaler(), selector_of(), LogisticRegression(max_iter=1000)
    ).fit(X[:400], y[:400])
    assert pipeline[1].support_.sum() < 20
    assert pipeline.score(X[400:], y[400:]) > 0.93


@pytest.mark.parametrize("is_real", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_example_finds_words_that_others_do_not(monkeypatch, capsys, is_real):
    plt = pytest.importorskip("matplotlib.pyplot")
    if is_real and "SKPRUNE_DATA" not in os.environ:
        pytest.skip("needs SKPRUNE_DATA")
    if not is_real:
        monkeypatch.delenv("SKPRUNE_DATA", raising=False)
    monkeypatch.setattr(plt, "show", lambda: None)
    monkeypatch.syspath_prepend(EXAMPLES)
    plt.switch_backend("agg")
    found = runpy.run_path(str(EXAMPLES / "plot_vocabulary_selection.py"))
    plt.close("all")
    means = {name: np.mean(curve) for name, curve in found["accuracies"].items()}
    assert max(means, key=means.get) == "Shapley value"
    assert means["Shapley value"] > means["frequency"] + 0.04 > means["random"] + 0.08
    assert "points of accuracy" in capsys.readouterr().out
