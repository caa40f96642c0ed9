"""Skorch nets that take the widths of their module from the data, in `fit`."""

from __future__ import annotations

from inspect import Parameter, Signature, signature

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.validation import validate_data
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.utils import to_numpy
from torch import nn

from skprune.base import Documented, forget_columns
from skprune.evaluation._class_weights import class_weights_of

__all__ = ["SizedNetClassifier", "SizedNetRegressor", "leave_out_defaults"]


class _SizedByData(Documented):
    """Builds its module for the widths of the data that it is fitted on.

    `module` is a function or class that takes ``n_inputs``, ``n_outputs`` and
    ``is_sparse``, beside what the ``module__`` parameters say. Where it is a module
    already, as after pruning, nothing of this happens.
    """

    def get_params(self, deep=True, **kwargs):
        """Parameters of the net, without the list of their names that skorch keeps.

        Parameters
        ----------
        deep : bool, default=True
            Whether to add those of parts.
        **kwargs : dict
            See `skorch.NeuralNet.get_params`.

        Returns
        -------
        params : dict
        """
        params = super().get_params(deep=deep, **kwargs)
        return {k: v for k, v in params.items() if k != "_params_to_validate"}

    def sized_for(self, X, y):
        """Take the widths of the module from data, before `initialize`.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Samples; any rows of them will do.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets, with the highest class among them.

        Returns
        -------
        self : skorch.NeuralNet

        Raises
        ------
        ValueError
            If X is no table, or y holds no class indices where it has to.
        """
        shape = () if _is_opaque(X) else np.shape(X)
        if len(shape) != 2:
            raise ValueError(
                f"X must be a table of shape (n_samples, n_features) to take the "
                f"number of inputs from; got {type(X).__name__} of shape {shape}."
            )
        self.widths_ = {
            "n_inputs": shape[1],
            "n_outputs": self._count_outputs(y),
            "is_sparse": sparse.issparse(X),
        }
        self._weigh(y)
        return self

    def initialize_module(self):
        """Build the module, refused before its widths are known."""
        if not (isinstance(self.module, nn.Module) or hasattr(self, "widths_")):
            raise ValueError(
                f"{type(self).__name__} takes its numbers of inputs and outputs from "
                "the data: call fit(X, y), or sized_for(X, y) before initialize()."
            )
        return super().initialize_module()

    def get_params_for(self, prefix):
        """Arguments of a part of the net; those of the module with its widths."""
        params = super().get_params_for(prefix)
        if prefix != "module" or isinstance(self.module, nn.Module):
            return params
        return {**getattr(self, "widths_", {}), **params}

    def fit(self, X, y, **fit_params):
        """Build the module for the data, and train it.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Training samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Class indices (0, 1, ...), or values.
        **fit_params : dict
            See `skorch.NeuralNet.fit`.

        Returns
        -------
        self : skorch.NeuralNet
        """
        self._take_note(X, y)
        if not (self.warm_start and self.initialized_):
            self._size(X, y)
        return super().fit(X, y, **fit_params)

    def partial_fit(self, X, y=None, classes=None, **fit_params):
        """Train on; build the module first where there is none yet.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Training samples.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Class indices (0, 1, ...), or values.
        classes : array-like of int, default=None
            All class indices, where the first samples do not have all of them.
        **fit_params : dict
            See `skorch.NeuralNet.partial_fit`.

        Returns
        -------
        self : skorch.NeuralNet
        """
        if not self.initialized_:
            self._check_partial()
            self._take_note(X, y)
            self._size(X, y if classes is None else classes)
        # skorch knows no lists.
        y = None if y is None else self._as_targets(y)
        return super().partial_fit(X, y, classes, **fit_params)

    def get_dataset(self, X, y=None):
        """The data as the module reads them: in single precision.

        Parameters
        ----------
        X : array-like, sparse matrix or torch.utils.data.Dataset
            Samples.
        y : array-like, default=None
            Class indices, or values.

        Returns
        -------
        dataset : torch.utils.data.Dataset
        """
        if not _is_opaque(X):
            if hasattr(self, "n_features_in_"):
                validate_data(self, X, reset=False, skip_check_array=True)
            X = _in_single_precision(X)
            y = None if y is None else self._as_targets(y)
        return super().get_dataset(X, y)

    def _take_note(self, X, y):
        """Remember the columns that this net, and no pruner around it, is given."""
        if _is_opaque(X):
            forget_columns(self)
        else:
            validate_data(self, X, reset=True, skip_check_array=True)

    def _size(self, X, y):
        """Take the widths, where the module is still to be built, and class weights."""
        if isinstance(self.module, nn.Module):
            self._weigh(y)
        else:
            self.sized_for(X, y)

    def _weigh(self, y):
        """Take the weights of the classes, where there are some."""

    def _check_partial(self):
        """Refuse what cannot be told from the first samples."""

    def _doc_link_url_param_generator(self):
        """The page of the function that makes such nets."""
        return {"estimator_module": "skprune.evaluation", "estimator_name": self._maker}


