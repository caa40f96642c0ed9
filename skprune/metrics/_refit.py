"""The choice of the smallest network that is about as good as the best one."""

import re

import numpy as np

__all__ = ["smallest_within_one_standard_error"]


def smallest_within_one_standard_error(cv_results, *, score="score", size="size"):
    """Find the smallest network that scores about as well as the best one.

    For `refit` of a search with two scores, by the rule of one standard error [1]_:
    of the candidates whose mean score is at most one standard error, over the folds,
    below the best mean score, the smallest one is chosen.

    Parameters
    ----------
    cv_results : dict of str to array-like
        The `cv_results_` of a search. Where it comes from successive halving, which has
        a column "iter", candidates of the last iteration are compared.
    score : str, default="score"
        Name of the score in `scoring`.
    size : str, default="size"
        Name of the score of size in `scoring`; the larger, the smaller is the network.

    Returns
    -------
    index : int
        Position of the candidate. Of several of the same size, the one with the best
        score; of those, the first. Candidates with a NaN, from a fit that failed, are
        passed over. With a single fold the standard error is 0.

    Raises
    ------
    ValueError
        If a column is missing, or no candidate has both scores.

    Notes
    -----
    The standard error is that of the best candidate: the standard deviation of its
    scores on the folds (with one degree of freedom less than there are folds), divided
    by the root of their number. Other names than the defaults go in by
    ``functools.partial(smallest_within_one_standard_error, score="auc")``.

    References
    ----------
    .. [1] L. Breiman, J. H. Friedman, R. A. Olshen and C. J. Stone, "Classification
       and Regression Trees", 1984, section 3.4.3.

    Examples
    --------
    The best mean score is .96, with a standard error of .012: .95 is as good.

    >>> from skprune.metrics import smallest_within_one_standard_error
    >>> cv_results = {
    ...     "split0_test_score": [0.80, 0.94, 0.96],
    ...     "split1_test_score": [0.82, 0.96, 0.94],
    ...     "split2_test_score": [0.81, 0.95, 0.98],
    ...     "mean_test_score": [0.81, 0.95, 0.96],
    ...     "mean_test_size": [-11, -35, -131],
    ... }
    >>> smallest_within_one_standard_error(cv_results)
    1

    In a search:

    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skprune import GTAPPruner, mlp_classifier
    >>> from skprune.metrics import parameters_scorer
    >>> X, y = load_iris(return_X_y=True)
    >>> net = mlp_classifier((16,), max_epochs=30, lr=0.01)
    >>> search = GridSearchCV(
    ...     GTAPPruner(net, random_state=0),
    ...     {"n_players_to_keep": [1, 4, 16]},
    ...     scoring={"score": "neg_log_loss", "size": parameters_scorer()},
    ...     refit=smallest_within_one_standard_error,
    ... )
    >>> search.fit(X, y).best_params_
    {'n_players_to_keep': 4}
    """
    scores = _column(cv_results, f"mean_test_{score}")
    sizes = _column(cv_results, f"mean_test_{size}")
    is_known = np.isfinite(scores) & ~np.isnan(sizes)
    if "iter" in cv_results:
        iterations = np.asarray(cv_results["iter"])
        is_known &= iterations == iterations.max()
    if not is_known.any():
        raise ValueError(
            f"cv_results holds no candidate with both {score!r} and {size!r}: every "
            "fit or scorer failed; fit the search with error_score='raise' to see why."
        )
    known = np.flatnonzero(is_known)
    best = known[scores[known].argmax()]
    bar = scores[best] - _standard_error(cv_results, score, best)
    within = known[scores[known] >= bar]
    # The last key counts first.
    order = np.lexsort((-scores[within], -sizes[within]))
    return int(within[order[0]])


def _column(cv_results, name):
    """A column of numbers, or an error that says how it comes there."""
    if name not in cv_results:
        scores = sorted(key for key in cv_results if key.startswith("mean_test_"))
        raise ValueError(
            f"cv_results has no {name!r}, but {scores}; give the search two scores, as "
            "scoring={'score': 'accuracy', 'size': parameters_scorer()}, and name them "
            "by the parameters score and size where they have other names."
        )
    return np.asarray(cv_results[name], dtype=np.float64)


def _standard_error(cv_results, score, index):
    """Standard error of a candidate's mean score."""
    pattern = re.compile(rf"split\d+_test_{re.escape(score)}")
    columns = [name for name in cv_results if pattern.fullmatch(name)]
    if not columns:
        raise ValueError(
            f"cv_results has no 'split0_test_{score}': the standard error needs the "
            "scores of the folds; give cv_results_ as the search left it."
        )
    folds = [_column(cv_results, name)[index] for name in columns]
    return np.std(folds, ddof=1) / len(folds) ** 0.5 if len(folds) > 1 else 0.0
