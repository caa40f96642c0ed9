"""One test for each trap of skorch, and the schedule of a retraining."""

import copy
import pickle
import signal

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, EarlyStopping, EpochScoring, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn
from torch.utils.data import DataLoader

from skprune.evaluation import retrain, transplant
from skprune.networks import find_players, remove_players


class MLP(nn.Module):
    def __init__(self, hidden=16, n_outputs=3):
        super().__init__()
        self.hidden, self.out = nn.Linear(6, hidden), nn.Linear(hidden, n_outputs)

    def forward(self, x):
        return self.out(torch.relu(self.hidden(x)))


class Recorder(Callback):
    """Keeps the learning rate of every batch."""

    def on_train_begin(self, net, **_):
        self.rates_ = []

    def on_batch_begin(self, net, batch, training=False, **_):
        if training:
            self.rates_.append(net.optimizer_.param_groups[0]["lr"])


def data(n_samples=64):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_samples, 6)).astype(np.float32)
    return X, rng.integers(3, size=n_samples)


def trained(net_class=NeuralNetClassifier, **parameters):
    torch.manual_seed(0)
    X, y = data()
    defaults = {
        "module__hidden": 16,
        "criterion": nn.CrossEntropyLoss,
        "max_epochs": 2,
        "batch_size": 16,
        "lr": 0.1,
        "verbose": 0,
        "train_split": None,
    }
    return net_class(MLP, **(defaults | parameters)).fit(X, y)


def pruned_module(net, n_keep=5):
    players = find_players(net.module_, torch.zeros(2, 6))
    return remove_players(net.module_, players, np.arange(16) >= n_keep)


def parameters_of(net):
    return [p.detach().clone() for p in net.module_.parameters()]


def moved(net, before):
    return all(
        not torch.equal(old, new)
        for old, new in zip(before, net.module_.parameters(), strict=True)
    )


def test_the_parameters_move_under_partial_fit():
    net = trained()
    new = transplant(net, pruned_module(net))
    before = parameters_of(new)
    new.partial_fit(*data())
    assert moved(new, before)
    own = {id(p) for p in new.module_.parameters()}
    assert {
        id(p) for group in new.optimizer_.param_groups for p in group["params"]
    } == own


def test_a_refit_keeps_the_pruned_shape():
    net = trained()
    new = transplant(net, pruned_module(net))
    new.fit(*data())
    assert new.module_.hidden.out_features == 5
    new.initialize()
    assert new.module_.hidden.out_features == 5


def test_the_module_s_parameters_are_gone():
    net = trained()
    new = transplant(net, pruned_module(net))
    assert not [name for name in new.get_params() if name.startswith("module__")]
    assert net.get_params()["module__hidden"] == 16
    assert net.module_.hidden.out_features == 16


@pytest.mark.parametrize(
    "duplicate", [clone, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))]
)
def test_copies_are_pruned_and_train(duplicate):
    net = trained()
    new = transplant(net, pruned_module(net))
    other = duplicate(new)
    if duplicate is not clone:
        np.testing.assert_array_equal(other.predict(data()[0]), new.predict(data()[0]))
        np.testing.assert_array_equal(other.classes_, new.classes_)
    other.partial_fit(*data())
    before = parameters_of(other)
    other.partial_fit(*data())
    assert moved(other, before)
    assert other.module_.hidden.out_features == 5


def test_the_given_module_and_net_are_not_shared():
    net = trained()
    module, dense = pruned_module(net), parameters_of(net)
    weights = [p.detach().clone() for p in module.parameters()]
    new = transplant(net, module)
    new.fit(*data())
    for old, p in zip(weights, module.parameters(), strict=True):
        assert torch.equal(old, p)
    for old, p in zip(dense, net.module_.parameters(), strict=True):
        assert torch.equal(old, p)


def test_the_new_net_answers_as_the_module_before_any_fit():
    net = trained()
    module = pruned_module(net)
    new = transplant(net, module)
    X = data()[0]
    np.testing.assert_array_equal(
        new.predict(X), module.eval()(torch.from_numpy(X)).argmax(1)
    )
    np.testing.assert_array_equal(new.classes_, [0, 1, 2])


