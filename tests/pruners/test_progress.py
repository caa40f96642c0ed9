"""What callbacks and `verbose` are told of a fit, and that it changes nothing."""

import json
import pickle
import tempfile
import threading
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.callback._callback_context import get_context_path
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping
from torch import nn

from skprune import (
    EquilibriumPrunedMLP,
    EquilibriumPrunedMLPRegressor,
    EquilibriumPruner,
    GTAPPruner,
    ShapleyBucketPruner,
    mlp_classifier,
)
from skprune.games import CallableGame, un_security_council
from skprune.pruners import _progress
from skprune.pruners._epochs import _EpochTeller
from skprune.pruners._watched_game import WatchedGame
from skprune.scorers import BanzhafScorer, BiasedBanzhafScorer, ShapleyScorer
from skprune.strategies import (
    Bottom,
    IteratedBuilding,
    IteratedPruning,
    SwapRefinement,
    TopN,
)

EPOCHS = 4


class Recorder:
    """Notes every task, and disturbs torch's generator while it is asked."""

    def __init__(self, stop_at=None):
        self.stop_at, self.events, self.scores = stop_at, [], {}

    def setup(self, estimator, context):
        self.events.append(("setup", (), None))

    def teardown(self, estimator, context):
        self.events.append(("teardown", (), None))

    def on_fit_task_begin(self, estimator, context):
        self._note("begin", context)

    def on_fit_task_end(
        self,
        estimator,
        context,
        *,
        X=None,
        y=None,
        metadata=None,
        fitted_estimator=None,
    ):
        self._note("end", context)
        self.metadata = metadata
        if hasattr(fitted_estimator, "score"):
            self.scores[path_of(context)] = fitted_estimator.score(X, y)
        return context.task_name == self.stop_at

    def _note(self, what, context):
        self.events.append((what, path_of(context), context.max_subtasks))
        if context.task_name in ("epoch", "fit"):
            torch.rand(3)

    def ended(self):
        """Paths of the tasks that ended, with the number of parts they announced."""
        return {path: parts for what, path, parts in self.events if what == "end"}

    def named(self, name):
        """The tasks of a name that ended."""
        return [path for path in self.ended() if path[-1][0] == name]


class PropagatedRecorder(Recorder):
    max_propagation_depth = None


class Scribe:
    """Writes what ended into a file, from whatever process."""

    max_propagation_depth = None

    def __init__(self, path):
        self.path = str(path)

    def setup(self, estimator, context):
        self._write("setup")

    def teardown(self, estimator, context):
        self._write("teardown")

    def on_fit_task_begin(self, estimator, context):
        # What callbacks of scikit-learn do that live in another process.
        if context.task_name == "train":
            assert "_fit_task" not in vars(pickle.loads(pickle.dumps(estimator)))

    def on_fit_task_end(self, estimator, context):
        self._write([name for name, _ in path_of(context)])

    def _write(self, what):
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(what) + "\n")

    def lines(self):
        with open(self.path, encoding="utf-8") as file:
            return [json.loads(line) for line in file]


def path_of(context):
    return tuple((c.task_name, c.task_id) for c in get_context_path(context))


def net_of(sizes=(12, 8), **params):
    settings = {"max_epochs": EPOCHS, "lr": 0.01, "device": "cpu"} | params
    return mlp_classifier(sizes, **settings)


