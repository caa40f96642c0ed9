"""Our side of the payoffs per second: whole estimates, and walks and flips alone."""

import numpy as np
from _machine import Method
from _peers import direct

from skprune.samplers import bernoulli_coalitions, uniform_orders
from skprune.scorers import BanzhafScorer, BiasedBanzhafScorer, ShapleyScorer

WALKS = "skprune {}: ShapleyScorer.estimate"
FLIPS = "skprune {}: BiasedBanzhafScorer.estimate (d=.225)"
# Elements of the orders and coalitions that are drawn beforehand.
GIVEN = 2**22


def ours(game):
    """Our backend's whole estimates, and its walks, flips and payoffs alone."""
    n, blocks, backend = game.n_players, game.n_blocks, game.backend_

    def estimate(scorer):
        def play(n_payoffs):
            scorer.set_params(n_evaluations=n_payoffs)
            return scorer.estimate(game).n_evaluations

        return play

    sampling = {"method": "sampling", "random_state": 0}
    methods = [
        Method(WALKS.format(backend), estimate(ShapleyScorer(**sampling)), 2 * n + 2),
        Method(
            FLIPS.format(backend),
            estimate(BiasedBanzhafScorer(0.225, sampler="flips", **sampling)),
            2 * n,
        ),
        Method(
            f"skprune {backend}: BanzhafScorer.estimate",
            estimate(BanzhafScorer(sampler="flips", **sampling)),
            2 * n,
        ),
        direct(f"skprune {backend}: arbitrary coalitions", game, n, 16),
    ]
    if backend == "batched":
        return methods
    rng = np.random.default_rng(0)
    count = max(2, GIVEN // (n * blocks))
    orders = uniform_orders(n, count, rng, n_blocks=blocks)
    given = [("walk, orders given", game.walk, orders)]
    for d in (0.5, 0.225):
        coalitions = bernoulli_coalitions(
            n, count, rng, inclusion_probability=d, n_blocks=blocks
        )
        given.append((f"flip, coalitions given (d={d})", game.flip, coalitions))
    budget = max(10_000, 40 * n)
    return [
        *methods,
        *(_given(f"skprune {backend}: {name}", *rest) for name, *rest in given),
        _repeated(f"{WALKS.format(backend)}, {budget:,} at a time", methods[0], budget),
    ]


def _given(name, play_samples, samples):
    """Walks or flips of samples that were drawn before."""
    n = samples.shape[-1]

    def play(n_payoffs):
        left = -(-n_payoffs // n)
        for at in range(0, left, len(samples)):
            play_samples(samples[: min(left - at, len(samples))])
        return left * n

    return Method(name, play, n)


def _repeated(name, method, budget):
    """Estimates of one budget, one after the other."""

    def play(n_payoffs):
        return sum(method.play(budget) for _ in range(-(-n_payoffs // budget)))

    return Method(name, play, budget)
