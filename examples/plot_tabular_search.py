"""
A small network for a table, by grid search
===========================================

Categories and numbers in a data frame, a ``ColumnTransformer`` that prepares them, and
a network behind it. Which pruner, and how few neurons? ``GridSearchCV`` goes through
pruners and sizes as through any other parameters, and
:func:`~skprune.metrics.smallest_within_one_standard_error` takes the smallest network
that is about as good as the best one.
"""

# %%
# The table is Adult (which of 48,842 people earn more than 50,000 dollars a year) where
# ``SKPRUNE_DATA`` has it. Elsewhere it is breast cancer, where one number is made a
# category, that there is one. Test rows guide nothing: they are read once, at the end.
import argparse
import os
import time
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skprune import (
    EquilibriumPrunedMLP,
    GTAPPruner,
    ShapleyBucketPruner,
    mlp_classifier,
)
from skprune.metrics import (
    parameters_scorer,
    smallest_within_one_standard_error,
    sparsity_scorer,
)

parser = argparse.ArgumentParser(description="Grid search for small networks.")
parser.add_argument("--seeds", type=int, nargs="+", default=[0])
args, _ = parser.parse_known_args()
has_data = "SKPRUNE_DATA" in os.environ
torch.set_num_threads(1)  # the batches are small


def load_adult(folder):
    """Training and test rows of the census, by column names, and their labels."""
    names = """age workclass fnlwgt education education-num marital-status occupation
        relationship race sex capital-gain capital-loss hours-per-week country income"""
    options = {"names": names.split(), "skipinitialspace": True, "na_values": "?"}
    train = pd.read_csv(folder / "adult.data.gz", **options)
    test = pd.read_csv(folder / "adult.test.gz", skiprows=1, **options)
    # The file of test rows ends each label with a full stop.
    y, y_test = (part.pop("income").str.strip(".").to_numpy() for part in (train, test))
    return train, test, y, y_test


def load_cancer():
    """The same for breast cancer."""
    table, y = load_breast_cancer(return_X_y=True, as_frame=True)
    quarters = ["small", "medium", "large", "huge"]
    table["worst area"] = pd.qcut(table["worst area"], 4, quarters).astype(str)
    return train_test_split(table, y, test_size=0.3, stratify=y, random_state=0)


if has_data:
    X, X_test, y, y_test = load_adult(Path(os.environ["SKPRUNE_DATA"]) / "adult")
else:
    X, X_test, y, y_test = load_cancer()
print(f"{len(X)} rows to learn from, {len(X_test)} to judge by, {X.shape[1]} columns")

# %%
# Three pruners stand in the same place of the pipeline. Sizes are shares of the neurons
# that a network begins with; with 1.0 it stays whole, and the unpruned networks of the
# search are what the small ones have to match. The small table needs more epochs.
prepare = make_column_transformer(
    (
        OneHotEncoder(handle_unknown="ignore", min_frequency=5),
        make_column_selector(dtype_exclude="number"),
    ),
    (StandardScaler(), make_column_selector(dtype_include="number")),
    sparse_threshold=0,
)
wide = (256,)
epochs, batch_size, n_folds = (5, 256, 5) if has_data else (20, 32, 3)
net = mlp_classifier(wide, max_epochs=epochs, batch_size=batch_size)
market = EquilibriumPrunedMLP(wide)
descent = ShapleyBucketPruner(
    net, scoring="roc_auc", payoff="reconstruction", tol=0.002
)
kept, widths = "pruner__n_players_to_keep", "hidden_layer_sizes"
grid = [
    {"pruner": [GTAPPruner(net, retrain_epochs=5)], kept: [0.02, 0.04, 1.0]},
    {
        "pruner": [GTAPPruner(net)],
        kept: [1.0],
        f"pruner__estimator__module__{widths}": [(64,)],
    },
    {"pruner": [descent]},
    {"pruner": [market], kept: [0.02, 0.04]},
    {"pruner": [market], kept: [0.04], f"pruner__{widths}": [(256, 256)]},
    # A network that stays whole begins to overfit after half the epochs.
    {
        "pruner": [market],
        kept: [1.0],
        "pruner__max_epochs": [10],
        f"pruner__{widths}": [(64,), wide],
    },
]


