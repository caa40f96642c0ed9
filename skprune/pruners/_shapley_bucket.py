"""The smallest network that still reaches a score, by way of Shapley values."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
from joblib import effective_n_jobs
from sklearn.base import _fit_context, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    RealNotInt,
    StrOptions,
)

from skprune.base import warn_user
from skprune.evaluation import REPAIRS, last_linear, transplant
from skprune.networks import size_of
from skprune.pruners._base import BasePruner
from skprune.pruners._choices import STRATEGIES, is_reconstruction
from skprune.pruners._collapse import warn_of_collapse
from skprune.pruners._descent import Descent
from skprune.pruners._progress import whole_fit
from skprune.pruners._stage import Stage, check_playable
from skprune.pruners._worth import GAMELESS, PlayerIndex
from skprune.scorers import PowerIndexScorer
from skprune.strategies import CompressionPath, RemovalStrategy

__all__ = ["ShapleyBucketPruner"]

# Epochs of a step of the finer end, where those of a step before it are 1.
_LONGER = 3


class ShapleyBucketPruner(BasePruner):
    """Go down to the smallest network that still reaches a score.

    Trains the net (unless it is frozen), removes the players that are worth least,
    repairs and retrains the rest, and goes on so until the validation score no longer
    holds; then steps back and goes on player by player.

    Parameters
    ----------
    estimator : skorch.NeuralNet or FrozenEstimator of one, default=None
        A net that is cloned and trained, or a trained net that is pruned as it is. The
        X given to `fit` then retrains it and judges it; that the net did not see the
        part that is held out is the user's part. None is `skprune.mlp_classifier()`.
    strategy : {"bucket", "below_share", "bottom"} or RemovalStrategy, default="bucket"
        Who leaves in a step: see `Bucket`, `BelowShare` and `Bottom` in
        `skprune.strategies`. To search its parameters (``strategy__share``), give an
        object.
    power_index : {"shapley", "banzhaf", "random", "weight_norm"} or \
            PowerIndexScorer, default="shapley"
        What players are worth. "random" and "weight_norm" (of the weights by which a
        player is computed) need no game.
    payoff : str or callable, default=None
        What a coalition of players earns: any payoff of `CoalitionEvaluator`, measured
        on validation samples, or "reconstruction", the variance of the next
        pre-activations that it still explains. None is `scoring`.
    scoring : str or callable, default=None
        The score: None is accuracy or R² (of a net with class weights the accuracy in
        which samples count as there); or any payoff of `CoalitionEvaluator`, such
        as a scorer of scikit-learn, its name, or ``metric(y_true, y_pred) -> float``.
        Games of metrics are slow: ``payoff="log_likelihood"`` scores players faster.
    min_score : float, default=None
        Validation score that has to hold. None: that of the unpruned network less
        `tol`.
    tol : float, default=0.01
        Loss of score that is allowed where `min_score` is None, on validation samples;
        on others the loss may be larger. Where it is less than one of these samples is
        worth, none more than before may be wrong.
    refine : bool, default=True
        Whether to go on from the smallest network that held in finer steps, with three
        times the epochs: half of the last step that failed, and half of that where it
        fails, down to single players, until that fails too. Of the 16 players that are
        worth least, the two are tried whom a repair replaces best.
    retrain_epochs : int, default=2
        Epochs of retraining after each step. Unless the net has a schedule of its own,
        its rate rises and falls along a cosine; the peak of an adaptive optimizer's is
        higher the more players have left, up to 0.01.
    normalize : bool, default=True
        Whether values are divided by their sum, so that a bucket holds a share of it;
        else they are in units of the payoff.
    repair : {"none", "output", "layers"}, default="layers"
        Refit of the survivors' weights in closed form before they are retrained; see
        `GTAPPruner`.
    players : str or list of (kind, layer) pairs, default="neurons"
        Who plays; see `skprune.networks.find_players`.
    min_per_layer : int, default=1
        Players that stay in each layer. Whole layers may leave all.
    full_descent : bool, default=False
        Whether to go on after the score no longer held, to the last player, as in the
        paper. The network is the smallest that held.
    validation_fraction : float, default=0.2
        Share of X held out, stratified by class, where `fit` is given no validation
        set. The fewer samples judge, the more the smallest network that holds was
        lucky.
    n_jobs : int, default=None
        Threads of the compiled backend. Results do not depend on it.
    random_state : int, RandomState instance or None, default=None
        Draws the hold-out, the net's initial weights, the batches and the samples of
        the scorers.
    verbose : int, default=0
        1 prints a line for each step, and some ten for the epochs of a training.

    Attributes
    ----------
    estimator_ : skorch.NeuralNet
        The pruned, trained net.
    module_ : torch.nn.Module
        Its module.
    players_ : Players
        The surviving players, as players of `module_`.
    support_ : ndarray of bool of shape (n_players,)
        Which players of the dense net survived.
    names_ : list of str
        Names of the players of the dense net.
    scores_ : PlayerScores
        What each player of the dense net is worth, before it is normalized.
    steps_ : dict of str to ndarray of shape (n_steps, ...)
        The way down, in order: "n_players" and "support" after each step, "score" on
        validation samples, "removed_value" of those who left (signed; a share of all,
        where values are normalized), "n_epochs" of retraining, wall-clock "seconds",
        whether the score "held", and whether the step was "refining". A step that did
        not hold is no start for the next; the result is the last one that held.
    path_ : CompressionPath
        Masks and validation scores of the best network of each size.
    min_score_ : float
        The score that had to hold.
    unpruned_score_ : float
        Validation score of the unpruned net.
    validation_score_ : float
        Validation score of the pruned net.
    collapsed_ : bool
        Whether the pruned net has one answer for all validation samples. A warning says
        so where the unpruned net told them apart.
    n_epochs_ : int
        Epochs in all, those of the first training included.
    size_report_ : dict of str to NetworkSize
        Players, parameters and FLOPs "before" and "after".
    classes_ : ndarray of shape (n_classes,)
        Labels, for a classifier.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Their names, where X has some.

    See Also
    --------
    GTAPPruner : Searches the best sub-network of a given size.

    References
    ----------
    .. [1] J. Stier, G. Gianini, M. Granitzer and K. Ziegler, "Analysing neural network
       topologies: a game theoretic approach", 2018.

    Notes
    -----
    The paper's SVbucket(p), SVbottom(p) and SVbottom(k) are ``Bucket(p)``,
    ``BelowShare(p)`` and ``Bottom(k)``; its random(k) and Wbottom(k) are ``Bottom(k)``
    with ``power_index="random"`` and ``"weight_norm"``. To the letter it is
    ``repair="none", refine=False, full_descent=True``, except that the score is
    measured on held-out data and not on the test set.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_digits
    >>> from skorch import NeuralNetClassifier
    >>> from skprune import ShapleyBucketPruner
    >>> X, y = load_digits(return_X_y=True)
    >>> mlp = torch.nn.Sequential(
    ...     torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
    ... )
    >>> net = NeuralNetClassifier(
    ...     mlp, criterion=torch.nn.CrossEntropyLoss, max_epochs=10, lr=0.01,
    ...     optimizer=torch.optim.Adam, train_split=None, verbose=0
    ... )
    >>> pruner = ShapleyBucketPruner(net, min_score=0.9, random_state=0)
    >>> pruner.fit(X / 16, y).players_.n_players < 12
    True
    """

    _parameter_constraints: ClassVar[dict] = {
        "estimator": [HasMethods(["fit", "predict"]), None],
        "strategy": [StrOptions(set(STRATEGIES)), RemovalStrategy],
        "power_index": [
            StrOptions({"shapley", "banzhaf", *GAMELESS}),
            PowerIndexScorer,
        ],
        "payoff": [str, callable, None],
        "scoring": [str, callable, None],
        "min_score": [Interval(Real, None, None, closed="neither"), None],
        "tol": [Interval(Real, 0, None, closed="left")],
        "refine": ["boolean"],
        "retrain_epochs": [Interval(Integral, 0, None, closed="left")],
        "normalize": ["boolean"],
        "repair": [StrOptions(set(REPAIRS))],
        "players": [str, list, tuple],
        "min_per_layer": [Interval(Integral, 1, None, closed="left")],
        "full_descent": ["boolean"],
        "validation_fraction": [Interval(RealNotInt, 0, 1, closed="neither")],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimator=None,
        *,
        strategy="bucket",
        power_index="shapley",
        payoff=None,
        scoring=None,
        min_score=None,
        tol=0.01,
        refine=True,
        retrain_epochs=2,
        normalize=True,
        repair="layers",
        players="neurons",
        min_per_layer=1,
        full_descent=False,
        validation_fraction=0.2,
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.strategy = strategy
        self.power_index = power_index
        self.payoff = payoff
        self.scoring = scoring
        self.min_score = min_score
        self.tol = tol
        self.refine = refine
        self.retrain_epochs = retrain_epochs
        self.normalize = normalize
        self.repair = repair
        self.players = players
        self.min_per_layer = min_per_layer
        self.full_descent = full_descent
        self.validation_fraction = validation_fraction
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    @whole_fit
    def fit(self, X, y, *, X_val=None, y_val=None):
        """Train, and go down to the smallest network whose score holds.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Training samples; or what the net reads.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels or values.
        X_val, y_val : array-like, default=None
            Validation samples, on which games are played and networks are judged; by
            default `validation_fraction` of X is held out.

        Returns
        -------
        self : ShapleyBucketPruner

        Raises
        ------
        ValueError
            If the unpruned network does not reach `min_score`, or an argument does not
            fit the net or the others.
        """
        data = self._prepare(X, y, X_val, y_val)
        # Retraining sees the samples that a frozen net would play on.
        data = replace(data, X_game=data.X_val, y_game=data.y_val)
        self._check_before_training(data)
        net = self._trained_net(data)
        start, goal = self._start(net, data)
        descent, epochs = self._descent(start, goal), self.retrain_epochs
        with self._step("descend", None) as step:
            best, n_failed = descent.descend(step, epochs, self.full_descent)
            # Each of its parts has said what it led to.
            step.note("")
        if self.refine:
            with self._step("refine", None) as step:
                best = descent.refine(step, best, n_failed, _LONGER * epochs)
                step.note("")
        return self._adopt(descent, best)

    def _steps(self):
        """Names of the steps of the fit, in their order."""
        trains = not isinstance(self.estimator, FrozenEstimator)
        first = ["train", "stage"] if trains else ["stage"]
        return [*first, "descend", *(["refine"] if self.refine else [])]

    def _check_before_training(self, data):
        """Refuse players, payoffs and strategies that the net cannot have."""
        effective_n_jobs(self.n_jobs)
        if is_reconstruction(self.scoring):
            raise ValueError(
                "scoring='reconstruction' is what players earn and no score of a "
                "network; give it as payoff, and as scoring a name such as 'accuracy'."
            )
        tops_at_1 = self._score_name() in ("accuracy", "weighted_accuracy", "r2")
        if tops_at_1 and self.min_score is not None and self.min_score > 1:
            raise ValueError(
                f"min_score={self.min_score!r} is above 1, the highest accuracy or R² "
                "that there is; give a fraction, such as 0.95 for 95 %."
            )
        if self._score_name() == "r2" and (data.y_val == data.y_val[:1]).all():
            warn_user(
                "the validation samples have one value of y, so that R² is the same "
                "for every network and the smallest one holds; give X_val and y_val "
                "that differ, or another scoring.",
            )
        net = self._rehearse(data)
        if net is not None:
            payoffs = {"scoring": self._score_name(), "payoff": self._game_payoff()}
            check_playable(net, data, self.players, payoffs)

    def _start(self, net, data):
        """Where the way down begins, and the score that has to hold on it."""
        with self._step("stage") as step:
            start = Stage(net, data, self.players, self._score_name())
            start.check_alive()
            goal, n_players = self._goal(start.score), start.players.n_players
            step.note(
                f"{n_players} players score {start.score:.4f}; {goal:.4f} has to hold"
            )
        return start, goal

    def _goal(self, unpruned_score):
        """The score that has to hold, refused where the unpruned net has less."""
        if not np.isfinite(unpruned_score):
            raise ValueError(
                f"scoring={self.scoring!r} gives {unpruned_score} for the unpruned "
                "network; give a score that is a finite number on the validation "
                "samples, or more of these."
            )
        if self.min_score is None:
            return unpruned_score - self.tol
        if unpruned_score < self.min_score:
            raise ValueError(
                f"min_score={self.min_score!r} is out of reach: the unpruned network "
                f"scores {unpruned_score:.6g} on the validation samples. Lower "
                "min_score, or train the network longer or a larger one."
            )
        return self.min_score

    def _descent(self, start, goal):
        """The way down, which has not begun yet."""
        seeds = np.random.default_rng(self._seed())

        @contextmanager
        def retraining():
            with self._seeded(int(seeds.integers(2**31))):
                yield

        strategy = self.strategy
        return Descent(
            start,
            goal,
            index=PlayerIndex(
                self.power_index, self._game_payoff(), self.n_jobs, self._seed()
            ),
            strategy=(
                STRATEGIES[strategy]() if isinstance(strategy, str) else clone(strategy)
            ),
            min_per_layer=self.min_per_layer,
            normalize=self.normalize,
            repair=self.repair,
            retraining=retraining,
            note=self._note,
        )

    def _note(self, step):
        """What a step led to, in words."""
        return (
            f"{'refining: ' if step.refining else ''}{int(step.support.sum())} players "
            f"score {step.score:.4f}, which {'holds' if step.held else 'does not hold'}"
        )

    def _score_name(self):
        """The payoff by which networks are judged."""
        if self.scoring is not None:
            return self.scoring
        return "weighted_accuracy" if hasattr(self, "classes_") else "r2"

    def _game_payoff(self):
        """The payoff of the game."""
        return self._score_name() if self.payoff is None else self.payoff

    def _adopt(self, descent, best):
        """Set the learned attributes."""
        stage, start = best.stage, descent.start
        is_frozen = isinstance(self.estimator, FrozenEstimator)
        # The optimizer of a frozen net trains the module that was given, not this one.
        is_given = is_frozen and best is start
        net = transplant(stage.net, stage.net.module_) if is_given else stage.net
        self.players_ = stage.players
        self.support_ = np.isin(np.arange(descent.n_players), best.kept)
        self.names_, self.scores_ = list(start.stage.players.names), descent.scores
        self.steps_ = descent.table()
        everybody = np.ones((1, descent.n_players), dtype=bool)
        self.path_ = CompressionPath.sorted(
            np.concatenate([everybody, self.steps_["support"]]),
            np.append(start.score, self.steps_["score"]),
        )
        self.min_score_, self.unpruned_score_ = descent.goal, start.score
        self.validation_score_, self.collapsed_ = best.score, stage.collapsed
        if stage.collapsed and not start.stage.collapsed:
            warn_of_collapse(self, len(best))
        first = 0 if is_frozen else len(start.stage.net.history)
        self.n_epochs_ = first + int(self.steps_["n_epochs"].sum())
        self.size_report_ = {
            name: size_of(s.net.module_, s.example, s.players)
            for name, s in [("before", start.stage), ("after", stage)]
        }
        self._output_layer = last_linear(stage.net.module_, stage.example)
        self._say("ends at {} of {} players", len(best), descent.n_players)
        # Last, for a pruner that was interrupted before is not fitted.
        self.estimator_ = net
        return self
