"""What the equilibrium pruners share: players leave while a net trains."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import _fit_context, is_classifier
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions
from sklearn.utils.validation import _check_sample_weight, _num_samples
from skorch.callbacks import Callback, EarlyStopping, LRScheduler

from skprune.base import warn_user
from skprune.evaluation import (
    adapts,
    batches_of,
    check_shrinkable,
    first_rows,
    last_linear,
    learns,
    loss_of_samples,
    net_targets,
    take_rows,
    transplant,
    weighted_samples,
)
from skprune.networks import (
    ParticipationGame,
    evaluating,
    find_players,
    masked,
    size_of,
    tensors_in,
)
from skprune.pruners._base import BasePruner
from skprune.pruners._choices import SIZE, as_count
from skprune.pruners._collapse import has_one_answer, warn_of_collapse
from skprune.pruners._contender import BENEFITS
from skprune.pruners._course import Course
from skprune.pruners._data import FitData, split_data
from skprune.pruners._epochs import epochs_of, telling_epochs
from skprune.pruners._gates import PARTICIPATION_OPTIMIZERS
from skprune.pruners._play import AfterMarket, MarketPlay, Rules
from skprune.pruners._progress import whole_fit
from skprune.pruners._record import EquilibriumRecord
from skprune.strategies import scaled_split

__all__ = ["MARKET_CONSTRAINTS", "BaseEquilibriumPruner"]

# The rate of the fine-tuning at its peak grows with the square root of how much the
# network narrowed, as the scale of its activations allows, up to this factor.
_HIGHEST_PEAK = 7.0
# Samples on which scores and leave-one-out gains are taken in the end.
_N_SCORED = 2048
# Samples times players of the leave-one-out gains, at most but for very wide networks.
_N_PLAYED = 2**18
# Shares of the training between which players leave: with a number to keep, and where
# they leave by themselves.
_PERIODS = {False: (0.05, 0.1), True: (0.1, 0.5)}
# Share of the training in which rivals compete, and how differently they perceive.
_RIVALRY, _NOISE = 0.4, 0.3

MARKET_CONSTRAINTS = {
    "n_players_to_keep": [*SIZE, "array-like", None],
    "min_per_layer": [Interval(Integral, 1, None, closed="left")],
    "utility": [StrOptions({"descent", "joint", "ascent"})],
    "alpha": [Interval(Real, 0, None, closed="left")],
    "beta": [Interval(Real, 0, None, closed="left")],
    "gamma": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
    "eta": [Interval(Real, 0, None, closed="left")],
    "benefit": [StrOptions(set(BENEFITS))],
    "participation_optimizer": [StrOptions(set(PARTICIPATION_OPTIMIZERS))],
    "participation_lr": [Interval(Real, 0, None, closed="neither")],
    "removal_period": [StrOptions({"auto"}), tuple, list],
    "n_rivals": [Interval(Integral, 1, None, closed="left")],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(RealNotInt, 0, 1, closed="neither")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
    "condition_numbers": ["boolean"],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


class BaseEquilibriumPruner(BasePruner):
    """Base class of the pruners whose players leave while the network trains.

    A subclass gives the net to train (`_new_net`), and says what data it reads
    (`_prepare`).
    """

    @_fit_context(prefer_skip_nested_validation=False)
    @whole_fit
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None):
        """Train the network while its players leave.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Training samples; or what the net reads.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels or values.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the training samples.
        X_val, y_val : array-like, default=None
            Validation samples, whose loss is in the history of the net and decides
            about early stopping; by default there are none, or with
            ``early_stopping=True`` `validation_fraction` of X.

        Returns
        -------
        self : object
        """
        if sample_weight is not None and y is not None:
            # Before anything of an earlier fit is changed.
            sample_weight = _check_sample_weight(
                sample_weight, np.empty(_num_samples(y)), ensure_non_negative=True
            )
        data = self._prepare(X, y, sample_weight, X_val, y_val)
        with self._seeded():
            net = self._new_net(data)
            players, play, record = self._train(net, data)
        with self._step("measure"):
            self._conclude(net, data, players, play, record)
        n_left = play.winner.players.n_players
        self._say("kept {} of {} players", n_left, players.n_players)
        return self

    def _steps(self):
        """Names of the steps of the fit, in their order."""
        return ["train", "measure"]

    def __sklearn_tags__(self):
        """Tags: one seed gives one network."""
        tags = super().__sklearn_tags__()
        tags.non_deterministic = False
        return tags

    def _split(self, X, y, sample_weight, X_val, y_val):
        """Training and validation samples; the same where nothing is held out."""
        if X_val is None and not self.early_stopping:
            return FitData(X, y, X, y, X, y, sample_weight)
        return split_data(
            X,
            y,
            X_val,
            y_val,
            self.validation_fraction,
            getattr(self, "classes_", None),
            self._seed(),
            frozen=False,
            sample_weight=sample_weight,
        )

    def _train(self, net, data):
        """Play the market while the net trains."""
        check_shrinkable(net)
        _check_callbacks(net, self.early_stopping)
        targets = net_targets(net, data.y)
        net.notify("on_train_begin", X=data.X, y=targets)
        example = first_rows(net, data.X)
        with evaluating(net.module_):
            players = find_players(net.module_, example, self._player_kinds())
            self._before = size_of(net.module_, example, players)
        rules = self._rules(players)
        is_weighted = data.sample_weight is not None and learns(net.criterion_)
        if is_weighted or any(_changes_gradients(part) for _, part in net.callbacks_):
            # Each rival has a criterion of its own, and callbacks hear of one net.
            rules = replace(rules, n_rivals=1)
        play = MarketPlay(
            net,
            players,
            rules,
            self._course(net, data, rules),
            sets_rate=not _has_schedule(net),
            score=lambda some: self._score_of(some, data),
            sample_weight=data.sample_weight,
        )
        record = EquilibriumRecord(play, self.condition_numbers)
        callbacks = net.callbacks_
        net.callbacks_ = [*callbacks, ("market", play)]
        if self.early_stopping and data.X_val is not data.X:
            net.callbacks_.append(("stop", self._stopping(play)))
        try:
            with (
                self._step("train", epochs_of(net)) as step,
                weighted_samples(net, data.sample_weight),
                telling_epochs(net, step, record.last_epoch, predicts=False),
                # How skorch's callbacks, such as EarlyStopping, end a training.
                suppress(KeyboardInterrupt),
            ):
                # Before those that may end the training.
                net.callbacks_.insert(0, ("record", record))
                net.fit_loop(data.X, targets)
            play.finish(net)
            net.notify("on_train_end", X=data.X, y=targets)
        finally:
            net.callbacks_ = callbacks
            play.close()
        return players, play, record

    def _check_period(self):
        """Refuse a removal period that is none, and warn of what destroys networks."""
        period = self.removal_period
        shares = np.ravel(np.asarray([] if isinstance(period, str) else period))
        is_pair = shares.dtype.kind in "fiu" and shares.shape == (2,)
        if not (isinstance(period, str) or is_pair) or (
            is_pair and not 0 <= shares[0] <= shares[1] <= 1
        ):
            raise ValueError(
                f"removal_period={period!r} must be 'auto' or two shares of the "
                "training, such as (0.05, 0.1): players leave between them."
            )
        if self.utility == "ascent":
            warn_user(
                "utility='ascent' rewards players that raise the loss, as equations "
                "(16) to (18) are printed; it destroys most networks. Use 'descent'.",
            )

    def _rules(self, players):
        """The rules of the market, checked against the players there are."""
        before = np.bincount(players.group_of, minlength=len(players.groups))
        floors = np.minimum(before, self.min_per_layer)
        gamma = math.nan if self.gamma == "auto" else self.gamma
        rules = Rules(
            counts=self._counts(before, floors),
            floors=floors,
            benefit=self.benefit,
            game=ParticipationGame(
                self.alpha, self.beta, gamma, self.eta, self.utility
            ),
            optimizer=self.participation_optimizer,
            learning_rate=self.participation_lr,
            n_rivals=self.n_rivals,
            noise=_NOISE,
            seed=self._seed(),
        )
        return replace(rules, n_rivals=1) if rules.has_gates else rules

    def _counts(self, before, floors):
        """Players that each layer keeps, or None for those who want to stay."""
        value, name = self.n_players_to_keep, "n_players_to_keep"
        if value is None:
            return None
        if np.ndim(value) == 0:
            owner = type(self).__name__
            total = as_count(name, value, before.sum(), floors.sum(), owner)
            enough = min(self._enough(), total // len(before))
            low = np.maximum(floors, np.minimum(before, enough))
            return scaled_split(before, total, low, before)
        counts = np.asarray(value)
        whole = counts.dtype.kind in "iu" and counts.shape == before.shape
        if not (whole and np.all((counts >= floors) & (counts <= before))):
            raise ValueError(
                f"n_players_to_keep={value!r} must hold one whole number for each of "
                f"the {len(before)} layers, from {floors.tolist()} (min_per_layer) to "
                f"{before.tolist()}."
            )
        return counts.astype(np.intp)

    def _enough(self):
        """Units of a layer that can tell all classes apart, with one to spare."""
        if not is_classifier(self):
            return 1
        return math.ceil(math.log2(len(self.classes_))) + 1

    def _course(self, net, data, rules):
        """When players leave, and how fast the net learns."""
        trained_on, _ = net.get_split_datasets(data.X, net_targets(net, data.y))
        n_batches = len(net.get_iterator(trained_on, training=True))
        if not n_batches * net.max_epochs:
            raise ValueError(
                f"there is nothing to train: max_epochs={net.max_epochs} with "
                f"{n_batches} batches of batch_size={net.batch_size}; raise the one, "
                "or lower the other."
            )
        begin, end = _PERIODS[rules.counts is None]
        if not isinstance(self.removal_period, str):
            begin, end = self.removal_period
        highest = _HIGHEST_PEAK if adapts(net.optimizer_) else 1.0
        return Course(n_batches * net.max_epochs, begin, end, highest, _RIVALRY)

    def _stopping(self, play):
        """Early stopping that begins when the market has come to rest."""
        patience = self.n_iter_no_change
        stopping = EarlyStopping(
            "valid_loss", patience=patience, load_best=True, sink=_silent
        )
        return AfterMarket(play, stopping.initialize())

    def _score_of(self, net, data):
        """Accuracy or R² on validation samples, or on some training samples."""
        rows = _some_rows(len(data.y_val))
        if len(rows) < 2:
            return math.nan
        predicted = net.predict(take_rows(data.X_val, rows))
        if not np.isfinite(predicted).all():
            return math.nan
        if is_classifier(self):
            return accuracy_score(data.y_val[rows], predicted)
        return r2_score(data.y_val[rows], predicted)

    def _conclude(self, net, data, players, play, record):
        """Set what was learned."""
        rows = _some_rows(len(data.y))
        outputs = tensors_in(net.forward(take_rows(data.X, rows)))
        if not bool(torch.isfinite(outputs[0]).all()):
            raise ValueError(
                "the network's outputs are NaN or infinite after training; scale X, by "
                "sklearn.preprocessing.StandardScaler for instance, or lower the "
                "learning rate."
            )
        winner, groups = play.winner, players.groups
        # The samples that this one held out are none of its later trainings'.
        net.set_params(train_split=self._train_split())
        self.estimator_ = transplant(net, net.module_)
        self.estimator_.history_ = net.history_
        self.players_ = winner.players
        self.names_ = list(players.names)
        self.support_ = np.isin(np.arange(players.n_players), winner.kept)
        self.active_players_ = dict(zip(groups, winner.counts.tolist(), strict=True))
        history = np.reshape(record.participations, (-1, players.n_players))
        self.participation_history_ = history
        gone = self.participation_history_ == 0
        self.sparsity_history_ = gone.mean(axis=1)
        self.price_history_ = _price_table(winner.departures, groups)
        self.soft_score_, self.hard_score_ = winner.scores
        vars(self).pop("condition_numbers_", None)
        if self.condition_numbers:
            columns = np.reshape(record.conditions, (-1, len(groups))).T
            self.condition_numbers_ = dict(zip(groups, columns, strict=True))
        example = first_rows(net, data.X)
        self._output_layer = last_linear(net.module_, example)
        after = size_of(net.module_, example, winner.players)
        self.size_report_ = {"before": self._before, "after": after}
        self._look_at_the_end(net, data, outputs, winner)
        return self

    def _train_split(self):
        """How the net splits off validation samples by itself."""
        return None

    def _look_at_the_end(self, net, data, outputs, winner):
        """What no one gains any more by leaving, and whether the network is dead."""
        judged = _judged_rows(data)
        self.collapsed_ = has_one_answer(
            net.predict(take_rows(data.X_val, judged)), data.y_val[judged]
        )
        if self.collapsed_:
            warn_of_collapse(self, winner.players.n_players)
        is_played = len(outputs) == 1 and not winner.players.weights
        self.leave_one_out_ = None
        if is_played:
            # Everybody leaves once: fewer samples where there are many players.
            some = _weighing_rows(data.sample_weight, len(data.y))
            some = some[:: -(-len(some) * winner.players.n_players // _N_PLAYED)]
            weight = data.sample_weight
            self.leave_one_out_ = _leave_one_out(
                net,
                take_rows(data.X, some),
                data.y[some],
                winner.players,
                None if weight is None else weight[some],
            )
        self.exploitability_, n_dominated = self._at_rest(winner)
        self.dominated_fraction_ = n_dominated / len(self.support_)

    def _at_rest(self, winner):
        """The largest gain of one player that moves alone, and who would leave.

        Where participations were played, at the end of the game; else by the exact
        gains at the end of the training, against the last prices.
        """
        n_players = len(self.support_)
        utilities = winner.last_utilities
        if utilities is not None:
            n_gone = n_players - len(utilities.s)
            n_dominated = n_gone + int(utilities.is_dominated().sum())
            return float(utilities.exploitability()), n_dominated
        n_gone = n_players - winner.players.n_players
        in_loss = self.benefit != "weight_norm" and self.leave_one_out_ is not None
        if not (winner.departures and in_loss):
            return math.nan, n_gone
        prices = winner.departures[-1].prices[winner.players.group_of]
        gains = prices - self.alpha * self.leave_one_out_
        return float(max(0.0, gains.max())), n_gone + int((gains > 0).sum())


def _check_callbacks(net, early_stopping):
    """Refuse callbacks that would put back weights of a larger network, or lack one."""
    if early_stopping and "valid_loss" not in dict(net.callbacks_):
        raise ValueError(
            f"early_stopping=True judges by the validation loss, which this net does "
            f"not keep with callbacks={net.callbacks!r}; leave skorch's own callbacks "
            "on, or set early_stopping=False."
        )
    for name, callback in net.callbacks_:
        if getattr(callback, "load_best", False):
            raise ValueError(
                f"callback {name!r} ({type(callback).__name__}) has load_best=True, "
                "and the best epoch may lie before players left; set it to False, and "
                "use early_stopping=True of the pruner."
            )


def _changes_gradients(callback):
    """Whether a callback acts on gradients, such as one that clips them."""
    return type(callback).on_grad_computed is not Callback.on_grad_computed


def _has_schedule(net):
    """Whether a net brings a learning rate schedule of its own."""
    return any(isinstance(part, LRScheduler) for _, part in net.callbacks_)


def _some_rows(n):
    """Numbers of some rows, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, _N_SCORED)).astype(int))


