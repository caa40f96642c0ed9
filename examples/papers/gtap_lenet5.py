"""GTAP on MNIST: the figures of arXiv:2311.10468, and ours beside them.

For LeNet5 (the 400 inputs of fc1 and the neurons of fc1 and fc2 are players) and
LeNet-300-100 (all hidden neurons), and several seeds, prints test accuracies at a
twentieth, a tenth, .225 and .4 of the players for

- the paper's game (accuracy of sub-networks, no repair): Top-n, Iterated Pruning and
  Iterated Building, then with swaps, then with local search;
- the baselines random, weight norm, weight x gradient and Taylor, as they are and with
  the same closed-form repair;
- GTAPPruner with its defaults (reconstruction game and repair), a fit for each size.

Searches see training images only: 50,000 train the network and feed repairs, 10,000 are
the validation set, of which the first 4,000 play the games of accuracy. Test images are
for the table.

    SKPRUNE_DATA=DIR python examples/papers/gtap_lenet5.py [--seeds 0 1 2 3 4]
        [--networks ...] [--quick] [--output gtap_output]

Seven minutes a network and seed on one core; --no-games leaves the first item out.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch
from _baselines import MaskBench
from _mnist import load_mnist
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier

import skprune
from skprune import CoalitionEvaluator, GTAPPruner
from skprune.evaluation import (
    critical_size,
)
from skprune.scorers import BiasedBanzhafScorer, ShapleyScorer
from skprune.strategies import (
    IteratedBuilding,
    IteratedLocalSearch,
    IteratedPruning,
    SwapRefinement,
    TopN,
)

FRACTIONS = [0.05, 0.1, 0.225, 0.4]
PAPER_AT_CRITICAL_SIZE = {
    "Top-n, biased Banzhaf": 0.585,
    "Iterated Pruning, Shapley, 20 a step": 0.871,
    "Iterated Building, biased Banzhaf": 0.916,
}
BASELINES = ("random", "weight norm", "weight x gradient", "Taylor")
# Samples on which accuracy games are played; fewer overfit the search.
N_GAME = 4000
# Flips or walks that score the players in one step of a search.
PER_STEP = 4


class LeNet5(torch.nn.Module):
    """Two convolutions and three linear layers."""

    players = (("inputs", "fc1"), ("neurons", "fc1"), ("neurons", "fc2"))

    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = torch.nn.Conv2d(6, 16, 5)
        self.fc1 = torch.nn.Linear(400, 120)
        self.fc2 = torch.nn.Linear(120, 84)
        self.fc3 = torch.nn.Linear(84, 10)

    def forward(self, x):
        x = torch.nn.functional.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = torch.nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        x = torch.relu(self.fc1(x.flatten(1)))
        return self.fc3(torch.relu(self.fc2(x)))


class LeNet300100(torch.nn.Module):
    """Two hidden layers of 300 and 100."""

    players = (("neurons", "fc1"), ("neurons", "fc2"))

    def __init__(self):
        super().__init__()
        self.fc1 = torch.nn.Linear(784, 300)
        self.fc2 = torch.nn.Linear(300, 100)
        self.fc3 = torch.nn.Linear(100, 10)

    def forward(self, x):
        x = torch.relu(self.fc1(x.flatten(1)))
        return self.fc3(torch.relu(self.fc2(x)))


NETWORKS = {"LeNet5": LeNet5, "LeNet-300-100": LeNet300100}


def train(network, X, y, seed, epochs):
    """A trained skorch net; a plain loop, because skorch collates sample by sample."""
    torch.manual_seed(seed)
    module = network()
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    steps = -(-len(X) // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, total_steps=epochs * steps
    )
    for _ in range(epochs):
        for batch in torch.randperm(len(X)).split(128):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(X[batch]), y[batch]).backward()
            optimizer.step()
            schedule.step()
    net = NeuralNetClassifier(module, criterion=torch.nn.CrossEntropyLoss, verbose=0)
    net.initialize()
    net.classes_inferred_ = np.arange(10)
    return net


class Bench(MaskBench):
    """A trained net with its games of accuracy."""

    def __init__(self, net, network, data):
        X, y, X_val, y_val, X_test, y_test = data
        spec = list(network.players)
        parts = (X, y), (X_val, y_val), (X_test, y_test)
        super().__init__(net, *parts, FRACTIONS, spec)
        some = (net, X_val[:N_GAME], y_val[:N_GAME])
        games = {"players": self.players}
        self.game = CoalitionEvaluator(*some, **games)
        self.smooth = CoalitionEvaluator(*some, payoff="smoothed_accuracy", **games)
        self.small = CoalitionEvaluator(net, X_val[:1000], y_val[:1000], **games)


def paper_games(bench, seed):
    """Yield (method, masks, seconds for all sizes) for the paper's game."""
    n = bench.players.n_players
    start = time.perf_counter()
    critical = critical_size(bench.small, n_subnetworks=32, random_state=seed)
    print(
        f"  MCUE: t* = {critical.elimination:.3f}, d = {critical.fraction:.3f}, "
        f"(1 - t*)^2 = {critical.surviving_fraction:.3f}"
        f" ({time.perf_counter() - start:.1f} s)"
    )
    shapley = ShapleyScorer(
        method="sampling", n_evaluations=PER_STEP * n + 2, random_state=seed
    )
    banzhaf = BiasedBanzhafScorer(
        critical.surviving_fraction,
        sampler="flips",
        method="sampling",
        n_evaluations=PER_STEP * n,
        random_state=seed,
    )
    many = {"n_evaluations": 40 * n + 2}
    searches = [
        ("Top-n, Shapley", TopN(), clone_with(shapley, **many)),
        ("Top-n, biased Banzhaf", TopN(), clone_with(banzhaf, **many)),
        ("Iterated Pruning, Shapley, 20 a step", IteratedPruning(step=20), shapley),
        ("Iterated Building, biased Banzhaf", IteratedBuilding(), banzhaf),
    ]
    for name, search, scorer in searches:
        start = time.perf_counter()
        path = search.search(bench.game, scorer, bench.sizes, **bench.floors)
        seconds = time.perf_counter() - start
        yield name, list(path.masks), seconds
        start = time.perf_counter()
        swapped = [refined(SwapRefinement(), bench, mask) for mask in path.masks]
        yield f"{name}, swaps", swapped, seconds + time.perf_counter() - start
    local = IteratedLocalSearch(n_restarts=4, random_state=seed)
    searched = [refined(local, bench, mask) for mask in swapped]
    name = "Iterated Building, swaps, local search"
    yield name, searched, seconds + time.perf_counter() - start


