"""Seconds of the reconstruction game: moments, building, Shapley and Banzhaf values.

Layers of 84 to 4,096 units that the next layer reads with 10 to 4,096 units; 20,000
samples from random single-precision data. Each step is timed on one thread and on two,
and beside a plain implementation that is written out below: the greedy search that
updates all targets at each step, and one linear solve for each payoff. Of these a part
is played and scaled up: a few payoffs, and where targets are many the first steps of
the search, which cost least. What they chose and earned is compared with ours.

    python examples/benchmarks/reconstruction_seconds.py
        [--sizes 84x10 512x512] [--threads 1 2] [--samples 20000] [--seed 0]
        [--quick] [--json FILE]

Prints a table for each layer and writes all of it, with the machine, the seed and the
versions, as JSON. About ten minutes for the defaults, seconds with --quick. Of the two
columns of seconds the first is CPU time, over all threads, the second the wall clock's;
ratios are of CPU time, plain to ours, on one thread.
"""

# First: it sets the threads that the libraries start with.
from _machine import describe, machine, timed, write_json  # isort: skip
import argparse
import statistics

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from skprune.evaluation._moments import Moments
from skprune.games import ReconstructionGame
from skprune.scorers import BiasedBanzhafScorer, ShapleyScorer

SIZES = ["84x10", "512x10", "512x512", "4096x10", "4096x1024", "4096x4096"]
BATCH = 1024
# Steps of the plain search where targets are many, and payoffs of the plain game.
PLAIN_STEPS, PLAIN_PAYOFFS = 64, 6


