"""Where a tensor's channels go when it is reshaped, permuted or concatenated.

The flow of a tensor is ``(axis, labels)``: the axis that holds the units, and the
label of each position on it. Axes are counted from the front up to 1 and from the
end otherwise, so that pooling, and means over time, need no rule of their own.
An axis of None says that one label stands for the whole tensor.
"""

import torch

__all__ = ["is_reshape", "permuted", "reshaped", "saved_dim"]

_RESHAPES = ("View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze")


def is_reshape(name):
    """Whether an autograd node of this name only arranges axes anew."""
    return name.startswith(_RESHAPES)


def reshaped(flow, shape, new_shape):
    """Follow a view; return None where no axis of the result holds the units alone."""
    axis, labels = flow
    if axis is None:
        return flow
    if not -len(shape) <= axis < len(shape) or shape[axis] != len(labels):
        return None
    spread = [1] * len(shape)
    spread[axis] = len(labels)
    marks = torch.arange(len(labels)).reshape(spread).expand(shape).reshape(new_shape)
    for candidate in (1, -1) if axis == 1 else (-1, 1):
        if not -marks.ndim <= candidate < marks.ndim:
            continue
        columns = marks.movedim(candidate, -1).reshape(-1, new_shape[candidate])
        if (columns == columns[0]).all():
            return candidate, labels[columns[0].numpy()]
    return None


def permuted(flow, grad_fn, n_axes):
    """Follow a transpose or a permute."""
    axis, labels = flow
    if axis is None:
        return flow
    order = list(range(n_axes))
    if hasattr(grad_fn, "_saved_dims"):
        order = [_signed(dim) % n_axes for dim in grad_fn._saved_dims]
    else:
        one, other = _signed(grad_fn._saved_dim0), _signed(grad_fn._saved_dim1)
        order[one], order[other] = order[other], order[one]
    place = order.index(axis % n_axes)
    return (place if place == 1 else place - n_axes), labels


def saved_dim(grad_fn, n_axes):
    """Axis that an autograd node was called with, counted from the front."""
    return _signed(grad_fn._saved_dim) % n_axes


def _signed(dim):
    # Autograd gives a negative axis back as an unsigned 64-bit number.
    return dim - 2**64 if dim >= 2**63 else dim
