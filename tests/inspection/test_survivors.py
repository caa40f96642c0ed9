"""The table of those who stayed, of every pruner, and as text, frame and figure."""

import builtins

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetClassifier
from torch import nn

from skprune import (
    EquilibriumPrunedMLP,
    EquilibriumPrunedMLPRegressor,
    EquilibriumPruner,
    GTAPPruner,
    ShapleyBucketPruner,
    mlp_classifier,
)
from skprune.inspection import SurvivorsDisplay

X, y = make_classification(
    300, 6, n_informative=3, n_redundant=0, class_sep=2, shuffle=False, random_state=0
)
NET = mlp_classifier((8, 6), max_epochs=10, lr=0.01)
NAMES = [f"column {place}" for place in range(6)]


@pytest.fixture(scope="module")
def pruner():
    pruner = GTAPPruner(NET, n_players_to_keep=5, path_sizes=[3, 9], random_state=0)
    return pruner.fit(X, y)


@pytest.fixture(scope="module")
def display(pruner):
    return SurvivorsDisplay.from_estimator(pruner, X, feature_names=NAMES, n_drivers=3)


@pytest.fixture
def plt():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")


def scores_by_name(pruner):
    values, errors = pruner.scores_.values, pruner.scores_.standard_errors
    return dict(zip(pruner.names_, zip(values, errors, strict=True), strict=True))


def check_order(display):
    """Layers stand together, in each those of higher score first."""
    layers = list(display.layers)
    assert layers == sorted(layers, key=list(dict.fromkeys(layers)).index)
    for layer in set(layers):
        assert (np.diff(display.scores[display.layers == layer]) <= 0).all()
        assert (np.diff(display.ranks[display.layers == layer]) > 0).all()


def test_survivors_have_the_scores_that_the_pruner_recorded(pruner, display):
    scores = scores_by_name(pruner)
    assert sorted(display.names) == sorted(pruner.players_.names)
    assert [scores[name] for name in display.names] == list(
        zip(display.scores, display.standard_errors, strict=True)
    )
    check_order(display)
    for name, layer, rank, score, n_ranked in zip(
        display.names,
        display.layers,
        display.ranks,
        display.scores,
        display.n_ranked,
        strict=True,
    ):
        assert name.startswith(f"{layer}[")
        rivals = [scores[other][0] for other in scores if other.startswith(layer)]
        assert rank == 1 + sum(value > score for value in rivals)
        assert n_ranked == len(rivals) == {"hidden_1": 8, "hidden_2": 6}[layer]


def test_other_sizes_of_the_same_fit(pruner):
    for size in (3, 9):
        small = pruner.at_size(size)
        display = SurvivorsDisplay.from_estimator(small, X)
        assert sorted(display.names) == sorted(small.players_.names)
        assert [scores_by_name(pruner)[n][0] for n in display.names] == list(
            display.scores
        )
        assert display.drivers.shape == (size, 5)
        check_order(display)


def test_drivers_are_named_and_go_by_strength(display):
    assert display.drivers.shape == display.strengths.shape == (5, 3)
    assert set(display.drivers.ravel()) <= set(NAMES)
    assert (np.diff(np.abs(display.strengths), axis=1) <= 0).all()
    assert display.effect == "standardized"


