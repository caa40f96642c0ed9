"""Triton's payoffs against a plain forward pass in float64.

Where there is no CUDA device the kernels run in Triton's interpreter, on tensors of the
CPU; where there is one they are compiled for it.
"""

import os
import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from skprune.evaluation import CoalitionEvaluator
from skprune.evaluation import _triton_backend as backend_module
from skprune.evaluation._lane_math import ACTIVATIONS
from skprune.evaluation._lane_payoffs import PAYOFFS
from skprune.evaluation._payoffs import Task, resolve_payoff
from skprune.evaluation._tail import lay_out
from skprune.evaluation._triton_backend import TritonBackend
from skprune.exceptions import SkpruneWarning

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

if DEVICE.type == "cpu" and "triton" in sys.modules:
    # It is interpreted from its first import on, or not at all.
    pytest.skip("Triton was loaded to compile", allow_module_level=True)
with pytest.MonkeyPatch.context() as patch:
    if DEVICE.type == "cpu":
        patch.setenv("TRITON_INTERPRET", "1")
    pytest.importorskip("triton")
    backend_module._kernels()

LANES = 16


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    if DEVICE.type == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")


FUNCTIONS = {
    "identity": lambda x: x,
    "relu": functional.relu,
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.2),
    "elu": lambda x: functional.elu(x, 0.7),
    "gelu": functional.gelu,
    "silu": functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
PARAMETERS = {"leaky_relu": ("leaky_relu", 0.2), "elu": ("elu", 0.7)}


