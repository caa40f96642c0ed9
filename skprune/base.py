"""What every estimator of skprune has: a link to its page in the documentation."""

__all__ = ["Documented"]


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