def conv_net():
    """A net that the batched backend plays."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            nn.Conv2d(1, 4, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(36, 10),
        )
    settings = {"max_epochs": 2, "train_split": None, "verbose": 0, "lr": 0.01}
    loss, optimizer = nn.CrossEntropyLoss, torch.optim.Adam
    return NeuralNetClassifier(module, criterion=loss, optimizer=optimizer, **settings)


gtap = partial(GTAPPruner, random_state=0)
PRUNERS = {
    "reconstruction": lambda: gtap(net_of(), path_sizes=[6, 9], retrain_epochs=2),
    "one layer": lambda: gtap(net_of((16,)), n_players_to_keep=5),
    "accuracy": lambda: gtap(net_of(), n_players_to_keep=6, payoff="accuracy"),
    "pruning": lambda: gtap(
        net_of(),
        n_players_to_keep=6,
        path_sizes=[12],
        payoff="log_likelihood",
        search=IteratedPruning(step=3),
        power_index=BanzhafScorer(n_evaluations=500),
    ),
    "top n": lambda: gtap(
        net_of(),
        n_players_to_keep=8,
        payoff="accuracy",
        search="top_n",
        power_index=ShapleyScorer(n_evaluations=1500),
        refine=SwapRefinement(max_rounds=2),
    ),
    "metric": lambda: gtap(
        net_of((6,)),
        n_players_to_keep=3,
        payoff="balanced_accuracy",
        search=IteratedBuilding(step=2),
        power_index=BiasedBanzhafScorer(inclusion_probability=0.5),
    ),
    "filters": lambda: gtap(
        conv_net(),
        n_players_to_keep=2,
        players="filters",
        payoff="log_likelihood",
        search="iterated_pruning",
        power_index=ShapleyScorer(method="sampling", n_evaluations=102),
    ),
    "shapley": lambda: ShapleyBucketPruner(net_of(), tol=0.1, random_state=0),
    "shapley, all steps": lambda: ShapleyBucketPruner(
        net_of((9,)),
        strategy=Bottom(3),
        refine=False,
        full_descent=True,
        retrain_epochs=0,
        random_state=0,
    ),
    "equilibrium": lambda: EquilibriumPruner(
        net_of(), n_players_to_keep=8, random_state=0
    ),
    "gates": lambda: EquilibriumPrunedMLP(
        (8,), max_epochs=EPOCHS, random_state=0, device="cpu"
    ),
    "regressor": lambda: EquilibriumPrunedMLPRegressor(
        (8,), n_players_to_keep=4, max_epochs=EPOCHS, random_state=0, device="cpu"
    ),
}
KINDS = [
    "reconstruction",
    "shapley",
    "equilibrium",
    "gates",
    "regressor",
]


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return (X[:400] / 16).astype(np.float32), y[:400]


@pytest.fixture(scope="module")
def recorded(digits):
    """Each pruner fitted once, with a recorder."""
    fitted = {}

    def fit(name):
        if name not in fitted:
            recorder = Recorder()
            fitted[name] = PRUNERS[name]().set_callbacks(recorder).fit(*digits)
            fitted[name].recorder = recorder
        return fitted[name], fitted[name].recorder

    return fit


# What is told


@pytest.mark.parametrize("name", PRUNERS)
def test_totals_are_those_announced(name, recorded):
    pruner, recorder = recorded(name)
    ended = recorder.ended()
    parts = Counter(path[:-1] for path in ended)
    for path, announced in ended.items():
        assert announced is None or parts[path] == announced, path
    assert [e[0] for e in recorder.events].count("begin") == len(ended) < 300
    assert (recorder.events[0][0], recorder.events[-1][0]) == ("setup", "teardown")
    steps = [path[-1][0] for path in ended if len(path) == 2]
    assert steps == pruner._steps()


@pytest.mark.parametrize("name", PRUNERS)
def test_tasks_begin_before_and_end_after_their_parts(name, recorded):
    open_tasks = []
    for what, path, _ in recorded(name)[1].events[1:-1]:
        if what == "begin":
            assert list(path[:-1]) == (list(open_tasks[-1]) if open_tasks else [])
            open_tasks.append(path)
        else:
            assert open_tasks.pop() == path
    assert open_tasks == []


@pytest.mark.parametrize("name", KINDS)
def test_every_epoch_is_a_part_of_the_training(name, recorded):
    epochs = recorded(name)[1].named("epoch")
    training = [path for path in epochs if path[1][0] == "train"]
    assert len(training) == EPOCHS
    retrained = [path for path in epochs if path[1][0] != "train"]
    assert len(retrained) == {"reconstruction": 6}.get(name, len(retrained))
    assert bool(retrained) == (name in ("reconstruction", "shapley"))


@pytest.mark.parametrize("name", ["accuracy", "pruning", "top n", "metric", "filters"])
def test_searches_and_scores_are_shares_of_their_budgets(name, recorded):
    shares = Counter(path[1][0] for path in recorded(name)[1].named("share"))
    assert shares == {"search": 20, "score": 20}


def test_the_descent_is_as_long_as_its_table(recorded):
    pruner, recorder = recorded("shapley")
    steps = recorder.named("step")
    refining = [path[1][0] == "refine" for path in steps]
    assert refining == pruner.steps_["refining"].tolist()
    n_epochs = Counter(path[:3] for path in recorder.named("epoch") if len(path) == 4)
    assert [n_epochs[path] for path in steps] == pruner.steps_["n_epochs"].tolist()


@pytest.mark.parametrize("kind", [GTAPPruner, ShapleyBucketPruner])
def test_a_frozen_net_has_no_training(kind, digits):
    frozen = FrozenEstimator(net_of().fit(*digits))
    recorder = Recorder()
    kind(frozen, random_state=0).set_callbacks(recorder).fit(*digits)
    steps = [path[-1][0] for path in recorder.ended() if len(path) == 2]
    assert "train" not in steps
    assert recorder.ended()[(("fit", 0),)] == len(steps)


def test_networks_on_the_way_can_predict(recorded):
    pruner, recorder = recorded("shapley")
    told = recorder.scores
    last = told.pop((("fit", 0),))
    steps = recorder.named("step")
    assert set(told) == {*steps, *recorder.named("epoch")}
    best = np.flatnonzero(pruner.steps_["held"])[-1]
    assert told[steps[best]] == last
    training = [told[path] for path in recorder.named("epoch")[:EPOCHS]]
    assert training[0] < training[-1]


def test_the_scoring_monitor_of_scikit_learn(digits):
    monitor = ScoringMonitor(scoring="accuracy")
    pruner = gtap(net_of(), n_players_to_keep=8).set_callbacks(monitor).fit(*digits)
    log = monitor.get_logs().data
    scores = [row["accuracy"] for row in log if row["task_name"] == "epoch"]
    assert len(scores) == EPOCHS
    whole = [row["accuracy"] for row in log if row["task_name"] == "fit"]
    assert whole == [pruner.score(*digits)]


def test_weights_are_told(digits):
    weights = np.linspace(0.5, 1.5, len(digits[1]))
    recorder = Recorder()
    mlp = PRUNERS["gates"]().set_callbacks(recorder)
    for arguments in [(weights,), ()]:
        mlp.fit(
            *digits, *arguments, **({} if arguments else {"sample_weight": weights})
        )
        assert recorder.metadata["sample_weight"] is weights


def test_a_target_that_was_met_leaves_shares_out(digits):
    scorer = ShapleyScorer(n_evaluations=40_000, tol=0.1, random_state=0)
    recorder = Recorder()
    pruner = gtap(
        net_of(),
        n_players_to_keep=6,
        payoff="accuracy",
        search=IteratedBuilding(),
        power_index=scorer,
    )
    pruner.set_callbacks(recorder).fit(*digits)
    assert pruner.scores_.stop_reason == "tolerance"
    n_shares = sum(path[1][0] == "score" for path in recorder.named("share"))
    spent = pruner.scores_.n_evaluations / 40_000
    assert n_shares == int(20 * spent) + 1 < 20


class Endless(TopN):
    """A search of a user's own that does not say what it costs."""

    def budget(self, scorer, n_players, sizes):
        return None