def test_classes_that_were_given_are_kept():
    net = trained(classes=[0, 1, 2])
    assert list(transplant(net, pruned_module(net)).classes_) == [0, 1, 2]


def test_all_other_parameters_are_kept():
    net = trained(
        lr=0.03,
        optimizer=torch.optim.Adam,
        optimizer__weight_decay=0.01,
        criterion__label_smoothing=0.1,
        iterator_train__shuffle=True,
        batch_size=7,
        callbacks__print_log=None,
    )
    new = transplant(net, pruned_module(net))
    assert isinstance(new.optimizer_, torch.optim.Adam)
    group = new.optimizer_.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.03, 0.01)
    assert new.criterion_.label_smoothing == 0.1
    assert new.batch_size == 7
    assert new.get_params()["iterator_train__shuffle"]
    assert "print_log" not in dict(new.callbacks_) or (
        dict(new.callbacks_)["print_log"] is None
    )


def test_callbacks_and_a_schedule_are_kept_but_not_shared():
    schedule = LRScheduler(policy="StepLR", step_size=1, gamma=0.5)
    net = trained(
        callbacks=[
            ("schedule", schedule),
            ("f1", EpochScoring("f1_macro", on_train=True, name="f1")),
        ]
    )
    new = transplant(net, pruned_module(net))
    names = dict(new.callbacks_)
    assert isinstance(names["schedule"], LRScheduler)
    assert names["schedule"] is not dict(net.callbacks_)["schedule"]
    new.fit(*data())
    assert "f1" in new.history[-1]
    assert new.optimizer_.param_groups[0]["lr"] < 0.1


@pytest.mark.parametrize(
    ("net_class", "n_outputs", "criterion"),
    [
        (NeuralNetBinaryClassifier, 1, nn.BCEWithLogitsLoss),
        (NeuralNetRegressor, 2, nn.MSELoss),
    ],
)
def test_other_nets_are_transplanted(net_class, n_outputs, criterion):
    X, y = data()
    y = (y > 1).astype(np.float32)
    if n_outputs == 2:
        y = np.stack([y, -y], 1)
    net = net_class(
        MLP,
        module__n_outputs=n_outputs,
        criterion=criterion,
        max_epochs=1,
        verbose=0,
        train_split=None,
    ).fit(X, y)
    new = transplant(net, pruned_module(net))
    assert type(new) is net_class
    before = parameters_of(new)
    new.partial_fit(X, y)
    assert moved(new, before)
    assert new.predict(X).shape == net.predict(X).shape


def test_a_subclass_stays_one():
    class Mine(NeuralNetClassifier):
        pass

    net = trained(Mine)
    assert type(transplant(net, pruned_module(net))) is Mine


def test_a_loud_net_says_nothing(capsys):
    net = trained()
    net.set_params(verbose=1)
    transplant(net, pruned_module(net))
    assert capsys.readouterr().out == ""


def test_retraining_warms_up_and_cools_down():
    net = trained(callbacks=[("recorder", Recorder())])
    new = transplant(net, pruned_module(net))
    before = parameters_of(new)
    assert retrain(new, *data(), epochs=5) is new
    assert moved(new, before)
    rates = np.array(dict(new.callbacks_)["recorder"].rates_)
    # 64 samples in batches of 16, five times; the first tenth of 20 batches warms up.
    assert len(rates) == 20
    np.testing.assert_allclose(rates[:2], [0.05, 0.1])
    assert (np.diff(rates[2:]) < 0).all()
    assert rates[-1] < 0.002
    assert len(new.history) == 5


def test_the_cooling_ends_with_the_training_part():
    net = trained(
        callbacks=[("recorder", Recorder())],
        train_split=ValidSplit(2, stratified=True),
    )
    new = transplant(net, pruned_module(net))
    retrain(new, *data(), epochs=10)
    rates = dict(new.callbacks_)["recorder"].rates_
    assert len(rates) == 20
    assert rates[-1] < 0.002


def test_the_schedule_is_gone_after_a_retraining():
    net = trained()
    new = transplant(net, pruned_module(net))
    names = [name for name, _ in new.callbacks_]
    retrain(new, *data(), epochs=2)
    assert [name for name, _ in new.callbacks_] == names
    assert new.optimizer_.param_groups[0]["lr"] == 0.1
    before = parameters_of(new)
    new.partial_fit(*data())
    assert moved(new, before)


