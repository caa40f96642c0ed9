"""
A small text classifier, and what else could have made it small
===============================================================

Words of a text, three hidden layers of 256 neurons, a label: the classifier of figure 5
in [1]_. :class:`~skprune.pruners.GTAPPruner` stands behind the vectorizer in a pipeline
and makes it smaller, without training it again. Beside it stand random neurons and
those that magnitude and gradients choose, with the same repair; small networks trained
from scratch; single weights chosen by magnitude; and a logistic regression.

.. [1] M. Diaz-Ortiz et al., "Using Cooperative Game Theory to Prune Neural Networks",
   arXiv:2311.10468.
"""

# %%
# The texts are emotions and financial topics where ``SKPRUNE_DATA`` has them, and
# docstrings of four packages elsewhere: which package is this docstring from?
import argparse
import copy
import os

import matplotlib.pyplot as plt
import numpy as np
import torch
from _texts import load_texts
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelEncoder
from torch import nn

from skprune import GTAPPruner, mlp_classifier
from skprune.evaluation import (
    Samples,
    first_rows,
    random_scores,
    split_module,
    task_of,
    taylor_scores,
    weight_gradient_scores,
    weight_norm_scores,
)
from skprune.networks import find_players
from skprune.strategies import Search, keep_best

parser = argparse.ArgumentParser(description="Compression curves of text classifiers.")
parser.add_argument("--seeds", type=int, nargs="+", default=[0])
parser.add_argument("--texts", nargs="+", choices=["emotion", "topics", "docstrings"])
args, _ = parser.parse_known_args()
has_data = "SKPRUNE_DATA" in os.environ
names = args.texts or (["emotion", "topics"] if has_data else ["docstrings"])

torch.set_num_threads(1)  # the batches are small
HIDDEN, EPOCHS, RETRAINED = (256, 256, 256), 5, 2
FRACTIONS = [0.02, 0.05, 0.1, 0.2, 0.3, 0.5]

# %%
# This is all that a user writes: text in, a label out, and a fiftieth of the neurons.
texts, texts_test, y, y_test = load_texts(names[0])
pipeline = make_pipeline(
    CountVectorizer(binary=True, min_df=2),
    GTAPPruner(
        mlp_classifier(HIDDEN, max_epochs=EPOCHS),
        n_players_to_keep=0.02,
        path_sizes=[0.1, 1.0],
        random_state=0,
    ),
).fit(texts, y)
pruner = pipeline[-1]
print(f"{names[0]}: {len(pipeline[0].vocabulary_)} words, {pruner.module_}")
for size in pruner.path_.sizes:
    accuracy = pruner.at_size(size).score(pipeline[0].transform(texts_test), y_test)
    print(f"{size:4d} neurons: test accuracy {accuracy:.3f}")

# %%
# Other criteria only rank neurons. As a search that keeps those of the highest scores,
# each gets the same surgery, the same closed-form repair and the same validation data.


class Ranked(Search):
    """Keeps the players of the highest scores, which are given."""

    def __init__(self, scores=None):
        self.scores = scores

    def _masks(self, game, scorer, sizes, group_of, floors, ties):
        for size in sizes:
            yield keep_best(self.scores, size, groups=group_of, min_per_group=floors)


def criteria(net, X, y, seed):
    """Scores of the neurons that need no game, by name."""
    example, module = first_rows(net, X), net.module_
    players, task = find_players(module, example), task_of(net)
    split = split_module(module, players, example)
    samples = Samples.of(net, split, task, X, y).subset(10_000)
    return {
        "random": random_scores(players, seed),
        "magnitude": weight_norm_scores(module, players),
        "weight x gradient": weight_gradient_scores(samples, split, players, task),
        "Taylor": taylor_scores(samples, split, players, task),
    }


def pruned(net, parts, **parameters):
    """The trained net at all sizes."""
    X_train, X_val, y_train, y_val = parts
    pruner = GTAPPruner(FrozenEstimator(net), **parameters)
    sizes = {"n_players_to_keep": FRACTIONS[0], "path_sizes": FRACTIONS[1:]}
    return pruner.set_params(**sizes).fit(X_train, y_train, X_val=X_val, y_val=y_val)


def accuracies(pruner, X, y):
    """One for each size."""
    return [pruner.at_size(size).score(X, y) for size in pruner.path_.sizes]