def _judged_rows(data):
    """Numbers of some validation samples; of training samples those that count."""
    weight = data.sample_weight if data.X_val is data.X else None
    return _weighing_rows(weight, len(data.y_val))


def _weighing_rows(sample_weight, n):
    """Numbers of some rows, of those whose weight is not 0."""
    rows = np.arange(n) if sample_weight is None else np.flatnonzero(sample_weight)
    return rows[_some_rows(len(rows))]


def _price_table(departures, groups):
    """Steps and prices as columns."""
    steps = np.array([departure.step for departure in departures], dtype=int)
    prices = np.array([d.prices for d in departures]).reshape(len(steps), len(groups))
    columns = dict(zip(groups, prices.T, strict=True))
    return {"step": steps, **columns}


def _leave_one_out(net, X, y, players, sample_weight):
    """What the training loss gains if one player is left out, exactly."""
    targets = torch.as_tensor(net_targets(net, y), device=net.device)

    def loss(keep):
        with masked(net.module_, players, keep):
            outputs = [net.infer(batch) for batch in batches_of(net, X)]
        return float(loss_of_samples(net, torch.cat(outputs), targets, sample_weight))

    everybody = np.ones(players.n_players, dtype=bool)
    with evaluating(net.module_), evaluating(net.criterion_), torch.no_grad():
        alone = [loss(~row) for row in np.eye(players.n_players, dtype=bool)]
        return np.array(alone) - loss(everybody)


def _silent(*args):
    """Print nothing."""
