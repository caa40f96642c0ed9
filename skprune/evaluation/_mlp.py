"""Multi-layer perceptrons: as torch modules, and as skorch nets."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import nn

from skprune.evaluation._batches import TensorBatches
from skprune.evaluation._column_adamw import ColumnAdamW
from skprune.evaluation._sized_nets import (
    SizedNetClassifier,
    SizedNetRegressor,
    leave_out_defaults,
)
from skprune.evaluation._sparse_rows import store_by_column

__all__ = [
    "ACTIVATIONS",
    "build_mlp",
    "device_named",
    "is_mlp",
    "mlp_classifier",
    "mlp_regressor",
    "neurons_of",
]

ACTIVATIONS = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def build_mlp(
    n_inputs,
    hidden_layer_sizes,
    n_outputs,
    activation="relu",
    is_sparse=False,
    dropout=0.0,
):
    """Build a multi-layer perceptron.

    Parameters
    ----------
    n_inputs : int
        Number of features.
    hidden_layer_sizes : int or sequence of int
        Number of neurons of each hidden layer.
    n_outputs : int
        Number of outputs of the last layer, which no activation follows.
    activation : str, default="relu"
        What follows each hidden layer: "elu", "gelu", "leaky_relu", "relu", "sigmoid",
        "silu" or "tanh".
    is_sparse : bool, default=False
        Whether the inputs are `SparseRows`. The weights of the first layer are the
        same; they only lie in memory column by column, see `store_by_column`.
    dropout : float, default=0.0
        Share of the neurons of each hidden layer that is dropped in training.

    Returns
    -------
    torch.nn.Sequential
        Layers "hidden_1", "activation_1", ("dropout_1",) "hidden_2", ..., "output".

    Raises
    ------
    ValueError
        If `activation` is unknown, or a layer would have no neurons.

    Examples
    --------
    >>> from skprune.evaluation import build_mlp
    >>> build_mlp(4, (3,), 2)
    Sequential(
      (hidden_1): Linear(in_features=4, out_features=3, bias=True)
      (activation_1): ReLU()
      (output): Linear(in_features=3, out_features=2, bias=True)
    )
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation={activation!r}; use one of {list(ACTIVATIONS)}.")
    module = nn.Sequential()
    widths = [n_inputs, *neurons_of(hidden_layer_sizes)]
    for number, (n_read, n_neurons) in enumerate(pairwise(widths), start=1):
        module.add_module(f"hidden_{number}", nn.Linear(n_read, n_neurons))
        module.add_module(f"activation_{number}", ACTIVATIONS[activation]())
        if dropout:
            module.add_module(f"dropout_{number}", nn.Dropout(dropout))
    module.add_module("output", nn.Linear(widths[-1], n_outputs))
    if is_sparse:
        store_by_column(module[0])
    return module


def neurons_of(hidden_layer_sizes):
    """Neurons of each hidden layer, as a list of numbers.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
        As the user gave them.

    Returns
    -------
    sizes : list of int

    Raises
    ------
    ValueError
        If they are no whole numbers of at least 1.
    """
    sizes = np.atleast_1d(np.asarray(hidden_layer_sizes))
    is_whole = not sizes.size or (sizes.dtype.kind in "iu" and sizes.min() > 0)
    if sizes.ndim > 1 or not is_whole:
        raise ValueError(
            f"hidden_layer_sizes={hidden_layer_sizes!r} must hold one whole number of "
            "at least 1 for each hidden layer, such as (512, 256)."
        )
    return sizes.tolist()


def is_mlp(module):
    """Tell whether a module is made as `build_mlp` makes them.

    Parameters
    ----------
    module : torch.nn.Module
        Any module.

    Returns
    -------
    is_mlp : bool
        True for a Sequential of Linear layers, activations and dropout, which computes
        in whatever precision its weights and its input have.
    """
    parts = (nn.Linear, nn.Dropout, *ACTIVATIONS.values())
    return type(module) is nn.Sequential and all(type(m) in parts for m in module)