def test_a_search_that_does_not_say_its_budget_has_no_shares(digits):
    recorder = Recorder()
    pruner = gtap(net_of(), n_players_to_keep=6, payoff="accuracy", search=Endless())
    pruner.set_callbacks(recorder).fit(*digits)
    assert recorder.ended()[(("fit", 0), ("search", 2))] == 0
    assert {path[1][0] for path in recorder.named("share")} == {"score"}


# Nothing changes


@pytest.mark.parametrize("name", PRUNERS)
def test_no_bit_depends_on_who_follows(name, digits, recorded, capsys):
    followed = recorded(name)[0]
    alone = PRUNERS[name]().fit(*digits)
    assert capsys.readouterr().out == ""
    printed = PRUNERS[name]().set_params(verbose=1).fit(*digits)
    for other in (alone, printed):
        for mine, its in zip(
            followed.module_.parameters(), other.module_.parameters(), strict=True
        ):
            assert torch.equal(mine, its)
        assert (followed.support_ == other.support_).all()
        if hasattr(other, "scores_"):
            assert (followed.scores_.values == other.scores_.values).all()
            assert followed.path_.payoffs.tolist() == other.path_.payoffs.tolist()


@pytest.mark.parametrize("name", KINDS)
def test_nothing_stays_in_nets_and_estimators(name, recorded):
    pruner, _ = recorded(name)
    ours = {a for a in vars(pruner) if "task" in a or "_callback" in a}
    assert ours - {"net_callbacks"} == {"_skl_callbacks"}
    net = pruner.estimator_
    assert not net.callbacks
    assert not any(isinstance(callback, _EpochTeller) for _, callback in net.callbacks_)
    assert b"skprune.pruners._epochs" not in pickle.dumps(net)
    if hasattr(pruner, "estimator"):
        assert not pruner.estimator.callbacks


