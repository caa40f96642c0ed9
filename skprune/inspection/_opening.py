"""The pruner inside a fitted estimator, and what it reads of X."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sklearn.feature_selection import RFE
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skprune.base import asked_estimator

__all__ = ["Opened", "opened"]


@dataclass(frozen=True)
class Opened:
    """A fitted estimator, and what reaches it.

    Attributes
    ----------
    estimator : estimator
        The pruner, once all around it is opened.
    X : array-like, sparse matrix or None
        Samples as it reads them.
    feature_names : array-like of str or None
        Names that what is in front of it gives its features.
    """

    estimator: Any
    X: Any
    feature_names: Any


def opened(estimator, X=None):
    """Find the pruner in a pipeline or search, and bring X to where it stands.

    Parameters
    ----------
    estimator : estimator
        A fitted pruner, or a FrozenEstimator, Pipeline or search with one inside.
    X : array-like, sparse matrix or None
        Samples as `estimator` reads them.

    Returns
    -------
    found : Opened

    Raises
    ------
    TypeError
        If there is no pruner inside.
    """
    check_is_fitted(estimator)
    found = _open(Opened(estimator, X, None))
    if found is None:
        raise TypeError(
            f"estimator must be a fitted pruner of skprune, or a Pipeline or refitted "
            f"search with one inside; got {type(estimator).__name__}, in which there "
            "is none."
        )
    return found


def _open(found):
    """The pruner inside; None where there is none."""
    estimator = found.estimator
    if all(hasattr(estimator, name) for name in ("players_", "support_", "names_")):
        return found
    if isinstance(estimator, Pipeline):
        return _open_pipeline(found)
    inner = asked_estimator(estimator)
    if inner is None:
        return None
    if isinstance(estimator, RFE):
        return _open(_behind(estimator, found, inner))
    return _open(replace(found, estimator=inner))


def _open_pipeline(found):
    """The pruner in the last step that holds one, behind all steps before it."""
    pipeline = found.estimator
    for place in reversed(range(len(pipeline))):
        inner = _open(Opened(pipeline[place], None, None))
        if inner is not None:
            if not place:
                return _open(replace(found, estimator=pipeline[0]))
            return _open(_behind(pipeline[:place], found, pipeline[place]))
    return None


def _behind(front, found, step):
    """A step, with what its front makes of X and of its features."""
    X = None if found.X is None else front.transform(found.X)
    return Opened(step, X, _names_out(front, found.feature_names))


def _names_out(front, names_in):
    """Names of the features that some steps give; None where one does not know them."""
    try:
        return front.get_feature_names_out(names_in)
    except AttributeError:
        return None
