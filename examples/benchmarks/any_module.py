"""The backend for any module against the plain loop, for calls, walks and flips.

The plain loop runs the whole network once for every coalition, under masks. Each
repetition times both in turn, in CPU time of the process, on one thread; the ratio is
the median of the repetitions' ratios. Above 1 the library is faster. A walk and a flip
are played with one order or coalition for each block of 16 samples, and once more
with one for all samples.

    python examples/benchmarks/any_module.py [--repeats 5] [--networks ...]
        [--json FILE]
"""

import argparse
import json
import platform
import time

import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn import functional

from skprune.evaluation import CoalitionEvaluator
from skprune.networks import masked
from skprune.samplers import bernoulli_coalitions, uniform_orders

N_SAMPLES = [256, 2000]
N_CALLS, N_WALKS = 100, 8
PLAYS = ["call", "walk", "walk, blocks", "flip", "flip, blocks"]


def cnn():
    """Two convolutions and two Linear layers on images of 16 x 16."""
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    players = [("filters", "0"), ("filters", "3"), ("neurons", "7")]
    return module, lambda rng, n: floats(rng, n, 1, 16, 16), players


class ResidualMLP(nn.Module):
    def __init__(self, width=128, inner=128):
        super().__init__()
        self.stem, self.out = nn.Linear(64, width), nn.Linear(width, 10)
        self.up1, self.down1 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.up2, self.down2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x):
        h = functional.relu(self.stem(x))
        h = h + self.down1(functional.relu(self.up1(h)))
        h = h + self.down2(functional.relu(self.up2(h)))
        return self.out(h)


def residual():
    """Two residual blocks; the units of the sum are players too."""
    return ResidualMLP(), lambda rng, n: floats(rng, n, 64), "neurons"


class EncoderLayer(nn.Module):
    def __init__(self, width=32, inner=64, n_heads=4):
        super().__init__()
        self.n_heads = n_heads
        self.embedding = nn.Embedding(500, width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.mix = nn.Linear(width, width), nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inner, self.back = nn.Linear(width, inner), nn.Linear(inner, width)
        self.out = nn.Linear(width, 10)

    def forward(self, tokens):
        h = self.embedding(tokens)
        q, k, v = (
            self._heads(layer(h)) for layer in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v)
        h = self.norm1(h + self.mix(mixed.transpose(1, 2).flatten(2)))
        h = self.norm2(h + self.back(functional.gelu(self.inner(h))))
        return self.out(h.mean(dim=1))

    def _heads(self, x):
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)


def encoder():
    """A transformer's encoder layer; its feed-forward neurons play."""
    return EncoderLayer(), lambda rng, n: tokens(rng, n, 12), [("neurons", "inner")]


