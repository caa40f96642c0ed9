"""A multi-layer perceptron of torch, as `EquilibriumPrunedMLP` trains it."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from skprune.evaluation._sparse_rows import store_by_column

__all__ = ["ACTIVATIONS", "build_mlp"]

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
    hidden_layer_sizes : sequence of int
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
        If `activation` is unknown.

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
    widths = [n_inputs, *hidden_layer_sizes]
    for number, (n_read, n_neurons) in enumerate(pairwise(widths), start=1):
        module.add_module(f"hidden_{number}", nn.Linear(n_read, n_neurons))
        module.add_module(f"activation_{number}", ACTIVATIONS[activation]())
        if dropout:
            module.add_module(f"dropout_{number}", nn.Dropout(dropout))
    module.add_module("output", nn.Linear(widths[-1], n_outputs))
    if is_sparse:
        store_by_column(module[0])
    return module