def layer(n_units, n_targets, n_samples, seed):
    """What a layer gives, and what the next makes of it: correlated, rectified."""
    generator = torch.Generator().manual_seed(seed)
    rank = max(8, n_units // 4)
    sources = torch.randn(n_samples, rank, generator=generator)
    mixing = torch.randn(rank, n_units, generator=generator) / rank**0.5
    noise = torch.randn(n_samples, n_units, generator=generator)
    units = torch.relu(sources @ mixing + 0.3 * noise)
    weights = torch.randn(n_units, n_targets, generator=generator) / n_units**0.5
    return units, units @ weights


def collect(units, targets):
    """The moments of a layer, streamed in batches, as arrays."""
    moments = Moments()
    for x, z in zip(units.split(BATCH), targets.split(BATCH), strict=True):
        moments.update(x, z)
    variance = float(moments.target_variances.sum())
    return moments.gram.numpy(), moments.cross.numpy(), variance


def plain_moments(units, targets):
    """All samples at once, in double precision."""
    x, z = units.double(), targets.double()
    x, z = x - x.mean(0), z - z.mean(0)
    return (x.T @ x / len(x)).numpy(), (x.T @ z / len(x)).numpy()


def plain_order(gram, cross, n_steps):
    """Greedy building that subtracts each player's part from all targets at once."""
    n = len(gram)
    residual, factor = cross.copy(), np.zeros((n, n_steps))
    left, free = gram.diagonal().copy(), np.ones(n, bool)
    order = []
    for step in range(n_steps):
        gains = np.einsum("iq,iq->i", residual, residual) / left
        best = int(np.where(free, gains, -np.inf).argmax())
        order.append(best)
        free[best] = False
        used = factor[:, :step]
        new = (gram[:, best] - used @ used[best]) / np.sqrt(left[best])
        factor[:, step] = new
        residual -= np.outer(new, residual[best] / np.sqrt(left[best]))
        left[free] -= new[free] ** 2
    return np.array(order)


def plain_payoff(gram, cross, present):
    """One linear solve."""
    own = cross[present]
    weights = np.linalg.solve(gram[np.ix_(present, present)], own)
    return float((own * weights).sum())


def seconds(function, *args):
    """What it returns, CPU and wall-clock seconds: medians of five if it is quick."""
    runs = [timed(function, *args)]
    if runs[0][2] < 1:
        runs += [timed(function, *args) for _ in range(5)]
        runs = runs[1:]
    return runs[0][0], *(statistics.median(run[i] for run in runs) for i in (1, 2))


def ours(data, seed):
    """Seconds of each step, and what the steps gave."""
    n = data[0].shape[1]
    times, results = {}, {}

    def step(name, function, *args):
        results[name], *times[name] = seconds(function, *args)
        return results[name]

    moments = step("moments", collect, *data)
    game = step("game", lambda: ReconstructionGame(*moments))
    step("building, a quarter", game.greedy_order, n // 4)
    step("building, all", game.greedy_order, n)
    step("Shapley", ShapleyScorer(random_state=seed).estimate, game)
    step("biased Banzhaf", BiasedBanzhafScorer(random_state=seed).estimate, game)
    return times, results


def plain(data, results, seed):
    """CPU seconds of the plain ways, and how far their answers are from ours."""
    gram, cross, variance = results["moments"]
    n, rng = len(gram), np.random.default_rng(seed)
    exact, *moment_times = seconds(plain_moments, *data)
    gram_error = np.abs(exact[0] - gram).max() / np.abs(exact[0]).max()
    gram = gram + 1e-3 * gram.diagonal().mean() * np.eye(n)
    cross = cross / np.sqrt(variance)
    n_steps = n if cross.size < 2**19 else PLAIN_STEPS
    order, search, _ = seconds(plain_order, gram, cross, n_steps)
    game = results["game"]
    places = (np.arange(PLAIN_PAYOFFS) + 0.5) / PLAIN_PAYOFFS
    walked = [rng.permutation(n) < max(1, share * n) for share in places]
    coins = [rng.random(n) < 0.225 for _ in places]
    wanted = game(np.array(walked + coins))
    found, times = [], []
    for group in (walked, coins):
        payoffs, cpu, _ = seconds(
            lambda masks=group: [plain_payoff(gram, cross, m) for m in masks]
        )
        found += payoffs
        times.append(cpu / PLAIN_PAYOFFS)
    budgets = [results[name].n_evaluations for name in ("Shapley", "biased Banzhaf")]
    cpu = {
        "moments": moment_times[0],
        "building, a quarter": search * (n // 4) / n_steps,
        "building, all": search * n / n_steps,
        "Shapley": times[0] * budgets[0],
        "biased Banzhaf": times[1] * budgets[1],
    }
    return cpu, {
        "largest_relative_error_of_gram": float(gram_error),
        "largest_error_of_payoffs": float(np.abs(np.array(found) - wanted).max()),
        "same_players_chosen": bool(
            (order == results["building, all"][0][:n_steps]).all()
        ),
        "plain_steps_played": n_steps,
    }


def run(size, args):
    """Play one layer on each number of threads; the rows of its table."""
    n, q = map(int, size.split("x"))
    data = layer(n, q, args.samples, args.seed)
    record = {"units": n, "targets": q, "samples": args.samples, "seconds": {}}
    for threads in args.threads:
        torch.set_num_threads(threads)
        with threadpool_limits(threads):
            times, results = ours(data, args.seed)
        record["seconds"][threads] = {
            name: {"cpu": cpu, "wall": wall} for name, (cpu, wall) in times.items()
        }
    torch.set_num_threads(1)
    with threadpool_limits(1):
        record["plain_cpu"], record["checks"] = plain(data, results, args.seed)
    first = record["seconds"][args.threads[0]]
    record["ratios"] = {
        name: value / first[name]["cpu"] for name, value in record["plain_cpu"].items()
    }
    return record


def show(record):
    """Print the table of one layer."""
    print(
        f"\n{record['units']} units, {record['targets']} targets, "
        f"{record['samples']} samples"
    )
    heads = "".join(f"{f'{t} thread(s)':>22}" for t in record["seconds"])
    print(f"  {'seconds, CPU and wall':22}{heads}{'plain, CPU':>14}{'ratio':>9}")
    for name in next(iter(record["seconds"].values())):
        cells = "".join(
            f"{times[name]['cpu']:12.4f}{times[name]['wall']:10.4f}"
            for times in record["seconds"].values()
        )
        if name in record["ratios"]:
            cells += f"{record['plain_cpu'][name]:14.2f}{record['ratios'][name]:9.1f}"
        print(f"  {name:22}{cells}")
    checks = record["checks"]
    print(
        f"  gram off by {checks['largest_relative_error_of_gram']:.0e}, payoffs by "
        f"{checks['largest_error_of_payoffs']:.0e}; the first "
        f"{checks['plain_steps_played']} players are the same: "
        f"{checks['same_players_chosen']}",
        flush=True,
    )


def main(args):
    facts = machine()
    print(describe(facts))
    records = []
    for size in args.sizes:
        records.append(run(size, args))
        show(records[-1])
    if args.json:
        write_json(args.json, {"machine": facts, "seed": args.seed, "layers": records})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="UNITSxTARGETS")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="small layers only")
    parser.add_argument("--json", help="file to write")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sizes, arguments.samples = ["84x10", "256x64"], 2_000
    main(arguments)
