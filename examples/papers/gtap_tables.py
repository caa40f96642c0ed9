"""GTAPPruner's defaults on small tables, beside scores that need no game.

On scikit-learn's digits, breast cancer and diabetes, by repeated cross-validation: a
network of two hidden layers is trained on a fold's training part, less a validation
set, and pruned to several sizes by the defaults; random, weight norm, weight x gradient
and Taylor prune the same network, as they are and with the same closed-form repair.

    python examples/papers/gtap_tables.py [--repeats 3] [--output FILE]
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from _baselines import MaskBench
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import RepeatedKFold, train_test_split
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier, NeuralNetRegressor

from skprune import GTAPPruner

FRACTIONS = [0.05, 0.1, 0.2, 0.4]
DATA = {
    "digits": (load_digits, 10),
    "breast cancer": (load_breast_cancer, 2),
    "diabetes": (load_diabetes, 0),
}


def train(X, y, n_classes, seed):
    """A network of 100 and 50 hidden neurons."""
    torch.manual_seed(seed)
    module = torch.nn.Sequential(
        torch.nn.Linear(X.shape[1], 100),
        torch.nn.ReLU(),
        torch.nn.Linear(100, 50),
        torch.nn.ReLU(),
        torch.nn.Linear(50, n_classes or 1),
    )
    settings = {
        "optimizer": torch.optim.Adam,
        "optimizer__weight_decay": 1e-4,
        "lr": 2e-3,
        "max_epochs": 30,
        "batch_size": 32,
        "train_split": None,
        "verbose": 0,
    }
    if n_classes:
        net = NeuralNetClassifier(
            module, criterion=torch.nn.CrossEntropyLoss, **settings
        )
    else:
        net = NeuralNetRegressor(module, **settings)
    return net.fit(X, y)


def one_fold(X, y, n_classes, rows, seed):
    """Test scores of all methods on one fold."""
    fit, test = rows
    scaler = StandardScaler().fit(X[fit])
    X = scaler.transform(X).astype(np.float32)
    if not n_classes:
        y = ((y - y[fit].mean()) / y[fit].std()).astype(np.float32)[:, None]
    fit, held = train_test_split(
        fit, test_size=0.15, random_state=seed, stratify=y[fit] if n_classes else None
    )
    net = train(X[fit], y[fit], n_classes, seed)
    parts = [(X[rows], y[rows]) for rows in (fit, held, test)]
    bench = MaskBench(net, *parts, FRACTIONS)
    pruner = GTAPPruner(
        FrozenEstimator(net),
        n_players_to_keep=bench.sizes[-1],
        path_sizes=bench.sizes,
        random_state=seed,
    ).fit(X[fit], y[fit], X_val=X[held], y_val=y[held])
    scores = {
        "unpruned": [net.score(X[test], y[test])] * len(FRACTIONS),
        "GTAPPruner defaults": [
            pruner.at_size(size).score(X[test], y[test]) for size in bench.sizes
        ],
    }
    for name, masks in bench.baselines(seed):
        scores[name] = bench.scores(masks)
        scores[f"{name}, repaired"] = bench.scores(masks, "layers")
    return scores


def main(arguments):
    torch.set_num_threads(1)
    result = {}
    for name, (load, n_classes) in DATA.items():
        X, y = load(return_X_y=True)
        folds = RepeatedKFold(n_splits=5, n_repeats=arguments.repeats, random_state=0)
        rows = [
            one_fold(X, y, n_classes, split, seed)
            for seed, split in enumerate(folds.split(X))
        ]
        metric = "accuracy" if n_classes else "R²"
        print(f"\n{name}: test {metric}, mean of {len(rows)} folds (standard error)")
        print(f"{'':30}" + "".join(f"{fraction:>16}" for fraction in FRACTIONS))
        result[name] = {}
        for method in rows[0]:
            values = np.array([row[method] for row in rows])
            means = values.mean(0)
            errors = values.std(0, ddof=1) / np.sqrt(len(values))
            result[name][method] = values.tolist()
            cells = "".join(
                f"{mean:9.3f} ({error:.3f})"
                for mean, error in zip(means, errors, strict=True)
            )
            print(f"{method:30}{cells}", flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps({"fractions": FRACTIONS} | result))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="a JSON file for all scores")
    main(parser.parse_args())
