"""Prune a digit classifier: the main job, from data to a small network on disk.

Trains a network on scikit-learn's digits, keeps a tenth of its neurons, and says what
was lost, what was gained, and which neurons matter. Runs on a CPU in under a minute:

    python examples/quickstart.py [--output DIR]
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier

from skprune import GTAPPruner
from skprune.networks import latency


class Digits(torch.nn.Module):
    """64 pixels, two hidden layers of 128, ten classes."""

    def __init__(self):
        super().__init__()
        self.hidden1 = torch.nn.Linear(64, 128)
        self.hidden2 = torch.nn.Linear(128, 128)
        self.output = torch.nn.Linear(128, 10)

    def forward(self, x):
        x = torch.relu(self.hidden1(x))
        return self.output(torch.relu(self.hidden2(x)))


def main(output):
    # Threads cost more than they bring on a network of this size.
    torch.set_num_threads(1)
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(
        X.astype(np.float32) / 16, y, test_size=0.3, stratify=y, random_state=0
    )
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        Digits,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=2e-3,
        max_epochs=30,
        train_split=None,
        verbose=0,
    )
    pruner = GTAPPruner(
        net,
        n_players_to_keep=0.1,
        path_sizes=[0.03, 0.05, 0.2, 0.4, 1.0],
        random_state=0,
        verbose=1,
    )
    start = time.perf_counter()
    pruner.fit(X_train, y_train)
    seconds = time.perf_counter() - start
    report(pruner, X_test, y_test, seconds)
    output.mkdir(parents=True, exist_ok=True)
    torch.save(pruner.module_, output / "small_network.pt")
    draw(pruner, X_test, y_test, output / "compression_curve.png")
    print(
        f"\nSaved {output / 'small_network.pt'} (torch.load(..., weights_only=False))"
    )
    print(f"Saved {output / 'compression_curve.png'}")


def report(pruner, X_test, y_test, seconds):
    """Print size, speed and accuracy before and after, and who matters."""
    dense = pruner.at_size(len(pruner.support_))
    before, after = pruner.size_report_["before"], pruner.size_report_["after"]
    batch = torch.from_numpy(X_test)
    rows = [
        ("neurons", before.n_players, after.n_players),
        ("parameters", before.n_parameters, after.n_parameters),
        ("FLOPs per sample", before.n_flops, after.n_flops),
        ("test accuracy", dense.score(X_test, y_test), pruner.score(X_test, y_test)),
        (
            f"ms per {len(batch)} samples, 1 thread",
            latency(dense.module_, batch),
            latency(pruner.module_, batch),
        ),
    ]
    print(f"\ntrained and pruned in {seconds:.1f} s\n")
    print(f"{'':32}{'before':>10}{'after':>10}")
    for name, old, new in rows:
        style = "10.3f" if isinstance(old, float) else "10d"
        print(f"{name:32}{old:{style}}{new:{style}}")
    scores, stayed = pruner.scores_, pruner.support_
    survivors = [player for player in scores.ranking() if stayed[player]]
    print("\nwho stayed         Shapley value   standard error")
    for player in [*survivors[:5], None, *survivors[-3:]]:
        if player is None:
            print("...")
            continue
        print(
            f"{pruner.names_[player]:16}{scores.values[player]:16.4f}"
            f"{scores.standard_errors[player]:17.4f}"
        )
    least = scores.ranking()[-1]
    name, value = pruner.names_[least], scores.values[least]
    print(
        f"mean of those who stayed {scores.values[stayed].mean():.4f}, of those who "
        f"left {scores.values[~stayed].mean():.4f}; least of all {name}: "
        f"{value:.4f} +- {scores.standard_errors[least]:.4f}"
    )


def draw(pruner, X_test, y_test, path):
    """Write the compression curve."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    sizes = pruner.path_.sizes
    accuracies = [pruner.at_size(int(size)).score(X_test, y_test) for size in sizes]
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(sizes, pruner.path_.payoffs, "o--", color="0.6", label="validation")
    axes.plot(sizes, accuracies, "o-", label="test")
    axes.set(xlabel="neurons kept", ylabel="accuracy", xscale="log", ylim=(0, 1.02))
    axes.set_title("A digit classifier, pruned")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("quickstart_output"))
    main(parser.parse_args().output)
