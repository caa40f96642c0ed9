"""Select features by what they are worth to a trained net."""

from __future__ import annotations

from numbers import Integral
from typing import ClassVar

import numpy as np
import torch
from joblib import effective_n_jobs
from sklearn.base import BaseEstimator, _fit_context, is_regressor
from sklearn.feature_selection import SelectorMixin
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    RealNotInt,
    StrOptions,
)
from sklearn.utils.validation import check_is_fitted

from skprune.base import Documented, warn_user
from skprune.evaluation import resolve_payoff, task_of, weight_norm_scores
from skprune.pruners._base import BasePruner
from skprune.pruners._choices import (
    POWER_INDICES,
    SIZE,
    check_parts,
    is_reconstruction,
    named_scorer,
    seeded,
)
from skprune.pruners._data import check_table
from skprune.pruners._features import FeatureGames, feature_players
from skprune.pruners._nets import net_of
from skprune.pruners._progress import ReportingMixin, whole_fit
from skprune.pruners._stage import one_thread
from skprune.scorers import PowerIndexScorer
from skprune.strategies import CompressionPath, keep_best

__all__ = ["PowerIndexSelector"]

# Sizes on the way from one feature to all of them.
_PATH_SIZES = 30
# Rows that run through the net for the scores, by torch or by compiled kernels, which
# take a twentieth of the time; and bounds on walks or flips.
_SCORE_ROWS, _FEWEST, _MOST = (2**23, 2**27), 8, 256
# Biased Banzhaf values by name: a tenth of the features is there.
_BIAS = 0.1


