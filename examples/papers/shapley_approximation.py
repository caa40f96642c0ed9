"""How many samples a Shapley value takes: section 3.4 of Stier et al., in full.

The paper says, without figures, that at least 100 random permutations, equation (4), or
500 random subsets, equation (3), are needed, on randomly perturbed uniform games and on
the UN Security Council, and that the error is mostly below 5 %. This prints the errors
of both, and of the scorers of skprune, at equal numbers of samples and of payoffs.

    python examples/papers/shapley_approximation.py [--full] [--repeats 20] [--seed 0]
        [--plot FILE]

An error is the mean over players of |estimate - exact|, in percent of the mean exact
value; beside it stands that of the worst player. Divided by the number of players, both
are in percent of what the grand coalition earns, v(U); the paper does not say which one
it means. A perturbed uniform game gives every coalition its share of the players plus
normal noise with a standard deviation of 1 / n, one player's share: the paper has no
formula, and errors of (4) and (3), but not of its printed form, are proportional to
this noise. Repetition k plays the game drawn with seed k % 5, its generators are seeded
by `seed`, k and the number of samples. Under a minute on one core; --full, with 200
repetitions and up to 20,000 samples, a quarter of an hour.

Readings. Equation (1) is 0 as printed, since S - i = S for S in U without i: v(S + i) -
v(S) is meant. So (3) is taken with uniform subsets of the other players and weights
|S|! (n - |S| - 1)!, as in pyshapley, the first author's package on GitHub. "Printed" is
(3) to the letter, with subsets of U; those without i add nothing to the sum, and their
weight to its divisor. "Pr., S with i" draws only subsets with i. Both leave out U
itself, whose weight n! (-1)! is undefined, and tend to other values.

Payoffs. A permutation costs n, for all players. A subset costs 2 for one player: 2n for
all of them, or n + 1 where the players share it, as here. Its expected error is the
same, since a uniform subset of U less i is one of the others. ShapleyScorer() walks
antithetic orders, or plays all coalitions where the budget pays for them; of itself it
takes 10,000 payoffs.
"""

import argparse
from functools import partial
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
from scipy.special import gammaln, ndtri

from skprune.games import Game, PerturbedUniformGame, un_security_council
from skprune.samplers import bernoulli_coalitions
from skprune.scorers import ShapleyScorer

SAMPLES = [10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000]
PAYOFFS = [500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000]
DRAWS = 5
PAPER = {"(4)": 100, "(3)": 500}
LIMIT = 5.0


class HashedUniformGame(Game):
    """A perturbed uniform game of up to 64 players: the noise is a hash.

    Its values are known to about 0.02 % of their mean (standard deviation) for 40
    players: sizes that are left out average over so many coalitions that their noise
    vanishes.
    """

    def __init__(self, n_players, noise, seed):
        self.n_players = n_players
        self.noise = noise
        self.key = np.random.default_rng(seed).integers(2**64, dtype=np.uint64)

    def _payoffs(self, coalitions):
        n = self.n_players
        sizes = coalitions.sum(axis=1)
        inner = (sizes > 0) & (sizes < n)
        codes = coalitions @ (np.uint64(1) << np.arange(n, dtype=np.uint64))
        uniform = (_mix(codes ^ self.key) >> np.uint64(11)) + 0.5
        return sizes / n + inner * self.noise * ndtri(uniform / 2**53)

    def shapley_values(self, largest=4):
        """Values by the coalitions of at most `largest` present or absent players."""
        n = self.n_players
        values = np.full(n, 1 / n)
        for size in range(1, largest + 1):
            members = np.array(list(combinations(range(n), size)))
            few = np.zeros((len(members), n), dtype=bool)
            np.put_along_axis(few, members, True, axis=1)
            for coalitions in (few, ~few):
                noise = self(coalitions) - coalitions[0].sum() / n
                values += noise @ coalitions / coalitions.sum(axis=0) / n
                values -= noise @ ~coalitions / (~coalitions).sum(axis=0) / n
        return values


