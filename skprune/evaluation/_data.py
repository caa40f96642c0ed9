"""From what a skorch net is fitted on to batches of tensors on its device."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from skorch import NeuralNetBinaryClassifier
from skorch.dataset import get_len, unpack_data
from skorch.utils import to_tensor

from skprune.evaluation._sparse_rows import SparseRows
from skprune.networks import map_tensors

__all__ = [
    "as_dense",
    "batches_of",
    "concatenate",
    "first_rows",
    "net_targets",
    "plain_array",
    "take_rows",
]


def batches_of(net, X, batch_size=256):
    """Yield what the net's module reads, batch by batch.

    Parameters
    ----------
    net : skorch.NeuralNet
        An initialized net.
    X : ndarray, sparse matrix, tensor, dict of these, or what `net` is fitted on
        The samples. Sparse rows come as `SparseRows`, which Linear layers read as they
        are, and which other layers make dense; as dense ones where most entries of X
        are stored.
    batch_size : int, default=256
        Number of samples of a batch.

    Yields
    ------
    tensor or dict of tensors
        A batch on the net's device; floating point numbers in the precision of the
        module's parameters.
    """
    dtype = next((p.dtype for p in net.module_.parameters()), torch.float32)
    if sparse.issparse(X) and X.format != "csr":
        X = X.tocsr()
    if not _is_sliceable(X):
        for batch in net.get_iterator(net.get_dataset(X), training=False):
            yield _on_device(unpack_data(batch)[0], net.device, dtype)
        return
    # An entry that is stored takes twice the memory of one that is not.
    is_full = sparse.issparse(X) and 2 * X.nnz > np.prod(X.shape)
    for start in range(0, get_len(X), batch_size):
        batch = take_rows(X, slice(start, start + batch_size))
        if sparse.issparse(batch) and batch.dtype.kind in "biu":
            # Counts: what is no amount, such as a token, is not stored sparsely.
            batch = batch.astype(np.float32)
        yield _on_device(batch.toarray() if is_full else batch, net.device, dtype)


def net_targets(net, y):
    """Targets as a net's criterion wants them: floats for a single logit."""
    return y.astype(np.float32) if isinstance(net, NeuralNetBinaryClassifier) else y


def take_rows(X, rows):
    """Rows of an array, a tensor, a sparse matrix or a dict of these."""
    if isinstance(X, dict):
        return {key: take_rows(value, rows) for key, value in X.items()}
    if hasattr(X, "iloc"):
        return X.iloc[rows]
    return X[rows]


def first_rows(net, X, n_rows=16):
    """A small batch, such as an example input; a dense one."""
    batch = next(batches_of(net, X, n_rows), None)
    if batch is None:
        raise ValueError("X holds no samples; give at least one.")
    return map_tensors(lambda tensor: as_dense(tensor)[:n_rows], batch)


def as_dense(tensor):
    """Sparse rows as an ordinary tensor, and any other tensor as it is."""
    return tensor.to_dense() if isinstance(tensor, SparseRows) else tensor


def concatenate(parts):
    """Join batches of tensors, lists or dicts of them; sparse rows stay sparse."""
    first = parts[0]
    if all(isinstance(part, SparseRows) for part in parts):
        return SparseRows.joined(parts)
    if isinstance(first, dict):
        return {key: concatenate([part[key] for part in parts]) for key in first}
    if isinstance(first, (list, tuple)):
        return [concatenate([part[i] for part in parts]) for i in range(len(first))]
    return torch.cat(parts)


def _is_sliceable(X):
    """Whether rows can be taken from X by a slice."""
    if isinstance(X, dict):
        return all(_is_sliceable(value) for value in X.values())
    return (
        isinstance(X, (np.ndarray, torch.Tensor))
        or sparse.issparse(X)
        or hasattr(X, "iloc")
    )


def plain_array(array):
    """An array that torch shares, or a copy: not read-only, nor read backwards."""
    is_shared = array.flags.writeable and min(array.strides, default=0) >= 0
    return array if is_shared else array.copy()


def _on_device(batch, device, dtype):
    """Tensors on the device, floats in the module's precision."""
    if isinstance(batch, dict):
        return {key: _on_device(value, device, dtype) for key, value in batch.items()}
    if sparse.issparse(batch):
        batch = SparseRows.from_scipy(batch)
    if hasattr(batch, "iloc"):
        batch = batch.to_numpy()
    if isinstance(batch, np.ndarray):
        batch = plain_array(batch)
    # A module may work in place on what it reads, which must not be the user's.
    tensors = map_tensors(torch.clone, to_tensor(batch, device))

    def cast(tensor):
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    return map_tensors(cast, tensors)
