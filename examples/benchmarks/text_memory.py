"""Seconds and memory of pruning text classifiers with a large vocabulary.

20 newsgroups, TF-IDF of 50,000 words, a network behind it: vectorize, fit, prune,
predict. Each line is a process of its own, and its peak memory is that of all it holds:
Python, torch, the posts, the matrix, the network, its optimizer. With --epoch it times
single epochs of training instead, and says where the time goes.

    SKPRUNE_DATA=DIR python examples/benchmarks/text_memory.py [--words 50000]
        [--threads 2] [--seed 0] [--only NAME] [--epoch]
"""

import argparse
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline

from skprune import (
    EquilibriumPrunedMLP,
    GTAPPruner,
    ShapleyBucketPruner,
    mlp_classifier,
)

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "papers"))

from _newsgroups import load_posts  # noqa: E402

PRUNERS = {
    "GTAP, 256 neurons": lambda: GTAPPruner(
        mlp_classifier((256,), max_epochs=5), n_players_to_keep=0.1
    ),
    "GTAP, 3 layers of 256": lambda: GTAPPruner(
        mlp_classifier((256, 256, 256), max_epochs=5), n_players_to_keep=0.1
    ),
    "ShapleyBucket, 40 neurons": lambda: ShapleyBucketPruner(
        mlp_classifier((40,), max_epochs=5), tol=0.02
    ),
    "Equilibrium, 256 neurons": lambda: EquilibriumPrunedMLP(
        (256,), n_players_to_keep=0.1, max_epochs=5
    ),
    "Equilibrium, defaults, .1": lambda: EquilibriumPrunedMLP(n_players_to_keep=0.1),
}


def peak():
    """Most memory that this process ever held, in GB."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def vectorizer_of(n_words):
    """Words to numbers."""
    return TfidfVectorizer(max_features=n_words, sublinear_tf=True)


def measure(name, n_words, seed):
    """One pipeline, from the posts to its predictions."""
    texts, labels = load_posts()
    pruner = PRUNERS[name]().set_params(random_state=seed)
    pipeline = make_pipeline(vectorizer_of(n_words), pruner)
    start, cpu = time.perf_counter(), time.process_time()
    pipeline.fit(texts["train"], labels["train"])
    fitted = time.perf_counter()
    score = pipeline.score(texts["test"], labels["test"])
    done = time.perf_counter()
    print(
        f"{name:27}{fitted - start:8.1f}{done - fitted:9.1f}"
        f"{time.process_time() - cpu:9.1f}{peak():9.2f}"
        f"{pruner.players_.n_players:9d}{score:10.4f}",
        flush=True,
    )


def time_epochs(n_words):
    """Epochs of the dense network, and the operations that they are made of."""
    texts, labels = load_posts()
    X = vectorizer_of(n_words).fit_transform(texts["train"])
    for hidden in ((256,), (512, 256)):
        net = mlp_classifier(hidden, max_epochs=1, device="cpu")
        net.fit(X, labels["train"])
        start, cpu = time.perf_counter(), time.process_time()
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU]
        ) as profile:
            net.partial_fit(X, labels["train"])
        seconds, spent = time.perf_counter() - start, time.process_time() - cpu
        print(f"\n{hidden}: an epoch takes {seconds:.1f} s ({spent:.1f} s of CPU)")
        events = sorted(profile.key_averages(), key=lambda e: -e.self_cpu_time_total)
        for event in events[:6]:
            print(f"  {event.key:48}{event.self_cpu_time_total / 1e6:8.2f} s")


def main():
    """Measure all, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--words", type=int, default=50_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(PRUNERS))
    parser.add_argument("--epoch", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.epoch:
        time_epochs(args.words)
    elif args.only:
        measure(args.only, args.words, args.seed)
    else:
        print(
            f"{platform.machine()}, torch {torch.__version__}, {args.threads} threads, "
            f"{args.words} words; seconds, peak memory in GB"
        )
        names = ("fit", "predict", "CPU", "peak", "neurons", "accuracy")
        print(" " * 26 + "".join(f"{name:>9}" for name in names), flush=True)
        for name in PRUNERS:
            command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
