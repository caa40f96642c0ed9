"""Pruning as a game on MNIST: Table 2 and Figures 1 and 2, and what can be reached.

For an MLP 784-512-256-10 and 20 epochs in all it prints what is asked for of

- the paper's Table 2 (four prices of participation) beside our three utilities: the
  loss that players lower ("descent"), the gated loss ("joint"), and equations (16) to
  (18) as printed ("ascent"). Test accuracy with the gates, test accuracy after those
  who do not take part were removed, and the share of neurons without participation;
- the frontier: test accuracy at 13, 15, 37 and 77 neurons for EquilibriumPrunedMLP with
  its defaults, for gradual magnitude pruning on the same schedule (with and without
  rivals), and for small networks from scratch, paired by seed.

    SKPRUNE_DATA=DIR python examples/papers/equilibrium_mnist.py
        [--parts table frontier] [--seeds 0 1 2 3 4] [--sizes 13 15 37 77]
        [--figures FOLDER] [--json FILE]

Without --parts the frontier. About half a minute a fit on one core, and two minutes a
row of the table. With --figures and matplotlib, Figures 1 and 2 are drawn from the
histories of the table.
"""

import argparse
import json
import platform
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from _mnist import load_mnist

import skprune
from skprune import EquilibriumPrunedMLP

HIDDEN = (512, 256)
CONFIGURATIONS = {
    "Very High Beta": {"beta": 0.1, "gamma": 0.0},
    "Extreme Beta": {"beta": 0.5, "gamma": 0.0},
    "L1 Sparsity Strong": {"beta": 0.001, "gamma": 0.1},
    "L1+L2 Combined": {"beta": 0.05, "gamma": 0.05},
}
# Test accuracy and sparsity of the paper.
TABLE_2 = {
    "Very High Beta": (96.64, 0.0),
    "Extreme Beta": (91.15, 95.18),
    "L1 Sparsity Strong": (89.57, 98.31),
    "L1+L2 Combined": (91.54, 98.05),
}
# The paper's optimizer of participations is SGD; the gated loss takes Adam for all.
UTILITIES = {
    "descent": {"participation_optimizer": "sgd", "participation_lr": 0.001},
    "joint": {"participation_optimizer": "adam", "participation_lr": 0.001},
    "ascent": {"participation_optimizer": "sgd", "participation_lr": 0.001},
}
PAPER_FRONTIER = {13: 89.57, 15: 91.54, 37: 91.15}
METHODS = {
    "equilibrium": {},
    "magnitude": {"benefit": "weight_norm", "n_rivals": 1},
    "magnitude, rivals": {"benefit": "weight_norm"},
}


def table(data, seed):
    """Rows of Table 2 for our utilities, and the fitted estimators."""
    X, y, X_test, y_test = data
    rows, fitted = [], {}
    for utility, how in UTILITIES.items():
        for name, prices in CONFIGURATIONS.items():
            start = time.perf_counter()
            mlp = EquilibriumPrunedMLP(
                HIDDEN,
                utility=utility,
                batch_size=128,
                lr=1e-3,
                weight_decay=0.0,
                removal_period=(0.0, 1.0),
                random_state=seed,
                **how,
                **prices,
            )
            with warnings.catch_warnings():
                # "ascent" warns, and collapses.
                warnings.simplefilter("ignore", skprune.exceptions.SkpruneWarning)
                # Test images are looked at, never learned from.
                mlp.fit(X, y, X_val=X_test, y_val=y_test)
            fitted[utility, name] = mlp
            gone = 1 - mlp.support_.mean()
            rows.append(
                {
                    "utility": utility,
                    "configuration": name,
                    "seed": seed,
                    "gated": 100 * mlp.soft_score_,
                    "removed": 100 * mlp.score(X_test, y_test),
                    "sparsity": 100 * gone,
                    "exploitability": mlp.exploitability_,
                    "collapsed": mlp.collapsed_,
                    "seconds": time.perf_counter() - start,
                }
            )
            print(_row(rows[-1]), flush=True)
    return rows, fitted


