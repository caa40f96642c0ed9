"""Weighted samples against repeated ones, and all put back afterwards."""

import copy
import pickle

import numpy as np
import pytest
import torch
from skorch import (
    NeuralNet,
    NeuralNetBinaryClassifier,
    NeuralNetClassifier,
    NeuralNetRegressor,
)
from skorch.callbacks import Callback
from skorch.dataset import ValidSplit
from torch import nn

from skprune.evaluation import TensorBatches, build_mlp, weighted_samples

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 5)).astype(np.float32)
WEIGHTS = np.array([0, 1, 2, 3, 1, 1, 0, 4, 1, 2, 1, 3])
CASES = {
    "classes": (
        NeuralNetClassifier,
        nn.CrossEntropyLoss,
        3,
        RNG.integers(3, size=12),
    ),
    "smoothed": (
        NeuralNetClassifier,
        lambda **kw: nn.CrossEntropyLoss(label_smoothing=0.1, **kw),
        3,
        RNG.integers(3, size=12),
    ),
    "binary": (
        NeuralNetBinaryClassifier,
        nn.BCEWithLogitsLoss,
        1,
        RNG.integers(2, size=12).astype(np.float32),
    ),
    "values": (
        NeuralNetRegressor,
        nn.MSELoss,
        2,
        RNG.normal(size=(12, 2)).astype(np.float32),
    ),
    "robust": (
        NeuralNetRegressor,
        nn.HuberLoss,
        1,
        RNG.normal(size=(12, 1)).astype(np.float32),
    ),
}


class Gradients(Callback):
    """Keeps the gradients and the loss of each step, and may raise."""

    def __init__(self, error=False):
        self.error = error

    def on_train_begin(self, net, **kwargs):
        self.steps_ = []

    def on_grad_computed(self, net, named_parameters, **kwargs):
        if self.error:
            raise RuntimeError("in the middle of a training")
        self.steps_.append(
            torch.cat([p.grad.flatten().clone() for _, p in named_parameters])
        )


def make_net(case="classes", *, batch_size=-1, error=False, **parameters):
    net_class, criterion, n_outputs, _ = CASES[case]
    torch.manual_seed(0)
    defaults = {
        "criterion": criterion,
        "iterator_train": TensorBatches,
        "train_split": None,
        "batch_size": batch_size,
        "max_epochs": 2,
        "lr": 0.1,
        "verbose": 0,
        "callbacks": [("gradients", Gradients(error))],
    }
    module = build_mlp(5, (4,), n_outputs)
    return net_class(module, **(defaults | parameters)).initialize()


def steps_of(net):
    return dict(net.callbacks_)["gradients"].steps_


def train(net, features, targets, weights=None):
    with weighted_samples(net, weights) as yielded:
        assert yielded is net
        net.partial_fit(features, targets)
    return net