def test_a_second_retraining_warms_up_to_the_same_rate():
    net = trained(callbacks=[("recorder", Recorder())])
    new = transplant(net, pruned_module(net))
    retrain(new, *data(), epochs=3)
    first = dict(new.callbacks_)["recorder"].rates_
    retrain(new, *data(), epochs=3)
    np.testing.assert_allclose(dict(new.callbacks_)["recorder"].rates_, first)


def test_a_schedule_of_the_user_s_own_is_kept():
    net = trained(
        callbacks=[
            ("schedule", LRScheduler(policy="StepLR", step_size=1, gamma=0.5)),
            ("recorder", Recorder()),
        ]
    )
    new = transplant(net, pruned_module(net))
    retrain(new, *data(), epochs=3)
    rates = dict(new.callbacks_)["recorder"].rates_
    np.testing.assert_allclose(rates[::4], [0.1, 0.05, 0.025])


def test_the_schedule_is_gone_after_an_error():
    class Failing(Callback):
        def on_epoch_end(self, net, **_):
            raise RuntimeError("stopped")

    net = trained()
    net.set_params(callbacks=[("failing", Failing())])
    new = transplant(net, pruned_module(net))
    names = [name for name, _ in new.callbacks_]
    with pytest.raises(RuntimeError, match="stopped"):
        retrain(new, *data(), epochs=2)
    assert [name for name, _ in new.callbacks_] == names


class InterruptedBatches(DataLoader):
    def __iter__(self):
        raise KeyboardInterrupt


class HandBrake(Callback):
    """Ends a training as EarlyStopping does."""

    def on_epoch_end(self, net, **_):
        raise KeyboardInterrupt


def rates_of(net, narrowing, epochs=5):
    """Highest learning rate of a retraining of a net with a `Recorder`."""
    new = transplant(net, pruned_module(net))
    before = new.optimizer_.param_groups[0]["lr"]
    retrain(new, *data(), epochs=epochs, narrowing=narrowing)
    assert new.optimizer_.param_groups[0]["lr"] == before
    return dict(new.callbacks_)["recorder"].rates_


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.RMSprop])
@pytest.mark.parametrize(
    ("rate", "narrowing", "peak"),
    [
        (1e-3, 1.0, 1e-3),
        (1e-3, 4.0, 8e-3),
        (1e-3, 100.0, 1e-2),
        (1e-2, 4.0, 1e-2),
        (5e-2, 4.0, 5e-2),
        (1e-3, 0.5, 1e-3),
    ],
)
def test_narrower_networks_train_at_higher_rates(optimizer, rate, narrowing, peak):
    net = trained(optimizer=optimizer, lr=rate, callbacks=[("recorder", Recorder())])
    rates = rates_of(net, narrowing)
    assert max(rates) == pytest.approx(peak)
    assert rates[-1] < peak / 50


@pytest.mark.parametrize(
    "parameters",
    [
        {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9},
        {"optimizer": torch.optim.Adagrad},
        {"optimizer": torch.optim.LBFGS, "batch_size": -1},
    ],
    ids=["SGD", "Adagrad", "LBFGS"],
)
def test_rates_of_other_optimizers_stay(parameters):
    net = trained(lr=1e-3, callbacks=[("recorder", Recorder())], **parameters)
    assert max(rates_of(net, narrowing=9.0)) == pytest.approx(1e-3)


def test_a_schedule_of_the_user_s_own_keeps_its_rates():
    schedule = LRScheduler(policy="StepLR", step_size=1, gamma=0.5)
    net = trained(
        optimizer=torch.optim.Adam,
        lr=1e-3,
        callbacks=[("schedule", schedule), ("recorder", Recorder())],
    )
    new = transplant(net, pruned_module(net))
    retrain(new, *data(), epochs=3, narrowing=9.0)
    rates = dict(new.callbacks_)["recorder"].rates_
    np.testing.assert_allclose(rates[::4], [1e-3, 5e-4, 2.5e-4])