def fewer_weights(net, fraction):
    """The net with the largest of all its weights only, and 0 for the others."""
    net = copy.deepcopy(net)
    weights = [layer.weight.data for layer in net.module_ if hasattr(layer, "weight")]
    sizes = torch.cat([weight.abs().flatten() for weight in weights])
    least = sizes.kthvalue(round((1 - fraction) * len(sizes))).values
    for weight in weights:
        weight[weight.abs() <= least] = 0
    return net


def from_scratch(sizes, X, y, seed):
    """A network of given widths, trained as long as the pruned and retrained one."""
    torch.manual_seed(seed)
    return mlp_classifier(sizes, max_epochs=EPOCHS + RETRAINED).fit(X, y)


def curves(name, seed):
    """Test accuracies at all sizes, by method."""
    texts, texts_test, labels, labels_test = load_texts(name)
    codes = LabelEncoder().fit(labels)
    y, y_test = codes.transform(labels), codes.transform(labels_test)
    vectorizer = CountVectorizer(binary=True, min_df=2, dtype=np.float32)
    X, X_test = vectorizer.fit_transform(texts), vectorizer.transform(texts_test)
    parts = train_test_split(X, y, test_size=0.1, random_state=seed, stratify=y)
    X_train, _, y_train, _ = parts
    torch.manual_seed(seed)
    net = mlp_classifier(HIDDEN, max_epochs=EPOCHS).fit(X_train, y_train)
    results, test = {}, (X_test, y_test)
    gtap = pruned(net, parts, random_state=seed)
    results["GTAP"] = accuracies(gtap, *test)
    retrained = pruned(net, parts, random_state=seed, retrain_epochs=RETRAINED)
    results["GTAP, retrained"] = accuracies(retrained, *test)
    for criterion, scores in criteria(net, X_train, y_train, seed).items():
        ranked = {"search": Ranked(scores), "payoff": "accuracy", "refine": False}
        results[criterion] = accuracies(
            pruned(net, parts, random_state=seed, **ranked), *test
        )
    results["from scratch"] = [
        from_scratch(widths(gtap.at_size(size)), X, y, seed).score(*test)
        for size in gtap.path_.sizes
    ]
    results["single weights by magnitude"] = [
        fewer_weights(net, fraction).score(*test) for fraction in FRACTIONS
    ]
    results["unpruned"] = [net.score(*test)] * len(FRACTIONS)
    logistic = LogisticRegression(max_iter=1000).fit(X, y)
    results["logistic regression"] = [logistic.score(*test)] * len(FRACTIONS)
    return results


def widths(pruner):
    """Neurons of each hidden layer."""
    return [m.out_features for m in pruner.module_ if isinstance(m, nn.Linear)][:-1]


# %%
# Test accuracy against the share of neurons (of weights, for single weights). All but
# "GTAP, retrained" and "from scratch" need no gradient training after the first.
figure, axes = plt.subplots(
    1, len(names), figsize=(6 * len(names), 5), layout="constrained", squeeze=False
)
for name, axis in zip(names, axes[0], strict=True):
    found = [curves(name, seed) for seed in args.seeds]
    print(f"\n{name:28s}" + "".join(f"{fraction:>13}" for fraction in FRACTIONS))
    for method in found[0]:
        values = 100 * np.array([result[method] for result in found])
        mean = values.mean(0)
        error = values.std(0, ddof=1) / np.sqrt(len(found)) if len(found) > 1 else None
        cells = [f"{x:5.1f}" for x in mean]
        if error is not None:
            cells = [f"{c} ±{e:4.1f}" for c, e in zip(cells, error, strict=True)]
        print(f"{method:28s}" + "".join(f"{cell:>13}" for cell in cells), flush=True)
        is_flat = method in ("unpruned", "logistic regression")
        style = "--" if is_flat else "o-" if method.startswith("GTAP") else ".-"
        axis.errorbar(FRACTIONS, mean, error, fmt=style, label=method)
    axis.set(xscale="log", title=name, xlabel="share kept", ylabel="test accuracy [%]")
    axis.set_xticks(FRACTIONS, [str(fraction) for fraction in FRACTIONS])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
axes[0, -1].legend(fontsize="small")
plt.show()
