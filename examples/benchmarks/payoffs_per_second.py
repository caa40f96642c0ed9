"""Payoffs a second on one core: skprune beside torch, captum and shapiq.

The network is an MLP of 512 and 256 hidden neurons, the payoff is accuracy or mean
log-likelihood on 1,000 held-out samples. Players are the 256 neurons of the last hidden
layer, the 512 of the first, or all 768. Everything is played in one process on one
thread, method after method, repetition by repetition; peers run on fewer payoffs, in
the setting that was fastest for them on this machine.

    SKPRUNE_DATA=DIR python examples/benchmarks/payoffs_per_second.py
        [--repeats 5] [--seconds 0.5] [--quick] [--json FILE]

Needs captum and shapiq. Prints a table for each game (payoffs per CPU second, medians
and spread, per second of wall-clock time, and how many times faster our whole estimates
are: Shapley by walks, biased Banzhaf by flips), the share of the core's peak, what a
second core, memory and the import cost, and the ratios beside what they should be;
writes all of it, with each repetition, the machine and the versions, as JSON. About a
quarter of an hour; --quick takes a minute on a smaller
network, and its figures say little.
"""

# First, because it keeps every library to one thread.
from _machine import (  # isort: skip
    alternate,
    describe,
    fma_peak,
    gemm_peak,
    machine,
    write_json,
)
import argparse

import numpy as np
import torch
from _costs import estimate_megabytes, import_seconds, two_cores
from _nets import images, train
from _ours import FLIPS, WALKS, ours
from _peers import (
    TorchGame,
    captum_on_activations,
    captum_on_masks,
    direct,
    lockstep_walks,
    prefixes,
    shapiq_permutations,
)

from skprune import CoalitionEvaluator

PLAYERS = {
    "last hidden layer": [1],
    "first hidden layer": [0],
    "both hidden layers": [0, 1],
}
PAYOFFS = ("accuracy", "log_likelihood")


def peers(torch_game):
    """Every other way to play, in its fastest setting; the games are checked."""
    n = torch_game.n_players
    tuned = {
        kind: torch_game.tuned(getattr(torch_game, kind))
        for kind in ("batched", "folded", "compacted")
    }
    games = {kind: game for kind, (game, _) in tuned.items()}
    chunk = {kind: f"{chunk} at a time" for kind, (_, chunk) in tuned.items()}
    # Masks as captum's inputs deserve the fastest game; so does a third row of shapiq.
    quickest = max(games, key=lambda kind: _rate(games[kind], n))
    methods = [
        direct("hook loop", torch_game.hooked, n, 8),
        captum_on_activations(torch_game),
        captum_on_masks(torch_game, games[quickest]),
        shapiq_permutations(
            f"shapiq permutation, batched torch game ({chunk['batched']})",
            games["batched"],
            n,
        ),
        shapiq_permutations(
            f"shapiq permutation, masks in weights ({chunk['folded']})",
            games["folded"],
            n,
        ),
        direct(f"torch, stacked product ({chunk['folded']})", games["folded"], n, 16),
        direct("torch, compacted, one at a time", games["compacted"], n, 16),
    ]
    if quickest == "compacted":
        name = "shapiq permutation, compacted, one at a time"
        methods.append(shapiq_permutations(name, games["compacted"], n))
    if len(torch_game.layers) == 1:
        methods.append(lockstep_walks(torch_game))
    return methods, games | {"hooks": torch_game.hooked}


def _rate(game, n):
    """Payoffs a second of a game, roughly."""
    method = direct("", game, n, 32)
    return alternate([method], 1, 0.1)[""]["payoffs_per_cpu_s"]


def check(game, torch_games):
    """Refuse to compare games that do not pay the same."""
    coalitions = prefixes(game.n_players, 32, np.random.default_rng(2))
    payoffs = game(coalitions)
    for name, torch_game in torch_games.items():
        worst = np.abs(torch_game(coalitions) - payoffs).max()
        # One sample of a thousand may be a tie to rounding.
        if worst > 1.5e-3:
            raise SystemExit(f"the game '{name}' differs from ours by {worst:.3g}.")


def measure(net, X, y, hidden, payoff, repeats, seconds):
    """Payoffs a second of every method in one game."""
    players = [("neurons", str(2 * i)) for i in hidden]
    torch_game = TorchGame(net.module_, X, y, hidden, payoff)
    methods, torch_games = peers(torch_game)
    for backend in ("compiled", "batched"):
        settings = {"players": players, "payoff": payoff, "backend": backend}
        game = CoalitionEvaluator(net, X, y, **settings)
        check(game, torch_games)
        methods += ours(game)
    return alternate(methods, repeats, seconds)


def show(title, rows):
    """Print a game's table and add the ratios to its rows."""
    walks = rows[WALKS.format("compiled")]["payoffs_per_cpu_s"]
    flips = rows[FLIPS.format("compiled")]["payoffs_per_cpu_s"]
    print(f"\n{title}\n{'':66}{'per CPU s':>11}{'lowest':>11}{'highest':>11}", end="")
    print(f"{'per wall s':>12}{'walks x':>9}{'flips x':>9}")
    for name, row in rows.items():
        rate = row["payoffs_per_cpu_s"]
        row["times_faster_by_walks"] = walks / rate
        row["times_faster_by_flips"] = flips / rate
        rates = (rate, row["lowest"], row["highest"])
        print(f"  {name:64}" + "".join(f"{number:11,.0f}" for number in rates), end="")
        print(f"{row['payoffs_per_wall_s']:12,.0f}", end="")
        print(f"{_short(walks / rate):>9}{_short(flips / rate):>9}", flush=True)


