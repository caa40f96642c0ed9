"""Small nets on small data, trained or not, for all tests of the evaluation."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn
from torch.nn import functional

from skprune.evaluation import Samples, split_module, task_of
from skprune.networks import find_players


class ResidualMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.out = nn.Linear(6, 8), nn.Linear(8, 3)
        self.up, self.down = nn.Linear(8, 7), nn.Linear(7, 8)

    def forward(self, x):
        h = functional.relu(self.stem(x))
        return self.out(h + self.down(functional.relu(self.up(h))))


class Concatenated(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 5)
        self.c, self.out = nn.Linear(15, 7), nn.Linear(7, 3)

    def forward(self, x):
        x = torch.cat([torch.tanh(self.a(x)), x, functional.relu(self.b(x))], dim=1)
        return self.out(torch.sigmoid(self.c(x)))


class TextBag(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(30, 8, mode="mean")
        self.fc1, self.fc2 = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, tokens):
        return self.fc2(functional.relu(self.fc1(self.bag(tokens))))


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(4, 6), nn.Linear(2, 6)
        self.out = nn.Linear(6, 3)

    def forward(self, left, right):
        return self.out(functional.relu(self.left(left) + self.right(right)))


class DataDependent(nn.Module):
    """A forward that `torch.fx` cannot trace."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(6, 9), nn.Linear(9, 3)

    def forward(self, x):
        h = functional.relu(self.hidden(x))
        if h.sum() > 1e9:
            h = -h
        return self.out(h)


def mlp(sizes=(6, 9, 7, 3), activation=nn.ReLU, *, bias=True, last=()):
    layers = []
    for n_inputs, n_outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(n_inputs, n_outputs, bias=bias), activation()]
    return nn.Sequential(*layers[:-1], *last)


def conv_net():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(20, 3),
    )


def norm_net():
    return nn.Sequential(nn.Linear(6, 9), nn.LayerNorm(9), nn.GELU(), nn.Linear(9, 3))


def make_net(
    module,
    kind="multiclass",
    *,
    n_samples=40,
    shape=(6,),
    seed=0,
    net_class=None,
    criterion=None,
    **parameters,
):
    """A net on random data, initialized but not trained."""
    torch.manual_seed(seed)
    for parameter in module.parameters():
        # Larger than the defaults, so that coalitions differ in what they answer.
        nn.init.normal_(parameter, std=0.6)
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_samples, *shape)).astype(np.float32)
    classes, default_criterion, y = {
        "multiclass": (
            NeuralNetClassifier,
            nn.CrossEntropyLoss,
            rng.integers(3, size=n_samples),
        ),
        "binary": (
            NeuralNetBinaryClassifier,
            nn.BCEWithLogitsLoss,
            rng.integers(2, size=n_samples),
        ),
        "regression": (
            NeuralNetRegressor,
            nn.MSELoss,
            rng.normal(size=(n_samples, 2)).astype(np.float32),
        ),
    }[kind]
    net = (net_class or classes)(
        module,
        criterion=criterion or default_criterion,
        **({"train_split": None, "verbose": 0, "max_epochs": 1} | parameters),
    ).initialize()
    return SimpleNamespace(net=net, module=net.module_, X=X, y=y)


def prepare(problem, players="neurons", n_samples=None):
    """Players, split, task and samples of a problem of `make_net`."""
    X, y = problem.X, problem.y
    example = torch.from_numpy(X[:2])
    players = find_players(problem.module, example, players)
    split = split_module(problem.module, players, example)
    task = task_of(problem.net)
    samples = Samples.of(problem.net, split, task, X, y)
    return SimpleNamespace(players=players, split=split, task=task, samples=samples)


@pytest.fixture(scope="session")
def zoo():
    """Modules and helpers, by name."""
    return SimpleNamespace(
        Concatenated=Concatenated,
        DataDependent=DataDependent,
        ResidualMLP=ResidualMLP,
        TextBag=TextBag,
        TwoInputs=TwoInputs,
        conv_net=conv_net,
        make_net=make_net,
        mlp=mlp,
        norm_net=norm_net,
        prepare=prepare,
    )
