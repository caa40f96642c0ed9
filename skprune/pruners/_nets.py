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

from skprune.evaluation import mlp_classifier, take_rows

__all__ = ["forked_rng", "input_types", "known_labels", "net_of", "with_own_module"]

_DRAWING = threading.RLock()


def net_of(estimator):
    """The skorch net: the default one, or out of a `FrozenEstimator`."""
    if estimator is None:
        return mlp_classifier()
    frozen = isinstance(estimator, FrozenEstimator)
    return estimator.estimator if frozen else estimator


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
        with forked_rng():
            answers = with_own_module(net).predict_proba(take_rows(X, slice(0, 2)))
        known = np.arange(answers.shape[1])
    if isinstance(net, NeuralNetBinaryClassifier) and len(known) > 2:
        raise ValueError(
            f"y holds {len(known)} classes and estimator is a "
            "NeuralNetBinaryClassifier; use a NeuralNetClassifier."
        )
    return known


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
