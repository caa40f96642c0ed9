"""Equilibrium pruning with its defaults on tables and texts, beside the dense network.

A tenth of the neurons (and, with nothing asked for, those who want to stay) against
all of them, with the same estimator and no other parameter: on scikit-learn's digits,
breast cancer and diabetes by repeated cross-validation, and with SKPRUNE_DATA on Adult
(one-hot categories, scaled numbers) and the emotion texts (TF-IDF, sparse) on their
test sets.

    SKPRUNE_DATA=DIR python examples/papers/equilibrium_tables.py [--repeats 2]
        [--seeds 0 1 2] [--hidden 512 256] [--json FILE]

A minute on one core for the small sets, and seven for a seed of the others.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skprune import EquilibriumPrunedMLP, EquilibriumPrunedMLPRegressor

KEPT = {"dense": 1.0, "a tenth": 0.1, "who wants": None}
SMALL = {
    "digits": (load_digits, EquilibriumPrunedMLP),
    "breast cancer": (load_breast_cancer, EquilibriumPrunedMLP),
    "diabetes": (load_diabetes, EquilibriumPrunedMLPRegressor),
}
CATEGORIES, NUMBERS = [1, 3, 5, 6, 7, 8, 9, 13], [0, 2, 4, 10, 11, 12]


def adult(folder):
    """Census income: training and test rows and labels, and what prepares them."""
    options = {"header": None, "skipinitialspace": True, "na_values": "?"}
    train = pd.read_csv(folder / "adult.data.gz", **options)
    test = pd.read_csv(folder / "adult.test.gz", skiprows=1, **options)
    prepare = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", min_frequency=5), CATEGORIES),
        (StandardScaler(), NUMBERS),
        sparse_threshold=0,
    )
    # The file of test rows ends each label with a full stop.
    labels = [part[14].str.strip(".").to_numpy(str) for part in (train, test)]
    return train[range(14)], labels[0], test[range(14)], labels[1], prepare


def emotion(folder):
    """Short texts of six emotions."""
    names = ["text", "label"]
    parts = [
        pd.read_csv(folder / f"{part}.txt.gz", sep=";", names=names)
        for part in ("train", "test")
    ]
    texts = [part["text"] for part in parts]
    labels = [part["label"].to_numpy(str) for part in parts]
    return texts[0], labels[0], texts[1], labels[1], TfidfVectorizer(min_df=2)


LARGE = {"adult": adult, "emotion": emotion}


def fitted_score(pipeline, train, test):
    """Test score, neurons left, whether it collapsed, and seconds."""
    start = time.perf_counter()
    pipeline.fit(*train)
    seconds = time.perf_counter() - start
    mlp = pipeline[-1]
    left = mlp.players_.n_players
    return pipeline.score(*test), left, mlp.collapsed_, seconds


def small(name, hidden, repeats):
    """Scores on all folds of a bundled set."""
    load, estimator = SMALL[name]
    X, y = load(return_X_y=True)
    is_regression = estimator is EquilibriumPrunedMLPRegressor
    splitter = RepeatedKFold if is_regression else RepeatedStratifiedKFold
    folds = list(splitter(n_splits=5, n_repeats=repeats, random_state=1).split(X, y))
    results = {}
    for label, kept in KEPT.items():
        rows = []
        for seed, (train, test) in enumerate(folds):
            mlp = estimator(hidden, n_players_to_keep=kept, random_state=seed)
            pipeline = make_pipeline(StandardScaler(), mlp)
            rows.append(
                fitted_score(pipeline, (X[train], y[train]), (X[test], y[test]))
            )
        results[label] = rows
    return results


def large(name, hidden, seeds):
    """Scores on the test set, one for each seed."""
    folder = Path(os.environ["SKPRUNE_DATA"]) / name
    X, y, X_test, y_test, prepare = LARGE[name](folder)
    X, X_test = prepare.fit_transform(X), prepare.transform(X_test)
    results = {}
    for label, kept in KEPT.items():
        results[label] = [
            fitted_score(
                make_pipeline(
                    EquilibriumPrunedMLP(
                        hidden, n_players_to_keep=kept, random_state=seed
                    )
                ),
                (X, y),
                (X_test, y_test),
            )
            for seed in seeds
        ]
    return results


def show(name, results):
    """One line for each number of players, against the dense network."""
    dense = np.array([row[0] for row in results["dense"]])
    for label, rows in results.items():
        scores, left, collapsed, seconds = map(np.array, zip(*rows, strict=True))
        gain = 100 * (scores - dense)
        error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.nan
        print(
            f"{name:14s} {label:10s} {100 * scores.mean():6.2f} (sd "
            f"{100 * scores.std():5.2f}, n={len(scores)})  against dense "
            f"{gain.mean():+.2f} (se {error:.2f})  {left.mean():5.0f} neurons  "
            f"{collapsed.sum()} collapsed  {seconds.mean():5.1f} s",
            flush=True,
        )


def main():
    """Run all, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--hidden", type=int, nargs="+", default=[512, 256])
    parser.add_argument("--json")
    args = parser.parse_args()
    report = {}
    for name in SMALL:
        report[name] = small(name, args.hidden, args.repeats)
        show(name, report[name])
    for name in LARGE if "SKPRUNE_DATA" in os.environ else ():
        report[name] = large(name, args.hidden, args.seeds)
        show(name, report[name])
    if args.json:
        text = json.dumps(report, indent=1, default=lambda value: value.item())
        Path(args.json).write_text(text)


if __name__ == "__main__":
    main()