def _short(ratio):
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2f}"


def ratio(tables, game, prefix, by):
    """How many times faster we are than the fastest method of that name."""
    return min(row[by] for name, row in tables[game].items() if name.startswith(prefix))


def goals(tables, peaks, costs):
    """What was to be reached, what was, and whether less or more is better."""
    last, loglik = "last hidden layer, accuracy", "last hidden layer, log_likelihood"
    both = "both hidden layers, accuracy"
    walks, flips = "times_faster_by_walks", "times_faster_by_flips"
    shapiq = "shapiq permutation, masks in weights"
    rows = [
        ("last layer, accuracy: x shapiq, whole estimates", last, shapiq, walks, 300),
        ("last layer, accuracy: x hook loop", last, "hook loop", walks, 25_000),
        ("last layer, log-likelihood: x shapiq", loglik, shapiq, walks, 30),
        ("both layers, flips: x captum, activations", both, "captum, hid", flips, 150),
        ("both layers, flips: x captum, any game", both, "captum", flips, 150),
    ]
    found = [
        (name, ratio(tables, *where), "at least", goal) for name, *where, goal in rows
    ]
    given = tables[last]["skprune compiled: walk, orders given"]["payoffs_per_cpu_s"]
    alone = given / tables[last][WALKS.format("compiled")]["payoffs_per_cpu_s"]
    name = "last layer, accuracy: x shapiq, walks of given orders"
    found.insert(1, (name, alone * found[0][1], "at least", 300))
    found.append(("share of the FMA peak, walks alone", peaks["share"], "", None))
    for name, speed_up in costs["two_cores"].items():
        if speed_up:
            value = speed_up["speed_up"]
            found.append((f"two cores over one, {name}", value, "at least", 1.8))
    found.append(("MB that 100,000 payoffs add", costs["estimate_mb"], "at most", 200))
    found.append(("seconds of the import", costs["import_s"], "at most", 0.3))
    found.append(("... with all that it exports", costs["import_all_s"], "", None))
    return found


def shares(tables, n_samples, n_classes):
    """The peaks of the core, and what walks of the last hidden layer use of them.

    A payoff of a walk changes each class's logit of each sample by one product: that
    many multiply-adds are counted, and neither comparisons nor what is spent on sums.
    """
    peaks = {"fma_flops": fma_peak(), "gemm_flops": gemm_peak()}
    row = tables["last hidden layer, accuracy"]["skprune compiled: walk, orders given"]
    peaks["flops_per_payoff"] = 2 * n_samples * n_classes
    peaks["walk_flops"] = peaks["flops_per_payoff"] * row["payoffs_per_cpu_s"]
    peaks["share"] = peaks["walk_flops"] / peaks["fma_flops"]
    return peaks


def main(repeats, seconds, quick, path):
    facts = machine()
    print(describe(facts))
    name, fit, (X, y) = images(n_train=2000 if quick else 20_000)
    hidden = [64, 32] if quick else [512, 256]
    net = train([X.shape[1], *hidden, 10], *fit, epochs=3, seed=0)
    correct = (net.module_(torch.from_numpy(X)).argmax(1).numpy() == y).mean()
    print(f"{name}, hidden layers {hidden}, {len(X)} held-out samples", end=", ")
    print(f"accuracy {correct:.3f}")
    print(f"medians of {repeats} alternating repetitions, about {seconds} s each")
    tables = {}
    for title, hidden in PLAYERS.items():
        for payoff in PAYOFFS:
            title_payoff = f"{title}, {payoff}"
            rows = measure(net, X, y, hidden, payoff, repeats, seconds)
            show(title_payoff, rows)
            tables[title_payoff] = rows
    peaks = shares(tables, len(X), 10)
    costs = all_costs(net, X, y, repeats, seconds=0.2 if quick else 1.0)
    found = goals(tables, peaks, costs)
    report(found, peaks)
    summary = [
        {"name": name, "value": value, "goal": f"{side} {goal}" if goal else None}
        for name, value, side, goal in found
    ]
    record = {"machine": facts, "data": name, "tables": tables, "peaks": peaks}
    write_json(path, record | {"costs": costs, "goals": summary})


def all_costs(net, X, y, repeats, seconds):
    """Two cores, memory, import."""
    walks = {
        "last hidden layer": {"players": [("neurons", "2")]},
        "both hidden layers": {"players": "neurons"},
    }
    return {
        "two_cores": {
            name: two_cores(net, X, y, settings, seconds, repeats)
            for name, settings in walks.items()
        },
        "estimate_mb": estimate_megabytes(),
        "import_s": import_seconds(repeats),
        "import_all_s": import_seconds(repeats, "from skprune import *"),
    }


def report(found, peaks):
    """Print the peaks and the goals."""
    print(f"\nFMA peak {peaks['fma_flops'] / 1e9:.0f} GFLOP/s, torch's GEMM", end=" ")
    print(f"{peaks['gemm_flops'] / 1e9:.0f}, walks {peaks['walk_flops'] / 1e9:.0f}\n")
    for name, value, side, goal in found:
        met = goal is None or (value >= goal if side == "at least" else value <= goal)
        words = f"{side} {goal:,}: {'met' if met else 'MISSED'}" if goal else ""
        print(f"  {name:50}{value:12,.2f}   {words}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", default="payoffs_per_second.json")
    given = parser.parse_args()
    repeats = given.repeats or (1 if given.quick else 5)
    seconds = given.seconds or (0.02 if given.quick else 0.5)
    main(repeats, seconds, given.quick, given.json)