def _row(row):
    accuracy, sparsity = TABLE_2[row["configuration"]]
    return (
        f"{row['configuration']:20s} paper {accuracy:5.2f} at {sparsity:5.2f} %   "
        f"{row['utility']:8s} gated {row['gated']:5.2f}, removed {row['removed']:5.2f} "
        f"at {row['sparsity']:5.2f} %  ({row['seconds']:.0f} s)"
    )


def frontier(data, seeds, sizes):
    """Test accuracies of all methods at all sizes."""
    results = {}
    for size in sizes:
        for name, how in METHODS.items():
            params = {"n_players_to_keep": size, **how}
            results[size, name] = _scores(data, seeds, HIDDEN, params)
        kept = [int(n) for n in results[size, "equilibrium"]["counts"]]
        params = {"n_players_to_keep": 1.0, "lr": 2e-2}
        results[size, "from scratch"] = _scores(data, seeds, kept, params)
        _print_size(size, results)
    return results


def _scores(data, seeds, hidden, params):
    X, y, X_test, y_test = data
    scores, seconds = [], []
    for seed in seeds:
        start = time.perf_counter()
        mlp = EquilibriumPrunedMLP(hidden, random_state=seed, **params).fit(X, y)
        seconds.append(time.perf_counter() - start)
        scores.append(100 * mlp.score(X_test, y_test))
    counts = list(mlp.active_players_.values())
    return {"scores": scores, "seconds": seconds, "counts": counts}


def _print_size(size, results):
    paper = PAPER_FRONTIER.get(size)
    print(f"{size} neurons (paper: {paper or '-'})")
    base = np.array(results[size, "magnitude"]["scores"])
    for name in [*METHODS, "from scratch"]:
        result = results[size, name]
        scores = np.array(result["scores"])
        gain = scores - base
        error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.nan
        print(
            f"  {name:18s} {scores.mean():6.2f}  sd {scores.std():.2f}   against "
            f"magnitude {gain.mean():+.2f} (se {error:.2f})   "
            f"{np.mean(result['seconds']):5.1f} s   {scores.round(2).tolist()}",
            flush=True,
        )


def draw(fitted, folder):
    """Figures 1 and 2 of the paper, one file each for each utility."""
    import matplotlib.pyplot as plt

    for utility in UTILITIES:
        figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
        histograms, panes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
        for name, pane in zip(CONFIGURATIONS, panes.ravel(), strict=True):
            mlp = fitted[utility, name]
            shares = mlp.participation_history_
            series = {
                "test accuracy": mlp.estimator_.history[:, "valid_acc"],
                "sparsity": mlp.sparsity_history_,
                "mean participation": shares.mean(axis=1),
                "active neurons": (shares > 0).sum(axis=1),
            }
            for axis, (label, values) in zip(axes.ravel(), series.items(), strict=True):
                axis.plot(np.arange(1, len(values) + 1), values, label=name)
                axis.set(xlabel="epoch", ylabel=label)
            pane.hist(shares[-1], bins=40, range=(0, 1))
            pane.axvline(0.01, color="red", linestyle="--")
            pane.set(title=name, xlabel="participation", ylabel="neurons", yscale="log")
        axes[0, 0].legend()
        figure.savefig(Path(folder) / f"figure_1_{utility}.png", dpi=120)
        histograms.savefig(Path(folder) / f"figure_2_{utility}.png", dpi=120)


def main():
    """Run what is asked for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--sizes", type=int, nargs="+", default=[13, 15, 37, 77])
    parser.add_argument(
        "--parts", nargs="+", choices=["table", "frontier"], default=["frontier"]
    )
    parser.add_argument("--figures")
    parser.add_argument("--json")
    args = parser.parse_args()
    X, y, X_test, y_test = load_mnist()
    data = (X.reshape(len(X), -1), y, X_test.reshape(len(X_test), -1), y_test)
    report = {
        "skprune": skprune.__version__,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    if "table" in args.parts:
        report["table"], fitted = table(data, args.seeds[0])
        if args.figures:
            draw(fitted, args.figures)
    if "frontier" in args.parts:
        results = frontier(data, args.seeds, args.sizes)
        report["frontier"] = {f"{k[0]} {k[1]}": v for k, v in results.items()}
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
