"""Where the seconds of a fit go: train, search, score, remove and repair.

GTAPPruner's defaults on the digits network of the quickstart (256 neurons) and, where
MNIST is to be had, on LeNet5 (604 players, 50,000 training images); or, on LeNet5, the
paper's game: Iterated Building by accuracy on 10,000 held-out images, then swaps, no
repair. One thread; medians over repetitions.

    SKPRUNE_DATA=DIR python examples/benchmarks/gtap_seconds.py [--repeats 5]
        [--game {reconstruction,accuracy}] [--seeds 0]
"""

import argparse
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier

from skprune import GTAPPruner

FRACTIONS = [0.05, 0.1, 0.225, 0.4]

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "papers")]

from _mnist import load_mnist  # noqa: E402
from gtap_lenet5 import LeNet5, train  # noqa: E402
from quickstart import Digits  # noqa: E402


def digits():
    """Data, trained net, seconds of training, players."""
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.float32) / 16
    start = time.perf_counter()
    net = NeuralNetClassifier(
        Digits,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=2e-3,
        max_epochs=30,
        train_split=None,
        verbose=0,
    ).fit(X[:1500], y[:1500])
    seconds = time.perf_counter() - start
    return net, (X[:1500], y[:1500]), (X[1500:], y[1500:]), seconds, "neurons"


def lenet5(seed=0):
    """The same for LeNet5 on MNIST."""
    X, y, _, _ = load_mnist()
    start = time.perf_counter()
    net = train(LeNet5, X[:50000], y[:50000], seed=seed, epochs=8)
    seconds = time.perf_counter() - start
    held = X[50000:], y[50000:]
    return net, (X[:50000], y[:50000]), held, seconds, list(LeNet5.players)


def main(repeats):
    torch.set_num_threads(1)
    print(f"{platform.machine()}, torch {torch.__version__}, one thread, medians")
    for name, make in [("digits, 256 neurons", digits), ("LeNet5, MNIST", lenet5)]:
        net, fit, held, seconds, players = make()
        print(f"\n{name}: trained in {seconds:.1f} s; seconds of a fit by share kept")
        columns = [fits(net, fit, held, players, f, repeats) for f in FRACTIONS]
        print(f"  {'':20}" + "".join(f"{fraction:>8}" for fraction in FRACTIONS))
        for step in columns[0]:
            cells = "".join(f"{column[step]:8.2f}" for column in columns)
            print(f"  {step:20}{cells}", flush=True)


def paper_game(repeats, seeds):
    """Seconds and test accuracy of the paper's game with swaps, LeNet5."""
    torch.set_num_threads(1)
    X_test, y_test = load_mnist()[2:]
    print(f"{platform.machine()}, torch {torch.__version__}, one thread, medians")
    print("LeNet5, Iterated Building by accuracy, swaps, no repair; seconds of a fit")
    for seed in seeds:
        net, _, (X, y), _, players = lenet5(seed)
        for fraction in FRACTIONS:
            seconds = []
            for _ in range(repeats):
                start = time.perf_counter()
                pruner = GTAPPruner(
                    FrozenEstimator(net),
                    n_players_to_keep=fraction,
                    payoff="accuracy",
                    repair="none",
                    players=players,
                    random_state=seed,
                ).fit(X, y)
                seconds.append(time.perf_counter() - start)
            steps = ", ".join(f"{k} {v:.2f}" for k, v in pruner.seconds_.items())
            print(
                f"  seed {seed}, {fraction} kept: {np.median(seconds):.2f} s, test "
                f"accuracy {pruner.score(X_test, y_test):.4f} ({steps})",
                flush=True,
            )


def fits(net, fit, held, players, fraction, repeats):
    """Median seconds of each step of GTAPPruner.fit, and of the whole."""
    rows = []
    for _ in range(repeats):
        start = time.perf_counter()
        pruner = GTAPPruner(
            FrozenEstimator(net),
            n_players_to_keep=fraction,
            players=players,
            random_state=0,
        ).fit(*fit, X_val=held[0], y_val=held[1])
        rows.append(pruner.seconds_ | {"whole fit": time.perf_counter() - start})
    steps = [step for step in rows[0] if step != "train"]
    return {step: np.median([row[step] for row in rows]) for step in steps}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--game", choices=("reconstruction", "accuracy"), default="reconstruction"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    if args.game == "accuracy":
        paper_game(args.repeats, args.seeds)
    else:
        main(args.repeats)
