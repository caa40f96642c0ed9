"""Nets and data that are legal and rare: every backend plays what the net computes."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from skorch import (
    NeuralNetBinaryClassifier,
    NeuralNetClassifier,
    NeuralNetRegressor,
)
from torch import nn

from skprune.evaluation import CoalitionEvaluator
from skprune.evaluation import _compaction as compaction
from skprune.networks import remove_players
from skprune.samplers import uniform_orders


def make_net(*widths, kind=NeuralNetClassifier, dtype=torch.float32, **params):
    torch.manual_seed(0)
    layers = [nn.Linear(widths[0], widths[1])]
    for n_inputs, n_outputs in pairwise(widths[1:]):
        layers += [nn.ReLU(), nn.Linear(n_inputs, n_outputs)]
    module = nn.Sequential(*layers).to(dtype)
    if kind is NeuralNetClassifier:
        params["criterion"] = nn.CrossEntropyLoss
    return kind(module, verbose=0, **params).initialize()


def data(n_classes=2, n=60, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)).astype(np.float32)
    return X, rng.integers(n_classes, size=n)


def turned(layer, args):
    return (args[0] * -3,)


def flipped(layer, args, outputs):
    return -outputs


HOOKS = {
    "inputs of a layer": lambda m: m[2].register_forward_pre_hook(turned),
    "outputs of a layer": lambda m: m[2].register_forward_hook(flipped),
    "an activation": lambda m: m[3].register_forward_hook(flipped),
}


@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
@pytest.mark.parametrize("backend", ["auto", "batched"])
def test_hooks_of_the_user_are_heard(hook, backend):
    net, (X, y) = make_net(3, 6, 5, 2), data()
    hook(net.module_)
    game = CoalitionEvaluator(net, X, y, backend=backend)
    everybody = np.ones((1, game.n_players), bool)
    assert game(everybody)[0] == pytest.approx(net.score(X, y))
    likely = CoalitionEvaluator(net, X, y, payoff="log_likelihood", backend=backend)
    orders = uniform_orders(game.n_players, 2, np.random.default_rng(0))
    gained = likely(everybody) - likely(~everybody)
    for brought in likely.walk(orders).sum(axis=-1):
        np.testing.assert_allclose(brought, gained, rtol=1e-4)


def test_hooks_have_no_compiled_backend():
    net, (X, y) = make_net(3, 6, 2), data()
    net.module_[2].register_forward_pre_hook(turned)
    with pytest.raises(ValueError, match=r"with payoff='accuracy': .* or has hooks"):
        CoalitionEvaluator(net, X, y, backend="compiled")


@pytest.mark.parametrize("fails_at", range(1, 8))
def test_a_layer_is_whole_again_when_memory_ran_out(fails_at, monkeypatch):
    net, (X, y) = make_net(3, 300, 300, 2), data()
    expected = CoalitionEvaluator(net, X, y, backend="batched")
    coalitions = np.random.default_rng(0).random((4, 600)) < 0.2
    payoffs, select, calls = expected(coalitions), compaction._select, []

    def short(*args, **kwargs):
        calls.append(1)
        if len(calls) == fails_at:
            raise MemoryError
        return select(*args, **kwargs)

    game = CoalitionEvaluator(net, X, y, backend="batched")
    monkeypatch.setattr(compaction, "_select", short)
    np.testing.assert_allclose(game(coalitions), payoffs)
    assert len(calls) >= fails_at
    np.testing.assert_allclose(game(coalitions), payoffs)


def test_y_may_change_afterwards():
    net, (X, _) = make_net(3, 4, 1, kind=NeuralNetRegressor), data()
    y = X[:, :1].copy()
    game = CoalitionEvaluator(net, X, y, payoff="neg_mean_absolute_error")
    everybody = np.ones((1, game.n_players), bool)
    before = game(everybody)
    y += 100
    np.testing.assert_array_equal(game(everybody), before)


def test_arrays_read_backwards_or_read_only():
    net, (X, _) = make_net(3, 4, 1, kind=NeuralNetRegressor), data()
    y = X[:, :1].copy()
    expected = CoalitionEvaluator(net, X[::-1].copy(), y[::-1].copy(), payoff="r2")
    everybody = np.ones((1, expected.n_players), bool)
    X.flags.writeable = y.flags.writeable = False
    game = CoalitionEvaluator(net, X[::-1], y[::-1], payoff="r2")
    np.testing.assert_array_equal(game(everybody), expected(everybody))
    CoalitionEvaluator(net, X, y, payoff="r2")


def test_one_class_is_for_the_batched_backend():
    net, (X, _) = make_net(3, 4, 1), data()
    y = np.zeros(len(X), dtype=int)
    game = CoalitionEvaluator(net, X, y)
    assert game.backend_ == "batched"
    assert game(np.ones((1, 4), bool))[0] == 1
    words = CoalitionEvaluator(
        net, csr_array(X * (X > 1)), y, players="inputs", backend="sparse"
    )
    assert words.backend_ == "sparse"
    with pytest.raises(ValueError, match="two classes or more, and this net has one"):
        CoalitionEvaluator(net, X, y, backend="compiled")


def test_columns_that_single_precision_would_blur():
    """Seconds since 1970: float32 knows them to two minutes."""
    rng = np.random.default_rng(0)
    X = np.column_stack([1.7e9 + rng.uniform(-20, 20, size=80), np.full(80, 0.1)])
    y = (X[:, 0] > 1.7e9).astype(int)
    net = make_net(2, 2, 2, dtype=torch.float64)
    first, last = net.module_[0], net.module_[2]
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        first.bias.copy_(torch.tensor([-1.7e9, 1.7e9]))
        last.weight.copy_(torch.tensor([[-1.0, 1.0], [1.0, -1.0]]))
        last.bias.zero_()
    game = CoalitionEvaluator(net, X, y, players="inputs")
    assert game(np.ones((1, 2), bool))[0] == net.score(X, y) == 1
    near = CoalitionEvaluator(net, X - [1.7e9, 0], y, players="inputs")
    assert near.backend_ == "compiled"


class MyLinear(nn.Linear):
    """Computes what its parent does."""


class Doubling(nn.Linear):
    """Computes something of its own."""

    def forward(self, x):
        return 2 * super().forward(x)


class MyNorm(nn.LayerNorm):
    """Computes what its parent does."""


def by_surgery(net, game, keep, X, y):
    """Mean log-likelihood of the network that is left."""
    module = remove_players(net.module_.eval(), game.players, ~keep)
    with torch.no_grad():
        outputs = module(torch.from_numpy(X)).log_softmax(1)
    return float(outputs[np.arange(len(y)), y].mean())


@pytest.mark.parametrize(
    ("layers", "players"),
    [
        ((nn.Linear(3, 6), nn.ReLU(), MyLinear(6, 2)), "neurons"),
        ((nn.Linear(3, 6), nn.ReLU(), MyLinear(6, 2)), [("weights", "2")]),
        ((nn.Linear(3, 6), nn.ReLU(), Doubling(6, 2)), "neurons"),
        ((MyLinear(3, 6), nn.ReLU(), nn.Linear(6, 2)), "inputs"),
        ((nn.Linear(3, 6), MyNorm(6), nn.ReLU(), nn.Linear(6, 2)), "neurons"),
        ((nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4), MyNorm(4)), "neurons"),
    ],
    ids=["reads", "weights", "own forward", "inputs", "norm", "norm behind"],
)
def test_layers_of_the_user_that_inherit_from_torch(layers, players):
    torch.manual_seed(0)
    X, y = data()
    params = {"criterion": nn.CrossEntropyLoss, "verbose": 0}
    net = NeuralNetClassifier(nn.Sequential(*layers), **params).initialize()
    game = CoalitionEvaluator(net, X, y, players=players, payoff="log_likelihood")
    coalitions = np.random.default_rng(1).random((6, game.n_players)) < 0.5
    coalitions[:, 0] = True
    expected = [by_surgery(net, game, keep, X, y) for keep in coalitions]
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(game(coalitions), expected, atol=1e-6)


def test_a_threshold_is_refused():
    X, y = data()
    module = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 1))
    net = NeuralNetBinaryClassifier(module, threshold=0.8, verbose=0).initialize()
    with pytest.raises(ValueError, match=r"threshold=0\.8; payoffs are played at 0\.5"):
        CoalitionEvaluator(net, X, y)


@pytest.mark.parametrize("last", [nn.Softmax(-1), nn.LogSoftmax(-1)])
def test_a_softmax_before_a_softmax_is_part_of_the_net(last):
    torch.manual_seed(0)
    X, y = data()
    module = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2), last)
    params = {"criterion": nn.CrossEntropyLoss, "verbose": 0}
    net = NeuralNetClassifier(module, **params).initialize()
    game = CoalitionEvaluator(net, X, y, payoff="log_likelihood")
    expected = np.log(net.predict_proba(X)[np.arange(len(y)), y]).mean()
    assert game(np.ones((1, 6), bool))[0] == pytest.approx(expected, abs=1e-6)