class Pickler(Callback):
    """Keeps a copy of the net in training, as `Checkpoint` does with ``f_pickle``."""

    copies = ()

    def on_epoch_end(self, net, **kwargs):
        Pickler.copies = (*Pickler.copies, pickle.dumps(net))


def test_a_net_pickled_in_training_knows_nothing_of_the_fit(digits):
    Pickler.copies, given = (), [Pickler()]
    net = net_of(callbacks=given)
    pruner = gtap(net, n_players_to_keep=8)
    pruner.set_callbacks(Recorder()).fit(*digits)
    assert len(Pickler.copies) == EPOCHS
    copies = [pickle.loads(copy) for copy in Pickler.copies]
    kinds = {type(c) for copy in copies for _, c in copy.callbacks_}
    assert Pickler in kinds
    assert _EpochTeller not in kinds
    assert net.callbacks is given


def test_a_net_without_callbacks_keeps_none(digits):
    recorder = Recorder()
    pruner = gtap(net_of(callbacks="disable"), n_players_to_keep=8)
    pruner.set_callbacks(recorder).fit(*digits)
    assert pruner.estimator_.callbacks == "disable"
    assert recorder.named("epoch") == []
    assert recorder.ended()[(("fit", 0), ("train", 0))] == 0


class TrainsTwice(NeuralNetClassifier):
    def fit(self, X, y, **params):
        super().fit(X, y, **params)
        return self.partial_fit(X, y, **params)


def test_epochs_beyond_those_announced_are_not_told(digits, capsys):
    settings = {"max_epochs": 3, "train_split": None, "verbose": 0}
    module = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    net = TrainsTwice(module, criterion=nn.CrossEntropyLoss, **settings)
    recorder = Recorder()
    gtap(net, n_players_to_keep=4, verbose=1).set_callbacks(recorder).fit(*digits)
    assert len(recorder.named("epoch")) == 3
    out = capsys.readouterr().out
    assert "train 100%, epoch 3" in out
    assert "epoch 4" not in out


# Ends before the end


@pytest.mark.parametrize("name", KINDS)
def test_a_callback_may_end_the_training(name, digits):
    recorder = Recorder(stop_at="epoch")
    pruner = PRUNERS[name]().set_callbacks(recorder).fit(*digits)
    training = [path for path in recorder.named("epoch") if path[1][0] == "train"]
    assert len(training) == 1
    assert recorder.events[-2][:2] == ("end", (("fit", 0),))
    assert len(pruner.predict(digits[0])) == len(digits[0])
    if name == "reconstruction":
        n_epochs = Counter(path[2] for path in recorder.named("epoch") if len(path) > 3)
        assert list(n_epochs.values()) == [1, 1, 1]
    if name == "shapley":
        assert pruner.n_epochs_ == 1 + len(pruner.steps_["score"])
    if "net" in name or name in ("gates", "regressor", "equilibrium"):
        assert len(pruner.participation_history_) == 1


def test_a_callback_may_end_the_descent(digits):
    recorder = Recorder(stop_at="step")
    pruner = PRUNERS["shapley"]().set_callbacks(recorder).fit(*digits)
    assert pruner.steps_["refining"].tolist() == [False, True]
    assert pruner.validation_score_ >= pruner.min_score_


