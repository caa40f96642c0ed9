"""A net on a CUDA device plays and prunes as the same net on the CPU."""

import copy

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn

from skprune import CoalitionEvaluator, GTAPPruner

pytestmark = pytest.mark.cuda


@pytest.fixture(scope="module")
def nets():
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 10)
    )
    cpu = NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=5e-3,
        max_epochs=10,
        verbose=0,
    ).fit(X, y)
    cuda = copy.deepcopy(cpu).set_params(device="cuda")
    cuda.module_.to("cuda")
    return cpu, cuda, X, y


@pytest.mark.parametrize("payoff", ["accuracy", "log_likelihood", "margin"])
def test_payoffs_agree(nets, payoff):
    cpu, cuda, X, y = nets
    on_cpu = CoalitionEvaluator(cpu, X, y, payoff=payoff)
    on_cuda = CoalitionEvaluator(cuda, X, y, payoff=payoff)
    coalitions = np.random.default_rng(0).random((20, 36)) < 0.5
    tolerance = 2e-3 if payoff == "accuracy" else 1e-4
    np.testing.assert_allclose(
        on_cuda(coalitions), on_cpu(coalitions), atol=tolerance, rtol=1e-4
    )
    np.testing.assert_allclose(
        on_cuda.flip(coalitions[:2]), on_cpu.flip(coalitions[:2]), atol=tolerance
    )


def test_pruner_follows_the_device(nets):
    _, cuda, X, y = nets
    pruner = GTAPPruner(FrozenEstimator(cuda), n_players_to_keep=12, random_state=0)
    pruner.fit(X, y)
    assert next(pruner.module_.parameters()).is_cuda
    assert pruner.score(X, y) > 0.8
