"""Calling a module on an example input, of whichever form."""

from contextlib import contextmanager

import torch

__all__ = ["call", "evaluating", "first_tensor", "map_tensors", "tensors_in"]


def call(module, example_input):
    """Run a module on an input of whichever form.

    Parameters
    ----------
    module : callable
        A module, or a function that takes what a module takes.
    example_input : tensor, tuple of tensors or dict of tensors
        A dict is given as keywords, as skorch does, a tuple or list as arguments.

    Returns
    -------
    object
        What `module` returns.

    Examples
    --------
    >>> import torch
    >>> from skprune.networks import call
    >>> call(torch.add, {"input": torch.ones(2), "other": torch.ones(2)})
    tensor([2., 2.])
    """
    if isinstance(example_input, dict):
        return module(**example_input)
    if isinstance(example_input, (tuple, list)):
        return module(*example_input)
    return module(example_input)


def map_tensors(function, value):
    """Apply a function to every tensor of an input.

    Parameters
    ----------
    function : callable
        From tensor to anything.
    value : tensor, dict, list or tuple, nested in any way
        What is not a tensor stays as it is.

    Returns
    -------
    object
        The results in the same nesting; a tuple becomes a list.

    Examples
    --------
    >>> import torch
    >>> from skprune.networks import map_tensors
    >>> map_tensors(len, {"left": torch.ones(3), "right": [torch.ones(2)]})
    {'left': 3, 'right': [2]}
    """
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: map_tensors(function, part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [map_tensors(function, part) for part in value]
    return value


def tensors_in(value):
    """List the tensors of an input or output.

    Parameters
    ----------
    value : tensor, dict, list or tuple, nested in any way
        Where tensors are looked for.

    Returns
    -------
    list of tensors
        In the order of the containers.

    Examples
    --------
    >>> import torch
    >>> from skprune.networks import tensors_in
    >>> tensors_in({"left": torch.ones(1), "names": "a"})
    [tensor([1.])]
    """
    found = []
    map_tensors(found.append, value)
    return found


def first_tensor(value):
    """Return the first tensor in nested dicts, lists and tuples."""
    tensors = tensors_in(value)
    if not tensors:
        raise ValueError(
            f"The module gave no tensor but {type(value).__name__}; its forward must "
            "return a tensor, or a tuple or dict of tensors."
        )
    return tensors[0]


@contextmanager
def evaluating(module):
    """Put a module in evaluation mode, and every part in its own mode afterwards.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place while the context lasts.

    Yields
    ------
    torch.nn.Module
        `module` itself.

    Examples
    --------
    >>> from torch import nn
    >>> from skprune.networks import evaluating
    >>> net = nn.Dropout().train()
    >>> with evaluating(net):
    ...     print(net.training)
    False
    >>> net.training
    True
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield module
    finally:
        for part, training in modes:
            part.training = training