@pytest.mark.parametrize("stop_at", ["share", "train", "search", "size", "fit"])
def test_a_search_is_not_left_half_done(stop_at, digits, recorded):
    recorder = Recorder(stop_at=stop_at)
    pruner = PRUNERS["reconstruction"]().set_callbacks(recorder).fit(*digits)
    whole, other = recorded("reconstruction")
    assert recorder.events == other.events
    assert (pruner.support_ == whole.support_).all()


@pytest.mark.parametrize("kind", [GTAPPruner, EquilibriumPruner])
def test_early_stopping_of_the_net_ends_below(kind, digits):
    stopping = EarlyStopping("train_loss", patience=1, threshold=10.0, sink=lambda _: 0)
    recorder = Recorder()
    net = net_of(callbacks=[stopping], max_epochs=30)
    pruner = kind(net, n_players_to_keep=8, random_state=0)
    pruner.set_callbacks(recorder).fit(*digits)
    assert recorder.ended()[(("fit", 0), ("train", 0))] == 30
    assert len(recorder.named("epoch")) == 2
    assert len(pruner.estimator_.history) in (0, 2)


class Breaks(Callback):
    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            raise OSError("the disk is full")


@pytest.mark.parametrize("kind", [GTAPPruner, ShapleyBucketPruner, EquilibriumPruner])
def test_callbacks_are_told_of_a_fit_that_breaks_off(kind, digits):
    recorder = Recorder()
    pruner = kind(net_of(callbacks=[Breaks()]), random_state=0)
    pruner.set_callbacks(recorder)
    with pytest.raises(OSError, match="disk is full"):
        pruner.fit(*digits)
    assert recorder.events[-1][0] == "teardown"
    assert (("fit", 0),) not in recorder.ended()
    assert not hasattr(pruner, "_fit_task")
    pruner.set_params(estimator__callbacks=None).fit(*digits)
    assert (("fit", 0),) in recorder.ended()


def test_wrong_data_tear_callbacks_down(digits):
    recorder = Recorder()
    pruner = gtap(net_of()).set_callbacks(recorder)
    with pytest.raises(ValueError, match="NaN"):
        pruner.fit(digits[0] * np.nan, digits[1])
    assert [what for what, *_ in recorder.events] == ["setup", "begin", "teardown"]


# At home in scikit-learn


def test_what_is_no_callback_is_refused():
    with pytest.raises(TypeError, match="FitCallback"):
        gtap(net_of()).set_callbacks("progress")


@pytest.mark.parametrize("name", KINDS)
def test_clones_and_pickles_have_the_callbacks(name, recorded, digits):
    pruner, recorder = recorded(name)
    assert clone(pruner)._skl_callbacks == [recorder]
    again = pickle.loads(pickle.dumps(pruner))
    assert (again.predict(digits[0]) == pruner.predict(digits[0])).all()
    assert again._skl_callbacks[0].events == recorder.events
    assert not hasattr(clone(pruner).set_callbacks(), "_skl_callbacks")


def search_of(name, n_jobs):
    pruner = PRUNERS[name]()
    pipeline = make_pipeline(StandardScaler(), pruner)
    grid = {f"{type(pruner).__name__.lower()}__random_state": [0, 1]}
    return GridSearchCV(pipeline, grid, cv=2, n_jobs=n_jobs, error_score="raise")


SLOW = pytest.param("shapley", marks=pytest.mark.slow)


@pytest.mark.parametrize("name", ["one layer", "gates", SLOW])
def test_in_a_pipeline_in_a_search(name, digits, tmp_path):
    counts = []
    for n_jobs in (None, 2):
        scribe = Scribe(tmp_path / f"{n_jobs}")
        search_of(name, n_jobs).set_callbacks(scribe).fit(*digits)
        lines = scribe.lines()
        assert (lines[0], lines[-1]) == ("setup", "teardown")
        counts.append(Counter(map(tuple, lines[1:-1])))
    assert counts[0] == counts[1]
    # The root of a fit is the task that it stands for.
    inside = ("fit", "search", "fit", "fit", "train", "epoch")
    assert counts[0][inside] == 2 * 2 * EPOCHS
    assert counts[0][("fit", "fit", "fit", "train", "epoch")] == EPOCHS