def _mix(codes):
    """Finalizer of SplitMix64: every bit depends on every bit."""
    codes = (codes ^ (codes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    codes = (codes ^ (codes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return codes ^ (codes >> np.uint64(31))


def exact_values(game):
    """Shapley values by a closed form, or by all coalitions."""
    if hasattr(game, "shapley_values"):
        return game.shapley_values()
    return ShapleyScorer(method="exact").estimate(game).values


def games():
    """Draws of each game, with the exact values of each."""
    drawn = {"UN Security Council, n = 15": [un_security_council()]}
    for n in (10, 15, 40):
        kind = PerturbedUniformGame if n < 20 else HashedUniformGame
        drawn[f"perturbed uniform, n = {n}"] = [kind(n, 1 / n, k) for k in range(DRAWS)]
    return {
        name: [(game, exact_values(game)) for game in draws]
        for name, draws in drawn.items()
    }


def walks(game, n_samples, rng, sampler="uniform"):
    """Equation (4): mean marginals along orders; uniform ones are the paper's."""
    scorer = ShapleyScorer(
        sampler=sampler,
        method="sampling",
        n_evaluations=n_samples * game.n_players + 2,
        random_state=rng,
    )
    return scorer.estimate(game).values


def subsets(game, n_samples, rng, reading="others"):
    """Equation (3): weighted mean marginals around uniform subsets."""
    coalitions = bernoulli_coalitions(game.n_players, n_samples, rng)
    return weighted_marginals(game, coalitions, reading)


def weighted_marginals(game, coalitions, reading):
    """Equation (3) with these subsets, in logarithms: 39! is more than 2**150."""
    marginals = game.flip(coalitions)
    n = game.n_players
    sizes = np.broadcast_to(coalitions.sum(axis=1, keepdims=True), coalitions.shape)
    if reading == "others":
        sizes = sizes - coalitions
    counted = sizes < n
    if reading == "printed":
        marginals = marginals * coalitions
    elif reading == "with i":
        counted = counted & coalitions
    logs = gammaln(sizes + 1) + gammaln(np.maximum(n - sizes, 1))
    logs = np.where(counted, logs, -np.inf)
    weights = np.exp(logs - np.maximum(logs.max(axis=0), 0))
    total = weights.sum(axis=0)
    # A player whom no subset tells anything about is worth 0, as far as is known.
    return (weights * marginals).sum(axis=0) / np.where(total > 0, total, 1)


def default_scorer(game, n_payoffs, rng):
    """The default scorer with this budget: exact where that costs no more."""
    given = ShapleyScorer(n_evaluations=n_payoffs, random_state=rng)
    return given.estimate(game).values


METHODS = {
    "(4) permutations": walks,
    "(3) subsets": subsets,
    "(3) printed": partial(subsets, reading="printed"),
    "(3) pr., S with i": partial(subsets, reading="with i"),
    "antithetic": partial(walks, sampler="antithetic"),
    "Sobol": partial(walks, sampler="sobol"),
}
# The same, with the number of samples that a number of payoffs of n players pays for.
PRICED = {
    "(4) permutations": (walks, lambda n, payoffs: (payoffs - 2) // n),
    "(3) subsets, n + 1": (subsets, lambda n, payoffs: payoffs // (n + 1)),
    "(3) subsets, 2n": (subsets, lambda n, payoffs: payoffs // (2 * n)),
    "Sobol": (METHODS["Sobol"], lambda n, payoffs: (payoffs - 2) // n),
    "ShapleyScorer()": (default_scorer, lambda n, payoffs: payoffs),
}


def percent(values, exact):
    """Errors of all players, in percent of the mean exact value."""
    return 100 * abs(values - exact) / exact.mean()


def errors(estimate, draws, n_samples, given):
    """Mean and largest error of each repetition in percent, shape (repeats, 2)."""
    rows = []
    for repeat in range(given.repeats):
        game, exact = draws[repeat % len(draws)]
        rng = np.random.default_rng([given.seed, repeat, n_samples])
        apart = percent(estimate(game, n_samples, rng), exact)
        rows.append([apart.mean(), apart.max()])
    return np.array(rows)


def by_samples(draws, given):
    """Errors of all methods at each number of samples."""
    return {
        name: {r: errors(method, draws, r, given) for r in given.samples}
        for name, method in METHODS.items()
    }


def by_payoffs(draws, given):
    """Errors of all methods at each number of payoffs."""
    n = draws[0][0].n_players
    return {
        name: {
            payoffs: errors(method, draws, affordable(n, payoffs), given)
            for payoffs in PAYOFFS
        }
        for name, (method, affordable) in PRICED.items()
    }


def limits(draws):
    """Mean errors in percent that the readings of (3) keep with all subsets of U."""
    n = draws[0][0].n_players
    everyone = (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(bool)
    readings = {
        "(3) subsets": "others",
        "(3) printed": "printed",
        "(3) pr., S with i": "with i",
    }
    found = {}
    for name, reading in readings.items():
        left = [
            percent(weighted_marginals(game, everyone, reading), exact)
            for game, exact in draws
        ]
        found[name] = np.mean(left)
    return found


def effective_share(n_players):
    """Kish's effective number of subsets, by the weights of (3), over their number."""
    inverse = np.array([1 / comb(n_players - 1, s) for s in range(n_players)])
    return n_players**2 / inverse.sum() / 2 ** (n_players - 1)


def show(table, unit):
    """Print a table of errors, one row for each number of samples or payoffs."""
    print(f"  {unit:>8}" + "".join(f"{name:>19}" for name in table))
    for count in next(iter(table.values())):
        row = f"  {count:8,}"
        for curve in table.values():
            values = curve[count]
            mean, worst = values.mean(axis=0)
            spread = values[:, 0].std(ddof=1) / np.sqrt(len(values))
            row += f"{mean:7.1f} ({spread:4.1f}){worst:5.0f}"
        print(row, flush=True)


def first_below(errors_at):
    """Smallest number of samples from which on the mean is below 5 %, or None."""
    found = None
    for count in sorted(errors_at, reverse=True):
        if errors_at[count].mean() >= LIMIT:
            break
        found = count
    return found


def verdict(curves, n_players, noisy):
    """Print from which number of samples on each method stays below 5 %."""
    heads = ("mean", "payoffs", "worst", "mean/v(U)", "worst/v(U)")
    print(f"  {'below 5 % from r on':20}" + "".join(f"{h:>12}" for h in heads), end="")
    print(f"{'mean at the r of the paper':>30}")
    for name, curve in curves.items():
        cells = [
            first_below({r: values[:, column] / unit for r, values in curve.items()})
            for unit in (1, n_players)
            for column in (0, 1)
        ]
        around = name.startswith("(3)")
        paid = (n_players + around) * cells[0] if cells[0] else None
        row = [cells[0], paid, *cells[1:]]
        words = "".join(f"{f'{cell:,}' if cell else '-':>12}" for cell in row)
        count = PAPER["(3)" if around else "(4)"]
        error = curve[count][:, 0].mean()
        words += f"{error:10.1f} % at {count}"
        if noisy and "pr" not in name:
            words += f"; 5 % at noise {LIMIT / error:.2f}"
        print(f"  {name:20}{words}")


def report(name, draws, given):
    """Print all tables of one game."""
    n = draws[0][0].n_players
    print(f"\n{name} (games drawn: {len(draws)}, repetitions: {given.repeats})")
    print("  percent of the mean value: mean of players (standard error), worst player")
    curves = by_samples(draws, given)
    show(curves, "samples")
    if n <= 15:
        words = (f"{name} {value:.1f}" for name, value in limits(draws).items())
        print(f"  what is left with all subsets of U: {', '.join(words)}")
    share = effective_share(n)
    print(f"  many subsets are worth {share:.2g} of their number in (3)")
    print(f"\n  the exact values cost {2**n:,} payoffs")
    priced = by_payoffs(draws, given)
    show(priced, "payoffs")
    print()
    verdict(curves, n, noisy=len(draws) > 1)
    return curves, priced


def plot(tables, path):
    """Draw mean errors against samples, and below against payoffs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        2, len(tables), figsize=(4 * len(tables), 7), sharey=True, layout="constrained"
    )
    for column, (name, pair) in enumerate(tables.items()):
        axes[0, column].set_title(name)
        for axis, curves in zip(axes[:, column], pair, strict=True):
            for method, curve in curves.items():
                means = [values[:, 0].mean() for values in curve.values()]
                # No error has no place on a logarithmic axis.
                means = [mean if mean > 1e-6 else np.nan for mean in means]
                axis.loglog(list(curve), means, marker=".", label=method)
            axis.axhline(LIMIT, color="black", linewidth=0.8, linestyle=":")
    for axis, unit in zip(axes, ("samples", "payoffs"), strict=True):
        for pane in axis:
            pane.set_xlabel(unit)
        axis[0].set_ylabel("mean error, % of the mean value")
        axis[0].legend(fontsize="small")
    figure.savefig(path, dpi=150)


def main(given):
    given.repeats = given.repeats or (200 if given.full else 20)
    given.samples = [*SAMPLES, 20_000] if given.full else SAMPLES
    tables = {name: report(name, draws, given) for name, draws in games().items()}
    if given.plot:
        plot(tables, given.plot)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--repeats", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, help="a file for the curves")
    main(parser.parse_args())
