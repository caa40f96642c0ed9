"""Seconds of equilibrium pruning, beside scikit-learn's MLPClassifier and a lean loop.

MNIST, 784-512-256-10, the same batch size and epochs for all, in alternating
repetitions of one run:

- scikit-learn's MLPClassifier (Adam, no early stopping);
- a lean torch loop: tensors, index_select, fused AdamW, nothing else;
- EquilibriumPrunedMLP with pruning off (``n_players_to_keep=1.0``);
- EquilibriumPrunedMLP down to 15 neurons, with its defaults, and without rivals.

    SKPRUNE_DATA=DIR python examples/benchmarks/equilibrium_seconds.py
        [--repeats 3] [--epochs 20] [--rows 60000] [--batch-size 64]
        [--json FILE]

One thread. With defaults a quarter of an hour.
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

# First: it sets the number of threads.
from _machine import machine, write_json  # isort: skip

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from skprune import EquilibriumPrunedMLP
from skprune.evaluation import build_mlp

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "papers"))
from _mnist import load_mnist

HIDDEN = (512, 256)


def lean_loop(X, y, epochs, batch_size):
    """Train the dense network, and do nothing besides."""
    module = build_mlp(X.shape[1], HIDDEN, 10)
    optimizer = torch.optim.AdamW(module.parameters(), 3e-3, fused=True)
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    for _ in range(epochs):
        for rows in torch.randperm(len(X)).split(batch_size):
            outputs = module(X.index_select(0, rows))
            loss = torch.nn.functional.cross_entropy(outputs, y.index_select(0, rows))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def contestants(epochs, batch_size):
    """What is timed: functions of X and y."""

    def sklearn(X, y):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            MLPClassifier(HIDDEN, batch_size=batch_size, max_iter=epochs, tol=0).fit(
                X, y
            )

    def ours(**params):
        def fit(X, y):
            EquilibriumPrunedMLP(
                HIDDEN, max_epochs=epochs, batch_size=batch_size, **params
            ).fit(X, y)

        return fit

    return {
        "MLPClassifier": sklearn,
        "lean loop": lambda X, y: lean_loop(X, y, epochs, batch_size),
        "pruning off": ours(n_players_to_keep=1.0),
        "15 neurons": ours(n_players_to_keep=15),
        "15 neurons, no rivals": ours(n_players_to_keep=15, n_rivals=1),
    }


def main():
    """Time all in turn, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rows", type=int, default=60000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--json")
    args = parser.parse_args()
    X, y, _, _ = load_mnist()
    X, y = X.reshape(len(X), -1)[: args.rows], y[: args.rows]
    fits = contestants(args.epochs, args.batch_size)
    seconds = {name: [] for name in fits}
    for _ in range(args.repeats):
        for name, fit in fits.items():
            start = time.perf_counter(), time.process_time()
            fit(X, y)
            wall = time.perf_counter() - start[0]
            cpu = time.process_time() - start[1]
            seconds[name].append((wall, cpu))
            print(f"{name:22s} {wall:7.1f} s, CPU {cpu:7.1f} s", flush=True)
    medians = {name: np.median(part, axis=0) for name, part in seconds.items()}
    cpu = {name: part[1] for name, part in medians.items()}
    print("medians of CPU seconds:")
    for name, value in cpu.items():
        print(f"  {name:22s} {value:7.1f}")
    ratios = {
        "15 neurons / MLPClassifier": cpu["15 neurons"] / cpu["MLPClassifier"],
        "15 neurons, no rivals / MLPClassifier": cpu["15 neurons, no rivals"]
        / cpu["MLPClassifier"],
        "pruning off / lean loop": cpu["pruning off"] / cpu["lean loop"],
    }
    for name, value in ratios.items():
        print(f"  {name}: {value:.2f}")
    if args.json:
        record = {"machine": machine(), "seconds": seconds, "ratios": ratios}
        write_json(args.json, record)


if __name__ == "__main__":
    main()
