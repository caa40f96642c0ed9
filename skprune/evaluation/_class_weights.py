"""Weights of classes: from what a user gives to a number for each class index."""

from __future__ import annotations

from numbers import Real

import numpy as np

__all__ = ["class_weights_of", "encoded_class_weight"]


def encoded_class_weight(class_weight, classes):
    """Class weights by the indices of the classes instead of their labels.

    Parameters
    ----------
    class_weight : dict, "balanced" or None
        As the user gave it; a dict is from labels to weights.
    classes : array-like of shape (n_classes,)
        The labels, in the order of their indices.

    Returns
    -------
    class_weight : dict of int to float, "balanced" or None
        Labels that are no classes are left out, so that one dict serves for folds
        without a rare class.

    Raises
    ------
    ValueError
        If a class has no weight while a label that is no class has one.

    Examples
    --------
    >>> from skprune.evaluation import encoded_class_weight
    >>> encoded_class_weight({"spam": 5.0}, ["ham", "spam"])
    {1: 5.0}
    """
    _check(class_weight)
    if not isinstance(class_weight, dict):
        return class_weight
    labels = np.asarray(classes).tolist()
    unknown = [label for label in class_weight if label not in labels]
    left = [label for label in labels if label not in class_weight]
    if unknown and left:
        raise ValueError(
            f"class_weight has weights for {unknown[:10]}, which are no classes of y, "
            f"and none for its classes {left[:10]}; name the labels as they stand in "
            "y. A class that is not named weighs 1."
        )
    known = enumerate(labels)
    return {i: class_weight[label] for i, label in known if label in class_weight}


def class_weights_of(class_weight, y, n_classes=None, sample_weight=None):
    """Weight of each class.

    Parameters
    ----------
    class_weight : dict of int to float, "balanced" or None
        By class indices. "balanced": in inverse proportion to how often the classes
        are met, with a mean of 1 over the samples.
    y : ndarray of int of shape (n_samples,)
        Class indices.
    n_classes : int, default=None
        How many classes there are, where y does not have the last of them.
    sample_weight : ndarray of shape (n_samples,), default=None
        How often each sample counts as met.

    Returns
    -------
    weights : ndarray of float64 of shape (n_classes,)
        1 for classes that a dict does not name, or that y does not hold.

    Raises
    ------
    ValueError
        If `class_weight` is none of these, names an index that is no class while a
        class is not named, or holds what is no positive number.

    Examples
    --------
    >>> import numpy as np
    >>> from skprune.evaluation import class_weights_of
    >>> class_weights_of("balanced", np.array([0, 0, 0, 1]))
    array([0.66666667, 2.        ])
    """
    y = np.asarray(y)
    n_classes = max(int(y.max()) + 1, n_classes or 0)
    weights = np.ones(n_classes)
    named = encoded_class_weight(class_weight, np.arange(n_classes))
    if isinstance(named, dict):
        weights[list(named)] = list(named.values())
    elif named == "balanced":
        met = np.bincount(y, sample_weight, n_classes)
        is_met = met > 0
        weights[is_met] = met.sum() / (is_met.sum() * met[is_met])
    return weights


def _check(class_weight):
    """Refuse what are no weights of classes."""
    named = isinstance(class_weight, dict)
    is_balanced = isinstance(class_weight, str) and class_weight == "balanced"
    if not (named or class_weight is None or is_balanced):
        raise ValueError(
            f"class_weight={class_weight!r} must be None, 'balanced' or a dict from "
            "labels to weights, such as {'ham': 1, 'spam': 5}."
        )
    for label, weight in class_weight.items() if named else ():
        if not (isinstance(weight, Real) and 0 < weight < np.inf):
            raise ValueError(
                f"class_weight gives {label!r} the weight {weight!r}; weights are "
                "positive numbers."
            )
