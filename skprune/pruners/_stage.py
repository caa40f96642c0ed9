"""A trained net with its players and samples, and the way from a mask to a net."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from skprune.evaluation import (
    REPAIRS,
    CoalitionEvaluator,
    Repairer,
    Samples,
    check_reconstructible,
    clear_gain,
    cut_batches,
    first_rows,
    played_payoff,
    played_payoffs,
    predictions,
    resolve_payoff,
    retrain,
    sample_logits,
    split_module,
    take_rows,
    task_of,
    transplant,
    weight_norm_scores,
    weighted_by_class,
)
from skprune.networks import (
    NetworkSize,
    Players,
    evaluating,
    find_players,
    remove_players,
    size_of,
    tensors_in,
)
from skprune.pruners._choices import is_reconstruction
from skprune.pruners._collapse import has_one_answer
from skprune.pruners._epochs import telling_epochs

__all__ = ["PrunedNet", "Stage", "check_playable", "one_thread"]

# Bytes of features that are held for moments, repairs and payoffs; from more samples
# than fit, these are drawn at random.
_FEATURE_BYTES, _FEWEST_SAMPLES = 2**30, 1024
# Share of the players up to which layers are opened: at a tenth and below that chose
# better splits and won a point, at .225 of LeNet5 it chose worse ones by .3 points.
_FEW = 0.15
# Sums of squares of larger numbers would be infinite.
_LARGEST = 1e15
# A repair that has to rank choices, not to be the last word: on so many samples, with
# few iterations.
_QUICK_SAMPLES = 4096
_QUICK_REPAIR = {"n_rectified": 2, "max_iter": 12}


class _Threads:
    """Numbers of threads of the process, limited while any fit wants one alone."""

    def __init__(self):
        self._lock, self._n_fits = threading.Lock(), 0

    def limit(self):
        # A thread that was never asked takes what another one set last.
        n_threads = torch.get_num_threads()
        with self._lock:
            if self._n_fits == 0:
                self._before = n_threads
                self._blas = threadpool_limits(limits=1)
            self._n_fits += 1
        torch.set_num_threads(1)

    def restore(self):
        with self._lock:
            self._n_fits -= 1
            if self._n_fits == 0:
                self._blas.restore_original_limits()
        torch.set_num_threads(self._before)


_THREADS = _Threads()


@contextmanager
def one_thread():
    """One thread for torch and BLAS: the matrices of a search are small.

    Threads that wait for each other on them cost up to a hundred times the work, and
    sums in another order would make results depend on the machine.
    """
    _THREADS.limit()
    try:
        yield
    finally:
        _THREADS.restore()


def check_playable(net, data, players, payoffs):
    """Refuse players and payoffs that a net cannot have, before it is trained.

    Parameters
    ----------
    net : skorch.NeuralNet
        An initialized net.
    data : FitData
        The samples.
    players : str or list
        See `skprune.networks.find_players`.
    payoffs : dict of str to (str or callable)
        By the parameter that says it, what is played and what the smaller net is judged
        by.

    Returns
    -------
    players : Players
    """
    with evaluating(net.module_):
        players = find_players(net.module_, first_rows(net, data.X), players)
    task = task_of(net)
    targets = task.targets(data.y_val, net.device)
    for parameter, payoff in payoffs.items():
        if is_reconstruction(payoff):
            check_reconstructible(players)
        else:
            resolve_payoff(payoff, task, targets, parameter)
    return players


@dataclass(frozen=True, eq=False)
class PrunedNet:
    """A choice of players, carried out.

    Parameters
    ----------
    net : skorch.NeuralNet
        The smaller net.
    keep : ndarray of bool of shape (n_players,)
        Who stayed.
    players : Players
        Those who stayed, as players of the smaller net.
    payoff : float
        What the smaller net earns on the validation samples.
    repair : str
        The repair that was kept.
    retrained : bool
        Whether retraining was kept.
    size : NetworkSize
        Its size.
    n_epochs : int, default=0
        Epochs of retraining, kept or not.
    collapsed : bool, default=False
        Whether it has one answer for all validation samples.
    """

    net: Any
    keep: np.ndarray
    players: Players
    payoff: float
    repair: str
    retrained: bool
    size: NetworkSize
    n_epochs: int = 0
    collapsed: bool = False


class Stage:
    """All that the choice of players needs to know of a trained net.

    Parameters
    ----------
    net : skorch.NeuralNet
        A trained net; it is never changed.
    data : FitData
        Samples for moments and repairs, and for payoffs.
    players : str, list or Players
        See `skprune.networks.find_players`.
    payoff : str or callable
        What the smaller net is judged by.
    """

    def __init__(self, net, data, players, payoff):
        self.net, self.data, self.task = net, data, task_of(net)
        self._judged_by = payoff
        self.example = first_rows(net, data.X)
        if not isinstance(players, Players):
            with evaluating(net.module_):
                players = find_players(net.module_, self.example, players)
        self.players = players
        self.split = self._split(net.module_, players)
        self._valid_data = self._affordable(data.X_val, data.y_val)
        self.valid = self._samples(net, self.split, self._valid_data)
        targets = self.valid.targets
        self.payoff = resolve_payoff(payoff, self.task, targets)
        self._judge = self.payoff
        if payoff in (self.task.default_payoff, "weighted_accuracy"):
            # What the net was trained for: by plain accuracy a balanced network is
            # worse than one that knows the most frequent class only.
            smooth = resolve_payoff(self.task.smooth_payoff, self.task, targets)
            self._judge = weighted_by_class(smooth, self.task, targets)

    @cached_property
    def train(self):
        """Training samples, for moments and repairs."""
        if self.data.X_val is self.data.X:
            return self.valid
        data = self._affordable(self.data.X, self.data.y)
        return self._samples(self.net, self.split, data)

    @cached_property
    def repairer(self):
        """The repairs on all training samples."""
        return Repairer(self.split, self.train, self.task)

    @cached_property
    def quick_repairer(self):
        """Rougher repairs on some training samples, to rank choices by."""
        samples = self.train.subset(_QUICK_SAMPLES)
        return Repairer(self.split, samples, self.task, **_QUICK_REPAIR)

    @cached_property
    def weight_norms(self):
        """Decides among players of equal score."""
        return weight_norm_scores(self.net.module_, self.players)

    @cached_property
    def score(self):
        """What the net earns on the validation samples."""
        return played_payoff(self.split, self.valid, self.task, self.payoff)

    @cached_property
    def collapsed(self):
        """Whether the net has one answer for all validation samples."""
        return has_one_answer(*self._answers(self.split))

    def evaluator(self, payoff, n_samples=None, n_jobs=None):
        """The net as a game on its game samples, or on some of them."""
        X, y = self.data.X_game, self.data.y_game
        if n_samples is not None and n_samples < len(y):
            rows = np.linspace(0, len(y) - 1, n_samples).astype(int)
            X, y = take_rows(X, rows), y[rows]
        return CoalitionEvaluator(
            self.net, X, y, players=self.players, payoff=payoff, n_jobs=n_jobs
        )

    def judge(self, split, samples=None):
        """Payoff on the validation samples, fine enough to tell networks apart."""
        return float(self.earned(split, samples).mean())

    def earned(self, split, samples=None):
        """What `judge` averages, by each sample; see `played_payoffs`."""
        samples = self.valid if samples is None else samples
        return played_payoffs(split, samples, self.task, self._judge)

    def finish(self, keep, repair):
        """Surgery, repair and transplant.

        Parameters
        ----------
        keep : ndarray of bool of shape (n_players,)
            Who stays.
        repair : {"none", "output", "layers"}
            The repair that is tried first; where it lowers the validation payoff, the
            next milder one is.

        Returns
        -------
        pruned : PrunedNet
        """
        # With whole layers leaves what is inside them.
        keep = ~self.players.leaving(~keep)
        split, repaired = self._repaired(keep, repair)
        module = remove_players(self.net.module_, self.players, ~keep)
        self.split.copy_weights(split.rest, module, self.players, keep)
        net, players = transplant(self.net, module), self.players.subset(keep)
        payoff = played_payoff(split, self.valid, self.task, self.payoff)
        size = size_of(net.module_, self.example, players)
        collapsed = has_one_answer(*self._answers(split))
        return PrunedNet(
            net, keep, players, payoff, repaired, False, size, collapsed=collapsed
        )

    def retrained(self, pruned, epochs, narrowing=1.0, step=None):
        """Some epochs of gradient training, kept where the validation payoff rises.

        Parameters
        ----------
        pruned : PrunedNet
            From `finish`; it is not changed.
        epochs : int
            Number of epochs.
        narrowing : float, default=1.0
            See `skprune.evaluation.retrain`.
        step : Task, default=None
            What the epochs are parts of.

        Returns
        -------
        pruned : PrunedNet
        """
        net = cut_batches(transplant(pruned.net, pruned.net.module_))
        with telling_epochs(net, step):
            retrain(net, self.data.X, self.data.y, epochs, pruned.players, narrowing)
        pruned = replace(pruned, n_epochs=pruned.n_epochs + len(net.history))
        trained = replace(pruned, net=net, retrained=True)
        before, after = self.at(pruned), self.at(trained)
        if not after.judge(after.split) > before.judge(before.split):
            return pruned
        return replace(trained, payoff=after.score, collapsed=after.collapsed)

    def at(self, pruned):
        """The stage of a smaller net, on the same samples.

        Parameters
        ----------
        pruned : PrunedNet
            From `finish` or `retrained`.

        Returns
        -------
        stage : Stage
        """
        return Stage(pruned.net, self.data, pruned.players, self._judged_by)

    def _answers(self, split):
        """What a module predicts for the validation samples, and what it should."""
        logits = sample_logits(split, self.valid, self.task)
        predicted = predictions(logits, self.task.kind)
        return predicted.cpu().numpy(), self.valid.targets.cpu().numpy()

    def _repaired(self, keep, furthest):
        """The rest after the furthest repair that does not lower the payoff."""
        plain = self.repairer.repaired(keep, "none")
        if keep.all():
            return plain, "none"
        worth = self.judge(plain)
        for method in REPAIRS[REPAIRS.index(furthest) : 0 : -1]:
            split, earned = self._pulled(keep, method)
            may_open = self.repairer.opens and self.are_few(keep.sum())
            if method == "layers" and may_open:
                opened, more = self._pulled(keep, method, opened=True)
                if clear_gain(more, earned) > 0:
                    split, earned = opened, more
            # NaN compares false: such a repair is not kept.
            if earned.mean() >= worth:
                return split, method
        return plain, "none"

    def _pulled(self, keep, method, opened=False):
        """A repair and what it earns, pulled harder where that is clearly better."""
        seen = []

        def judge(split):
            seen.append(self.earned(split))
            return clear_gain(seen[-1], seen[0])

        split = self.repairer.repaired(keep, method, opened, judge)
        return split, self.earned(split)

    def are_few(self, n_players):
        """Whether so few players stay that repairs try to open their layers."""
        return n_players <= _FEW * self.players.n_players

    def _split(self, module, players):
        """A module, cut in front of its first layer that reads players."""
        with evaluating(module):
            return split_module(module, players, self.example, self.task.strips_softmax)

    def _samples(self, net, split, data):
        """Samples as the rest of a net's module reads them."""
        return Samples.of(net, split, self.task, *data)

    def _affordable(self, X, y):
        """As many samples as memory holds the features of."""
        with evaluating(self.net.module_), torch.no_grad():
            features = tensors_in(self.split.features(self.example))
        per_sample = sum(part[0].numel() * part.element_size() for part in features)
        most = max(_FEWEST_SAMPLES, _FEATURE_BYTES // max(per_sample, 1))
        if len(y) > most:
            chosen = np.random.default_rng(0).choice(len(y), most, replace=False)
            X, y = take_rows(X, np.sort(chosen)), y[np.sort(chosen)]
        return X, y

    def check_alive(self):
        """Refuse a net whose outputs are NaN, huge, or the same for every sample."""
        logits = sample_logits(self.split, self.valid, self.task)
        if not torch.isfinite(logits).all():
            raise ValueError(
                "the net's outputs are NaN or infinite; train it with a lower learning "
                "rate, or scale X."
            )
        largest = max(
            float(part.abs().max())
            for part in (logits, *tensors_in(self.valid.features))
            if part.numel()
        )
        if largest > _LARGEST:
            raise ValueError(
                f"the net computes with numbers as large as {largest:.2g}, too large "
                "for single precision to hold their squares; scale X, by "
                "sklearn.preprocessing.StandardScaler for instance."
            )
        some = sample_logits(self.split, self.train.subset(1024), self.task)
        logits = torch.cat([logits, some])
        if len(logits) > 1 and bool((logits == logits[0]).all()):
            raise ValueError(
                "the net's outputs are the same for every sample: it is dead, and no "
                "player can be told from another. Train it again, with a lower "
                "learning rate or scaled X."
            )