def test_drivers_belong_to_the_survivor_in_whose_row_they_stand():
    """Each neuron reads one feature, which its name says."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    order = [3, 1, 5, 0, 2, 4]
    with torch.no_grad():
        module[0].weight.copy_(torch.eye(6)[order] * torch.tensor([[1], [-1]] * 3))
        module[0].bias.fill_(10)
    net = NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, classes=[0, 1])
    pruner = GTAPPruner(
        FrozenEstimator(net.initialize()),
        n_players_to_keep=4,
        repair="none",
        random_state=0,
    ).fit(X, y)
    display = SurvivorsDisplay.from_estimator(pruner, X, n_drivers=2)
    for name, drivers, strengths in zip(
        display.names, display.drivers, display.strengths, strict=True
    ):
        unit = int(name[2:-1])
        assert list(drivers) == [f"x{order[unit]}", None]
        assert strengths[0] == pytest.approx((-1) ** unit, abs=1e-5)
        assert np.isnan(strengths[1])


def test_sparse_samples_give_the_same(pruner, display):
    some = SurvivorsDisplay.from_estimator(
        pruner, csr_matrix(X), feature_names=NAMES, n_drivers=3
    )
    np.testing.assert_array_equal(some.drivers, display.drivers)
    np.testing.assert_allclose(some.strengths, display.strengths, rtol=1e-5)


def test_without_samples_there_are_scores_alone(pruner, display):
    bare = SurvivorsDisplay.from_estimator(pruner)
    assert list(bare.table) == ["layer", "name", "score", "standard_error", "rank"]
    np.testing.assert_array_equal(bare.scores, display.scores)
    assert bare.effect is None
    assert "drivers" not in str(bare)


def test_it_is_what_the_shapley_pruner_played():
    pruner = ShapleyBucketPruner(NET, random_state=0, tol=0.05).fit(X, y)
    display = SurvivorsDisplay.from_estimator(pruner, X)
    scores = scores_by_name(pruner)
    assert [scores[name] for name in display.names] == list(
        zip(display.scores, display.standard_errors, strict=True)
    )
    assert display.score_name == "score"
    check_order(display)


@pytest.mark.parametrize("kind", ["pruner", "classifier", "regressor"])
def test_equilibrium_pruners_have_gains_without_errors(kind):
    options = {"n_players_to_keep": 5, "random_state": 0}
    data = (X, y)
    if kind == "pruner":
        pruner = EquilibriumPruner(NET, **options)
    elif kind == "classifier":
        pruner = EquilibriumPrunedMLP((8, 6), max_epochs=20, **options)
    else:
        data = make_regression(200, 6, noise=1, random_state=0)
        pruner = EquilibriumPrunedMLPRegressor((8, 6), max_epochs=5, **options)
    pruner.fit(*data)
    display = SurvivorsDisplay.from_estimator(pruner, data[0])
    gains = dict(zip(pruner.players_.names, pruner.leave_one_out_, strict=True))
    assert [gains[name] for name in display.names] == list(display.scores)
    assert np.isnan(display.standard_errors).all()
    assert (display.n_ranked == display.n_ranked.max()).any()
    assert display.score_name == "leave-one-out gain"
    assert "nan" not in str(display)
    check_order(display)


def test_single_weights_are_listed_without_drivers():
    pruner = GTAPPruner(
        mlp_classifier((4,), max_epochs=20, lr=0.01),
        players="weights",
        payoff="accuracy",
        n_players_to_keep=6,
        random_state=0,
    ).fit(X, y)
    display = SurvivorsDisplay.from_estimator(pruner, X)
    assert len(display.names) == 6
    assert set(display.layers) <= {"hidden_1.weight", "output.weight"}
    assert all(driver is None for driver in display.drivers.ravel())
    assert np.isnan(display.strengths).all()


def test_weights_that_nobody_scored_have_no_rank(plt):
    pruner = EquilibriumPruner(
        mlp_classifier((4,), max_epochs=20, lr=0.01),
        players="weights",
        n_players_to_keep=6,
        random_state=0,
    ).fit(X, y)
    assert pruner.leave_one_out_ is None
    display = SurvivorsDisplay.from_estimator(pruner)
    assert np.isnan(display.scores).all()
    assert not display.ranks.any()
    assert not display.n_ranked.any()
    lines = str(display).splitlines()
    assert len(lines) == 7
    assert all(line.split() == line.split()[:2] for line in lines[1:])
    assert display.plot().bars_


@pytest.mark.parametrize(
    ("pruner", "n_left"),
    [
        (ShapleyBucketPruner(tol=1.0), 0),
        (GTAPPruner(payoff="accuracy", n_players_to_keep=1, refine=False), 1),
    ],
)
def test_whole_layers_are_one_group(pruner, n_left, plt):
    module = nn.Sequential(
        nn.Linear(6, 5), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5), nn.Linear(5, 2)
    )
    net = NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, max_epochs=3, train_split=None, verbose=0
    )
    pruner = clone(pruner).set_params(estimator=net, players="layers", random_state=0)
    display = SurvivorsDisplay.from_estimator(pruner.fit(X, y), X)
    assert list(display.layers) == ["layers"] * n_left
    assert list(display.n_ranked) == [len(pruner.names_)] * n_left
    assert display.drivers.shape == (n_left, 5)
    assert all(driver is None for driver in display.drivers.ravel())
    assert len(str(display).splitlines()) == 1 + n_left
    assert len(display.plot().ax_.get_yticks()) == n_left


def test_inputs_are_driven_by_themselves():
    pruner = GTAPPruner(NET, players="inputs", n_players_to_keep=3, random_state=0)
    display = SurvivorsDisplay.from_estimator(pruner.fit(X, y), X, n_drivers=1)
    places = [name.removeprefix("hidden_1.input[")[:-1] for name in display.names]
    assert list(display.drivers[:, 0]) == [f"x{place}" for place in places]
    np.testing.assert_allclose(display.strengths, 1, rtol=1e-5)


def test_the_text_has_aligned_columns(display):
    head, *lines = str(display).splitlines()
    assert head.split() == [
        *("layer", "survivor", "score", "error", "rank", "drivers", "(standardized)")
    ]
    for row, line in enumerate(lines):
        assert line[head.index("survivor") :].startswith(display.names[row])
        assert line[head.index("score") :].startswith(f"{display.scores[row]:.4g}")
        assert line[head.index("rank") :].startswith(
            f"{display.ranks[row]}/{display.n_ranked[row]}"
        )
        assert line[head.index("drivers") :].startswith(
            f"{display.drivers[row, 0]} {display.strengths[row, 0]:+.2f}, "
        )
    assert not any(line.endswith(" ") for line in lines)


def test_the_frame_holds_the_table(display):
    pandas = pytest.importorskip("pandas")
    frame = display.to_frame()
    assert list(frame.columns) == [
        *("layer", "name", "score", "standard_error", "rank"),
        *("driver_1", "strength_1", "driver_2", "strength_2", "driver_3", "strength_3"),
    ]
    pandas.testing.assert_frame_equal(frame, pandas.DataFrame(display.table))
    np.testing.assert_array_equal(frame["strength_2"], display.strengths[:, 1])


@pytest.mark.parametrize(
    ("library", "method", "cure"),
    [("pandas", "to_frame", "table"), ("matplotlib", "plot", "pip install")],
)
def test_missing_libraries_are_named(display, monkeypatch, library, method, cure):
    found = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == library:
            raise ImportError(name)
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=rf"{library}.*{cure}"):
        getattr(display, method)()


def test_bars_are_the_scores(display, plt):
    assert display.plot() is display
    assert display.figure_ is display.ax_.figure
    widths = [bar.get_width() for bars in display.bars_ for bar in bars]
    np.testing.assert_allclose(widths, display.scores)
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert [label.split()[0] for label in labels] == list(display.names)
    assert all("column" in label for label in labels)
    assert display.ax_.get_xlabel() == "score"
    errors = [bars.errorbar.lines[2][0].get_segments() for bars in display.bars_]
    halves = [(end[0] - start[0]) / 2 for some in errors for start, end in some]
    np.testing.assert_allclose(halves, display.standard_errors, rtol=1e-6)
    plt.close(display.figure_)


def test_long_labels_leave_room_for_the_bars(pruner, plt):
    names = [f"a column of which the name is rather long, {n}" for n in range(6)]
    display = SurvivorsDisplay.from_estimator(pruner, X, feature_names=names).plot()
    display.figure_.canvas.draw()
    box = display.ax_.get_window_extent()
    assert box.width > display.figure_.dpi * 2


def test_the_best_of_each_layer_go_into_given_axes(display, plt):
    figure, ax = plt.subplots()
    display.plot(ax, n_survivors=1)
    assert (display.ax_, display.figure_) == (ax, figure)
    shown = [label.get_text().split()[0] for label in ax.get_yticklabels()]
    assert len(shown) == len(set(display.layers))
    assert set(shown) == {
        display.names[display.layers == layer][0] for layer in display.layers
    }


def test_a_data_frame_names_the_features():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=NAMES)
    pruner = GTAPPruner(NET, n_players_to_keep=4, random_state=0).fit(frame, y)
    display = SurvivorsDisplay.from_estimator(pruner, frame)
    assert set(display.drivers.ravel()) <= set(NAMES)
    renamed = SurvivorsDisplay.from_estimator(pruner, frame, feature_names=range(6))
    assert set(renamed.drivers.ravel()) <= set("012345")
    with pytest.raises(ValueError, match="feature names should match"):
        SurvivorsDisplay.from_estimator(pruner, frame.iloc[:, ::-1])


def test_pixels_of_images_are_named_by_their_place():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(80, 1, 4, 4)).astype(np.float32)
    labels = (images[:, 0, 2, 1] > 0).astype(int)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)
    )
    net = NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.02,
        max_epochs=20,
        train_split=None,
        verbose=0,
    )
    pruner = GTAPPruner(net, players="filters", n_players_to_keep=2, random_state=0)
    display = SurvivorsDisplay.from_estimator(pruner.fit(images, labels), images)
    places = {f"x[0,{i},{j}]" for i in range(4) for j in range(4)}
    assert set(display.drivers.ravel()) <= places


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 4)
        self.hidden, self.output = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, ids):
        return self.output(torch.relu(self.hidden(self.table(ids).mean(1))))


def test_tokens_are_named_by_a_vocabulary():
    ids = np.random.default_rng(0).integers(0, 9, (120, 6))
    labels = (ids == 3).any(1).astype(int)
    net = NeuralNetClassifier(
        Tokens,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.02,
        max_epochs=60,
        train_split=None,
        verbose=0,
    )
    pruner = GTAPPruner(
        net, players=[("neurons", "hidden")], n_players_to_keep=1, random_state=0
    ).fit(ids, labels)
    words = list("abcdefghi")
    display = SurvivorsDisplay.from_estimator(pruner, ids, feature_names=words)
    assert display.drivers[0, 0] == "d"
    display = SurvivorsDisplay.from_estimator(pruner, ids)
    assert display.drivers[0, 0] == "token 3"


def test_what_is_not_fitted_is_refused():
    with pytest.raises(NotFittedError):
        SurvivorsDisplay.from_estimator(GTAPPruner(NET), X)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"feature_names": NAMES[:4]}, "4 names, and the pruner reads 6 features"),
        ({"X": X[:, :4]}, "X has 4 features, but GTAPPruner is expecting 6"),
        ({"X": X[:3]}, "X holds 3 samples.*min_samples=5"),
        ({"X": None, "feature_names": NAMES}, "give X too"),
        ({"n_drivers": 0}, "n_drivers=0 must be a whole number"),
        ({"min_samples": 2.5}, "min_samples=2.5 must be a whole number"),
        ({"effect": "mean"}, "effect='mean' must be 'auto', 'present'"),
    ],
)
def test_wrong_arguments_are_named(pruner, arguments, message):
    with pytest.raises(ValueError, match=message):
        SurvivorsDisplay.from_estimator(pruner, **{"X": X, **arguments})


def test_a_figure_of_nothing_is_refused(display):
    with pytest.raises(ValueError, match="n_survivors=0 must be a whole number"):
        display.plot(n_survivors=0)


def test_estimators_without_a_pruner_are_refused():
    model = LogisticRegression().fit(X, y)
    with pytest.raises(TypeError, match=r"pruner.*got LogisticRegression"):
        SurvivorsDisplay.from_estimator(model, X)


def test_a_torch_data_set_is_refused(pruner):
    data = torch.utils.data.TensorDataset(torch.from_numpy(X))
    with pytest.raises(TypeError, match="TensorDataset; give X as an array"):
        SurvivorsDisplay.from_estimator(pruner, data)
