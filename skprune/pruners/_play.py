"""The market that players leave while a skorch net trains, as a callback of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from skorch.callbacks import Callback
from skorch.utils import to_tensor
from torch.utils.data import Subset

from skprune.evaluation import (
    TensorBatches,
    adopt_training,
    optimizers_of,
    row_numbers,
)
from skprune.networks import ParticipationGame
from skprune.pruners._contender import Contender, probe_loss
from skprune.pruners._course import Course

__all__ = ["AfterMarket", "MarketPlay", "Rules"]

# Whoever contributes less than this share of the most in its layer does not take part.
_SHARE = 0.01
# Training samples on which benefits are estimated at a removal.
_N_SAMPLES = 2048
# Parameters that all rivals hold together at most; each has two moments beside it. The
# networks of a large vocabulary shrink further before so many of them are trained.
_N_PARAMETERS = 2**26


@dataclass(frozen=True)
class Rules:
    """How the market is played.

    Parameters
    ----------
    counts : ndarray of int of shape (n_groups,) or None
        Players that each layer keeps; None to keep those who want to stay at a fixed
        price.
    floors : ndarray of int of shape (n_groups,)
        Players that stay in each layer at least.
    benefit : str
        What staying is worth, a key of `BENEFITS`.
    game : ParticipationGame
        What players gain and pay for their participation.
    optimizer, learning_rate : str, float
        Of the participations, see `Gates`.
    n_rivals : int
        Number of rivals; one where players' participations are played.
    noise : float
        See `Contender`.
    seed : int
        Draws noise and samples.
    """

    counts: np.ndarray | None
    floors: np.ndarray
    benefit: str
    game: ParticipationGame
    optimizer: str
    learning_rate: float
    n_rivals: int
    noise: float
    seed: int

    @property
    def has_gates(self):
        """Whether players choose how far they take part."""
        return self.counts is None or self.benefit == "participation"


class MarketPlay(Callback):
    """Lets players leave along a course, and rivals compete.

    From most of the removals on, several rivals go their own way from one network: all
    train on the same batches, and players leave each of them as their benefits say.
    Rivals end in different equilibria. As the game has a potential, of which the loss
    is the part that differs, those of higher loss give up until one is left.

    Parameters
    ----------
    net : skorch.NeuralNet
        The net that is going to train.
    players : Players
        The players of its module.
    rules : Rules
        How the market is played.
    course : Course
        When what happens.
    sets_rate : bool
        Whether the course sets the learning rate.
    score : callable
        From a net to its score, which is taken around the last removal.
    sample_weight : ndarray of shape (n_samples,), default=None
        Weights of the samples that the net is given.
    """

    def __init__(
        self, net, players, rules, course, sets_rate, score, sample_weight=None
    ):
        self.rules, self.course = rules, course
        self.sets_rate, self.score = sets_rate, score
        is_even = sample_weight is None or np.ptp(sample_weight) == 0
        self.sample_weight = None if is_even else sample_weight
        rng = np.random.default_rng(rules.seed)
        # The first rival perceives its benefits as they are.
        first = Contender(net, players, rules.benefit, 0.0, rng, rules.game.alpha)
        self.contenders = [first]
        self.step = 0
        self.before = self.winner.counts
        self.is_pruning = rules.counts is None or not np.array_equal(
            self.before, rules.counts
        )
        if not self.is_pruning:
            self.course = course = Course(course.n_steps, 0.0, 0.0, peak=1.0)
        is_free = math.isnan(rules.game.gamma) and rules.counts is None
        self._asks_fair_price, self._fair_price = is_free, math.nan
        self._opening = min(
            course.last - 1, course.first if rules.has_gates else course.fork
        )
        self._has_opened = False
        self._removal_steps = set(course.removal_steps().tolist())
        self._selections = course.selections(rules.n_rivals)
        self._base_rates = [group["lr"] for group in _groups(net)]
        self._samples = None

    @property
    def winner(self):
        """The contender that leads."""
        return self.contenders[0]

    def on_epoch_begin(self, net, dataset_train=None, **kwargs):
        """Take note of the samples that the net trains on."""
        if self._samples is None:
            rng = np.random.default_rng(self.rules.seed)
            weights = self.sample_weight
            self._samples = _endless(dataset_train, weights, net.device, rng)

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        """Set the learning rate, and open the market."""
        if not training:
            return
        if self.step == 0 and self._asks_fair_price:
            self._fair_price = self._loss_per_player()
        if self.is_pruning and self._is_opening():
            self._open()
        if self._asks_fair_price and self.winner.gates is not None:
            price = self.course.progress(self.step) * self._fair_price
            self.winner.gates.set_prices(np.full(len(self.before), price))
        rates = [group["lr"] for group in _groups(net)]
        if self.sets_rate:
            factor = self.course.rate(self.step)
            rates = [rate * factor for rate in self._base_rates]
        for contender in self.contenders:
            for group, rate in zip(_groups(contender.net), rates, strict=True):
                group["lr"] = rate

    def on_grad_computed(self, net, training=False, **kwargs):
        """Let players choose how far they take part."""
        if training and self.winner.gates is not None:
            self.winner.gates.update()

    def on_batch_end(self, net, batch=None, training=False, loss=None, **kwargs):
        """Train the rivals on the batch; let players leave and rivals give up."""
        if not training:
            return
        self.step += 1
        for contender in self.contenders:
            own = loss
            if contender.net is not net:
                own = contender.net.train_step(batch)["loss"]
                # Its gradients would lie about while the others train.
                for optimizer in optimizers_of(contender.net):
                    optimizer.zero_grad()
            contender.note(own.detach(), self.course.window)
            contender.hold_zeros()
        if not self.is_pruning:
            return
        if self.step in self._removal_steps:
            self._remove()
        if self.step in self._selections:
            self._select(net, self._selections[self.step])

    def finish(self, net):
        """Clear the market at once, where a training ended before its course."""
        if self._samples is None:
            raise ValueError(
                "a callback ended the training before its first epoch, so that nothing "
                "was learned; take it out of the callbacks."
            )
        if self.is_pruning and self.step < self.course.last:
            self.step = self.course.last
            self._remove()
        self.winner.come_to_rest()
        self._select(net, 1)
        if self.winner.scores is None:
            self.winner.scores = (self.score(net),) * 2

    def close(self):
        """Take the gates away, where a training broke off."""
        for contender in self.contenders:
            if contender.gates is not None:
                contender.gates.close()

    def _is_opening(self):
        """Whether it is time; rivals wait until all of them fit, but not for ever."""
        if self._has_opened or self.step < self._opening:
            return False
        if self.rules.has_gates or self.step >= self.course.last - 1:
            return True
        return self._n_rivals() == self.rules.n_rivals

    def _n_rivals(self):
        """How many rivals there may be of networks as large as they are now."""
        n_parameters = sum(p.numel() for p in self.winner.net.module_.parameters())
        return min(self.rules.n_rivals, max(1, _N_PARAMETERS // n_parameters))

    def _open(self):
        """Rivals go their own way, or players get gates."""
        self._has_opened = True
        main, rules = self.winner, self.rules
        if rules.has_gates:
            game = rules.game
            # The market, or the course, sets a price that is asked for by "auto".
            game = replace(game, gamma=0.0) if math.isnan(game.gamma) else game
            main.open_gates(game, rules.optimizer, rules.learning_rate)
        else:
            seeds = main.rng.integers(2**31, size=self._n_rivals() - 1)
            self.contenders += [main.fork(seed, rules.noise) for seed in seeds]

    def _loss_per_player(self):
        """The price at which all players together pay the loss of an untrained net."""
        with torch.no_grad():
            loss = probe_loss(self.winner.net, next(self._samples))
        worth = self.rules.game.alpha * float(loss)
        return worth / self.winner.players.n_players

    def _remove(self):
        """One step of the removals in each contender's network."""
        is_last = self.step >= self.course.last
        for contender in self.contenders:
            soft = self.score(contender.net) if is_last else None
            self._let_leave(contender, next(self._samples))
            if is_last:
                contender.come_to_rest()
                contender.forget()
                contender.scores = (soft, self.score(contender.net))
        if is_last:
            self.course = replace(self.course, peak=self._peak())

    def _peak(self):
        """Rate of the fine-tuning at its highest: narrow layers take larger steps."""
        players = self.winner.players
        if players.weights:
            return 1.0
        return min(self.course.peak, math.sqrt(self.before.sum() / players.n_players))

    def _let_leave(self, contender, batch):
        counts = self.rules.counts
        if counts is None and contender.gates is None:
            # The training ended before the market opened: everybody stays.
            return
        if counts is None:
            contender.leave_below(_SHARE, self.rules.floors, self.step, batch)
        else:
            counts = self.course.counts(self.step, self.before, counts)
            contender.leave_to(counts, self.step, batch)

    def _select(self, net, n_left):
        """Rivals of higher loss give up; the net goes on as one of the others."""
        order = sorted(self.contenders, key=lambda contender: contender.mean_loss)
        self.contenders = order[:n_left]
        if all(contender.net is not net for contender in self.contenders):
            adopt_training(net, self.winner.net)
            self.winner.net = net


