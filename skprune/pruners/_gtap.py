"""GTAP: rank the neurons of a trained net by game theory, keep the best sub-network."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from numbers import Integral
from typing import ClassVar

import numpy as np
import torch
from joblib import effective_n_jobs
from sklearn.base import _fit_context, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    RealNotInt,
    StrOptions,
)
from sklearn.utils.validation import check_is_fitted

from skprune.evaluation import REPAIRS, LayerGames, last_linear
from skprune.networks import size_of
from skprune.pruners._base import BasePruner
from skprune.pruners._choices import (
    POWER_INDICES,
    SEARCHES,
    SIZE,
    as_count,
    as_refinement,
    as_search,
    builds,
    index_of,
    is_reconstruction,
    named_scorer,
    score_budget,
    seeded,
    step_budget,
)
from skprune.pruners._collapse import warn_of_collapse
from skprune.pruners._epochs import epochs_of
from skprune.pruners._layers import LayerSearch, layer_scores, n_tried, scores_budget
from skprune.pruners._progress import whole_fit
from skprune.pruners._stage import Stage, check_playable, one_thread
from skprune.pruners._worth import critical_size_of, n_played
from skprune.scorers import PowerIndexScorer
from skprune.strategies import (
    CompressionPath,
    Refinement,
    Search,
)

__all__ = ["GTAPPruner"]


class GTAPPruner(BasePruner):
    """Game Theory Assisted Pruning of a skorch net.

    Trains the net (unless it is frozen), lets its neurons play a coalitional game,
    searches the sub-network that earns most at the size asked for, removes everybody
    else and refits the survivors in closed form.

    Parameters
    ----------
    estimator : skorch.NeuralNet or FrozenEstimator of one, default=None
        A net that is cloned and trained, or a trained net that is pruned as it is. A
        frozen net plays on the X given to `fit`; that it did not see them in training
        is the user's part. None is `skprune.mlp_classifier()`.
    n_players_to_keep : int, float or "auto", default="auto"
        Players of the pruned network: a number, a fraction in (0, 1], or the critical
        size of MCUE.
    path_sizes : array-like of int or float, default=None
        Further sizes to search, refine and repair; see `at_size`.
    search : {"top_n", "iterated_pruning", "iterated_building"} or Search, \
            default="iterated_building"
        How coalitions are found.
    power_index : {"shapley", "banzhaf", "biased_banzhaf"} or PowerIndexScorer, \
            default=None
        What ranks players. None is Shapley for pruning and top-n, and biased Banzhaf
        at (1 - t*)² for building; building in the reconstruction game needs none.
    payoff : str or callable, default="reconstruction"
        "reconstruction": layer by layer from the output backwards, a coalition earns
        the variance of the next pre-activations that it still explains after linear
        repair; layers keep what their games say, or clearly better. Or any payoff
        of `CoalitionEvaluator`, on validation samples; metrics are played slowly.
    players : str or list of (kind, layer) pairs, default="neurons"
        Who plays; see `skprune.networks.find_players`.
    min_per_layer : int, default=1
        Players that stay in each layer.
    refine : bool or Refinement, default=True
        Improve what the search found. True is ``SwapRefinement()``; in the
        reconstruction game, where swaps gain nothing and only an object makes any, it
        puts others in the place of some survivors where at most 24 stay and the
        repaired network gains by it. With ``payoff="accuracy"`` swaps play
        "smoothed_accuracy", which tells ties apart.
    repair : {"none", "output", "layers"}, default="layers"
        Refit of the survivors' weights in closed form, on training samples: none, the
        output layer, or layer by layer. Kept unless it lowers the validation payoff
        (for accuracy: accuracy plus a twentieth of the true class's probability, in
        which samples count as their class does in the net's criterion).
    retrain_epochs : int, default=0
        Epochs of gradient training after the repair; kept only where the validation
        payoff rises.
    validation_fraction : float, default=0.1
        Share of X held out, stratified by class, where `fit` is given no validation
        set.
    n_jobs : int, default=None
        Threads of the compiled backend. Results do not depend on it.
    random_state : int, RandomState instance or None, default=None
        Draws the hold-out, the net's initial weights and the samples of the scorers.
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
        What each player of the dense net is worth, with standard errors; in
        reconstruction games, to those who survive in the layers behind it.
    path_ : CompressionPath
        Masks and validation payoffs at every size searched.
    size_report_ : dict of str to NetworkSize
        Players, parameters and FLOPs "before" and "after".
    critical_size_ : CriticalSize or None
        What MCUE found, where it was needed.
    repair_ : str
        The repair that was kept.
    retrained_ : bool
        Whether the retraining was kept.
    seconds_ : dict of str to float
        Wall-clock seconds of each step of `fit`, all sizes together.
    collapsed_ : bool
        Whether the pruned net has one answer for all validation samples. A warning says
        so, for any size searched, where the unpruned net told them apart.
    validation_payoff_ : float
        Payoff of the pruned net on the validation samples: accuracy or R² with the
        reconstruction game.
    classes_ : ndarray of shape (n_classes,)
        Labels, for a classifier.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Their names, where X has some.

    References
    ----------
    .. [1] M. Diaz-Ortiz et al., "Using Cooperative Game Theory to Prune Neural
       Networks", arXiv:2311.10468.

    Notes
    -----
    The paper to the letter is ``payoff="accuracy", repair="none", refine=False``,
    but with payoffs of held-out data and a bias of (1 - t*)², see `CriticalSize`.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_digits
    >>> from skorch import NeuralNetClassifier
    >>> from skprune import GTAPPruner
    >>> X, y = load_digits(return_X_y=True)
    >>> mlp = torch.nn.Sequential(
    ...     torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
    ... )
    >>> net = NeuralNetClassifier(
    ...     mlp, criterion=torch.nn.CrossEntropyLoss, max_epochs=5, lr=0.01,
    ...     optimizer=torch.optim.Adam, verbose=0
    ... )
    >>> pruner = GTAPPruner(net, n_players_to_keep=0.5, random_state=0)
    >>> pruner.fit(X / 16, y).module_
    Sequential(
      (0): Linear(in_features=64, out_features=16, bias=True)
      (1): ReLU()
      (2): Linear(in_features=16, out_features=10, bias=True)
    )
    """

    _parameter_constraints: ClassVar[dict] = {
        "estimator": [HasMethods(["fit", "predict"]), None],
        "n_players_to_keep": [*SIZE, StrOptions({"auto"})],
        "path_sizes": ["array-like", None],
        "search": [StrOptions(set(SEARCHES)), Search],
        "power_index": [StrOptions(set(POWER_INDICES)), PowerIndexScorer, None],
        "payoff": [str, callable],
        "players": [str, list, tuple],
        "min_per_layer": [Interval(Integral, 1, None, closed="left")],
        "refine": ["boolean", Refinement],
        "repair": [StrOptions(set(REPAIRS))],
        "retrain_epochs": [Interval(Integral, 0, None, closed="left")],
        "validation_fraction": [Interval(RealNotInt, 0, 1, closed="neither")],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimator=None,
        *,
        n_players_to_keep="auto",
        path_sizes=None,
        search="iterated_building",
        power_index=None,
        payoff="reconstruction",
        players="neurons",
        min_per_layer=1,
        refine=True,
        repair="layers",
        retrain_epochs=0,
        validation_fraction=0.1,
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.n_players_to_keep = n_players_to_keep
        self.path_sizes = path_sizes
        self.search = search
        self.power_index = power_index
        self.payoff = payoff
        self.players = players
        self.min_per_layer = min_per_layer
        self.refine = refine
        self.repair = repair
        self.retrain_epochs = retrain_epochs
        self.validation_fraction = validation_fraction
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    @whole_fit
    def fit(self, X, y, *, X_val=None, y_val=None):
        """Train, search, refine, remove, repair and retrain.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Training samples; or what the net reads.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels or values.
        X_val, y_val : array-like, default=None
            Validation samples; by default `validation_fraction` of X is held out. With
            a frozen net, games of other payoffs are then played on all of X;
            reconstruction games and repairs take the part that is not held out, and are
            judged on the other.

        Returns
        -------
        self : GTAPPruner
        """
        self.seconds_, self.critical_size_ = {}, None
        data = self._prepare(X, y, X_val, y_val)
        self._check_before_training(data)
        net = self._trained_net(data)
        with one_thread():
            stage, target, scores = self._prune(net, data)
        if self.retrain_epochs:
            self._retrain(stage)
        self._record(stage, scores)
        self._say("kept {} of {} players", target, stage.players.n_players)
        return self._adopt(target)

    def at_size(self, size):
        """The fitted pruner at another size of `path_sizes`.

        Parameters
        ----------
        size : int
            Number of players.

        Returns
        -------
        pruner : GTAPPruner
            A fitted copy whose predictions are those of the network of that size.

        Raises
        ------
        ValueError
            If `fit` did not search that size; the message lists those it did.
        """
        check_is_fitted(self)
        if size not in self._results:
            raise ValueError(
                f"size={size!r} was not searched; choose one of "
                f"{sorted(self._results)}, or add it to path_sizes and fit again."
            )
        return copy.copy(self)._adopt(size)

    def _check_before_training(self, data):
        """Refuse players, sizes and payoffs that the net cannot have."""
        effective_n_jobs(self.n_jobs)
        net = self._rehearse(data)
        if net is None:
            return
        players = check_playable(net, data, self.players, {"payoff": self.payoff})
        for name in ("n_players_to_keep", "path_sizes"):
            self._counts(name, players)

    def _prune(self, net, data):
        """Search, refine, remove and repair."""
        with self._step("stage"):
            stage = Stage(net, data, self.players, self._judged_by())
            stage.check_alive()
        target, sizes = self._sizes(stage)
        masks, scores = self._search(stage, target, sizes)
        with self._step("remove and repair", len(masks)) as step:
            self._results = {}
            for mask in masks:
                with step.part("size"):
                    self._results[int(mask.sum())] = stage.finish(mask, self.repair)
        return stage, target, scores

    def _retrain(self, stage):
        """Retrain the network of each size, on as many threads as torch has."""
        epochs = self.retrain_epochs
        with self._step("retrain", len(self._results)) as step, self._seeded():
            for size, result in self._results.items():
                with step.part("size", epochs_of(stage.net, epochs)) as part:
                    self._results[size] = stage.retrained(result, epochs, step=part)

    def _search(self, stage, target, sizes):
        """A mask of survivors for each size, and scores of all players."""
        search = as_search(self.search, self._seed())
        scorer = self._scorer(stage)
        if is_reconstruction(self.payoff):
            return self._search_layers(stage, target, sizes, search, scorer)
        game = stage.evaluator(
            self.payoff, n_played(stage, self.payoff), n_jobs=self.n_jobs
        )
        floors = {
            "groups": stage.players.group_of,
            "min_per_group": self._floors(stage.players),
        }
        step_scorer = self._step_scorer(scorer, stage)
        cut = {"in_parts": torch.device(stage.net.device).type == "cpu"}
        budget = search.budget(step_scorer, game.n_players, sizes)
        with self._step("search", budget=budget) as step:
            ties, played = stage.weight_norms, step.watched(game, **cut)
            path = search.search(played, step_scorer, sizes, ties=ties, **floors)
        with self._step("score", budget=scorer.budget(game.n_players)) as step:
            scores = scorer.estimate(step.watched(game, **cut))
            step.met_target(scores)
        refinement = as_refinement(self.refine, self._seed())
        if refinement is None:
            return list(path.masks), scores
        payoff = "smoothed_accuracy" if self.payoff == "accuracy" else self.payoff
        game = stage.evaluator(payoff, n_jobs=self.n_jobs)
        refined = []
        with self._step("refine", len(path.masks)) as step:
            for mask in path.masks:
                with step.part("size"):
                    refined.append(refinement.refine(game, mask, **floors)[0])
        return refined, scores

    def _search_layers(self, stage, target, sizes, search, scorer):
        """The same in the reconstruction games of the layers."""
        # Swaps in the reconstruction game did not pay (see the guide): only those that
        # are asked for by an object are made.
        is_given = isinstance(self.refine, Refinement)
        refine = seeded(self.refine, self._seed()) if is_given else bool(self.refine)
        budget = sum(n_tried(stage.players, size, refine) for size in sizes)
        with self._step("search", budget=budget) as step:
            games = LayerGames(stage.split, stage.players, stage.train, stage.task)
            layers = LayerSearch(
                stage, games, search, scorer, refine, self.min_per_layer, step
            )
            masks = [layers.best(size) for size in sizes]
        # The index behind `scores_`: the one of the search, else Shapley.
        scorer = scorer or named_scorer("shapley", None, "auto", self._seed())
        budget = scores_budget(stage.players, scorer)
        with self._step("score", budget=budget) as step:
            scores = layer_scores(games, masks[sizes.index(target)], scorer, step)
            step.met_target(scores)
        return masks, scores

    def _steps(self):
        """Names of the steps of the fit, in their order."""
        index = index_of(self.power_index, self.search, self.payoff)
        refines = as_refinement(self.refine, None) is not None
        steps = {
            "train": not isinstance(self.estimator, FrozenEstimator),
            "stage": True,
            "critical size": isinstance(self.n_players_to_keep, str)
            or index == "biased_banzhaf",
            "search": True,
            "score": True,
            "refine": refines and not is_reconstruction(self.payoff),
            "remove and repair": True,
            "retrain": self.retrain_epochs > 0,
        }
        return [name for name, is_taken in steps.items() if is_taken]

    @contextmanager
    def _step(self, name, n_parts=0, budget=None):
        """A step of the fit, whose seconds are kept."""
        with super()._step(name, n_parts, budget) as step:
            yield step
        self.seconds_[name] = step.seconds

    def _scorer(self, stage):
        """The scorer that the search asks, or None where it needs none."""
        index = index_of(self.power_index, self.search, self.payoff)
        if not isinstance(index, str):
            return index if index is None else seeded(index, self._seed())
        budget = "auto"
        if not is_reconstruction(self.payoff):
            budget = score_budget(stage.players.n_players, n_played(stage, self.payoff))
        # Coalitions of the size at which the net turns uncertain.
        bias = index == "biased_banzhaf" and self._critical(stage).surviving_fraction
        return named_scorer(index, bias, budget, self._seed())

    def _step_scorer(self, scorer, stage):
        """The scorer of a step: building needs little of an index by its name."""
        is_named = not isinstance(self.power_index, PowerIndexScorer)
        if not (builds(self.search) and is_named) or stage.payoff.metric:
            return scorer
        budget = step_budget(stage.players.n_players, n_played(stage, self.payoff))
        return clone(scorer).set_params(n_evaluations=budget)

    def _critical(self, stage):
        """MCUE on the validation samples, once."""
        if self.critical_size_ is None:
            is_rough = not isinstance(self.n_players_to_keep, str)
            with self._step("critical size") as step:
                size = critical_size_of(stage, self._seed(), is_rough)
                step.note(f"critical size {size.fraction:.3f}")
            self.critical_size_ = size
        return self.critical_size_

    def _sizes(self, stage):
        """The target, and all sizes in ascending order."""
        wanted = self._counts("n_players_to_keep", stage.players)
        if not wanted:
            n_critical = self._critical(stage).fraction * stage.players.n_players
            wanted = [max(self._floor(stage.players), round(n_critical))]
        further = self._counts("path_sizes", stage.players)
        return wanted[0], sorted({*wanted, *further})

    def _counts(self, name, players):
        """Numbers of players that a parameter asks for; none for "auto" or None."""
        value = getattr(self, name)
        if value is None or isinstance(value, str):
            return []
        floor = self._floor(players)
        values = [value] if np.ndim(value) == 0 else list(value)
        return [as_count(name, v, players.n_players, floor) for v in values]

    def _floor(self, players):
        """Fewest players that may stay: one of layers that may all leave."""
        return max(1, int(self._floors(players).sum()))

    def _floors(self, players):
        """Players that stay in each layer."""
        return players.floors(self.min_per_layer)

    def _judged_by(self):
        """The payoff by which the pruned net is judged."""
        if not is_reconstruction(self.payoff):
            return self.payoff
        return "accuracy" if hasattr(self, "classes_") else "r2"

    def _record(self, stage, scores):
        """Learned attributes that are the same at every size."""
        results = self._results.values()
        for size, result in self._results.items():
            if result.collapsed and not stage.collapsed:
                warn_of_collapse(self, size)
        self.path_ = CompressionPath.sorted(
            np.array([result.keep for result in results]),
            np.array([result.payoff for result in results]),
        )
        self.names_ = list(stage.players.names)
        self.scores_ = scores
        self._before = size_of(stage.net.module_, stage.example, stage.players)
        self._output_layer_of = {
            size: last_linear(result.net.module_, stage.example)
            for size, result in self._results.items()
        }

    def _adopt(self, size):
        """Set the attributes that belong to one size."""
        result = self._results[size]
        self.estimator_, self.players_ = result.net, result.players
        self.support_, self.repair_ = result.keep, result.repair
        self.retrained_, self.collapsed_ = result.retrained, result.collapsed
        self.validation_payoff_ = result.payoff
        self.size_report_ = {"before": self._before, "after": result.size}
        self._output_layer = self._output_layer_of[size]
        return self