def refined(refinement, bench, mask):
    """A better coalition of the same size."""
    return refinement.refine(bench.smooth, mask, **bench.floors)[0]


def clone_with(scorer, **parameters):
    """A copy of a scorer with other parameters."""
    return clone(scorer).set_params(**parameters)


def defaults(bench, data, seed):
    """Test accuracy and seconds of GTAPPruner's defaults, one fit for each size."""
    X, y, X_val, y_val, X_test, y_test = data
    accuracies, seconds = [], []
    for size in bench.sizes:
        pruner = GTAPPruner(
            FrozenEstimator(bench.net),
            n_players_to_keep=size,
            players=bench.spec,
            random_state=seed,
        )
        start = time.perf_counter()
        pruner.fit(X, y, X_val=X_val, y_val=y_val)
        seconds.append(time.perf_counter() - start)
        accuracies.append(pruner.score(X_test, y_test))
    return accuracies, seconds


def run(name, seed, data, epochs, games, table, times):
    """All methods for one network and one seed."""
    X, y, _, _, X_test, y_test = data
    start = time.perf_counter()
    net = train(NETWORKS[name], X, y, seed, epochs)
    print(
        f"{name}, seed {seed}: trained in {time.perf_counter() - start:.0f} s, test "
        f"accuracy {(net.predict(X_test) == y_test).mean():.4f}",
        flush=True,
    )
    bench = Bench(net, NETWORKS[name], data)
    for method, masks, seconds in paper_games(bench, seed) if games else ():
        table.setdefault(method, []).append(bench.scores(masks))
        times.setdefault(method, []).append(seconds / len(masks))
        print(f"  {method:44}{table[method][-1]}  {seconds:.1f} s", flush=True)
    for method, masks in bench.baselines(seed):
        table.setdefault(method, []).append(bench.scores(masks))
        table.setdefault(f"{method}, repaired", []).append(
            bench.scores(masks, "layers")
        )
    accuracies, seconds = defaults(bench, data, seed)
    table.setdefault("GTAPPruner defaults", []).append(accuracies)
    times.setdefault("GTAPPruner defaults", []).append(max(seconds))
    print(f"  {'GTAPPruner defaults':44}{accuracies}  {max(seconds):.1f} s a fit")


