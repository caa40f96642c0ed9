"""Every estimator of the benchmark of errors, ours and shapiq's, under one call.

Of shapiq 1.4.1 those are left out that give the very numbers of another one when only
single players are asked for: SVARMIQ (of SVARM), SHAPIQ (of UnbiasedKernelSHAP),
kADDSHAP, KernelSHAPIQ, InconsistentKernelSHAPIQ and RegressionFSII (of KernelSHAP),
RegressionFBII at order 1 aside; and SPEX and ProxySPEX, which look for interactions.
It has no estimator of the biased Banzhaf value.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from _machine import require

from skprune.scorers import BanzhafScorer, BiasedBanzhafScorer, ShapleyScorer

INDICES = ("Shapley", "Banzhaf", "biased Banzhaf .225")


@dataclass(frozen=True)
class Estimator:
    """`run(game, budget, seed)` returns the values of all players.

    `least(n_players)` is the smallest budget that it can be asked for.
    """

    name: str
    index: str
    family: str
    run: Callable
    least: Callable[[int], int]


def scorer(index):
    """Our default scorer of an index."""
    return {
        "Shapley": ShapleyScorer(),
        "Banzhaf": BanzhafScorer(),
        "biased Banzhaf .225": BiasedBanzhafScorer(0.225),
    }[index]


def estimators(index):
    """All estimators of an index."""
    samplers = {
        "Shapley": ("antithetic", "sobol", "uniform"),
        "Banzhaf": ("flips", "least_squares", "sample_reuse"),
        "biased Banzhaf .225": ("flips", "least_squares", "sample_reuse"),
    }
    return [_ours(index, name) for name in samplers[index]] + _shapiq(index)


def _ours(index, sampler):
    def run(game, budget, seed):
        settings = {"n_evaluations": budget, "random_state": seed}
        return (
            scorer(index).set_params(sampler=sampler, **settings).estimate(game).values
        )

    def least(n_players):
        if sampler == "least_squares":
            return 8 * n_players
        return 20 * n_players if sampler == "sample_reuse" else 2 * n_players + 2

    return Estimator(f"skprune {sampler}", index, "skprune", run, least)


def _shapiq(index):
    """shapiq's estimators of an index, as they come and with their options."""
    paired = {"pairing_trick": True}
    every_size = {"sampling_weights": "uniform"}
    chosen = {
        "Shapley": [
            ("permutation", "PermutationSamplingSV", {}),
            ("KernelSHAP", "KernelSHAP", {}),
            ("KernelSHAP, paired", "KernelSHAP", paired),
            ("LeverageSHAP, paired", "KernelSHAP", paired | every_size),
            ("unbiased KernelSHAP, paired", "UnbiasedKernelSHAP", paired),
            ("SVARM (stratified)", "SVARM", {}),
            ("SVARM (stratified), paired", "SVARM", paired),
            ("stratified", "StratifiedSamplingSV", {}),
            ("Owen", "OwenSamplingSV", {}),
        ],
        "Banzhaf": [
            ("SVARM", "SVARM", {"index": "BV"}),
            ("SHAP-IQ", "SHAPIQ", {"index": "BV", "max_order": 1}),
            ("SHAP-IQ, paired", "SHAPIQ", {"index": "BV", "max_order": 1} | paired),
            ("FBII regression", "RegressionFBII", {"max_order": 1}),
            ("FBII regression, paired", "RegressionFBII", {"max_order": 1} | paired),
        ],
    }
    return [_peer(index, *row) for row in chosen.get(index, [])]


def _peer(index, name, kind, settings):
    cls = getattr(require("shapiq.approximator"), kind)

    def run(game, budget, seed):
        n = game.n_players
        options = dict(settings)
        if options.get("sampling_weights") == "uniform":
            options["sampling_weights"] = np.ones(n + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = cls(n=n, random_state=seed, **options).approximate(budget, game)
        return values.get_n_order_values(1)

    return Estimator(f"shapiq {name}", index, "shapiq", run, lambda n: 2 * n)