class SizedNetClassifier(_SizedByData, NeuralNetClassifier):
    """Classifier whose module takes its widths from the data, see `mlp_classifier`.

    Parameters
    ----------
    module : callable or torch.nn.Module
        Builds the module from its widths.
    *args
        Passed to `skorch.NeuralNetClassifier`.
    class_weight : dict, "balanced" or None, default=None
        See `mlp_classifier`. It becomes the criterion's ``weight`` in `fit`.
    **kwargs
        Passed to `skorch.NeuralNetClassifier`.
    """

    _maker = "mlp_classifier"

    def __init__(self, module, *args, class_weight=None, **kwargs):
        super().__init__(module, *args, **kwargs)
        self.class_weight = class_weight

    def get_params_for(self, prefix):
        """Arguments of a part of the net; those of the criterion with class weights."""
        params = super().get_params_for(prefix)
        if prefix != "criterion" or self.class_weight is None:
            return params
        self._check_weighable(params)
        if not hasattr(self, "class_weights_"):
            raise ValueError(
                f"class_weight={self.class_weight!r} needs the labels: call fit(X, y), "
                "or sized_for(X, y) before initialize()."
            )
        weight = torch.as_tensor(self.class_weights_, dtype=torch.float32)
        return {**params, "weight": weight}

    def _check_weighable(self, params):
        """Refuse criteria that know no class weights, or have some already."""
        kind = self.criterion
        kind = type(kind) if isinstance(kind, nn.Module) else kind
        if "weight" not in signature(kind).parameters:
            raise ValueError(
                f"class_weight={self.class_weight!r} needs a criterion with a "
                f"parameter `weight`, and {kind.__name__} has none; use "
                "torch.nn.CrossEntropyLoss, or leave class_weight=None."
            )
        if params.get("weight") is not None:
            raise ValueError(
                f"both class_weight={self.class_weight!r} and criterion__weight are "
                "set; leave one of them out."
            )

    def _check_partial(self):
        if isinstance(self.class_weight, str):
            raise ValueError(
                f"class_weight={self.class_weight!r} needs all labels, and partial_fit "
                "sees some; give a dict from class indices to weights, or call fit."
            )

    def _weigh(self, y):
        vars(self).pop("class_weights_", None)
        if self.class_weight is not None:
            self.class_weights_ = class_weights_of(
                self.class_weight, self._as_targets(y), self._n_classes(y)
            )

    def _n_classes(self, y):
        """Number of outputs, where the module is built already too."""
        if not isinstance(self.module, nn.Module):
            return self.widths_["n_outputs"]
        last = [layer for layer in self.module.modules() if type(layer) is nn.Linear]
        return last[-1].out_features if last else self._count_outputs(y)

    def _count_outputs(self, y):
        known = y if self.classes is None else self.classes
        return int(self._as_targets(known).max()) + 1

    def _as_targets(self, y):
        y = _as_array(y)
        is_index = y.ndim == 1 and y.dtype.kind in "biu" and len(y) and y.min() >= 0
        if not is_index:
            raise ValueError(
                f"y must hold one class index (0, 1, ...) for each sample; got dtype "
                f"{y.dtype} and shape {y.shape}. A pruner around this net takes any "
                "labels; else encode them, by sklearn.preprocessing.LabelEncoder."
            )
        return y.astype(np.int64, copy=False)


class SizedNetRegressor(_SizedByData, NeuralNetRegressor):
    """Regressor whose module takes its widths from the data, see `mlp_regressor`."""

    _maker = "mlp_regressor"

    def __init__(self, module, *args, **kwargs):
        super().__init__(module, *args, **kwargs)

    def __sklearn_tags__(self):
        """Tags of a regressor that may predict several outputs."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def predict(self, X):
        """Values of samples.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Samples.

        Returns
        -------
        values : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            As the y that the net was fitted on.
        """
        values = super().predict(X)
        return values[:, 0] if getattr(self, "y_is_1d_", False) else values

    def _take_note(self, X, y):
        super()._take_note(X, y)
        self.y_is_1d_ = _as_array(y).ndim == 1

    def _count_outputs(self, y):
        return self._as_targets(y).shape[1]

    def _as_targets(self, y):
        y = _as_array(y).astype(np.float32, copy=False)
        # One column, that the squared error is not taken between all pairs of samples.
        return y.reshape(len(y), -1)


def leave_out_defaults(net):
    """Let representations of nets like this one name what differs from it, alone.

    scikit-learn compares parameters with the signature of the class, and skorch's has
    none of those with two underscores.
    """
    first = Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)
    others = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=value)
        for name, value in net.get_params(deep=False).items()
    ]
    type(net).__init__.__signature__ = Signature([first, *others])


def _is_opaque(X):
    """Whether X is no table, but what skorch reads sample by sample or by name."""
    return isinstance(X, (dict, torch.utils.data.Dataset))


def _as_array(y):
    """Targets as an array."""
    return to_numpy(y) if isinstance(y, torch.Tensor) else np.asarray(y)


def _in_single_precision(X):
    """A table as a float32 array, tensor or CSR matrix, refused where it has gaps."""
    if isinstance(X, torch.Tensor):
        X = X.float()
        is_finite = bool(torch.isfinite(X).all())
    elif sparse.issparse(X):
        X = sparse.csr_matrix(X, dtype=np.float32)
        is_finite = np.isfinite(X.data).all()
    else:
        X = np.asarray(X, dtype=np.float32)
        is_finite = np.isfinite(X).all()
    if not is_finite:
        raise ValueError(
            "X holds NaN, infinity or values beyond single precision; impute or scale "
            "it, by sklearn.impute or sklearn.preprocessing."
        )
    return X
