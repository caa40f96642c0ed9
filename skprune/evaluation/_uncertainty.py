"""MCUE: how uncertain a net is when units leave at random, and the critical size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.utils import check_random_state

from skprune.samplers import bernoulli_coalitions, fixed_size_coalitions

__all__ = ["CriticalSize", "UncertaintyBands", "critical_size", "uncertainty_bands"]

_CHUNK = 16


@dataclass(frozen=True, eq=False)
class UncertaintyBands:
    """Uncertainty of a net's answers over a grid of two elimination rates.

    Parameters
    ----------
    p : ndarray of shape (n_p,)
        Probability with which each unit that the first phase left is eliminated.
    q : ndarray of shape (n_q,)
        Share of the units that the first phase eliminates.
    values : ndarray of shape (n_p, n_q)
        Uncertainty of the answers.
    """

    p: np.ndarray
    q: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class CriticalSize:
    """The size at which a net turns from certain to uncertain.

    Parameters
    ----------
    elimination : float
        t*, the rate p = q of largest uncertainty.
    fraction : float
        d = 1 - t*, the critical size as a share; the paper's inclusion probability.
    surviving_fraction : float
        (1 - t*)², the share of units that survive both phases.
    grid : ndarray of shape (n_rates,)
        The rates tried.
    values : ndarray of shape (n_rates,)
        Uncertainty at each.
    """

    elimination: float
    fraction: float
    surviving_fraction: float
    grid: np.ndarray
    values: np.ndarray


def uncertainty_bands(
    evaluator, p, q, *, n_subnetworks=64, variance="one_hot", random_state=None
):
    """Monte Carlo uncertainty estimation, MCUE(p, q), over a grid.

    Each random sub-network is drawn in two phases: a coalition of exactly
    ``(1 - q) n`` players, of which each then leaves with probability p.

    Parameters
    ----------
    evaluator : CoalitionEvaluator
        The net as a game.
    p, q : array-like of floats in [0, 1)
        Elimination rates of the second and of the first phase.
    n_subnetworks : int, default=64
        Number of sub-networks for each pair of rates.
    variance : {"one_hot", "entropy", "class_index"}, default="one_hot"
        Variance of the one-hot predicted class, or entropy (nats) of the predicted
        class, within an instance over the sub-networks, averaged over instances; or the
        variance of the class index pooled over both, as Algorithm 1 of the paper. For
        regression the variance of the prediction within an instance.
    random_state : int, RandomState instance or None, default=None
        Draws the sub-networks.

    Returns
    -------
    bands : UncertaintyBands

    Raises
    ------
    ValueError
        If a rate is outside [0, 1), `variance` is unknown or there are fewer than two
        sub-networks.

    References
    ----------
    .. [1] M. Diaz-Ortiz et al., "Using Cooperative Game Theory to Prune Neural
       Networks", arXiv:2311.10468, Algorithm 1.
    """
    p, q = _rates("p", p), _rates("q", q)
    _check_uncertainty(variance, n_subnetworks)
    rng = _generator(random_state)
    values = np.array(
        [[_mcue(evaluator, a, b, n_subnetworks, variance, rng) for b in q] for a in p]
    )
    return UncertaintyBands(p, q, values)


def critical_size(
    evaluator, grid=None, *, n_subnetworks=64, variance="one_hot", random_state=None
):
    """Rate of largest uncertainty on the diagonal p = q, and the sizes it stands for.

    Parameters
    ----------
    evaluator : CoalitionEvaluator
        The net as a game.
    grid : array-like of floats in [0, 1), default=None
        Rates to try; 0.05 to 0.975 in steps of 0.025 by default.
    n_subnetworks : int, default=64
        Number of sub-networks for each rate.
    variance : {"one_hot", "entropy", "class_index"}, default="one_hot"
        See `uncertainty_bands`.
    random_state : int, RandomState instance or None, default=None
        Draws the sub-networks.

    Returns
    -------
    size : CriticalSize

    References
    ----------
    .. [1] M. Diaz-Ortiz et al., "Using Cooperative Game Theory to Prune Neural
       Networks", arXiv:2311.10468, section III-A.
    """
    grid = _rates("grid", np.arange(0.05, 0.99, 0.025) if grid is None else grid)
    _check_uncertainty(variance, n_subnetworks)
    rng = _generator(random_state)
    values = np.array(
        [_mcue(evaluator, t, t, n_subnetworks, variance, rng) for t in grid]
    )
    t = float(grid[values.argmax()])
    return CriticalSize(t, 1 - t, (1 - t) ** 2, grid, values)


def _mcue(evaluator, p, q, n_subnetworks, variance, rng):
    """Uncertainty at one pair of rates."""
    n = evaluator.n_players
    size = round((1 - q) * n)
    coalitions = fixed_size_coalitions(n, n_subnetworks, rng, size=size)
    if p > 0:
        coalitions &= bernoulli_coalitions(
            n, n_subnetworks, rng, inclusion_probability=1 - p
        )
    predicted = np.concatenate(
        [
            evaluator.predict(coalitions[start : start + _CHUNK])
            for start in range(0, n_subnetworks, _CHUNK)
        ]
    )
    if evaluator.task.kind == "regression":
        return float(predicted.var(axis=0, ddof=1).mean())
    if variance == "class_index":
        return float(predicted.var(ddof=1))
    shares = np.stack([(predicted == c).mean(axis=0) for c in np.unique(predicted)])
    if variance == "entropy":
        terms = np.where(shares > 0, shares * np.log(np.maximum(shares, 1e-300)), 0.0)
        return float(-terms.sum(axis=0).mean())
    unbiased = n_subnetworks / (n_subnetworks - 1)
    return float((shares * (1 - shares)).sum(axis=0).mean() * unbiased)


def _rates(name, rates):
    """Elimination rates as an array, refused outside [0, 1)."""
    rates = np.atleast_1d(np.asarray(rates, dtype=np.float64))
    if rates.ndim != 1 or not rates.size or not ((rates >= 0) & (rates < 1)).all():
        raise ValueError(
            f"{name} must hold one or more rates in [0, 1); got {rates.tolist()}."
        )
    return rates


def _check_uncertainty(variance, n_subnetworks):
    """Refuse parameters that no estimate can be made with."""
    if variance not in ("one_hot", "entropy", "class_index"):
        raise ValueError(
            f"variance={variance!r}; use 'one_hot', 'entropy' or 'class_index'."
        )
    if n_subnetworks < 2:
        raise ValueError(
            f"n_subnetworks={n_subnetworks!r} must be at least 2 for a variance."
        )


def _generator(random_state):
    """One Generator from what scikit-learn takes."""
    return np.random.default_rng(check_random_state(random_state).randint(2**31 - 1))
