"""Data at the border: checked, encoded, and split into training and validation."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from skprune.base import warn_user
from skprune.evaluation import take_rows

__all__ = ["FitData", "check_table", "check_targets", "encode", "split_data"]


@dataclass(frozen=True)
class FitData:
    """Samples for training, and samples that training does not see.

    Parameters
    ----------
    X, y : array-like
        Training samples; `y` holds class indices or values of shape (n, n_outputs).
    X_val, y_val : array-like
        Validation samples, or the training samples where there can be none.
    X_game, y_game : array-like
        Samples on which a net plays: the validation samples, or all samples of a net
        that was trained on others.
    sample_weight : ndarray of shape (n,) or None
        Weights of the training samples.
    """

    X: Any
    y: np.ndarray
    X_val: Any
    y_val: np.ndarray
    X_game: Any
    y_game: np.ndarray
    sample_weight: np.ndarray | None = None


def check_table(X, remedy):
    """X, refused where it has not two axes; `remedy` ends the message."""
    if np.ndim(X) != 2 and not sparse.issparse(X):
        raise ValueError(
            f"X must be a table of shape (n_samples, n_features); got "
            f"{type(X).__name__} of shape {np.shape(X)}. {remedy}"
        )
    return X


def check_targets(y, is_classifier, precision=np.float32):
    """Targets as an array, refused where they are not what the task needs.

    Parameters
    ----------
    y : array-like
        As the user gave them.
    is_classifier : bool
        Whether they are labels.
    precision : dtype, default=float32
        Of values.

    Returns
    -------
    y : ndarray
        Labels of shape (n_samples,), or values.
    """
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None.")
    if is_classifier:
        y = check_array(y, ensure_2d=False, dtype=None)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if y.ndim > 1:
            raise ValueError(
                f"y must hold one label for each sample; got shape {y.shape}. Fit one "
                "classifier for each column, by sklearn.multioutput."
            )
        check_classification_targets(y)
        return y
    return check_array(y, ensure_2d=False, dtype=precision)


def encode(y, classes, name):
    """Class indices of labels, refused where a label is unknown."""
    classes = np.asarray(classes)
    # A frozen net may have been given its classes in any order.
    order = np.argsort(classes)
    index = order[np.searchsorted(classes, y, sorter=order).clip(max=len(order) - 1)]
    unknown = classes[index] != y
    if np.any(unknown):
        raise ValueError(
            f"{name} holds labels that the net does not know: "
            f"{np.unique(np.asarray(y)[unknown])[:10].tolist()}; it knows "
            f"{np.asarray(classes)[:20].tolist()}."
        )
    return index.astype(np.int64)


def split_data(X, y, X_val, y_val, fraction, classes, seed, frozen, sample_weight=None):
    """Training and validation samples.

    Parameters
    ----------
    X, y : array-like
        What `fit` was given, checked and encoded.
    X_val, y_val : array-like or None
        A given validation set, checked and encoded.
    fraction : float in (0, 1)
        Share of X that is held out where no validation set is given.
    classes : ndarray or None
        Labels of the indices in y, each of which gets a sample of the hold-out; None
        for a regression.
    seed : int
        Draws the hold-out.
    frozen : bool
        Whether the net was trained on other samples.
    sample_weight : ndarray of shape (n,), default=None
        Weights of the samples in X.

    Returns
    -------
    data : FitData
    """
    is_classifier = classes is not None
    if X_val is not None:
        _check_validation(y, y_val, classes)
        return FitData(X, y, X_val, y_val, X_val, y_val, sample_weight)
    if isinstance(fraction, bool) or not isinstance(fraction, Real):
        raise TypeError(f"validation_fraction must be a float; got {fraction!r}.")
    if not 0 < fraction < 1:
        raise ValueError(
            f"validation_fraction={fraction!r} must lie between 0 and 1; to validate "
            "on data of your own pass X_val and y_val."
        )
    n = len(y)
    counts = np.unique(y, return_counts=True)[1] if is_classifier else np.array([n])
    if n < 2:
        raise ValueError(
            f"n_samples={n}: networks cannot be judged by less than two samples; give "
            "more, or pass X_val and y_val."
        )
    n_classes = len(counts)
    # R² of one value says nothing.
    n_val = max(n_classes if is_classifier else min(2, n - 1), round(fraction * n))
    if n - n_val < n_classes or counts.min() < 2:
        warn_user(
            f"no hold-out is possible: validation_fraction={fraction!r} of {n} samples "
            f"would leave {n - n_val} for training, of {n_classes} classes, the rarest "
            f"with {counts.min()} in all; the network is judged on the samples that "
            "train it. Pass X_val and y_val, or another fraction.",
        )
        return FitData(X, y, X, y, X, y, sample_weight)
    train, held = train_test_split(
        np.arange(n),
        test_size=n_val,
        random_state=seed,
        stratify=y if is_classifier else None,
    )
    if is_classifier:
        held = _with_every_class(y, held, train)
        train = _with_every_class(y, np.setdiff1d(np.arange(n), held), held)
    train = np.sort(train)
    held = np.setdiff1d(np.arange(n), train)
    X_val, y_val = take_rows(X, held), y[held]
    X_game, y_game = (X, y) if frozen else (X_val, y_val)
    weights = None if sample_weight is None else sample_weight[train]
    X, y = take_rows(X, train), y[train]
    return FitData(X, y, X_val, y_val, X_game, y_game, weights)


def _with_every_class(y, part, other):
    """Rows of a part, and one of each class that only the other part has."""
    missing = np.setdiff1d(y[other], y[part])
    moved = [other[y[other] == label][0] for label in missing]
    return np.concatenate([part, np.array(moved, dtype=part.dtype)])


def _check_validation(y, y_val, classes):
    """Refuse a validation set that is empty or lacks a class."""
    if not len(y_val):
        raise ValueError("X_val holds no samples; give some, or leave it out.")
    missing = () if classes is None else np.setdiff1d(y, y_val)
    if len(missing):
        raise ValueError(
            f"y_val holds no sample of {np.asarray(classes)[missing].tolist()}, which "
            "y does; give a validation set with every class."
        )


def check_pair(X_val, y_val):
    """Refuse half a validation set."""
    if (X_val is None) != (y_val is None):
        given = "X_val" if y_val is None else "y_val"
        raise ValueError(f"only {given} was given; pass X_val and y_val together.")
    for part in X_val.values() if isinstance(X_val, dict) else [X_val]:
        check_consistent_length(part, y_val)
