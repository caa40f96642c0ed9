"""A score that pays for the size of the network."""

from inspect import signature
from numbers import Real
from typing import ClassVar

from sklearn.metrics import check_scoring
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metadata_routing import get_routing_for_object

from skprune.metrics._pruners import sizes_before_and_after
from skprune.metrics._scorers import SizeScorer, checked

__all__ = ["size_penalized_scorer"]


def size_penalized_scorer(
    scoring=None, *, penalty=0.1, size="parameters", full_size=None
):
    """Make a scorer that takes what a network weighs off its score.

    It gives ``score - penalty * n_after / n_before``, where `n_before` and `n_after`
    are the size of the network before and after pruning.

    Parameters
    ----------
    scoring : str, callable or None, default=None
        The score: a name or a scorer of scikit-learn, or the estimator's own `score`,
        which is given no metadata where routing is enabled: name a scorer there.
    penalty : float, default=0.1
        What a network that keeps its full size loses, in units of the score. With .1, a
        tenth of the size is worth a point of accuracy.
    size : {"parameters", "flops", "players"}, default="parameters"
        What is counted.
    full_size : float, default=None
        A number to stand in the place of `n_before`. Set it where a search compares
        networks that begin with different widths: by themselves, a wide network of
        which half is left and a narrow one of which half is left pay the same.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y=None, **params)``, where `params`, such as
        `sample_weight`, go to `scoring`. It has `get_params` and `set_params`, so a
        search can be told ``set_params(scoring__penalty=0.2)``. Its errors are those of
        `parameters_scorer`.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or `scoring` is not one known score.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skprune import GTAPPruner, mlp_classifier
    >>> from skprune.metrics import size_penalized_scorer
    >>> X, y = load_iris(return_X_y=True)
    >>> pruner = GTAPPruner(mlp_classifier((16,), max_epochs=5), random_state=0)
    >>> search = GridSearchCV(
    ...     pruner,
    ...     {"n_players_to_keep": [2, 16]},
    ...     scoring=size_penalized_scorer("accuracy", penalty=1),
    ... )
    >>> search.fit(X, y).best_params_
    {'n_players_to_keep': 2}
    """
    scorer = checked(_SizePenalizedScorer(scoring, penalty, size, full_size))
    scorer._score_of()
    return scorer


class _SizePenalizedScorer(SizeScorer):
    """A score less the share of the size that was kept."""

    _maker = "size_penalized_scorer"

    _parameter_constraints: ClassVar[dict] = {
        "scoring": [str, callable, None],
        "penalty": [Interval(Real, 0, None, closed="left")],
        "size": [StrOptions({"parameters", "flops", "players"})],
        "full_size": [Interval(Real, 0, None, closed="neither"), None],
    }

    def __init__(self, scoring, penalty, size, full_size):
        self.scoring = scoring
        self.penalty = penalty
        self.size = size
        self.full_size = full_size

    def __call__(self, estimator, X, y=None, **params):
        checked(self)
        before, after = sizes_before_and_after(estimator, self.size)
        full = before if self.full_size is None else self.full_size
        score = check_scoring(estimator, self.scoring)(estimator, X, y, **params)
        return float(score - self.penalty * after / full)

    def get_metadata_routing(self):
        """What `scoring` asks for, as scikit-learn routes it."""
        return get_routing_for_object(self._score_of())

    def _accept_sample_weight(self):
        score = self._score_of()
        if hasattr(score, "_accept_sample_weight"):
            return score._accept_sample_weight()
        return score is None or "sample_weight" in signature(score).parameters

    def _score_of(self):
        """The scorer inside; None for the estimator's own."""
        return None if self.scoring is None else check_scoring(None, self.scoring)