class AfterMarket(Callback):
    """Early stopping that begins when the market has come to rest.

    Parameters
    ----------
    play : MarketPlay
        The market.
    stopping : EarlyStopping
        Asked after each epoch from then on.
    """

    def __init__(self, play, stopping):
        self.play, self.stopping = play, stopping
        self._has_begun = False

    def on_epoch_end(self, net, **kwargs):
        """Stop the training where validation has not improved for long."""
        if self.play.step < self.play.course.decided:
            return
        if not self._has_begun:
            self.stopping.on_train_begin(net)
            self._has_begun = True
        self.stopping.on_epoch_end(net, **kwargs)

    def on_train_end(self, net, **kwargs):
        """Go back to the best epoch."""
        if self._has_begun:
            self.stopping.on_train_end(net, **kwargs)


def _groups(net):
    return [group for opt in optimizers_of(net) for group in opt.param_groups]


def _endless(dataset, sample_weight, device, rng):
    """Batches of training samples, drawn by their weights, without end."""
    n_samples = len(dataset)
    chances = None
    if sample_weight is not None:
        chances = sample_weight[row_numbers(dataset)]
        chances = chances / chances.sum()
    while True:
        # Without weights each sample once, with weights anew each time.
        drawn = rng.choice(n_samples, n_samples, chances is not None, chances)
        for batch in TensorBatches(Subset(dataset, drawn), _N_SAMPLES):
            yield to_tensor(tuple(batch), device)
