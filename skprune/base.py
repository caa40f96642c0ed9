"""What scikit-learn's users meet everywhere: links, warnings, estimators in others."""

import sys
import warnings
from types import FrameType
from typing import Any

from sklearn.frozen import FrozenEstimator

from skprune.exceptions import SkpruneWarning

__all__ = ["Documented", "asked_estimator", "forget_columns", "warn_user"]

# Whose frames stand between us and the user.
_BETWEEN = {"contextlib", "joblib", "skorch", "skprune", "sklearn"}


class Documented:
    """Mixin of estimators whose HTML representation links to their page.

    It stands before `sklearn.base.BaseEstimator` among the bases. A class of your own
    that derives from one of ours has no page, and no link.

    Examples
    --------
    >>> from skprune.scorers import ShapleyScorer
    >>> ShapleyScorer()._get_doc_link().rpartition("/")[2]
    'skprune.scorers.ShapleyScorer.html'
    """

    _doc_link_module = "skprune"
    _doc_link_template = (
        "https://skprune.readthedocs.io/en/stable/generated/"
        "{estimator_module}.{estimator_name}.html"
    )


def asked_estimator(estimator: Any) -> Any:
    """The fitted estimator that another one asks when it predicts, or None.

    Parameters
    ----------
    estimator : estimator
        What may have one inside, such as a search, but no pipeline.

    Returns
    -------
    inner : estimator or None
        None for an ensemble too, whose `estimator_` is a template that nobody asks.
    """
    if isinstance(estimator, FrozenEstimator):
        return estimator.estimator
    if hasattr(estimator, "estimators_"):
        return None
    names = ("best_estimator_", "estimator_", "regressor_")
    return next((getattr(estimator, n) for n in names if hasattr(estimator, n)), None)


def forget_columns(estimator: Any) -> None:
    """Take away what an earlier fit knew of the columns of its X.

    Parameters
    ----------
    estimator : estimator
        One that is fitted now on samples without columns to be counted.
    """
    for name in ("n_features_in_", "feature_names_in_"):
        vars(estimator).pop(name, None)


def warn_user(message: str, category: type[Warning] = SkpruneWarning) -> None:
    """Warn at the line of the user that led here, however deep it is called.

    Parameters
    ----------
    message : str
        What to say.
    category : type, default=SkpruneWarning
        Class of the warning.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _package(frame) in _BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _package(frame: FrameType) -> str:
    """Name of the package that a frame runs code of."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