def mlp_classifier(
    hidden_layer_sizes=(100,),
    *,
    activation="relu",
    dropout=0.0,
    lr=2e-3,
    max_epochs=20,
    batch_size=64,
    weight_decay=0.1,
    class_weight=None,
    device="auto",
    **net_params,
):
    """Multi-layer perceptron for classes, whose widths `fit` takes from the data.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=(100,)
        Neurons of each hidden layer.
    activation : str, default="relu"
        "elu", "gelu", "leaky_relu", "relu", "sigmoid", "silu" or "tanh".
    dropout : float, default=0.0
        Share of the neurons of each hidden layer that is dropped in training.
    lr : float, default=0.002
        Learning rate of AdamW.
    max_epochs : int, default=20
        Passes over the data.
    batch_size : int, default=64
        Samples of a step.
    weight_decay : float, default=0.1
        Of AdamW; another ``optimizer=`` brings its own.
    class_weight : dict, "balanced" or None, default=None
        What a sample of each class counts in the loss, and in the repairs and default
        scores of a pruner around the net. A dict is from the labels that `fit` is given
        to weights; labels that it does not name weigh 1. "balanced": in inverse
        proportion to how often a class is met in y.
    device : str or torch.device, default="auto"
        Where to train; "auto" is a GPU where there is one.
    **net_params
        Any other parameter of `skorch.NeuralNetClassifier`, such as ``callbacks=``.

    Returns
    -------
    net : skorch.NeuralNetClassifier
        A net that is not fitted. Its parameters are those of skorch, such as
        ``module__hidden_layer_sizes`` and ``lr`` for a grid. Its classes are the
        indices of its outputs; a pruner around it takes any labels.

    Notes
    -----
    X is best scaled, such as by `sklearn.preprocessing.StandardScaler`; a sparse one is
    never made dense. Texts with a large vocabulary want fewer epochs, about 5. The
    weights are drawn by torch's generator: a pruner seeds it by its `random_state`.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_digits
    >>> from skprune import mlp_classifier
    >>> X, y = load_digits(return_X_y=True)
    >>> _ = torch.manual_seed(0)
    >>> net = mlp_classifier((32,), max_epochs=5, device="cpu").fit(X / 16, y)
    >>> net.module_
    Sequential(
      (hidden_1): Linear(in_features=64, out_features=32, bias=True)
      (activation_1): ReLU()
      (output): Linear(in_features=32, out_features=10, bias=True)
    )
    >>> bool(net.score(X / 16, y) > 0.9)
    True
    """
    return _net(
        SizedNetClassifier,
        {
            "module__hidden_layer_sizes": hidden_layer_sizes,
            "module__activation": activation,
            "module__dropout": dropout,
        },
        weight_decay,
        lr=lr,
        max_epochs=max_epochs,
        batch_size=batch_size,
        device=device,
        class_weight=class_weight,
        **{"criterion": nn.CrossEntropyLoss, **net_params},
    )


def mlp_regressor(
    hidden_layer_sizes=(100,),
    *,
    activation="relu",
    dropout=0.0,
    lr=2e-3,
    max_epochs=20,
    batch_size=64,
    weight_decay=0.1,
    device="auto",
    **net_params,
):
    """Multi-layer perceptron for values, whose widths `fit` takes from the data.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=(100,)
        Neurons of each hidden layer.
    activation : str, default="relu"
        "elu", "gelu", "leaky_relu", "relu", "sigmoid", "silu" or "tanh".
    dropout : float, default=0.0
        Share of the neurons of each hidden layer that is dropped in training.
    lr : float, default=0.002
        Learning rate of AdamW.
    max_epochs : int, default=20
        Passes over the data.
    batch_size : int, default=64
        Samples of a step.
    weight_decay : float, default=0.1
        Of AdamW; another ``optimizer=`` brings its own.
    device : str or torch.device, default="auto"
        Where to train; "auto" is a GPU where there is one.
    **net_params
        Any other parameter of `skorch.NeuralNetRegressor`.

    Returns
    -------
    net : skorch.NeuralNetRegressor
        A net that is not fitted, which predicts values of the shape of its y.

    See Also
    --------
    mlp_classifier : The same for classes.

    Notes
    -----
    X and y are best scaled: y by `sklearn.compose.TransformedTargetRegressor`.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.preprocessing import scale
    >>> from skprune import mlp_regressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> _ = torch.manual_seed(0)
    >>> net = mlp_regressor((32,), max_epochs=5, device="cpu").fit(scale(X), scale(y))
    >>> net.predict(scale(X)).shape
    (442,)
    """
    return _net(
        SizedNetRegressor,
        {
            "module__hidden_layer_sizes": hidden_layer_sizes,
            "module__activation": activation,
            "module__dropout": dropout,
        },
        weight_decay,
        lr=lr,
        max_epochs=max_epochs,
        batch_size=batch_size,
        device=device,
        **{"criterion": nn.MSELoss, **net_params},
    )


def _net(kind, module, weight_decay, *, device, **params):
    """A net that cuts its batches from tensors, and holds nothing back."""
    if "optimizer" not in params:
        params |= {
            "optimizer": ColumnAdamW,
            "optimizer__weight_decay": weight_decay,
            # Six times faster where a layer reads a large vocabulary.
            "optimizer__fused": True,
        }
    defaults = {
        "train_split": None,
        "iterator_train": TensorBatches,
        "iterator_train__shuffle": True,
        "iterator_valid": TensorBatches,
        "verbose": 0,
    }
    params = {**module, "device": device_named(device), **defaults, **params}
    return kind(build_mlp, **params)


def device_named(name):
    """A device by its name, or with "auto" a GPU where there is one."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise ValueError(
            f"device={name!r} is none that torch knows; use 'auto', 'cpu', 'cuda' or "
            "'cuda:0'."
        ) from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device={name!r}, and torch finds no GPU; use 'auto' or 'cpu', or a torch "
            "that was built for CUDA."
        )
    return name


leave_out_defaults(mlp_classifier(device="cpu"))
leave_out_defaults(mlp_regressor(device="cpu"))
