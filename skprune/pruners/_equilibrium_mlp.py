"""Multi-layer perceptrons that end small: equilibrium pruning without torch code."""

from __future__ import annotations

import copy
from dataclasses import replace
from numbers import Integral, Real
from typing import ClassVar

import numpy as np
import torch
from scipy import sparse
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils._param_validation import Interval, StrOptions
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.dataset import Dataset
from skorch.helper import predefined_split

from skprune.evaluation import ACTIVATIONS, TensorBatches, build_mlp
from skprune.pruners._equilibrium import MARKET_CONSTRAINTS, BaseEquilibriumPruner

__all__ = ["EquilibriumPrunedMLP", "EquilibriumPrunedMLPRegressor"]


class _BaseEquilibriumMLP(BaseEquilibriumPruner):
    """A multi-layer perceptron that is built from the shape of the data."""

    _parameter_constraints: ClassVar[dict] = {
        "hidden_layer_sizes": [
            "array-like",
            Interval(Integral, 1, None, closed="left"),
        ],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "net_callbacks": ["array-like", None],
        "device": [str, torch.device],
        **MARKET_CONSTRAINTS,
    }

    def __init__(
        self,
        hidden_layer_sizes=(512, 256),
        *,
        n_players_to_keep=None,
        min_per_layer=1,
        utility="descent",
        alpha=1.0,
        beta=0.0,
        gamma="auto",
        eta=0.0,
        benefit="curvature",
        participation_optimizer="adam",
        participation_lr=0.02,
        removal_period="auto",
        n_rivals=8,
        activation="relu",
        max_epochs=20,
        batch_size=32,
        lr=3e-3,
        weight_decay=0.05,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=5,
        net_callbacks=None,
        condition_numbers=False,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.n_players_to_keep = n_players_to_keep
        self.min_per_layer = min_per_layer
        self.utility = utility
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        self.eta = eta
        self.benefit = benefit
        self.participation_optimizer = participation_optimizer
        self.participation_lr = participation_lr
        self.removal_period = removal_period
        self.n_rivals = n_rivals
        self.activation = activation
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.net_callbacks = net_callbacks
        self.condition_numbers = condition_numbers
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _prepare(self, X, y, sample_weight, X_val, y_val):
        """Check the data, and the layers against the number to keep."""
        self._precision, self._keeps_integers = np.float32, False
        X, y, X_val, y_val = self._validated(X, y, X_val, y_val, _labels)
        sizes = self._sizes()
        self._check_period()
        self._counts(sizes, np.minimum(sizes, self.min_per_layer))
        return self._split(X, y, sample_weight, X_val, y_val)

    def _sizes(self):
        """Neurons of each hidden layer."""
        sizes = np.atleast_1d(self.hidden_layer_sizes)
        if sizes.ndim != 1 or not sizes.size or sizes.dtype.kind not in "iu":
            raise ValueError(
                f"hidden_layer_sizes={self.hidden_layer_sizes!r} must hold one whole "
                "number for each hidden layer, such as (512, 256)."
            )
        if sizes.min() < 1:
            raise ValueError(
                f"hidden_layer_sizes={self.hidden_layer_sizes!r} must be at least 1 in "
                "each layer."
            )
        return sizes

    def _new_net(self, data):
        """A skorch net around a perceptron for these data."""
        sizes = self._sizes().tolist()
        n_outputs = self._n_outputs(data)
        is_sparse = sparse.issparse(data.X)
        module = build_mlp(
            data.X.shape[1], sizes, n_outputs, self.activation, is_sparse
        )
        split = None
        if data.X_val is not data.X:
            split = predefined_split(Dataset(data.X_val, data.y_val))
        net_class, criterion = self._net_class, self._criterion
        return net_class(
            module,
            criterion=criterion,
            optimizer=torch.optim.AdamW,
            optimizer__fused=True,
            optimizer__weight_decay=self.weight_decay,
            lr=self.lr,
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            iterator_train=TensorBatches,
            iterator_train__shuffle=True,
            iterator_valid=TensorBatches,
            train_split=split,
            callbacks=self.net_callbacks,
            device=self._device(),
            verbose=0,
        ).initialize()

    def _device(self):
        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return self.device

    def _player_kinds(self):
        return "neurons"

    def _answering_net(self):
        """The net in double precision: what a row gets does not depend on the others.

        In single precision, other sums in batches of other sizes change the seventh
        digit. On a GPU double precision is slow, and is not used.
        """
        net = self.estimator_
        if torch.device(net.device).type != "cpu":
            return net
        twin = copy.copy(net)
        twin.module_ = copy.deepcopy(net.module_).double()
        twin.module_.register_forward_pre_hook(lambda _, args: (args[0].double(),))
        return twin


class EquilibriumPrunedMLP(ClassifierMixin, _BaseEquilibriumMLP):
    """Classifier whose neurons leave while it trains, as staying no longer pays."""

    _net_class, _criterion = NeuralNetClassifier, torch.nn.CrossEntropyLoss

    def _n_outputs(self, data):
        return len(self.classes_)


class EquilibriumPrunedMLPRegressor(RegressorMixin, _BaseEquilibriumMLP):
    """Regressor whose neurons leave while it trains, as staying no longer pays."""

    _net_class, _criterion = NeuralNetRegressor, torch.nn.MSELoss

    def __sklearn_tags__(self):
        """Tags of a regressor that may predict several outputs."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _n_outputs(self, data):
        return data.y.shape[1]

    def _split(self, X, y, sample_weight, X_val, y_val):
        """Samples whose targets have mean 0 and variance 1 in training."""
        data = super()._split(X, y, sample_weight, X_val, y_val)
        weights = data.sample_weight
        self._center = np.average(data.y, axis=0, weights=weights)
        variance = np.average((data.y - self._center) ** 2, axis=0, weights=weights)
        spread = np.sqrt(variance)
        self._spread = np.where(spread > 0, spread, 1.0)
        y, y_val, y_game = (
            ((part - self._center) / self._spread).astype(np.float32)
            for part in (data.y, data.y_val, data.y_game)
        )
        return replace(data, y=y, y_val=y_val, y_game=y_game)

    def _conclude(self, net, data, players, play, record):
        """Let the output layer give what it learned in the units of y."""
        super()._conclude(net, data, players, play, record)
        layer = self.module_.get_submodule(self._output_layer)
        spread, center = (
            torch.as_tensor(part, dtype=layer.weight.dtype, device=layer.weight.device)
            for part in (self._spread, self._center)
        )
        with torch.no_grad():
            layer.weight.mul_(spread[:, None])
            layer.bias.mul_(spread).add_(center)
        return self


def _labels(X, y):
    return np.unique(y)