class TextBag(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(5000, 64, mode="mean")
        self.fc1, self.fc2 = nn.Linear(64, 128), nn.Linear(128, 64)
        self.out = nn.Linear(64, 10)

    def forward(self, tokens):
        h = functional.relu(self.fc1(self.bag(tokens)))
        return self.out(functional.relu(self.fc2(h)))


def text():
    """A bag of embedded words and two hidden layers."""
    return TextBag(), lambda rng, n: tokens(rng, n, 40, 5000), "neurons"


class ResidualCNN(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv1, self.norm1 = self._conv(width), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = self._conv(width), nn.BatchNorm2d(width)
        self.out = nn.Linear(width, 10)

    def forward(self, x):
        h = functional.relu(self.norm(self.stem(x)))
        inner = functional.relu(self.norm1(self.conv1(h)))
        h = functional.relu(h + self.norm2(self.conv2(inner)))
        return self.out(h.mean((2, 3)))

    def _conv(self, width):
        return nn.Conv2d(width, width, 3, padding=1, bias=False)


def residual_cnn():
    """A residual block with batch normalization."""
    return ResidualCNN(), lambda rng, n: floats(rng, n, 1, 12, 12), "filters"


def layer_norm():
    """Two hidden layers, each normalized over the neurons that are present."""
    module = nn.Sequential(
        nn.Linear(64, 128), nn.LayerNorm(128), nn.GELU(),
        nn.Linear(128, 128), nn.LayerNorm(128), nn.GELU(), nn.Linear(128, 10),
    )  # fmt: skip
    return module, lambda rng, n: floats(rng, n, 64), "neurons"


NETWORKS = {
    "CNN": cnn,
    "residual CNN": residual_cnn,
    "residual MLP": residual,
    "layer norm": layer_norm,
    "encoder": encoder,
    "text": text,
}


def floats(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def tokens(rng, n, length, n_words=500):
    return rng.integers(n_words, size=(n, length))


class PlainLoop:
    """One masked forward pass of the whole network for every coalition."""

    def __init__(self, module, players, X, y):
        self.module, self.players = module.eval(), players
        self.X, self.y = torch.from_numpy(X), torch.from_numpy(y)

    def payoff(self, coalition):
        with masked(self.module, self.players, coalition), torch.no_grad():
            answers = self.module(self.X).argmax(1)
        return (answers == self.y).double().mean().item()

    def call(self, coalitions):
        return np.array([self.payoff(coalition) for coalition in coalitions])

    def walk(self, orders):
        marginals = np.empty(orders.shape)
        for own, order in zip(marginals, orders, strict=True):
            present = np.zeros(len(order), dtype=bool)
            before = self.payoff(present)
            for player in order:
                present[player] = True
                after = self.payoff(present)
                own[player], before = after - before, after
        return marginals

    def flip(self, coalitions):
        marginals = np.empty(coalitions.shape)
        for own, coalition in zip(marginals, coalitions, strict=True):
            center = self.payoff(coalition)
            for player, present in enumerate(coalition):
                flipped = coalition.copy()
                flipped[player] ^= True
                gain = self.payoff(flipped) - center
                own[player] = -gain if present else gain
        return marginals


def problem(make, n_samples):
    """A game on an untrained network, and its plain loop."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    module, draw, players = make()
    X, y = draw(rng, n_samples), rng.integers(10, size=n_samples)
    net = NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, train_split=None, verbose=0
    ).initialize()
    game = CoalitionEvaluator(net, X, y, players=players, backend="batched")
    return game, PlainLoop(net.module_, game.players, X, y)


def plays_of(game, plain):
    """Pairs of functions by name, and how often the first plays what the second does.

    Scorers ask for many walks and flips at once; the loop takes them one by one, so
    that one of them tells its price.
    """
    rng, n = np.random.default_rng(1), game.n_players
    coalitions = bernoulli_coalitions(n, N_CALLS, rng)
    around = bernoulli_coalitions(n, N_WALKS, rng)
    own_around = bernoulli_coalitions(n, N_WALKS, rng, n_blocks=game.n_blocks)
    orders = uniform_orders(n, N_WALKS, rng)
    own_orders = uniform_orders(n, N_WALKS, rng, n_blocks=game.n_blocks)
    return {
        "call": (lambda: game(coalitions), lambda: plain.call(coalitions[::5]), 5),
        "walk": (lambda: game.walk(orders), lambda: plain.walk(orders[:1]), N_WALKS),
        "walk, blocks": (
            lambda: game.walk(own_orders),
            lambda: plain.walk(orders[:1]),
            N_WALKS,
        ),
        "flip": (lambda: game.flip(around), lambda: plain.flip(around[:1]), N_WALKS),
        "flip, blocks": (
            lambda: game.flip(own_around),
            lambda: plain.flip(around[:1]),
            N_WALKS,
        ),
    }


def seconds_of(function):
    start = time.process_time()
    function()
    return time.process_time() - start


def compare(ours, plain, times, repeats):
    """Median seconds of both, and the median of their ratios."""
    pairs = np.array([(seconds_of(ours), seconds_of(plain)) for _ in range(repeats)])
    pairs[:, 1] *= times
    ours, plain = np.median(pairs, axis=0)
    ratio = np.median(pairs[:, 1] / pairs[:, 0])
    return {"seconds": ours, "plain_seconds": plain, "ratio": ratio}


def main(repeats, path, names):
    torch.set_num_threads(1)
    print(f"{platform.machine()}, torch {torch.__version__}, one thread")
    print(f"{'':14}{'samples':>8}{'players':>8}" + "".join(f"{p:>14}" for p in PLAYS))
    rows = []
    for name in names or NETWORKS:
        for n_samples in N_SAMPLES:
            game, plain = problem(NETWORKS[name], n_samples)
            row = {"network": name, "samples": n_samples, "players": game.n_players}
            for play, pair in plays_of(game, plain).items():
                row[play] = compare(*pair, repeats)
            rows.append(row)
            cells = "".join(f"{row[play]['ratio']:14.2f}" for play in PLAYS)
            print(f"{name:14}{n_samples:8}{game.n_players:8}{cells}", flush=True)
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", help="write the numbers to this file")
    parser.add_argument("--networks", nargs="*", choices=NETWORKS)
    options = parser.parse_args()
    main(options.repeats, options.json, options.networks)
