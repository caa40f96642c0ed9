"""The pruners inside a fitted estimator: how large they are, and what they read."""

import sys

from scipy import sparse
from sklearn.feature_selection import RFE, SelectorMixin
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skprune.base import asked_estimator
from skprune.evaluation import SparseRows, first_rows

__all__ = ["batch_of", "pruners_in", "sizes_before_and_after"]


def pruners_in(estimator, X=None):
    """The pruners inside a fitted estimator, each with what it reads of X."""
    check_is_fitted(estimator)
    found = list(_walk(estimator, X))
    if not found:
        raise TypeError(
            f"estimator must be a pruner of skprune, or a Pipeline or search with one "
            f"inside; got {type(estimator).__name__}, in which there is none."
        )
    return found


def sizes_before_and_after(estimator, measure):
    """Players, parameters or FLOPs before and after, of all networks inside."""
    reports = [pruner.size_report_ for pruner, _ in pruners_in(estimator)]
    return tuple(
        sum(getattr(report[time], f"n_{measure}") for report in reports)
        for time in ("before", "after")
    )


def batch_of(pruner, X):
    """All samples as the network reads them; sparse ones are not made dense."""
    X = pruner._checked(X)
    if sparse.issparse(X):
        return SparseRows.from_scipy(X).to(pruner.estimator_.device)
    return first_rows(pruner.estimator_, X, sys.maxsize)


def _walk(estimator, X):
    """Yield the pruners inside, in the order in which they are asked."""
    if isinstance(estimator, Pipeline):
        last = estimator.steps[-1][1]
        for _, step in estimator.steps:
            if step is None or step == "passthrough":
                continue
            # What selected features by a network does not ask it again.
            if step is last or not isinstance(step, SelectorMixin):
                yield from _walk(step, X)
            if X is not None and step is not last:
                X = step.transform(X)
    elif not hasattr(estimator, "predict"):
        return
    elif "size_report_" in vars(estimator):
        yield estimator, X
    elif (inner := asked_estimator(estimator)) is not None:
        if isinstance(estimator, RFE) and X is not None:
            X = estimator.transform(X)
        yield from _walk(inner, X)