def test_a_search_hands_its_callbacks_to_the_pruner_and_takes_them_back(digits):
    recorder = PropagatedRecorder()
    search = search_of("one layer", None).set_callbacks(recorder).fit(*digits)
    assert not hasattr(search.best_estimator_[-1], "_skl_callbacks")
    assert not hasattr(search.best_estimator_[-1], "_parent_callback_ctx")
    roots = [path for path in recorder.ended() if len(path) == 1]
    assert roots == [(("fit", 0),)]


@pytest.mark.parametrize("name", KINDS)
def test_the_progress_bar(name, digits, capsys):
    pytest.importorskip("rich")
    bar = ProgressBar(max_propagation_depth=None)
    pruner = PRUNERS[name]().set_callbacks(bar)
    alone = PRUNERS[name]().fit(*digits)
    pruner.fit(*digits)
    out = capsys.readouterr().out
    assert f"{type(pruner).__name__} - train" in out
    assert "100%" in out
    assert (pruner.predict(digits[0]) == alone.predict(digits[0])).all()


def test_the_progress_bar_in_a_parallel_search(digits, capsys):
    pytest.importorskip("rich")
    bar = ProgressBar(max_propagation_depth=None)
    search_of("one layer", 2).set_callbacks(bar).fit(*digits)
    assert "GTAPPruner - fit" in capsys.readouterr().out


# In plain text


@pytest.mark.parametrize("name", PRUNERS)
def test_every_step_has_a_line(name, digits, capsys):
    pruner = PRUNERS[name]().set_params(verbose=1).fit(*digits)
    lines = capsys.readouterr().out.splitlines()
    start = f"[{type(pruner).__name__}] "
    assert all(line.startswith(start) for line in lines)
    lines = [line.removeprefix(start) for line in lines]
    n_players = len(pruner.support_)
    ends = "ends at" if isinstance(pruner, ShapleyBucketPruner) else "kept"
    assert lines[-1] == f"{ends} {pruner.players_.n_players} of {n_players} players"
    silent = {"critical size", "stage", "descend", "refine"}
    if not isinstance(pruner, ShapleyBucketPruner):
        silent = {"critical size"}
    timed = [line.split(":")[0] for line in lines if line.endswith(" s")]
    assert timed == [step for step in pruner._steps() if step not in silent]


def test_many_epochs_are_ten_lines(digits, capsys):
    gtap(net_of(max_epochs=37), n_players_to_keep=6, verbose=1).fit(*digits)
    lines = capsys.readouterr().out.splitlines()
    epochs = [
        int(line.split("epoch ")[1].split(":")[0]) for line in lines if "epoch" in line
    ]
    assert len(epochs) == 10
    assert epochs[-1] == 37
    assert np.ptp(np.diff(epochs)) <= 1
    assert "[GTAPPruner] train 100%, epoch 37: training loss 0." in "\n".join(lines)


def test_long_searches_say_how_far_they_are(digits, capsys, monkeypatch):
    monkeypatch.setattr(_progress, "_SILENCE", 0.0)
    PRUNERS["pruning"]().set_params(verbose=1).fit(*digits)
    lines = capsys.readouterr().out.splitlines()
    shares = [line for line in lines if line.startswith("[GTAPPruner] search ")]
    expected = [f"[GTAPPruner] search {10 * i}%" for i in range(1, 10)]
    assert shares == expected


# The game that counts