class PowerIndexSelector(ReportingMixin, SelectorMixin, Documented, BaseEstimator):
    """Select features by their power index in a trained net.

    Trains the net on all features (unless it is frozen), lets these play a coalitional
    game, in which absent features are 0 (of a dense X: have their mean, where the first
    layer has a bias and reads X as it is), and keeps those that are worth most: columns
    of a table, or words of a vocabulary. A sparse X is never made dense, and costs by
    what it stores: 50,000 words take a minute or two.

    Parameters
    ----------
    estimator : skorch.NeuralNet or FrozenEstimator of one, default=None
        A net that is cloned and trained, or a trained one. Its first layer is a Linear
        one. None is `skprune.mlp_classifier()`.
    n_features_to_select : int, float or "auto", default="auto"
        Features to select: a number, a fraction in (0, 1], or the fewest of highest
        value with which the net's payoff on held-out samples is within one standard
        error of the best.
    power_index : {"shapley", "banzhaf", "biased_banzhaf"} or PowerIndexScorer, \
            default=None
        What ranks features. None is "shapley". Names come with a budget by the size of
        the data, and the biased Banzhaf value with a tenth of the features present.
    payoff : str or callable, default="auto"
        What features earn; see `CoalitionEvaluator`. "auto" is "accuracy" for classes
        ("weighted_accuracy" where these have weights) and "r2" for values. A metric
        that is no mean over samples costs a pass over all of them for each feature of a
        walk, and is for tables of few columns.
    validation_fraction : float, default=0.2
        Share of X held out, stratified by class, where `fit` is given no validation
        set. The net is trained on the rest; scores are played on all samples, so that
        the words of few texts are met, and `path_` on those held out.
    n_jobs : int, default=None
        Threads that play. Results do not depend on it.
    random_state : int, RandomState instance or None, default=None
        Draws the hold-out, the net's initial weights and the samples of the scorers.
    verbose : int, default=0
        1 prints a line for each step.

    Attributes
    ----------
    estimator_ : skorch.NeuralNet
        The net, trained on all features.
    scores_ : PlayerScores
        What each feature is worth, with standard errors over orders or coalitions.
    support_ : ndarray of bool of shape (n_features,)
        Which features are selected.
    path_ : CompressionPath
        The best features at up to 30 sizes, and what the net earns with them alone on
        the held-out samples, without training again.
    classes_ : ndarray of shape (n_classes,)
        Labels, where the net is a classifier.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Their names, where X has some.

    See Also
    --------
    GTAPPruner : Removes neurons; with ``players="inputs"`` the inputs of one net.
    sklearn.feature_selection.SelectFromModel : Selects by weights.

    Notes
    -----
    Selected features are the best to the net that read all of them; of two that say the
    same, each is worth half. Held-out samples judge the sizes, but their labels were
    also played for the scores: to judge a selection, use other samples.

    References
    ----------
    .. [1] R. Patel et al., "Game-theoretic vocabulary selection via the Shapley value
       and Banzhaf index", NAACL 2021.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from skprune import PowerIndexSelector, mlp_classifier
    >>> X, y = load_digits(return_X_y=True)
    >>> net = mlp_classifier((32,), lr=5e-3, max_epochs=10, device="cpu")
    >>> selector = PowerIndexSelector(net, n_features_to_select=20, random_state=0)
    >>> pipeline = make_pipeline(selector, LogisticRegression(max_iter=1000))
    >>> bool(pipeline.fit(X / 16, y).score(X / 16, y) > 0.9)
    True
    >>> selector.transform(X / 16).shape
    (1797, 20)
    """

    _parameter_constraints: ClassVar[dict] = {
        "estimator": [HasMethods(["fit", "predict"]), None],
        "n_features_to_select": [*SIZE, StrOptions({"auto"})],
        "power_index": [StrOptions(set(POWER_INDICES)), PowerIndexScorer, None],
        "payoff": [str, callable],
        "validation_fraction": [Interval(RealNotInt, 0, 1, closed="neither")],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimator=None,
        *,
        n_features_to_select="auto",
        power_index=None,
        payoff="auto",
        validation_fraction=0.2,
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.n_features_to_select = n_features_to_select
        self.power_index = power_index
        self.payoff = payoff
        self.validation_fraction = validation_fraction
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    @whole_fit
    def fit(self, X, y, *, X_val=None, y_val=None):
        """Train the net, score the features and select some.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Training samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels or values.
        X_val, y_val : array-like, default=None
            Samples that judge `path_`; by default `validation_fraction` of X is held
            out. For the scores features play on these samples too.

        Returns
        -------
        self : PowerIndexSelector
        """
        learner = _Learner.of(self)
        data = learner._prepare(X, y, X_val, y_val)
        self._take_note_of_columns(learner)
        self._check_before_training(learner, data)
        net = self.estimator_ = learner._trained_net(data)
        games = FeatureGames(net, data, self.n_jobs)
        self.scores_ = self._scored(games)
        with self._step("judge sizes"), one_thread():
            ties = weight_norm_scores(net.module_, games.players)
            self._select(games, ties)
        self._say("selected {} of {} features", self.support_.sum(), self.support_.size)
        return self

    def _check_before_training(self, learner, data):
        """Refuse sizes, payoffs and nets that features cannot play in."""
        if is_reconstruction(self.payoff):
            raise ValueError(
                "payoff='reconstruction' is a game of a layer's units; features earn a "
                "payoff on samples, such as 'accuracy', 'log_likelihood' or 'r2'."
            )
        effective_n_jobs(self.n_jobs)
        check_parts(self)
        n_features = data.X.shape[1]
        self._count(n_features)
        if isinstance(self.power_index, PowerIndexScorer):
            self.power_index.check_budget(n_features)
        net = learner._rehearse(data)
        if net is None:
            return
        feature_players(net, data.X)
        task = task_of(net)
        targets = task.targets(data.y_val, net.device)
        resolve_payoff(self._payoff_of(net), task, targets)

    def _take_note_of_columns(self, learner):
        """Number and names of the columns, and the labels."""
        for name in ("n_features_in_", "feature_names_in_", "classes_"):
            vars(self).pop(name, None)
            if hasattr(learner, name):
                setattr(self, name, getattr(learner, name))

    def _payoff_of(self, net):
        """The payoff that "auto" stands for."""
        if not (isinstance(self.payoff, str) and self.payoff == "auto"):
            return self.payoff
        task = task_of(net)
        is_weighted = task.class_weights is not None
        return "weighted_accuracy" if is_weighted else task.default_payoff

    def _scored(self, games):
        """What each feature is worth."""
        game = games.everywhere(self._payoff_of(games.net))
        scorer = self._scorer(game, games.n_rows)
        with self._step("score", budget=scorer.budget(game.n_players)) as step:
            on_cpu = torch.device(games.net.device).type == "cpu"
            with one_thread():
                scores = scorer.estimate(step.watched(game, in_parts=on_cpu))
            step.met_target(scores)
        if not scores.values.any():
            warn_user(
                f"no feature is worth anything by payoff={game.payoff.name!r}: the net "
                "answers the same with and without them, and those of the largest "
                "weights are selected. Train it for longer, or scale X.",
            )
        return scores

    def _scorer(self, game, n_rows):
        """The scorer; one by its name is given a budget by the size of the data."""
        index = "shapley" if self.power_index is None else self.power_index
        if not isinstance(index, str):
            return seeded(index, self._seed())
        rows = _SCORE_ROWS[game.backend_ == "compiled"]
        n_samples = 2 * (int(np.clip(rows // n_rows, _FEWEST, _MOST)) // 2)
        budget = n_samples * game.n_players + 2
        return named_scorer(index, _BIAS, budget, self._seed())

    def _select(self, games, ties):
        """Play the best features of several sizes, and choose one of these."""
        values, payoff = self.scores_.values, self._payoff_of(games.net)
        game = games.held_out(payoff)
        asked = self._count(game.n_players)
        masks = np.array(
            [keep_best(values, size, ties=ties) for size in _sizes(len(values), asked)]
        )
        self.path_ = path = CompressionPath.sorted(masks, game(masks))
        if asked is None:
            best = path.payoffs.argmax()
            error = games.standard_error(path.masks[best], payoff)
            enough = path.payoffs >= path.payoffs[best] - error
            asked = path.sizes[enough.argmax()]
        self.support_ = path.mask_at(asked)

    def _count(self, n_features):
        """Number of features that is asked for; None for "auto"."""
        value = self.n_features_to_select
        if isinstance(value, str):
            return None
        count = (
            value if isinstance(value, Integral) else max(1, round(value * n_features))
        )
        if count > n_features:
            raise ValueError(
                f"n_features_to_select={value!r} asks for more than the {n_features} "
                f"features of X; choose a number from 1 to {n_features}, a fraction or "
                "'auto'."
            )
        return int(count)

    def _get_support_mask(self):
        check_is_fitted(self)
        return self.support_

    def _seed(self):
        """A seed drawn by `random_state`."""
        return check_random_state(self.random_state).randint(2**31 - 1)

    def _steps(self):
        """Names of the steps of the fit, in their order."""
        trains = not isinstance(self.estimator, FrozenEstimator)
        return [*(["train"] if trains else []), "score", "judge sizes"]

    def _device(self):
        """Where the net is going to live."""
        return getattr(net_of(self.estimator), "device", None)

    def __sklearn_is_fitted__(self):
        """Whether features are selected."""
        return hasattr(self, "support_")

    def __sklearn_tags__(self):
        """Tags of a selector that needs y, and reads sparse matrices."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.required = True
        tags.target_tags.multi_output = is_regressor(net_of(self.estimator))
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.non_deterministic = self.random_state is None
        return tags


class _Learner(BasePruner):
    """What a pruner does with data and a net before it prunes, for a selector.

    Parameters
    ----------
    estimator, validation_fraction, random_state, verbose
        Those of the selector.
    """

    def __init__(self, estimator, validation_fraction, random_state, verbose):
        self.estimator = estimator
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.verbose = verbose

    @classmethod
    def of(cls, selector):
        """The learner of a selector, which tells of its steps as those of the fit."""
        names = ("estimator", "validation_fraction", "random_state", "verbose")
        learner = cls(*(getattr(selector, name) for name in names))
        learner._fit_task = selector._fit_task
        return learner

    def _checked(self, X, reset=False):
        """X as the net reads it, refused where it is no table."""
        X = X.cpu().numpy() if isinstance(X, torch.Tensor) else X
        return check_table(super()._checked(X, reset), "Its columns are selected.")


# scikit-learn's messages name the class that checks X.
_Learner.__name__ = PowerIndexSelector.__name__


def _sizes(n_features, asked):
    """Sizes from one feature to all, each about as many times the one before."""
    sizes = np.geomspace(1, n_features, min(_PATH_SIZES, n_features)).round()
    if n_features <= _PATH_SIZES:
        sizes = np.arange(1, n_features + 1)
    return sorted({*sizes.astype(int).tolist(), *([] if asked is None else [asked])})
