"""Epochs of a skorch net as parts of a step."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
from skorch.callbacks import Callback

from skprune.pruners._nets import forked_rng

__all__ = ["epochs_of", "telling_epochs"]


def epochs_of(net, epochs=None):
    """Number of epochs that a net tells of; none where it takes no callbacks."""
    if net.callbacks == "disable":
        return 0
    return net.max_epochs if epochs is None else epochs


@contextmanager
def telling_epochs(net, step, describe=None, predicts=True):
    """Make the epochs of a training parts of a step; nothing stays in the net.

    Parameters
    ----------
    net : skorch.NeuralNet
        A net that is going to train, initialized or not.
    step : Task or None
        The step.
    describe : callable, default=None
        From the net to a text about the epoch; None for its training loss.
    predicts : bool, default=True
        Whether the pruner could predict by the net as it is.
    """
    if step is None or not step.is_followed or net.callbacks == "disable":
        yield
        return
    given, teller = net.callbacks, _EpochTeller(step, describe or _loss_of, predicts)
    if net.initialized_:
        # First of all: another callback may end the training.
        net.callbacks_ = [("skprune_progress", teller), *net.callbacks_]
    else:
        net.callbacks = [("skprune_progress", teller), *(given or [])]
    try:
        yield
    finally:
        net.callbacks = given
        if net.initialized_:
            net.callbacks_ = [pair for pair in net.callbacks_ if pair[1] is not teller]


class _EpochTeller(Callback):
    """Each epoch of a training is a part of a step; a stop is asked for as skorch does.

    Parameters
    ----------
    step, describe, predicts : Task, callable, bool
        See `telling_epochs`.
    """

    def __init__(self, step, describe, predicts):
        self.step, self.describe, self.predicts = step, describe, predicts

    def __reduce__(self):
        """In a pickle of the net in training it is a callback that does nothing."""
        return Callback, ()

    def on_epoch_begin(self, net, **kwargs):
        """Begin a part."""
        # Torch's generator goes on as if nobody had been asked.
        with forked_rng():
            self._epoch = self.step.begin("epoch")

    def on_epoch_end(self, net, **kwargs):
        """End it."""
        if self.step.fit.pruner.verbose:
            self._epoch.note(f"epoch {self.step.n_done + 1}: {self.describe(net)}")
        with forked_rng():
            self._epoch.end((lambda: {"estimator_": net}) if self.predicts else None)
        if self.step.is_stopped:
            raise KeyboardInterrupt


def _loss_of(net):
    """The training loss of the last epoch, in words."""
    batches = [row for row in net.history[-1]["batches"] if "train_loss" in row]
    if not batches:
        return "done"
    losses = [row["train_loss"] for row in batches]
    sizes = [row["train_batch_size"] for row in batches]
    return f"training loss {np.average(losses, weights=sizes):.4f}"
