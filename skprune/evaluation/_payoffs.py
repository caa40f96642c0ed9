"""What a coalition earns: payoffs from outputs and targets, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import get_scorer, get_scorer_names
from sklearn.metrics._scorer import _BaseScorer
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn
from torch.nn import functional

from skprune.evaluation._lane_payoffs import SMOOTHING

__all__ = [
    "PAYOFFS",
    "Payoff",
    "Task",
    "predictions",
    "resolve_payoff",
    "task_of",
    "weighted_by_class",
]


@dataclass(frozen=True)
class Task:
    """What a net's outputs mean.

    Parameters
    ----------
    kind : {"multiclass", "binary", "regression"}
        One logit for each class, one logit, or predicted values.
    criterion : torch.nn.Module
        The net's criterion.
    """

    kind: str
    criterion: nn.Module

    @property
    def default_payoff(self):
        """The payoff that scores of this task are judged by."""
        return "r2" if self.kind == "regression" else "accuracy"

    @property
    def smooth_payoff(self):
        """A payoff that tells similar coalitions apart, for refinements."""
        return "r2" if self.kind == "regression" else "smoothed_accuracy"

    @property
    def strips_softmax(self):
        """Whether a softmax or sigmoid at the end only turns logits into outputs.

        To a criterion that takes its own softmax, those of another one are the logits.
        """
        if self.kind == "multiclass":
            return not isinstance(self.criterion, nn.CrossEntropyLoss)
        return isinstance(self.criterion, nn.BCELoss)

    @property
    def class_weights(self):
        """What classes weigh in the criterion, as a tensor; None where all do alike."""
        if self.kind == "multiclass":
            return getattr(self.criterion, "weight", None)
        weight = getattr(self.criterion, "pos_weight", None)
        if self.kind == "regression" or weight is None or weight.numel() != 1:
            return None
        return torch.cat([torch.ones_like(weight).reshape(1), weight.reshape(1)])

    def targets(self, y, device):
        """Targets as a tensor: class indices, or floats of shape (n_samples, q)."""
        if self.kind == "regression":
            # A copy: what the user does to y later is none of the game's business.
            y = torch.as_tensor(np.array(y, dtype=np.float32), device=device)
            return y.reshape(len(y), -1)
        y = np.asarray(y)
        whole = y.dtype.kind in "biuf" and bool((y == np.floor(y)).all())
        if not whole or y.size != len(y):
            raise ValueError(
                f"y must hold one class index (0, 1, ...) for each sample; got dtype "
                f"{y.dtype} and shape {y.shape}. Encode other labels, by "
                "sklearn.preprocessing.LabelEncoder."
            )
        y = y.reshape(len(y)).astype(np.int64)
        return torch.as_tensor(y, device=device)

    def logits(self, outputs):
        """Outputs of a whole module as logits, by what the criterion expects."""
        if isinstance(self.criterion, nn.NLLLoss):
            is_log = bool((outputs <= 0).all())
            return outputs if is_log else outputs.clamp_min(1e-38).log()
        if isinstance(self.criterion, nn.BCELoss):
            return torch.logit(outputs, eps=1e-7)
        return outputs

    def loss(self, logits, targets):
        """The convex loss that a refit of the output layer minimises."""
        if self.kind == "multiclass":
            weight = self.class_weights
            return functional.cross_entropy(logits, targets, weight=weight)
        if self.kind == "binary":
            return functional.binary_cross_entropy_with_logits(
                logits[..., 0],
                targets.to(logits.dtype),
                pos_weight=getattr(self.criterion, "pos_weight", None),
            )
        return self.criterion(logits, targets)


def task_of(net):
    """Tell from a net's criterion, else from its class, what its outputs mean.

    Parameters
    ----------
    net : skorch.NeuralNet
        An initialized net.

    Returns
    -------
    Task
    """
    criterion = net.criterion_
    if isinstance(criterion, (nn.CrossEntropyLoss, nn.NLLLoss)):
        return Task("multiclass", criterion)
    if isinstance(criterion, (nn.BCEWithLogitsLoss, nn.BCELoss)):
        return Task("binary", criterion)
    if isinstance(net, NeuralNetBinaryClassifier):
        return Task("binary", criterion)
    kind = "multiclass" if isinstance(net, NeuralNetClassifier) else "regression"
    return Task(kind, criterion)


@dataclass(frozen=True)
class Payoff:
    """One payoff: a mean over samples, or a metric of all predictions.

    Parameters
    ----------
    name : str
        Its name.
    per_sample : callable or None
        Takes logits (..., n_samples, n_outputs) and targets (n_samples, ...), and
        returns values (..., n_samples) whose mean is the payoff.
    metric : callable or None
        Takes logits (n_samples, n_outputs) and targets as arrays, returns the payoff.
    """

    name: str
    per_sample: Callable | None = None
    metric: Callable | None = None


def resolve_payoff(payoff, task, targets, parameter="payoff"):
    """A payoff by its name, refused where it does not fit the task.

    Parameters
    ----------
    payoff : str or callable
        A name of `PAYOFFS`, "weighted_accuracy" (with the class weights of the
        criterion), a scorer of scikit-learn or its name, or a metric
        ``metric(y_true, y_pred) -> float``, larger is better.
    task : Task
        What the outputs mean.
    targets : tensor
        Targets as `Task.targets` gives them.
    parameter : str, default="payoff"
        The parameter that errors name.

    Returns
    -------
    Payoff

    Raises
    ------
    ValueError
        If there is no such payoff, or it does not fit the task.
    """
    is_scorer = isinstance(payoff, _BaseScorer)
    if callable(payoff) and not is_scorer:
        name = getattr(payoff, "__name__", repr(payoff))
        return Payoff(name, metric=_predicting_metric(payoff, task))
    if not is_scorer and payoff == "weighted_accuracy" and task.kind in _CLASSIFICATION:
        accuracy = resolve_payoff("accuracy", task, targets)
        return weighted_by_class(accuracy, task, targets)
    if not is_scorer and payoff in PAYOFFS:
        kinds, function = PAYOFFS[payoff]
        if task.kind not in kinds:
            fitting = [
                name for name, (kinds, _) in PAYOFFS.items() if task.kind in kinds
            ]
            raise ValueError(
                f"{parameter}={payoff!r} does not fit a {task.kind} net; use one of "
                f"{fitting}, or a metric of scikit-learn for such targets."
            )
        return Payoff(payoff, per_sample=function(task.kind, targets))
    if is_scorer or payoff in get_scorer_names():
        return Payoff(str(payoff), metric=_scorer_metric(payoff, task))
    raise ValueError(
        f"{parameter}={payoff!r} is unknown; use one of "
        f"{sorted([*PAYOFFS, 'weighted_accuracy'])}, a name of "
        "sklearn.metrics.get_scorer_names(), a callable metric(y_true, y_pred), or as "
        "payoff of a pruner 'reconstruction'."
    )


def weighted_by_class(payoff, task, targets):
    """A payoff in which samples count as much as their class does in the criterion.

    Parameters
    ----------
    payoff : Payoff
        A mean over samples.
    task : Task
        What the outputs mean.
    targets : tensor
        Targets of the samples over which class weights have mean 1.

    Returns
    -------
    payoff : Payoff
        The same one where all classes weigh alike.
    """
    weights = task.class_weights
    if weights is None:
        return payoff
    weights = weights / weights[targets].mean()

    def per_sample(logits, y):
        return payoff.per_sample(logits, y) * weights[y]

    return Payoff(f"weighted_{payoff.name}", per_sample)


def predictions(logits, kind):
    """What outputs predict; the lowest class wins a tie, as in `torch.argmax`.

    Parameters
    ----------
    logits : tensor of shape (..., n_samples, n_outputs)
        Outputs.
    kind : {"multiclass", "binary", "regression"}
        See `Task`.

    Returns
    -------
    predictions : tensor of shape (..., n_samples) or (..., n_samples, n_outputs)
        Class indices, or values.
    """
    if kind == "multiclass":
        return logits.argmax(-1)
    if kind == "binary":
        return (logits[..., 0] > 0).to(torch.int64)
    return logits


def _accuracy(kind, targets):
    return lambda logits, y: (predictions(logits, kind) == y).double()


def _log_likelihood(kind, targets):
    if kind == "binary":
        return lambda logits, y: functional.logsigmoid(logits[..., 0] * (2 * y - 1))

    def per_sample(logits, y):
        return _of_true_class(functional.log_softmax(logits, -1), y)

    return per_sample


def _true_class_probability(kind, targets):
    log_likelihood = _log_likelihood(kind, targets)
    return lambda logits, y: log_likelihood(logits, y).exp()


def _smoothed_accuracy(kind, targets):
    accuracy = _accuracy(kind, targets)
    probability = _true_class_probability(kind, targets)

    def per_sample(logits, y):
        return accuracy(logits, y) + SMOOTHING * probability(logits, y)

    return per_sample


def _margin(kind, targets):
    if kind == "binary":
        return lambda logits, y: logits[..., 0] * (2 * y - 1)

    def per_sample(logits, y):
        own = functional.one_hot(y, logits.shape[-1]).bool()
        best_other = logits.masked_fill(own, -torch.inf).amax(-1)
        return _of_true_class(logits, y) - best_other

    return per_sample


def _neg_mean_squared_error(kind, targets):
    return lambda outputs, y: -(outputs - y).double().square().mean(-1)


def _r2(kind, targets):
    """R² of each target, averaged: a mean over samples, for variances are fixed."""
    varies = targets.amax(0) > targets.amin(0)
    # A constant target: 0, and not infinity, for an error that is not 0.
    scale = torch.where(varies, targets.double().var(0, correction=0), torch.inf)
    offset = varies.double().mean()
    return lambda outputs, y: (
        offset - ((outputs - y).double().square() / scale).mean(-1)
    )


_CLASSIFICATION = ("multiclass", "binary")
PAYOFFS = {
    "accuracy": (_CLASSIFICATION, _accuracy),
    "log_likelihood": (_CLASSIFICATION, _log_likelihood),
    "margin": (_CLASSIFICATION, _margin),
    "neg_mean_squared_error": (("regression",), _neg_mean_squared_error),
    "r2": (("regression",), _r2),
    "smoothed_accuracy": (_CLASSIFICATION, _smoothed_accuracy),
    "true_class_probability": (_CLASSIFICATION, _true_class_probability),
}


def _of_true_class(values, y):
    """Entries of the last axis at the true class."""
    index = y.expand(values.shape[:-1]).unsqueeze(-1)
    return values.gather(-1, index).squeeze(-1)


def _predicting_metric(metric, task):
    """A metric of true and predicted values."""

    def of_logits(logits, y):
        predicted = predictions(torch.from_numpy(logits), task.kind).numpy()
        if predicted.ndim == 2 and predicted.shape[1] == 1:
            predicted, y = predicted[:, 0], y[:, 0]
        return metric(y, predicted)

    return of_logits


def _scorer_metric(name, task):
    """A scorer of scikit-learn, fed with outputs that are there already."""
    scorer = get_scorer(name)
    known = (
        _PrecomputedRegressor if task.kind == "regression" else _PrecomputedClassifier
    )
    return lambda logits, y: scorer(known(logits, task.kind), None, y)


class _Precomputed(BaseEstimator):
    """Stands for a fitted estimator whose outputs are known."""

    def __init__(self, logits=None, kind=None):
        self.logits = torch.from_numpy(logits)
        self.kind = kind

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, X, y):
        """Nothing to learn."""
        return self

    def predict(self, X):
        """Predicted classes or values."""
        predicted = predictions(self.logits, self.kind).numpy()
        return predicted[:, 0] if predicted.shape[1:] == (1,) else predicted


class _PrecomputedRegressor(RegressorMixin, _Precomputed):
    """Known values."""


class _PrecomputedClassifier(ClassifierMixin, _Precomputed):
    """Known logits."""

    @property
    def classes_(self):
        """Class indices."""
        return np.arange(2 if self.kind == "binary" else self.logits.shape[-1])

    def predict_proba(self, X):
        """Class probabilities."""
        if self.kind == "binary":
            positive = torch.sigmoid(self.logits[:, 0].double())
            return torch.stack([1 - positive, positive], 1).numpy()
        return functional.softmax(self.logits.double(), -1).numpy()
