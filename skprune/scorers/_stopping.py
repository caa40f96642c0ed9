"""When an estimate is good enough to stop before its budget is spent."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

__all__ = ["StoppingRule"]


class StoppingRule:
    """Watches one growing estimate and says when, and why, to stop.

    Parameters
    ----------
    tol : float or None
        Target for the largest standard error.
    stable_ranking : float or None
        Target for the rank correlation between the scores now and the scores when
        half as many samples were drawn.
    """

    def __init__(self, tol: float | None, stable_ranking: float | None) -> None:
        self.tol = tol
        self.stable_ranking = stable_ranking
        self._history: list[tuple[int, NDArray[np.float64]]] = []

    @property
    def has_target(self) -> bool:
        """Whether anything but the budget can stop the estimate."""
        return self.tol is not None or self.stable_ranking is not None

    def misses(self, standard_errors: NDArray[np.float64]) -> bool:
        """Whether a final estimate, not stopped by a target, falls short of it."""
        reached = self.tol is not None and standard_errors.max() <= self.tol
        return self.has_target and not reached

    def reason(
        self,
        n_units: int,
        values: NDArray[np.float64],
        standard_errors: NDArray[np.float64],
    ) -> str | None:
        """Return "tolerance" or "ranking" where that target is met, else None."""
        if not values.any():
            # No payoff has changed yet, so that nothing is known of the spread.
            return None
        if self.tol is not None and standard_errors.max() <= self.tol:
            return "tolerance"
        if self.stable_ranking is not None:
            self._history.append((n_units, values.copy()))
            past = [v for count, v in self._history if 2 * count <= n_units]
            if past and _spearman(past[-1], values) >= self.stable_ranking:
                return "ranking"
        return None


def _spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Rank correlation; 1 where both are constant and 0 where only one is."""
    ranks = np.stack([rankdata(first), rankdata(second)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(ranks, axis=1)
    if not norms.all():
        return float(not norms.any())
    return float(ranks[0] @ ranks[1] / norms.prod())
