"""What is asked of the net that a pruner is given."""

from __future__ import annotations

import copy
import threading
from contextlib import contextmanager

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetBinaryClassifier
from skorch.callbacks import Callback

from skprune.evaluation import (
    encoded_class_weight,
    mlp_classifier,
    net_targets,
    take_rows,
)

__all__ = [
    "cloned_for",
    "forked_rng",
    "input_types",
    "known_labels",
    "net_of",
    "set_up_by_callbacks",
    "unreadable",
    "with_own_module",
]

_DRAWING = threading.RLock()


def net_of(estimator):
    """The skorch net: the default one, or out of a `FrozenEstimator`."""
    if estimator is None:
        return mlp_classifier()
    frozen = isinstance(estimator, FrozenEstimator)
    return estimator.estimator if frozen else estimator


def cloned_for(net, classes):
    """A clone that is fitted on class indices, as are its class weights by label."""
    net = clone(net)
    if isinstance(getattr(net, "class_weight", None), dict):
        net.set_params(class_weight=encoded_class_weight(net.class_weight, classes))
    return net


def set_up_by_callbacks(net, X, y):
    """Let callbacks give the module its shape, as some do when training begins.

    Returns
    -------
    is_set_up : bool
        False where there is no such callback, or it failed.
    """
    own = [
        callback
        for _, callback in net.callbacks_
        if type(callback).on_train_begin is not Callback.on_train_begin
        and not type(callback).__module__.startswith("skorch.")
    ]
    try:
        for callback in own:
            callback.on_train_begin(net, X=X, y=net_targets(net, y))
    except Exception:
        # Any error of the user's callback is his to see, in training.
        return False
    return bool(own)


@contextmanager
def forked_rng():
    """Torch's generator, as before afterwards; it is one for all threads, who wait."""
    with _DRAWING, torch.random.fork_rng():
        yield


def with_own_module(net):
    """A net with a copy of the module: hooks and modes are set while it plays.

    `copy.copy` would pickle the module on the way, which not every class allows.
    """
    twin = object.__new__(type(net))
    twin.__dict__.update(net.__dict__, module_=copy.deepcopy(net.module_))
    return twin


def known_labels(net, frozen, X, y):
    """Labels that a net tells apart."""
    if not frozen:
        known = np.unique(y)
    elif getattr(net, "classes", None) is not None:
        known = np.asarray(net.classes)
    else:
        # The labels of a skorch net are the indices of its outputs.
        try:
            with forked_rng():
                answers = with_own_module(net).predict_proba(take_rows(X, slice(0, 2)))
        except Exception as error:
            raise unreadable(X, error) from error
        known = np.arange(answers.shape[1])
    if isinstance(net, NeuralNetBinaryClassifier) and len(known) > 2:
        raise ValueError(
            f"y holds {len(known)} classes and estimator is a "
            "NeuralNetBinaryClassifier; use a NeuralNetClassifier."
        )
    return known


def unreadable(X, error):
    """What is raised where a trained net fails on the X that it is given."""
    shape = getattr(X, "shape", None)
    of_shape = "" if shape is None else f" of shape {tuple(shape)}"
    return ValueError(
        f"the net in the FrozenEstimator cannot read X{of_shape}: {error}. Give "
        "samples of the kind that it was trained on."
    )


def input_types(net):
    """Precision of a net's module, and whether it looks its inputs up in a table."""
    module = net.module_ if net.initialized_ else net.module
    if not isinstance(module, torch.nn.Module):
        try:
            with forked_rng():
                module = clone(net).initialize().module_
        except Exception:
            # The module takes its shape in training: no table that we could see.
            return np.float32, False
    tables = (torch.nn.Embedding, torch.nn.EmbeddingBag)
    double = any(p.dtype == torch.float64 for p in module.parameters())
    is_table = any(isinstance(layer, tables) for layer in module.modules())
    return np.float64 if double else np.float32, is_table
