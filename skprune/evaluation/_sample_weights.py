"""Training of a skorch net on weighted samples, whatever its loss."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import torch
from skorch.callbacks import Callback
from torch import nn

__all__ = ["loss_of_samples", "weighted_samples"]


@contextmanager
def weighted_samples(net, sample_weight):
    """Let a net train on weighted samples while the context lasts.

    The training loss of a batch of B samples becomes Σ wᵢ lᵢ / (B · mean(w)), with the
    mean over all samples: equal weights change nothing, and a full batch has the
    gradient of a data set in which each sample is repeated wᵢ times. The validation
    loss stays as it is.

    Parameters
    ----------
    net : skorch.NeuralNet
        An initialized net, trained by `fit_loop` or `partial_fit` (`fit` would build
        its loss anew), whose `iterator_train` is `TensorBatches`.
    sample_weight : array-like of shape (n_samples,) or None
        Weights of all samples that the net is given, not negative and not all 0. None
        leaves the net as it is.

    Yields
    ------
    net : skorch.NeuralNet
        The same net.

    Raises
    ------
    ValueError
        If the loss cannot be had sample by sample, or the batches do not say which
        samples they hold.

    Notes
    -----
    A loss of several outputs, such as the squared error, is first averaged over the
    outputs of a sample; with ``reduction="sum"`` all is summed, and the weights have
    mean 1.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from skorch import NeuralNetRegressor
    >>> from skprune.evaluation import TensorBatches, weighted_samples
    >>> net = NeuralNetRegressor(torch.nn.Linear(1, 1), train_split=None, verbose=0,
    ...                          iterator_train=TensorBatches).initialize()
    >>> X, y = np.ones((3, 1), np.float32), np.ones((3, 1), np.float32)
    >>> with weighted_samples(net, [1, 2, 0]):
    ...     _ = net.partial_fit(X, y)
    """
    if sample_weight is None:
        yield net
        return
    if not net.initialized_:
        raise ValueError("net must be initialized; call net.initialize() first.")
    criterion = net.criterion_
    _check_criterion(criterion)
    callbacks, reduction = net.callbacks_, criterion.reduction
    weighting = _Weighting(_with_mean_1(sample_weight), reduction)
    net.callbacks_ = [*callbacks, ("skprune_sample_weight", weighting)]
    before = criterion.register_forward_pre_hook(weighting.split)
    after = criterion.register_forward_hook(weighting.join)
    try:
        yield net
    finally:
        before.remove()
        after.remove()
        criterion.reduction = reduction
        vars(criterion).pop("rows_of_batch", None)
        net.callbacks_ = callbacks


def loss_of_samples(net, outputs, targets, sample_weight=None):
    """The training loss of samples, weighted as `weighted_samples` does.

    Parameters
    ----------
    net : skorch.NeuralNet
        An initialized net.
    outputs : tensor of shape (n_samples, ...)
        What `net.infer` gave.
    targets : tensor of shape (n_samples, ...)
        What its criterion reads.
    sample_weight : ndarray of shape (n_samples,), default=None
        Weights, not all 0.

    Returns
    -------
    loss : tensor of shape ()
    """
    if sample_weight is None:
        return net.get_loss(outputs, targets, training=False)
    criterion = net.criterion_
    is_training = criterion.training
    try:
        with weighted_samples(net, sample_weight):
            criterion.train()
            criterion.rows_of_batch = np.arange(len(outputs))
            return net.get_loss(outputs, targets, training=False)
    finally:
        criterion.train(is_training)


class _Weighting(Callback):
    """Takes note of each batch's rows, and weights the loss of its samples."""

    def __init__(self, weights, reduction):
        self.weights = weights
        self.reduction = reduction

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        if not training:
            return
        rows = getattr(batch, "rows", None)
        if rows is None:
            raise ValueError(
                "sample_weight needs batches that say which samples they hold, and "
                f"iterator_train is {net.iterator_train!r}; set it to TensorBatches."
            )
        # Not kept here: a copied net has its callback and its hooks from two copies.
        net.criterion_.rows_of_batch = rows

    def split(self, criterion, inputs):
        """In training, have the loss of each sample."""
        criterion.reduction = "none" if criterion.training else self.reduction

    def join(self, criterion, inputs, losses):
        """In training, make one loss of those of the samples."""
        if not criterion.training:
            return losses
        rows = criterion.rows_of_batch
        if losses.ndim == 0 or len(losses) != len(rows):
            raise ValueError(
                f"sample_weight needs one loss for each sample, and criterion "
                f"{type(criterion).__name__} with reduction='none' gave shape "
                f"{tuple(losses.shape)} for {len(rows)} samples."
            )
        weights = self.weights[rows].to(losses.device, losses.dtype)
        losses = losses.flatten(1) if losses.ndim > 1 else losses[:, None]
        losses = losses * weights[:, None]
        return losses.sum() if self.reduction == "sum" else losses.mean()


def _with_mean_1(sample_weight):
    """Weights over their mean."""
    weights = torch.from_numpy(np.array(sample_weight, dtype=np.float64))
    # The mean of equal weights may differ from them by rounding.
    is_equal = bool((weights == weights[0]).all())
    return torch.ones_like(weights) if is_equal else weights / weights.mean()


def _check_criterion(criterion):
    """Refuse losses that are not a mean or a sum over samples."""
    name = type(criterion).__name__
    if not (isinstance(criterion, nn.Module) and hasattr(criterion, "reduction")):
        raise ValueError(
            f"sample_weight needs the loss of each sample, and criterion {name} has no "
            "parameter `reduction`; give it one, with the choice 'none'."
        )
    if criterion.reduction not in ("mean", "sum"):
        raise ValueError(
            f"sample_weight goes with reduction='mean' or 'sum'; criterion {name} has "
            f"reduction={criterion.reduction!r}."
        )
    by_class = isinstance(criterion, (nn.CrossEntropyLoss, nn.NLLLoss))
    if by_class and criterion.weight is not None:
        raise ValueError(
            f"sample_weight goes without weights of classes, and criterion {name} has "
            "`weight`, by which it divides its mean; multiply sample_weight by the "
            "weight of each sample's class instead."
        )
