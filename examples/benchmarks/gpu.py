"""Payoffs a second on a CUDA device: Triton's walks and flips, and masked passes.

The network is an MLP of 784 inputs, 512 and 256 hidden neurons and 10 classes, with
random weights and samples: how fast it plays depends on neither. Players are the 256
neurons of the last hidden layer, the 512 of the first, or all 768; the payoff is
accuracy or mean log-likelihood on 1,000 or 10,000 samples.

    python examples/benchmarks/gpu.py [--repeats 5] [--seconds 0.5] [--json FILE]

Prints, for each game and backend, payoffs per second of wall-clock time (medians and
spread): walks and flips from the orders and coalitions on the host to the marginals on
the host, with own ones for each block of 16 samples, and with the same ones for all,
which the host draws and checks in no time; and arbitrary coalitions. Beside them stands
the share of the device's float32 peak (multiprocessors x 128 x 2 x clock) that the
multiply-adds take which such a payoff cannot do without: for walks and flips one
rank-one update and what follows it, for coalitions the products of all players' layers.
"""

import argparse
import json
import statistics
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from skorch import NeuralNetClassifier

from skprune import CoalitionEvaluator

SIZES = (784, 512, 256, 10)
PLAYERS = {
    "last hidden layer": [("neurons", "2")],
    "first hidden layer": [("neurons", "0")],
    "both hidden layers": "neurons",
}
PAYOFFS = ("accuracy", "log_likelihood")
N_SAMPLES = (1000, 10_000)
# Elements of the orders that one call gets.
GIVEN = 2**25


def device_facts():
    """The device, and its float32 peak in FLOPs per second."""
    if not torch.cuda.is_available():
        raise SystemExit(
            f"torch {torch.__version__} sees no CUDA device; this benchmark needs one. "
            "The CPU's is payoffs_per_second.py."
        )
    properties = torch.cuda.get_device_properties(0)
    query = ["nvidia-smi", "--id=0", "--query-gpu=clocks.max.sm"]
    answer = subprocess.run(
        [*query, "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        check=True,
    )
    megahertz = float(answer.stdout.split()[0])
    return {
        "device": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "clock_mhz": megahertz,
        "peak_flops": properties.multi_processor_count * 128 * 2 * megahertz * 1e6,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }


def make_net():
    """An MLP on the device, not trained."""
    torch.manual_seed(0)
    layers = []
    for n_in, n_out in pairwise(SIZES):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU()]
    module = torch.nn.Sequential(*layers[:-1])
    criterion = torch.nn.CrossEntropyLoss
    net = NeuralNetClassifier(module, criterion=criterion, device="cuda", verbose=0)
    return net.initialize()


def flops_per_payoff(players, kind, n_samples):
    """Floating-point operations that a payoff needs, comparisons not counted."""
    _, first, last, n_classes = SIZES
    if players == "last hidden layer":
        adds = n_classes if kind != "coalitions" else last * n_classes
    elif kind == "coalitions":
        adds = first * last + last * n_classes
    else:
        early, late = last + last * n_classes, n_classes
        share = 1 if players == "first hidden layer" else first / (first + last)
        adds = share * early + (1 - share) * late
    return 2 * n_samples * adds


def plays(game, rng):
    """Name, payoffs of a unit, and what plays so many units."""
    n, units = game.n_players, max(1, GIVEN // (game.n_players * game.n_blocks))
    for own, n_blocks in (("own", game.n_blocks), ("shared", 1)):
        orders = rng.permuted(np.tile(np.arange(n), (units, n_blocks, 1)), axis=2)
        yield f"walk, {own} orders", n, units, (game.walk, orders)
        coalitions = rng.random((units, n_blocks, n)) < 0.5
        yield f"flip, {own} coalitions", n, units, (game.flip, coalitions)
    coalitions = rng.random((4096, n)) < 0.5
    yield "coalitions", 1, len(coalitions), (game, coalitions)


def measure(play, samples, unit, seconds, repeats):
    """Payoffs per second, repetition by repetition."""
    size, rates = 1, []
    play(samples[:1])
    while True:
        start = time.perf_counter()
        play(samples[:size])
        elapsed = time.perf_counter() - start
        if elapsed > seconds / 4 or size == len(samples):
            break
        size = min(len(samples), 4 * size)
    for _ in range(repeats):
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            # The marginals are on the host when this returns: nothing is left to run.
            play(samples[:size])
            count += size
        rates.append(unit * count / (time.perf_counter() - start))
    return rates


def play_game(net, X, y, players, payoff, backend, seconds, repeats):
    """Rates of a backend in one game."""
    settings = {"players": PLAYERS[players], "payoff": payoff, "backend": backend}
    start = time.perf_counter()
    game = CoalitionEvaluator(net, X, y, **settings)
    game.flip(np.zeros((1, game.n_players), dtype=bool))
    rows = {"seconds_to_first_flips": time.perf_counter() - start}
    rng = np.random.default_rng(0)
    for name, unit, units, (play, samples) in plays(game, rng):
        if backend == "batched" and "own" in name:
            continue
        samples = samples[:units]
        rows[name] = measure(play, samples, unit, seconds, repeats)
    return rows


def show(title, players, n_samples, rows, peak):
    """Print a backend's rates in one game, and add medians and shares of the peak."""
    first = rows.pop("seconds_to_first_flips")
    table = {"seconds_to_first_flips": first}
    print(f"\n{title}: {first:.1f} s to the first flips")
    for name, rates in rows.items():
        kind = name.split(",")[0]
        median = statistics.median(rates)
        share = median * flops_per_payoff(players, kind, n_samples) / peak
        table[name] = {"payoffs_per_s": median, "share_of_peak": share, "runs": rates}
        print(
            f"  {name:24}{median:14,.0f} /s   ({min(rates):,.0f} to {max(rates):,.0f})"
            f"{share:9.2%} of the peak",
            flush=True,
        )
    return table


def main(repeats, seconds, path):
    facts = device_facts()
    print(
        f"{facts['device']}, {facts['multiprocessors']} multiprocessors at "
        f"{facts['clock_mhz']:.0f} MHz, peak {facts['peak_flops'] / 1e12:.1f} TFLOP/s, "
        f"torch {facts['torch']}, medians of {repeats} repetitions"
    )
    net, tables = make_net(), {}
    rng = np.random.default_rng(0)
    for n_samples in N_SAMPLES:
        X = rng.normal(size=(n_samples, SIZES[0])).astype(np.float32)
        y = rng.integers(SIZES[-1], size=n_samples)
        for players in PLAYERS:
            for payoff in PAYOFFS:
                for backend in ("triton", "batched"):
                    title = f"{players}, {payoff}, {n_samples} samples, {backend}"
                    game = (net, X, y, players, payoff, backend)
                    rows = play_game(*game, seconds, repeats)
                    peak = facts["peak_flops"]
                    tables[title] = show(title, players, n_samples, rows, peak)
    record = {"facts": facts, "tables": tables}
    Path(path).write_text(json.dumps(record, indent=1) + "\n")
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--json", default="gpu.json")
    given = parser.parse_args()
    main(given.repeats, given.seconds, given.json)