def test_a_watched_game_is_the_game(digits):
    game, rng = un_security_council(), np.random.default_rng(0)
    reports = []
    watched = WatchedGame(game, reports.append, 40)
    orders = np.array([rng.permutation(15) for _ in range(7)])
    coalitions = rng.random((9, 15)) < 0.5
    for play, samples, cost in [
        ("walk", orders, 15),
        ("flip", coalitions, 15),
        ("__call__", coalitions, 1),
    ]:
        reports.clear()
        assert (getattr(watched, play)(samples) == getattr(game, play)(samples)).all()
        assert sum(reports) == len(samples) * cost
        assert max(reports) <= 40
    inside = np.arange(15) < 3
    rest = watched.restrict(always_in=inside)
    assert rest.players.tolist() == list(range(3, 15))
    reports.clear()
    rest.flip(coalitions[:4, 3:])
    assert reports == [36, 12]
    whole = WatchedGame(game, reports.append, None)
    reports.clear()
    whole.walk(orders)
    assert reports == [7 * 15]
    assert watched.greedy_order(3)[0].tolist() == game.greedy_order(3)[0].tolist()
    assert whole(np.zeros((0, 15), dtype=bool)).shape == (0,)


@pytest.mark.parametrize(
    "search",
    [TopN(), IteratedPruning(step=2), IteratedPruning(0.2), IteratedBuilding(step=2)],
)
@pytest.mark.parametrize(
    "scorer",
    [
        BanzhafScorer(method="sampling", n_evaluations=300, random_state=0),
        ShapleyScorer(n_evaluations=302, random_state=0),
        ShapleyScorer(method="exact"),
        None,
    ],
)
def test_searches_spend_what_they_say(search, scorer):
    if scorer is None and not isinstance(search, IteratedBuilding):
        with pytest.raises(ValueError, match="scorer=None"):
            search.budget(scorer, 15, [5])
        return
    spent, sizes = [], [4, 9, 9, 15]
    watched = WatchedGame(un_security_council(), spent.append, None)
    search.search(watched, scorer, sizes)
    said = search.budget(scorer, 15, sizes)
    # Of a budget stays what pays for no further sample, in each of 15 steps at most.
    slack = 0 if scorer is None or scorer.method == "exact" else 15 * 30
    assert said - slack <= sum(spent) <= said


@pytest.mark.parametrize(
    ("scorer", "n_players", "budget"),
    [
        (ShapleyScorer(), 13, 2**13),
        (ShapleyScorer(), 14, 10_000),
        (ShapleyScorer(), 300, 12_000),
        (BanzhafScorer(n_evaluations=40), 5, 32),
        (BanzhafScorer(n_evaluations=40), 6, 40),
        (BanzhafScorer(method="exact", n_evaluations=40), 6, 64),
        (BanzhafScorer(method="sampling", n_evaluations=40), 5, 40),
    ],
)
def test_scorers_spend_what_they_say(scorer, n_players, budget):
    assert scorer.budget(n_players) == budget
    scorer.random_state = 0
    spent = scorer.estimate(CallableGame(lambda c: c.sum(axis=1), n_players))
    assert spent.n_evaluations <= budget < spent.n_evaluations + 2 * n_players + 2


# Turns on a GPU


@pytest.mark.parametrize("name", KINDS)
def test_every_fit_waits_for_its_turn(name, digits, monkeypatch):
    devices, queued_for = [], _progress.queued_for

    def noted(device):
        devices.append(device)
        return queued_for(device)

    monkeypatch.setattr(_progress, "queued_for", noted)
    pruner = PRUNERS[name]().fit(*digits)
    assert devices == ["cpu"] == [pruner.estimator_.device]


class Overlaps(Recorder):
    """Counts the fits that are between their first and their last step."""

    under_way, most = 0, 0

    def _note(self, what, context):
        if (what, context.task_name) == ("begin", "train"):
            Overlaps.under_way += 1
            Overlaps.most = max(Overlaps.most, Overlaps.under_way)
        if (what, context.task_name) == ("end", "remove and repair"):
            Overlaps.under_way -= 1


def test_fits_on_one_gpu_come_one_after_the_other(digits, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(GTAPPruner, "_device", lambda self: "cuda:0")
    monkeypatch.setattr(Overlaps, "most", 0)
    barrier = threading.Barrier(3)

    def fit():
        pruner = GTAPPruner(net_of((6,)), n_players_to_keep=3)
        barrier.wait(60)
        return pruner.set_callbacks(Overlaps()).fit(*digits)

    Parallel(3, prefer="threads")(delayed(fit)() for _ in range(3))
    assert (Overlaps.under_way, Overlaps.most) == (0, 1)
