"""Scores of size alone: players, parameters, arithmetic, time."""

from numbers import Integral
from typing import ClassVar

from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval

from skprune.base import Documented
from skprune.metrics._pruners import batch_of, pruners_in, sizes_before_and_after
from skprune.networks import latency

__all__ = [
    "SizeScorer",
    "checked",
    "flops_scorer",
    "latency_scorer",
    "parameters_scorer",
    "sparsity_scorer",
]


def sparsity_scorer():
    """Make a scorer of the share of players that left.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X=None, y=None)`` gives 0 for a network that is whole, and
        nears 1 the fewer players stayed. Its errors are those of `parameters_scorer`.

    Notes
    -----
    What is compared is each network with itself before pruning. Between networks that
    began with different widths, `parameters_scorer` compares.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skprune import GTAPPruner, mlp_classifier
    >>> from skprune.metrics import sparsity_scorer
    >>> X, y = load_iris(return_X_y=True)
    >>> net = mlp_classifier((8,), max_epochs=3)
    >>> pruner = GTAPPruner(net, n_players_to_keep=2, random_state=0).fit(X, y)
    >>> sparsity_scorer()(pruner)
    0.75
    """
    return _ReportScorer("sparsity")


def parameters_scorer():
    """Make a scorer of the number of parameters, with its sign turned.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X=None, y=None)`` gives minus the number of parameters.

    Raises
    ------
    NotFittedError
        By the scorer, if the estimator is not fitted.
    TypeError
        By the scorer, if it finds no pruner in the estimator.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skprune import GTAPPruner, mlp_classifier
    >>> from skprune.metrics import parameters_scorer
    >>> X, y = load_iris(return_X_y=True)
    >>> net = mlp_classifier((8,), max_epochs=3)
    >>> pruner = GTAPPruner(net, n_players_to_keep=2, random_state=0).fit(X, y)
    >>> parameters_scorer()(pruner)  # of two neurons that read 4 and feed 3
    -19.0
    """
    return _ReportScorer("parameters")


def flops_scorer():
    """Make a scorer of the arithmetic of a sample, with its sign turned.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X=None, y=None)`` gives minus the floating point operations
        per sample, as `skprune.networks.size_of` counts them: of a sparse sample as
        many as of a dense one. Its errors are those of `parameters_scorer`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skprune import GTAPPruner, mlp_classifier
    >>> from skprune.metrics import flops_scorer
    >>> X, y = load_iris(return_X_y=True)
    >>> net = mlp_classifier((8,), max_epochs=3)
    >>> pruner = GTAPPruner(net, n_players_to_keep=2, random_state=0).fit(X, y)
    >>> flops_scorer()(pruner)  # a multiply-add is two
    -28.0
    """
    return _ReportScorer("flops")


def latency_scorer(*, n_repeats=20):
    """Make a scorer of the time that the network takes, with its sign turned.

    Parameters
    ----------
    n_repeats : int, default=20
        Number of timed runs.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y=None)`` gives minus the median milliseconds in which
        the network answers all samples of X as one batch, on one thread. The steps of
        a Pipeline before the network are not timed. Its errors are those of
        `parameters_scorer`.

    Raises
    ------
    ValueError
        If `n_repeats` is not a positive whole number.

    Notes
    -----
    Times are noisy: they depend on the machine and on what else it does, also on the
    other workers of a search with `n_jobs`, and never come out the same twice.
    Compare them at one size of batch. `flops_scorer` is exact.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skprune import GTAPPruner, mlp_classifier
    >>> from skprune.metrics import latency_scorer
    >>> X, y = load_iris(return_X_y=True)
    >>> net = mlp_classifier((8,), max_epochs=3)
    >>> pruner = GTAPPruner(net, n_players_to_keep=2, random_state=0).fit(X, y)
    >>> latency_scorer(n_repeats=5)(pruner, X) < 0
    True
    """
    return checked(_LatencyScorer(n_repeats))


class SizeScorer(Documented, BaseEstimator):
    """A callable for `scoring` that asks how large a fitted pruner is."""

    _parameter_constraints: ClassVar[dict] = {}

    def _doc_link_url_param_generator(self):
        """The page of the function that makes such scorers."""
        return {"estimator_module": "skprune.metrics", "estimator_name": self._maker}

    def _accept_sample_weight(self):
        # scikit-learn asks every scorer in a dict, warns where the answer is no, and
        # fails on a function. A size is the same whatever the samples weigh.
        return True


def checked(scorer):
    """A scorer whose parameters are what they may be."""
    scorer._validate_params()
    return scorer


class _ReportScorer(SizeScorer):
    """Reads the size reports."""

    def __init__(self, measure):
        self.measure = measure

    @property
    def _maker(self):
        return f"{self.measure}_scorer"

    def __call__(self, estimator, X=None, y=None, sample_weight=None):
        if self.measure == "sparsity":
            before, after = sizes_before_and_after(estimator, "players")
            return (before - after) / before
        return -float(sizes_before_and_after(estimator, self.measure)[1])


class _LatencyScorer(SizeScorer):
    """Times the networks."""

    _maker = "latency_scorer"

    _parameter_constraints: ClassVar[dict] = {
        "n_repeats": [Interval(Integral, 1, None, closed="left")]
    }

    def __init__(self, n_repeats):
        self.n_repeats = n_repeats

    def __call__(self, estimator, X, y=None, sample_weight=None):
        checked(self)
        return -sum(
            latency(pruner.module_, batch_of(pruner, read), n_repeats=self.n_repeats)
            for pruner, read in pruners_in(estimator, X)
        )
