"""What a fitted pruner recorded of its survivors, as columns."""

from __future__ import annotations

import numpy as np
import torch

from skprune.inspection._drivers import FeatureStrengths

__all__ = ["drivers_of", "survivors_of"]


def survivors_of(pruner):
    """Names, layers, scores and ranks of the survivors.

    Parameters
    ----------
    pruner : estimator
        A fitted pruner.

    Returns
    -------
    columns : dict of str to ndarray of shape (n_survivors,)
        As `SurvivorsDisplay` takes them, in the order of `players_`.
    """
    names = np.array(pruner.players_.names)
    if hasattr(pruner, "scores_"):
        scored, scores = list(pruner.names_), pruner.scores_.values
        errors = pruner.scores_.standard_errors
    else:
        # Of single weights nobody left one out.
        scored, scores = names.tolist(), pruner.leave_one_out_
        scores = np.full(len(names), np.nan) if scores is None else scores
        errors = np.full(len(names), np.nan)
    ranks, n_ranked = _ranks(scores, np.array([_layer_of(name) for name in scored]))
    numbers = {name: number for number, name in enumerate(scored)}
    kept = [numbers[name] for name in names]
    return {
        "names": names,
        "layers": np.array([_layer_of(name) for name in names]),
        "scores": scores[kept],
        "standard_errors": errors[kept],
        "ranks": ranks[kept],
        "n_ranked": n_ranked[kept],
    }


def drivers_of(pruner, X, feature_names, *, n_drivers, effect, min_samples):
    """The features that drive each survivor most.

    Parameters
    ----------
    pruner : estimator
        A fitted pruner.
    X : array-like, sparse matrix, tensor or dict of these
        Samples as it reads them.
    feature_names : array-like of str or None
        Names of its features.
    n_drivers : int
        Drivers of each survivor.
    effect : {"auto", "present", "standardized"}
        What a strength is.
    min_samples : int
        Samples in which a driver is not 0, at least.

    Returns
    -------
    drivers : ndarray of str or None of shape (n_survivors, n_drivers)
        The strongest first, survivors in the order of `players_`.
    strengths : ndarray of float of shape (n_survivors, n_drivers)
        Signed; NaN where there are fewer drivers.
    effect : {"present", "standardized"}
        What the strengths are.
    """
    if isinstance(X, torch.utils.data.Dataset):
        raise TypeError(
            f"X is a {type(X).__name__}; give X as an array, tensor, sparse matrix or "
            "dict of these, or leave it out to see the scores alone."
        )
    X, players = pruner._checked(X), pruner.players_
    found = FeatureStrengths(pruner.estimator_, players, X, effect, min_samples)
    names = _names_for(found, pruner, feature_names)
    shape = (players.n_players, n_drivers)
    drivers, strengths = np.full(shape, None, dtype=object), np.full(shape, np.nan)
    for player, strength in found.of_players():
        first = np.argsort(-np.abs(strength), kind="stable")[:n_drivers]
        first = first[strength[first] != 0]
        drivers[player, : len(first)] = names[first]
        strengths[player, : len(first)] = strength[first]
    return drivers, strengths, found.effect


def _names_for(found, pruner, names):
    """The names given, those of the data frame of `fit`, or default ones."""
    if names is None:
        names = getattr(pruner, "feature_names_in_", None)
    if names is None:
        names = found.default_names()
    names = np.array([str(name) for name in names], dtype=object)
    if len(names) != found.n_features:
        raise ValueError(
            f"feature_names holds {len(names)} names, and the pruner reads "
            f"{found.n_features} features; give one name for each."
        )
    return names


def _ranks(scores, layers):
    """Place of each player by score in its layer, and how many are placed there.

    Players without a score have rank 0, and are not counted.
    """
    ranks, n_ranked = np.zeros((2, len(scores)), dtype=int)
    for layer in np.unique(layers):
        mine = np.flatnonzero((layers == layer) & ~np.isnan(scores))
        best_first = mine[np.argsort(-scores[mine], kind="stable")]
        ranks[best_first] = np.arange(1, len(mine) + 1)
        n_ranked[mine] = len(mine)
    return ranks, n_ranked


def _layer_of(name):
    """Such as "fc1" for "fc1[3]"; names without a number are those of whole layers."""
    return name.rpartition("[")[0] if name.endswith("]") else "layers"
