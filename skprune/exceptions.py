"""Errors and warnings that skprune raises itself."""

import sys
import warnings
from types import FrameType

__all__ = [
    "ConvergenceWarning",
    "SkpruneWarning",
    "UnsupportedNetworkError",
    "warn_user",
]

# Whose frames stand between us and the user.
_BETWEEN = {"contextlib", "joblib", "skorch", "skprune", "sklearn"}


class SkpruneWarning(UserWarning):
    """Base class of the warnings that skprune raises."""


class ConvergenceWarning(SkpruneWarning):
    """An estimate or a solver stopped before it reached what was asked for."""


class UnsupportedNetworkError(ValueError):
    """A network holds a part that cannot be played or pruned; the text names it."""


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
