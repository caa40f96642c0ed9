"""A net on a CUDA device plays and prunes as the same net on the CPU."""

import copy
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from skprune import CoalitionEvaluator, GTAPPruner

pytestmark = pytest.mark.cuda

ACTIVATIONS = [
    nn.Identity(),
    nn.ReLU(),
    nn.LeakyReLU(0.2),
    nn.ELU(),
    nn.GELU(),
    nn.SiLU(),
    nn.Tanh(),
    nn.Sigmoid(),
]


def on_both(module, X, y, net_class=NeuralNetClassifier, **parameters):
    """A net on the CPU, and the same on the device; Triton plays, without a warning."""
    pytest.importorskip("triton")
    criterion = nn.MSELoss if net_class is NeuralNetRegressor else nn.CrossEntropyLoss
    settings = {"criterion": criterion, "train_split": None, "verbose": 0}
    cpu = net_class(module, **settings, **parameters).initialize()
    if parameters:
        cpu.fit(X, y)
    cuda = copy.deepcopy(cpu).set_params(device="cuda")
    cuda.module_.to("cuda")
    return SimpleNamespace(cpu=cpu, cuda=cuda, X=X, y=y)


@pytest.fixture(scope="module")
def nets():
    X, y = load_digits(return_X_y=True)
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 10)
    )
    training = {"optimizer": torch.optim.Adam, "lr": 5e-3, "max_epochs": 10}
    return on_both(module, (X / 16).astype(np.float32), y, **training)


def games(nets, backend="auto", **parameters):
    """The same game on the CPU and on the device."""
    cpu = CoalitionEvaluator(nets.cpu, nets.X, nets.y, **parameters)
    cuda = CoalitionEvaluator(nets.cuda, nets.X, nets.y, backend=backend, **parameters)
    return cpu, cuda


def compare(cpu, cuda, tolerance, m=3):
    """Coalitions, walks and flips, of all blocks and of each."""
    rng, n = np.random.default_rng(0), cpu.n_players
    check = {"atol": tolerance, "rtol": 1e-4}
    coalitions = rng.random((m, n)) < 0.5
    np.testing.assert_allclose(cuda(coalitions), cpu(coalitions), **check)
    for n_blocks in (1, cpu.n_blocks):
        coalitions = rng.random((m, n_blocks, n)) < 0.5
        orders = rng.permuted(np.tile(np.arange(n), (m, n_blocks, 1)), axis=2)
        np.testing.assert_allclose(cuda.flip(coalitions), cpu.flip(coalitions), **check)
        np.testing.assert_allclose(cuda.walk(orders), cpu.walk(orders), **check)


@pytest.mark.parametrize("backend", ["triton", "batched"])
@pytest.mark.parametrize(
    "players",
    [
        "neurons",
        "inputs",
        [("neurons", "2")],
        [("neurons", "0")],
        [("inputs", "2"), ("neurons", "2")],
    ],
)
@pytest.mark.parametrize("payoff", ["accuracy", "log_likelihood"])
def test_players(nets, backend, players, payoff):
    cpu, cuda = games(nets, backend, players=players, payoff=payoff)
    # Rounding may decide for another class in a few of 1,797 samples.
    compare(cpu, cuda, 2e-3 if payoff == "accuracy" else 1e-4, m=2)


@pytest.mark.parametrize(
    "payoff", ["true_class_probability", "margin", "smoothed_accuracy"]
)
def test_payoffs(nets, payoff):
    cpu, cuda = games(nets, payoff=payoff)
    assert cuda.backend_ == "triton"
    compare(cpu, cuda, 2e-3)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_activations(activation):
    torch.manual_seed(1)
    layers = [nn.Linear(6, 70), activation, nn.Linear(70, 9), activation]
    module = nn.Sequential(*layers, nn.Linear(9, 3))
    X = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    nets = on_both(module, X, np.arange(50) % 3)
    cpu, cuda = games(nets, payoff="log_likelihood")
    assert cuda.backend_ == "triton"
    compare(cpu, cuda, 1e-5)


@pytest.mark.parametrize("hidden", [(7,), (5, 8)])
@pytest.mark.parametrize("n_outputs", [1, 3, 40, 1000])
@pytest.mark.parametrize("payoff", ["neg_mean_squared_error", "r2"])
def test_outputs(hidden, n_outputs, payoff):
    torch.manual_seed(1)
    sizes, layers = (6, *hidden, n_outputs), []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 6)), rng.normal(size=(40, n_outputs))
    module, X, y = nn.Sequential(*layers[:-1]), np.float32(X), np.float32(y)
    cpu, cuda = games(on_both(module, X, y, NeuralNetRegressor), payoff=payoff)
    assert cuda.backend_ == "triton"
    compare(cpu, cuda, 1e-4)


def test_dead_network_is_an_exact_tie(nets):
    dead = copy.deepcopy(nets)
    for net in (dead.cpu, dead.cuda):
        nn.init.zeros_(net.module_[4].bias)
        nn.init.constant_(net.module_[2].bias, -100)
    cpu, cuda = games(dead)
    coalitions = np.random.default_rng(0).random((4, cpu.n_players)) < 0.5
    np.testing.assert_array_equal(cuda(coalitions), cpu(coalitions))
    np.testing.assert_array_equal(cuda.flip(coalitions), 0)
    np.testing.assert_array_equal(cuda(coalitions), (nets.y == 0).mean())


@pytest.mark.parametrize("players", ["neurons", [("neurons", "2")]])
def test_no_chunk_changes_a_bit(nets, players):
    settings = {"players": players, "payoff": "log_likelihood", "backend": "triton"}
    games = [
        CoalitionEvaluator(nets.cuda, nets.X, nets.y, memory_budget=budget, **settings)
        for budget in (2**28, 2**16)
    ]
    rng, n = np.random.default_rng(0), games[0].n_players
    orders = rng.permuted(np.tile(np.arange(n), (5, games[0].n_blocks, 1)), axis=2)
    coalitions = rng.random((5, n)) < 0.5
    for play in (
        lambda game: game(coalitions),
        lambda game: game.walk(orders),
        lambda game: game.flip(coalitions),
    ):
        np.testing.assert_array_equal(*map(play, games))


def test_pruner_follows_the_device(nets):
    pruner = GTAPPruner(
        FrozenEstimator(nets.cuda), n_players_to_keep=12, random_state=0
    )
    pruner.fit(nets.X, nets.y)
    assert next(pruner.module_.parameters()).is_cuda
    assert pruner.score(nets.X, nets.y) > 0.8