@pytest.mark.parametrize("case", CASES)
def test_whole_numbers_are_repeated_rows(case):
    y = CASES[case][3]
    rows = np.repeat(np.arange(12), WEIGHTS)
    weighted = train(make_net(case), X, y, WEIGHTS)
    repeated = train(make_net(case), X[rows], y[rows])
    plain = train(make_net(case), X, y)
    tolerance = {"rtol": 0, "atol": 1e-6}
    for mine, theirs in zip(steps_of(weighted), steps_of(repeated), strict=True):
        torch.testing.assert_close(mine, theirs, **tolerance)
    np.testing.assert_allclose(
        weighted.history[:, "train_loss"], repeated.history[:, "train_loss"], atol=1e-6
    )
    assert (steps_of(weighted)[0] - steps_of(plain)[0]).abs().max() > 1e-3


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("weight", [1.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_equal_weights_are_no_weights(case, weight, reduction):
    y = CASES[case][3]
    nets = [
        train(
            make_net(case, batch_size=5, criterion__reduction=reduction), X, y, weights
        )
        for weights in (None, np.full(12, weight))
    ]
    for mine, theirs in zip(*map(steps_of, nets), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_each_sample_of_a_shuffled_batch_has_its_own_weight():
    y = CASES["values"][3]
    net = make_net("values", batch_size=1, max_epochs=1, iterator_train__shuffle=True)
    weights = np.zeros(12)
    weights[4] = 1.0
    train(net, X, y, weights)
    moved = [bool(step.any()) for step in steps_of(net)]
    assert sum(moved) == 1
    torch.manual_seed(0)
    build_mlp(5, (4,), 2)
    assert torch.randperm(12)[moved.index(True)] == 4


def test_rows_of_a_split_have_the_weights_of_the_whole():
    y = CASES["classes"][3]
    split = ValidSplit([(np.array([9, 2, 5]), np.arange(3))], stratified=False)
    weights = np.zeros(12)
    weights[2] = 1.0
    net = train(make_net(train_split=split), X, y, weights)
    alone = train(make_net(), X[[2]], y[[2]])
    # One sample of three, with weight 12 where the mean is 1.
    torch.testing.assert_close(steps_of(net)[0], 4 * steps_of(alone)[0])


def test_the_validation_loss_has_no_weights():
    y = CASES["classes"][3]
    split = ValidSplit(3, stratified=False)
    losses = [
        train(make_net(train_split=split, lr=0.0), X, y, weights).history[-1]
        for weights in (None, WEIGHTS)
    ]
    assert losses[0]["valid_loss"] == losses[1]["valid_loss"]
    assert losses[0]["train_loss"] != losses[1]["train_loss"]


@pytest.mark.parametrize("error", [False, True])
def test_all_is_put_back(error):
    y = CASES["classes"][3]
    net = make_net(error=error)
    callbacks, parameters = net.callbacks_, net.get_params().keys()
    try:
        train(net, X, y, WEIGHTS)
    except RuntimeError:
        assert error
    else:
        assert not error
    assert net.callbacks_ is callbacks
    assert net.get_params().keys() == parameters
    assert net.criterion_.reduction == "mean"
    assert not hasattr(net.criterion_, "rows_of_batch")
    assert not net.criterion_._forward_hooks
    assert not net.criterion_._forward_pre_hooks
    if error:
        return
    twin = make_net()
    twin.module_.load_state_dict(net.module_.state_dict())
    with torch.no_grad():
        loss = net.get_loss(net.module_(torch.from_numpy(X)), y)
        expected = twin.get_loss(twin.module_(torch.from_numpy(X)), y)
    assert torch.equal(loss, expected)


def test_a_net_can_be_copied_within():
    y = CASES["classes"][3]
    net = make_net()
    with weighted_samples(net, WEIGHTS):
        twins = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
        losses = net.partial_fit(X, y).history[:, "train_loss"]
        assert "callbacks__skprune_sample_weight__weights" in net.get_params()
    for twin in twins:
        assert twin.partial_fit(X, y).history[:, "train_loss"] == losses
    assert make_net().partial_fit(X, y).history[:, "train_loss"] != losses


class NoReduction(nn.Module):
    def forward(self, x, y):
        return (x - y).square().mean()


class Deaf(nn.MSELoss):
    def forward(self, x, y):
        return (x - y).square().mean()


class Transposed(nn.MSELoss):
    def forward(self, x, y):
        return (x - y).square().T


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (NoReduction, "criterion NoReduction has no parameter `reduction`"),
        (Deaf, r"criterion Deaf with reduction='none' gave shape \(\) for 12"),
        (Transposed, r"Transposed with reduction='none' gave shape \(2, 12\) for 12"),
        (lambda: nn.KLDivLoss(reduction="batchmean"), "KLDivLoss has reduction='batch"),
        (lambda: nn.CrossEntropyLoss(torch.ones(3)), "criterion CrossEntropyLoss has"),
    ],
)
def test_a_loss_that_is_not_one_for_each_sample_is_refused(criterion, message):
    net = make_net("values", criterion=criterion)
    with pytest.raises(ValueError, match=message):
        train(net, X, CASES["values"][3], WEIGHTS)
    assert len(net.callbacks_) == len(make_net("values").callbacks_)


def test_batches_must_say_which_samples_they_hold():
    net = make_net(iterator_train=torch.utils.data.DataLoader)
    with pytest.raises(
        ValueError, match=r"iterator_train is .*DataLoader.*TensorBatch"
    ):
        train(net, X, CASES["classes"][3], WEIGHTS)


def test_the_net_must_be_initialized():
    net = NeuralNet(nn.Linear(5, 1), criterion=nn.MSELoss)
    with (
        pytest.raises(ValueError, match=r"call net\.initialize"),
        weighted_samples(net, WEIGHTS),
    ):
        pass
