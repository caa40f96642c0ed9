"""Whether a pruned network has one answer for everything, and saying so."""

from __future__ import annotations

import numpy as np

from skprune.base import warn_user

__all__ = ["has_one_answer", "warn_of_collapse"]

# Values that differ by less, as a share of the largest, are the same.
_SAME = 1e-6


def has_one_answer(predicted, y):
    """Whether all samples get the same answer, though they should get several.

    Parameters
    ----------
    predicted : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Class indices, or values.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        What should have been predicted.

    Returns
    -------
    is_one : bool
    """
    predicted, y = np.asarray(predicted), np.asarray(y)
    if len(y) < 2 or (y == y[:1]).all():
        return False
    spread = np.abs(predicted - predicted[:1]).max()
    return bool(spread <= _SAME * (1 + np.abs(predicted).max()))


def warn_of_collapse(pruner, n_players):
    """Say that a network collapsed, and what helps.

    Parameters
    ----------
    pruner : BasePruner
        Whose network it is.
    n_players : int
        How many players are left.
    """
    name, classes = type(pruner).__name__, getattr(pruner, "classes_", None)
    answer = "gives the same output for every sample"
    cure = "keep more players, or lower the learning rate"
    if classes is not None:
        answer = f"predicts one class for every sample, of {len(classes)} in y"
        cure = (
            "keep more players, retrain longer, or let rare classes count as much as "
            "frequent ones: class_weight='balanced'"
        )
    if hasattr(pruner, "gamma") and pruner.n_players_to_keep is None:
        cure = f"lower the prices gamma and beta, {cure}"
    if getattr(pruner, "repair", None) == "none":
        cure = f"set repair='layers', {cure}"
    warn_user(
        f"the pruned network of {name} with {n_players} players {answer}: it "
        f"collapsed. What helps: {cure}.",
    )