class PlainTail:
    """A masked forward pass, one coalition at a time."""

    def __init__(self, X, weights, biases, activation, owners, targets, payoff):
        self.X, self.weights, self.biases = X, weights, biases
        self.activation, self.owners = activation, owners
        self.targets, self.payoff = targets, payoff
        self.n_players = int(max(own.max(initial=-1) for own in owners)) + 1
        self.n_blocks = -(-len(X) // LANES)

    def backend(self, memory_budget=2**20):
        activations = [PARAMETERS.get(self.activation, self.activation)]
        tail = lay_out(
            self.X,
            self.weights,
            self.biases,
            activations * (len(self.weights) - 1),
            self.owners,
            self.n_players,
            self.targets,
            self.payoff,
        )
        return TritonBackend(tail, 0.0, DEVICE, memory_budget)

    def per_sample(self, coalition):
        hidden = torch.from_numpy(self.X).double()
        for layer, weight in enumerate(self.weights):
            there = np.append(coalition, True)[self.owners[layer]]
            hidden = torch.where(torch.from_numpy(there), hidden, 0.0)
            hidden = hidden @ torch.from_numpy(weight).double().T
            if self.biases[layer] is not None:
                hidden = hidden + torch.from_numpy(self.biases[layer])
            if layer < len(self.weights) - 1:
                hidden = FUNCTIONS[self.activation](hidden)
        kind = "multiclass" if hidden.shape[1] > 1 else "binary"
        if self.payoff == "neg_mean_squared_error":
            kind = "regression"
        targets = torch.from_numpy(self.targets)
        payoff = resolve_payoff(self.payoff, Task(kind, None), targets)
        return payoff.per_sample(hidden, targets).numpy()

    def block_sums(self, coalition):
        edges = np.arange(0, len(self.X), LANES)
        return np.add.reduceat(self.per_sample(coalition), edges)

    def payoffs(self, coalitions):
        return np.array([self.per_sample(one).mean() for one in coalitions])

    def walk(self, start, free, orders):
        out = np.zeros((len(orders), len(free)))
        for index, own in np.ndindex(orders.shape[:2]):
            coalition = start.copy()
            coalition[free] = False
            before = self.block_sums(coalition)
            for at in orders[index, own]:
                coalition[free[at]] = True
                now = self.block_sums(coalition)
                out[index, at] += self._mean(now - before, own, orders.shape[1])
                before = now
        return out

    def flip(self, free, coalitions):
        out = np.zeros((len(coalitions), len(free)))
        for index, own in np.ndindex(coalitions.shape[:2]):
            for at, player in enumerate(free):
                with_it, without = coalitions[index, own].copy(), coalitions[index, own]
                without = without.copy()
                with_it[player], without[player] = True, False
                change = self.block_sums(with_it) - self.block_sums(without)
                out[index, at] += self._mean(change, own, coalitions.shape[1])
        return out

    def _mean(self, sums, own, n_own):
        return (sums[own] if n_own > 1 else sums.sum()) / len(self.X)


def random_tail(rng, widths, activation, payoff, n_samples, kind="units"):
    """A random network whose players own one column each, or several, or none."""
    weights = [
        (rng.normal(size=(n_out, n_in)) * 2 / np.sqrt(n_in)).astype(np.float32)
        for n_in, n_out in pairwise(widths)
    ]
    biases = [rng.normal(size=n_out).astype(np.float32) for n_out in widths[1:]]
    owners, n_players = [], 0
    for width in widths[:-1]:
        own = np.arange(width) if kind == "units" else np.arange(width) // 3
        if kind == "groups" and width > 1:
            own[-1] = -1
        owners.append(np.where(own >= 0, own + n_players, -1))
        n_players = max(n_players, owners[-1].max() + 1)
    X = rng.normal(size=(n_samples, widths[0])).astype(np.float32)
    targets = rng.integers(max(2, widths[-1]), size=n_samples)
    if payoff == "neg_mean_squared_error":
        targets = rng.normal(size=(n_samples, widths[-1])).astype(np.float32)
    return PlainTail(X, weights, biases, activation, owners, targets, payoff)


def compare(plain, rng, m=1, n_free=None):
    """Play coalitions, walks and flips on both."""
    backend, n_players = plain.backend(), plain.n_players
    own = int(rng.choice([1, plain.n_blocks]))
    coalitions = rng.random((m, own, n_players)) < 0.3
    # In every layer someone is there, and mostly someone is not.
    coalitions[..., 1::2] = True
    exact = plain.payoff == "accuracy"
    check = {"rtol": 0, "atol": 1e-12} if exact else {"rtol": 1e-5, "atol": 5e-5}
    np.testing.assert_allclose(
        backend.payoffs(coalitions[:, 0]), plain.payoffs(coalitions[:, 0]), **check
    )
    free = rng.permutation(n_players)[:n_free]
    start = rng.random(n_players) < 0.5
    orders = rng.permuted(np.tile(np.arange(len(free)), (m, own, 1)), axis=2)
    np.testing.assert_allclose(
        backend.walk(start, free, orders), plain.walk(start, free, orders), **check
    )
    np.testing.assert_allclose(
        backend.flip(free, coalitions), plain.flip(free, coalitions), **check
    )


@pytest.mark.parametrize("payoff", sorted(PAYOFFS))
@pytest.mark.parametrize("widths", [(5,), (3, 4), (2, 4, 3)])
def test_payoffs(payoff, widths):
    rng = np.random.default_rng(len(widths))
    for n_outputs, kind in ((1, "units"), (3, "groups")):
        plain = random_tail(rng, [*widths, n_outputs], "relu", payoff, 19, kind)
        compare(plain, rng, n_free=4)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_activations(activation):
    rng = np.random.default_rng(7)
    assert set(FUNCTIONS) == set(ACTIVATIONS)
    compare(random_tail(rng, [3, 4, 3], activation, "margin", 17), rng)
    # Of the layers before the game, which torch computes.
    plain = random_tail(rng, [3, 4, 3], activation, "margin", 17)
    last, start = np.arange(3, 7), np.array([True, False, True] + [False] * 4)
    orders = rng.permutation(4)[None, None]
    np.testing.assert_allclose(
        plain.backend().walk(start, last, orders),
        plain.walk(start, last, orders),
        atol=5e-5,
    )


@pytest.mark.parametrize(
    "widths", [(4, 17), (3, 1000), (2, 3, 70), (2, 70, 2), (9, 3, 2), (20, 3)]
)
@pytest.mark.parametrize("payoff", ["accuracy", "log_likelihood"])
def test_wide_layers(widths, payoff):
    """More units and classes than a tile has, and trees of more than a level or two."""
    rng = np.random.default_rng(11)
    compare(random_tail(rng, list(widths), "relu", payoff, 16), rng, n_free=9)


@pytest.mark.parametrize("widths", [(7, 4), (4, 5, 3)])
def test_ties_are_exact(widths):
    """Small whole numbers: sums are exact in every order, and ties are frequent."""
    rng = np.random.default_rng(3)
    plain = random_tail(rng, list(widths), "relu", "accuracy", 32)
    plain.X = rng.integers(-1, 2, size=plain.X.shape).astype(np.float32)
    plain.biases = [None] * len(plain.biases)
    for layer, weight in enumerate(plain.weights):
        draw = rng.integers(-1, 2, size=weight.shape).astype(np.float32)
        plain.weights[layer] = draw * (rng.random(weight.shape) < 0.5)
    compare(plain, rng)


@pytest.mark.parametrize("widths", [(6, 3), (4, 5, 3)])
def test_dead_network_is_a_tie_that_class_0_wins(widths):
    rng = np.random.default_rng(0)
    plain = random_tail(rng, list(widths), "relu", "accuracy", 18)
    plain.targets = np.array([0] * 5 + [1] * 10 + [2] * 3)
    plain.biases = [None] * len(plain.biases)
    plain.X = -np.abs(plain.X)
    plain.weights[0] = np.abs(plain.weights[0]) * (len(widths) > 2)
    backend, everyone = plain.backend(), np.arange(plain.n_players)
    coalitions = rng.random((2, plain.n_players)) < 0.5
    np.testing.assert_allclose(backend.payoffs(coalitions), 5 / 18)
    marginals = backend.flip(everyone, coalitions[:, None])
    np.testing.assert_array_equal(marginals, 0)


@pytest.mark.parametrize("widths", [(4, 3), (2, 4, 3)])
def test_the_last_player_leaves_exactly_the_biases(widths):
    """Leaving out is not subtracting: rounding must not break the tie that remains."""
    rng = np.random.default_rng(5)
    plain = random_tail(rng, list(widths), "relu", "accuracy", 16)
    plain.biases = [None] * len(plain.biases)
    alone = np.eye(plain.n_players, dtype=bool)[:, None]
    everyone = np.arange(plain.n_players)
    np.testing.assert_allclose(
        plain.backend().flip(everyone, alone), plain.flip(everyone, alone), atol=1e-12
    )


@pytest.mark.parametrize("where", ["own", "other", "input"])
def test_nan_is_never_right(where):
    rng = np.random.default_rng(2)
    plain = random_tail(rng, [4, 3], "relu", "accuracy", 20)
    plain.biases = [np.array([0, 100, 0], dtype=np.float32)]
    plain.targets = np.ones(20, dtype=int)
    if where == "input":
        plain.X[:, 0] = np.nan
    else:
        plain.weights[0][1 if where == "own" else 2, 0] = np.nan
    backend, order = plain.backend(), np.arange(4)
    marginals = backend.walk(np.zeros(4, dtype=bool), order, order[None, None])
    np.testing.assert_array_equal(marginals, [[-1, 0, 0, 0]])
    coalitions = np.array([[False, True, True, True], [True, False, False, False]])
    np.testing.assert_array_equal(backend.payoffs(coalitions), [1, 0])
    flips = backend.flip(order, coalitions[:, None])
    np.testing.assert_array_equal(flips[:, 0], [-1, -1])


@pytest.mark.parametrize("widths", [(5, 3), (2, 2, 3)])
def test_neither_chunks_nor_programs_change_a_bit(widths):
    rng = np.random.default_rng(1)
    plain = random_tail(rng, list(widths), "relu", "log_likelihood", 20)
    whole, cut = plain.backend(), plain.backend(memory_budget=1)
    cut._warps = 1
    free, start = np.arange(plain.n_players), np.zeros(plain.n_players, dtype=bool)
    orders = rng.permuted(np.tile(free, (3, 2, 1)), axis=2)
    coalitions = rng.random((3, 2, plain.n_players)) < 0.5
    for one, many in (
        (whole.payoffs(coalitions[:, 0]), cut.payoffs(coalitions[:, 0])),
        (whole.walk(start, free, orders), cut.walk(start, free, orders)),
        (whole.flip(free, coalitions), cut.flip(free, coalitions)),
    ):
        np.testing.assert_array_equal(one, many)


def test_a_device_without_memory_gets_smaller_chunks(monkeypatch):
    rng = np.random.default_rng(1)
    plain = random_tail(rng, [5, 3], "relu", "margin", 40)
    backend, sizes, tensor = plain.backend(), [], plain.backend().tail.tensor

    def limited(rows, dtype=None):
        if np.ndim(rows) == 3:
            sizes.append(len(rows))
            if len(rows) > 1:
                raise torch.OutOfMemoryError
        return tensor(rows, dtype)

    monkeypatch.setattr(backend.tail, "tensor", limited)
    coalitions = rng.random((3, 1, 5)) < 0.5
    played = backend.flip(np.arange(5), coalitions)
    assert sizes[0] == 3
    assert sizes[-3:] == [1, 1, 1]
    np.testing.assert_allclose(played, plain.flip(np.arange(5), coalitions), atol=5e-5)
    monkeypatch.setattr(backend, "memory_budget", 1)
    monkeypatch.setattr(backend.tail, "tensor", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        backend.flip(np.arange(5), coalitions)


def test_nothing_asked_is_nothing_answered():
    plain = random_tail(np.random.default_rng(0), [3, 2], "relu", "margin", 5)
    backend, nothing = plain.backend(), np.zeros((0, 1, 3), dtype=bool)
    assert backend.payoffs(nothing[:, 0]).shape == (0,)
    assert backend.flip(np.arange(3), nothing).shape == (0, 3)
    nobody, start = np.zeros(0, dtype=int), np.ones(3, dtype=bool)
    orders = np.zeros((2, 1, 0), dtype=int)
    assert backend.walk(start, nobody, orders).shape == (2, 0)


def evaluators(zoo, sizes, kind="multiclass", **parameters):
    """The same game, played by Triton and by masked forward passes."""
    problem = zoo.make_net(zoo.mlp(sizes), kind, n_samples=15, device=str(DEVICE))
    return [
        CoalitionEvaluator(
            problem.net, problem.X, problem.y, backend=backend, **parameters
        )
        for backend in ("triton", "batched")
    ]


@pytest.mark.parametrize(
    ("sizes", "kind", "parameters"),
    [
        ((6, 3, 3), "multiclass", {"payoff": "smoothed_accuracy"}),
        ((6, 4, 1), "binary", {"payoff": "log_likelihood"}),
        ((6, 3, 2), "regression", {"payoff": "r2"}),
        ((6, 3, 3), "multiclass", {"players": "inputs", "payoff": "margin"}),
        ((6, 3, 2, 3), "multiclass", {"players": [("inputs", "2"), ("neurons", "2")]}),
    ],
)
def test_evaluator_plays_as_any_other(zoo, sizes, kind, parameters):
    game, plain = evaluators(zoo, sizes, kind, **parameters)
    assert game.backend_ == "triton"
    rng = np.random.default_rng(0)
    coalitions = rng.random((3, game.n_players)) < 0.5
    orders = rng.permutation(game.n_players)[None]
    check = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(game(coalitions), plain(coalitions), **check)
    np.testing.assert_allclose(game.walk(orders), plain.walk(orders), **check)
    np.testing.assert_allclose(
        game.flip(coalitions[:1]), plain.flip(coalitions[:1]), **check
    )
    inside = np.arange(game.n_players) == 0
    some, same = game.restrict(always_in=inside), plain.restrict(always_in=inside)
    orders = rng.permutation(some.n_players)[None]
    np.testing.assert_allclose(some.walk(orders), same.walk(orders), **check)


def fit(zoo, device="cuda", n_outputs=3, required=False, payoff="margin"):
    """What the backend says to a chain of layers said to be on a device."""
    prepared = zoo.prepare(zoo.make_net(zoo.mlp((6, 4, n_outputs))))
    feature = SimpleNamespace(device=torch.device(device), ndim=2, dtype=torch.float32)
    per_sample = None if payoff == "f1_macro" else abs
    os.environ.pop("TRITON_INTERPRET", None)  # which `interpreted` restores
    return TritonBackend.fitting(
        prepared.split,
        [feature],
        None,
        SimpleNamespace(name=payoff, per_sample=per_sample),
        None,
        required=required,
    )


def test_a_fallback_on_a_gpu_says_why(zoo, monkeypatch):
    with pytest.warns(SkpruneWarning, match="cuda by masked.*1025 outputs"):
        assert fit(zoo, n_outputs=1025) is None

    def fail(*_):
        raise RuntimeError("PassManager::run failed\nand more")

    monkeypatch.setattr(backend_module, "tail_of_chain", lambda *_: (None, 0.0))
    monkeypatch.setattr(TritonBackend, "__init__", fail)
    with pytest.warns(SkpruneWarning, match="with RuntimeError: PassManager"):
        assert fit(zoo) is None
    monkeypatch.setattr(backend_module, "_kernels", lambda: __import__("no_triton"))
    monkeypatch.setattr(TritonBackend, "__init__", lambda *_: backend_module._kernels())
    with pytest.warns(SkpruneWarning, match="Triton cannot be imported"):
        assert fit(zoo) is None


def test_wrong_payoffs_are_no_payoffs(zoo, monkeypatch):
    monkeypatch.setattr(backend_module, "tail_of_chain", lambda *_: (None, 0.0))

    def start(backend, *_):
        backend.n_samples = 1000

    monkeypatch.setattr(TritonBackend, "__init__", start)
    monkeypatch.setattr(TritonBackend, "largest_error", lambda *_: 0.25)
    with pytest.warns(SkpruneWarning, match="wrong here by 0.25"):
        assert fit(zoo) is None
    monkeypatch.setattr(TritonBackend, "largest_error", lambda *_: 1e-4)
    assert fit(zoo).n_samples == 1000


def test_errors_count_what_is_not_a_number():
    difference = backend_module._difference
    one = np.array([1.0, np.nan, np.inf])
    assert difference(one, one) == 0
    assert difference(np.array([1.0, 0.0, np.inf]), one) == np.inf
    assert difference(np.array([1.5, np.nan, np.inf]), one) == 0.25


def test_nothing_is_said_where_no_triton_was_expected(zoo):
    assert fit(zoo, device="cpu") is None
    assert fit(zoo, payoff="f1_macro") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": "cpu"}, "on the device 'cpu', and not on 'cuda'"),
        ({"payoff": "f1_macro"}, "payoff='f1_macro'.*means over samples"),
        ({"n_outputs": 1025}, "1025 outputs"),
    ],
)
def test_a_backend_that_is_asked_for_and_cannot_play_is_an_error(zoo, change, message):
    with pytest.raises(ValueError, match=f"backend='triton' cannot play.*{message}"):
        fit(zoo, required=True, **change)


def test_other_features_are_refused_by_name(zoo):
    split = zoo.prepare(zoo.make_net(zoo.mlp((6, 4, 3)))).split
    links, X = backend_module.linear_chain(split), torch.zeros(5, 4, device=DEVICE)
    accuracy = resolve_payoff("accuracy", Task("multiclass", None), torch.zeros(5))

    def fault(features):
        return backend_module._fault(links, split, [features], accuracy)

    assert fault(X) is None
    assert "torch.float16" in fault(X.half())
    assert "shape (5, 1, 4)" in fault(X[:, None])