def show(name, table, times):
    """Print means and ranges over seeds."""
    print(f"\n{name}: test accuracy in percent, mean (lowest-highest) over seeds")
    header = "".join(f"{fraction:>18}" for fraction in FRACTIONS)
    print(f"{'':40}{header}{'s a size':>10}  paper at the critical size")
    for method, rows in table.items():
        values = 100 * np.array(rows)
        cells = "".join(
            f"{f'{mean:.1f} ({low:.1f}-{high:.1f})':>18}"
            for mean, low, high in zip(
                values.mean(0), values.min(0), values.max(0), strict=True
            )
        )
        seconds = f"{np.median(times[method]):10.1f}" if method in times else " " * 10
        paper = PAPER_AT_CRITICAL_SIZE.get(method) if name == "LeNet5" else None
        print(f"{method:40}{cells}{seconds}  {'' if paper is None else 100 * paper}")


def draw(tables, path):
    """Write the compression curves, a row for each network."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, rows = plt.subplots(
        len(tables),
        2,
        figsize=(10, 4.2 * len(tables)),
        layout="constrained",
        squeeze=False,
        sharey=True,
    )
    for (games, scores), (name, table) in zip(rows, tables.items(), strict=True):
        for method in table:
            if method.endswith(", repaired"):
                band(scores, table[method], f"{method[:-10]}, same repair")
            elif method not in BASELINES and not method.startswith("GTAP"):
                band(games, table[method], method)
        band(scores, table["random"], "random, no repair", color="0.6", ls=":")
        for axis in (games, scores):
            label = "GTAPPruner, defaults"
            defaults_row = table["GTAPPruner defaults"]
            band(axis, defaults_row, label, color="C0", lw=2.5, marker="o")
            axis.set(ylim=(0, 1.02), xlabel="share of players kept")
            axis.grid(alpha=0.3)
            axis.legend(fontsize=7, loc="lower right")
        games.set(title=f"{name}: the paper's game", ylabel="test accuracy")
        scores.set(title=f"{name}: scores that need no game")
    figure.savefig(path, dpi=90)


def band(axis, rows, label, **style):
    """Mean and range over seeds."""
    values = np.array(rows)
    (line,) = axis.plot(FRACTIONS, values.mean(0), **{"marker": "."} | style)
    line.set_label(label)
    low, high = values.min(0), values.max(0)
    axis.fill_between(FRACTIONS, low, high, alpha=0.1, color=line.get_color())


def main(arguments):
    torch.set_num_threads(1)
    X, y, X_test, y_test = load_mnist()
    epochs = 1 if arguments.quick else 8
    tables, times = {}, {}
    for name in arguments.networks:
        tables[name], times[name] = {}, {}
        for seed in arguments.seeds:
            order = np.random.default_rng(seed).permutation(len(X))
            fit, held = order[:50000], order[50000:]
            data = (X[fit], y[fit], X[held], y[held], X_test, y_test)
            games = not arguments.no_games
            run(name, seed, data, epochs, games, tables[name], times[name])
        show(name, tables[name], times[name])
    arguments.output.mkdir(parents=True, exist_ok=True)
    draw(tables, arguments.output / "gtap_mnist.png")
    facts = {
        "machine": platform.processor() or platform.machine(),
        "versions": {"skprune": skprune.__version__, "torch": torch.__version__},
        "fractions": FRACTIONS,
        "accuracy": tables,
        "seconds": times,
    }
    (arguments.output / "gtap_mnist.json").write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS
    )
    parser.add_argument("--quick", action="store_true", help="one epoch of training")
    parser.add_argument(
        "--no-games", action="store_true", help="baselines and defaults only"
    )
    parser.add_argument("--output", type=Path, default=Path("gtap_output"))
    main(parser.parse_args())
