"""Errors and warnings that skprune raises itself."""

__all__ = [
    "ConvergenceWarning",
    "SkpruneWarning",
    "UnsupportedNetworkError",
]


class SkpruneWarning(UserWarning):
    """Base class of the warnings that skprune raises."""


class ConvergenceWarning(SkpruneWarning):
    """An estimate or a solver stopped before it reached what was asked for."""


class UnsupportedNetworkError(ValueError):
    """A network holds a part that cannot be played or pruned; the text names it."""