@pytest.mark.parametrize(
    "parameters",
    [
        {"optimizer": torch.optim.Adam, "optimizer__weight_decay": 0.1},
        {"optimizer": torch.optim.AdamW, "optimizer__amsgrad": True},
        {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9},
        {"optimizer": torch.optim.LBFGS, "batch_size": -1},
    ],
    ids=["Adam", "AdamW", "momentum", "LBFGS"],
)
def test_single_weights_that_left_stay_zero(parameters):
    net = trained(**parameters)
    pairs = [("weights", "hidden"), ("weights", "out")]
    players = find_players(net.module_, torch.zeros(2, 6), pairs)
    drop = np.arange(players.n_players) % 3 == 0
    new = transplant(net, remove_players(net.module_, players, drop))
    before = parameters_of(new)
    left = players.subset(~drop)
    retrain(new, *data(), epochs=3, players=left)
    assert moved(new, before)
    for layer in (new.module_.hidden, new.module_.out):
        assert ((layer.weight == 0) == (before.pop(0) == 0)).all()
        before.pop(0)
        assert not layer.weight._backward_hooks
    n_zeros = sum(int((p == 0).sum()) for p in new.module_.parameters())
    assert n_zeros == drop.sum()
    # Without being told of the players, a training moves them all.
    retrain(new, *data(), epochs=1)
    assert all((p != 0).all() for p in new.module_.parameters())


def test_weights_that_were_frozen_are_left_alone():
    net = trained()
    players = find_players(net.module_, torch.zeros(2, 6), [("weights", "hidden")])
    drop = np.arange(players.n_players) < 10
    new = transplant(net, remove_players(net.module_, players, drop))
    new.module_.hidden.weight.requires_grad_(False)
    before = new.module_.hidden.weight.clone()
    retrain(new, *data(), epochs=1, players=players.subset(~drop))
    assert torch.equal(new.module_.hidden.weight, before)


@pytest.mark.parametrize(
    "brake",
    [
        HandBrake(),
        EarlyStopping(monitor="train_loss", patience=1, threshold=99.0),
    ],
    ids=["of the user", "EarlyStopping"],
)
def test_a_callback_ends_the_training_only(brake):
    net = trained()
    net.set_params(callbacks=[("brake", brake)])
    new = transplant(net, pruned_module(net))
    before = parameters_of(new)
    assert retrain(new, *data(), epochs=9) is new
    assert 1 <= len(new.history) <= 2
    assert moved(new, before)


class BrakeLever(Callback):
    """Ends a training by a function that it calls."""

    def on_epoch_end(self, net, **_):
        pull()


def pull():
    raise KeyboardInterrupt


def test_a_callback_may_end_a_training_through_what_it_calls():
    net = trained(callbacks=[("brake", BrakeLever())])
    new = transplant(net, pruned_module(net))
    assert len(retrain(new, *data(), epochs=9).history) == 1


class InterruptedCallback(Callback):
    """The user presses Ctrl-C while a callback runs."""

    def on_epoch_end(self, net, **_):
        signal.default_int_handler(signal.SIGINT, None)


def test_an_interrupt_within_a_callback_passes_through():
    net = trained()
    net.set_params(callbacks=[("interrupted", InterruptedCallback())])
    with pytest.raises(KeyboardInterrupt):
        retrain(transplant(net, pruned_module(net)), *data(), epochs=3)


@pytest.mark.parametrize("where", ["forward", "data"])
def test_an_interrupt_by_the_user_passes_through(where):
    class Interrupted(MLP):
        def forward(self, x):
            if self.training:
                raise KeyboardInterrupt
            return super().forward(x)

    X, y = data()
    net = trained(callbacks=[("stop", EarlyStopping(monitor="train_loss"))])
    module = pruned_module(net)
    if where == "forward":
        module.__class__ = Interrupted
    new = transplant(net, module)
    if where == "data":
        new.iterator_train = InterruptedBatches
    names = [name for name, _ in new.callbacks_]
    with pytest.raises(KeyboardInterrupt):
        retrain(new, X, y, epochs=3)
    assert [name for name, _ in new.callbacks_] == names
    assert new.optimizer_.param_groups[0]["lr"] == 0.1