# %%
# Of several scores, ``refit`` decides by the area under the ROC curve and by the number
# of parameters.
def search_for(seed):
    """The whole search, for one seed of everything that is drawn."""
    for part in grid:
        part["pruner__random_state"] = [seed]
    return GridSearchCV(
        Pipeline([("prepare", prepare), ("pruner", market)]),
        grid,
        scoring={
            "accuracy": "accuracy",
            "auc": "roc_auc",
            "size": parameters_scorer(),
            "sparsity": sparsity_scorer(),
        },
        refit=partial(smallest_within_one_standard_error, score="auc"),
        cv=StratifiedKFold(n_folds, shuffle=True, random_state=seed),
        error_score="raise",
    ).fit(X, y)


def best_unpruned(search):
    """Place of the best network that stayed whole, by the same folds."""
    results = search.cv_results_
    is_whole = [part.get(kept) == 1.0 for part in results["params"]]
    return np.where(is_whole, results["mean_test_auc"], -np.inf).argmax()


def judged(pipeline):
    """Accuracy, AUC and neurons, on rows that nothing was chosen by."""
    chances = pipeline.predict_proba(X_test)[:, 1]
    is_second = y_test == pipeline.classes_[1]
    accuracy, auc = pipeline.score(X_test, y_test), roc_auc_score(is_second, chances)
    return accuracy, auc, pipeline[-1].players_.n_players


rows = []
for seed in args.seeds:
    start = time.perf_counter()
    search = search_for(seed)
    seconds = time.perf_counter() - start
    reference = best_unpruned(search)
    params = search.cv_results_["params"][reference]
    # Cloned as the search clones them: two of them may set one pruner's parameters.
    params = {name: clone(value, safe=False) for name, value in params.items()}
    whole = clone(search.estimator).set_params(**params)
    small, large = judged(search.best_estimator_), judged(whole.fit(X, y))
    report = search.best_estimator_[-1].size_report_
    rows.append([*small, report["before"].n_players, *large])
    n_candidates = len(search.cv_results_["params"])
    print(f"\nseed {seed}: {n_candidates} candidates in {seconds:.0f} s; on test rows")
    print(f"{'':33}{'accuracy':>10}{'AUC':>8}{'neurons':>9}")
    for name, pipeline, found in (
        ("chosen", search.best_estimator_, small),
        ("unpruned", whole, large),
    ):
        accuracy, auc, n_neurons = found
        kind = type(pipeline[-1]).__name__
        print(f"{name:10}{kind:23}{accuracy:10.4f}{auc:8.4f}{n_neurons:9d}")
if len(rows) > 1:
    rows = np.array(rows)
    gains = rows[:, :2] - rows[:, 4:6]
    print(f"\nmean of {len(rows)} seeds: accuracy {rows[:, 0].mean():.4f} and AUC")
    print(f"{rows[:, 1].mean():.4f} with {(rows[:, 2] / rows[:, 3]).mean():.1%} of the")
    print(f"neurons; against the best unpruned network {gains.mean(0)}, standard")
    print(f"errors {gains.std(0, ddof=1) / len(rows) ** 0.5}")

# %%
# Score against size: most of the neurons bring nothing. The dashed line is one standard
# error below the best score; the smallest network above it is chosen.
results = search.cv_results_
scores = np.array([results[f"split{fold}_test_auc"] for fold in range(n_folds)])
errors = scores.std(axis=0, ddof=1) / n_folds**0.5
means, sizes = results["mean_test_auc"], -results["mean_test_size"]
kinds = np.array([type(part["pruner"]).__name__ for part in results["params"]])
best = means.argmax()

figure, axes = plt.subplots(figsize=(6.5, 4), layout="constrained")
for kind in dict.fromkeys(kinds):
    of_kind = kinds == kind
    axes.errorbar(
        sizes[of_kind], means[of_kind], errors[of_kind], fmt="o", capsize=2, label=kind
    )
axes.axhline(means[best] - errors[best], color="0.6", linestyle="--", zorder=0)
for place, label, marker in (
    (search.best_index_, "chosen", "*"),
    (reference, "best unpruned", "s"),
):
    axes.plot(
        sizes[place],
        means[place],
        marker,
        markersize=15,
        markerfacecolor="none",
        color="black",
        label=label,
    )
axes.set(xlabel="parameters", ylabel="AUC, cross-validated", xscale="log")
axes.legend(fontsize=8)
plt.show()

# %%
# What is left is a pipeline like any other: it takes a data frame, with its columns in
# any order, and predicts.
chosen = search.best_estimator_
print(chosen[-1].module_)
print(chosen.predict(X_test[X.columns[::-1]])[:5])
