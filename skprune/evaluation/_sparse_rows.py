"""A batch of sparse rows that a Linear layer reads without making it dense."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = ["SparseRows", "store_by_column"]

_TENSOR = torch.Tensor

# What is known without the values.
_FACTS = {
    _TENSOR.device.__get__,
    _TENSOR.dtype.__get__,
    _TENSOR.is_cuda.__get__,
    _TENSOR.is_sparse.__get__,
    _TENSOR.layout.__get__,
    _TENSOR.ndim.__get__,
    _TENSOR.shape.__get__,
    _TENSOR.__len__,
    _TENSOR.dim,
    _TENSOR.is_complex,
    _TENSOR.is_floating_point,
    _TENSOR.numel,
    _TENSOR.size,
}

# What can be done to the stored values alone.
_ENTRYWISE = {
    torch.clone,
    _TENSOR.clone,
    _TENSOR.cpu,
    _TENSOR.cuda,
    _TENSOR.detach,
    _TENSOR.double,
    _TENSOR.float,
    _TENSOR.to,
}


class SparseRows(torch.Tensor):
    """A matrix of sparse rows that behaves as the dense tensor it stands for.

    `torch.nn.functional.linear`, and so every Linear layer, reads it without making it
    dense, by `torch.nn.functional.embedding_bag`. Rows that are picked, as by
    ``rows[index]``, are sparse copies, and a Dropout in evaluation hands it on. Any
    other function makes it dense first, once.

    Parameters
    ----------
    values : tensor of shape (n_entries,)
        What is stored, row after row.
    columns : int tensor of shape (n_entries,)
        Column of each value.
    starts : int tensor of shape (n_rows + 1,)
        Where each row begins among the values, and where the last one ends; in the
        type of `columns`.
    n_columns : int
        Width of the matrix.

    Notes
    -----
    A sparse CSR tensor of torch's would do as well, but takes twice as long, warns
    that it is beta, and is refused by most other layers.

    Examples
    --------
    >>> import torch
    >>> from scipy.sparse import csr_array
    >>> from skprune.evaluation import SparseRows
    >>> rows = SparseRows.from_scipy(csr_array([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0]]))
    >>> rows
    SparseRows(shape=(2, 3), n_entries=2, dtype=torch.float64)
    >>> torch.nn.functional.linear(rows, torch.ones(1, 3, dtype=torch.float64))
    tensor([[2.],
            [1.]], dtype=torch.float64)
    """

    @staticmethod
    def __new__(cls, values, columns, starts, n_columns):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            (len(starts) - 1, n_columns),
            dtype=values.dtype,
            device=values.device,
        )

    def __init__(self, values, columns, starts, n_columns):
        self._entries = (values, columns, starts)
        self._n_columns = n_columns
        self._dense = None

    @classmethod
    def from_scipy(cls, matrix):
        """Read the rows of a SciPy CSR matrix.

        Parameters
        ----------
        matrix : CSR matrix or array of shape (n_rows, n_columns)
            The rows; the tensor shares their memory.

        Returns
        -------
        rows : SparseRows of shape (n_rows, n_columns)
        """
        parts = (matrix.data, matrix.indices, matrix.indptr)
        # torch warns of arrays that it could write to and must not.
        parts = (x if x.flags.writeable else x.copy() for x in parts)
        return cls(*map(torch.from_numpy, parts), matrix.shape[1])

    @classmethod
    def joined(cls, parts):
        """Put the rows of several matrices below each other.

        Parameters
        ----------
        parts : list of SparseRows
            Matrices of equal width; at least one.

        Returns
        -------
        rows : SparseRows of shape (n_rows, n_columns)
        """
        values, columns, starts = zip(*(part.entries() for part in parts), strict=True)
        ends = torch.cat([own.diff().long() for own in starts]).cumsum(0)
        ends = torch.nn.functional.pad(ends, (1, 0)).to(starts[0].dtype)
        return cls(torch.cat(values), torch.cat(columns), ends, parts[0]._n_columns)

    def entries(self):
        """What is stored.

        Returns
        -------
        values : tensor of shape (n_entries,)
            The values, row after row.
        columns : int tensor of shape (n_entries,)
            Column of each value.
        starts : int tensor of shape (n_rows + 1,)
            Where each row begins among the values, and where the last one ends.
        """
        return self._entries

    def to_dense(self):
        """The same matrix as an ordinary tensor.

        Returns
        -------
        dense : tensor of shape (n_rows, n_columns)
            The same object at each call, so that what is done to it in place is kept.
        """
        if self._dense is None:
            values, columns, starts = self._entries
            n_rows = len(starts) - 1
            rows = torch.repeat_interleave(
                torch.arange(n_rows, device=values.device), starts.diff()
            )
            dense = values.new_zeros(n_rows, self._n_columns)
            self._dense = dense.index_put_((rows, columns), values, accumulate=True)
        return self._dense

    def __repr__(self):
        values, _, starts = self._entries
        return (
            f"SparseRows(shape=({len(starts) - 1}, {self._n_columns}), "
            f"n_entries={len(values)}, dtype={values.dtype})"
        )

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        """Do with sparse rows what can be done, and with dense ones all else."""
        kwargs = kwargs or {}
        if func in _FACTS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        first = args[0] if args else kwargs.get("input")
        if isinstance(first, cls) and first._dense is None:
            if func is functional.linear:
                return _linear(first, *args[1:], **_without(kwargs, "input"))
            if func in _ENTRYWISE:
                return first._with_values(func, *args[1:], **kwargs)
            if func is _TENSOR.__getitem__ and _names_rows(args[1]):
                return first._rows(args[1])
            if func is functional.dropout and not _drops(*args[1:], **kwargs):
                return first
        return func(*_densified(args), **_densified(kwargs))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        """Make dense what reaches torch by a way past `__torch_function__`."""
        return func(*_densified(args), **_densified(kwargs or {}))

    def _rows(self, index):
        """Some rows, by a slice or by their numbers."""
        values, columns, starts = self._entries
        index = torch.arange(len(starts) - 1, device=starts.device)[index]
        counts, first = starts.diff()[index].long(), starts[index].long()
        ends = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
        places = torch.arange(int(ends[-1]), device=starts.device)
        places += torch.repeat_interleave(first - ends[:-1], counts)
        ends = ends.to(starts.dtype)
        return SparseRows(values[places], columns[places], ends, self._n_columns)

    def _with_values(self, function, *args, **kwargs):
        """The rows with their values copied, moved or cast."""
        values, columns, starts = self._entries
        values = function(values, *args, **kwargs)
        columns, starts = columns.to(values.device), starts.to(values.device)
        return SparseRows(values, columns, starts, self._n_columns)


def store_by_column(layer):
    """Lay the weight of a Linear layer out column by column, in place.

    Parameters
    ----------
    layer : torch.nn.Linear
        The layer that reads sparse rows. Its weight becomes a new parameter of the same
        shape and values, of which each column lies together in memory: one word's
        weights are then read, and their gradient written, at once. Do this before the
        optimizer is built, and again after surgery.

    Returns
    -------
    layer : torch.nn.Linear
        The same layer.

    Notes
    -----
    torch's fused Adam trusts that gradient and moments lie in memory as the parameter
    does, and is silently wrong where they do not. Autograd sees to the gradient;
    moments that are carried over by hand must be laid out by column too.

    Examples
    --------
    >>> import torch
    >>> from skprune.evaluation import store_by_column
    >>> store_by_column(torch.nn.Linear(50, 8)).weight.stride()
    (1, 8)
    """
    weight = layer.weight.detach().T.contiguous().T
    layer.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)
    return layer


def _linear(rows, weight, bias=None):
    """Sum the columns of the weight that each row names, times its values."""
    values, columns, starts = rows._entries
    if weight.shape[-1] != rows._n_columns:
        raise RuntimeError(
            f"a Linear layer of {weight.shape[-1]} inputs was given sparse rows of "
            f"{rows._n_columns} columns."
        )
    out = functional.embedding_bag(
        columns,
        weight.T,
        starts,
        mode="sum",
        per_sample_weights=values,
        include_last_offset=True,
    )
    return out if bias is None else out + bias


def _names_rows(key):
    """Whether a key picks whole rows, and keeps the axis that they are along."""
    if isinstance(key, torch.Tensor):
        return key.ndim == 1
    return isinstance(key, slice)


def _drops(input=None, p=0.5, training=True, inplace=False):
    """Whether a dropout of these arguments changes anything."""
    return training and p > 0


def _densified(value):
    """Put dense tensors in the place of sparse rows, in nested arguments."""
    if isinstance(value, SparseRows):
        return value.to_dense()
    if isinstance(value, (tuple, list)):
        return type(value)(_densified(part) for part in value)
    if isinstance(value, dict):
        return {key: _densified(part) for key, part in value.items()}
    return value


def _without(kwargs, name):
    return {key: value for key, value in kwargs.items() if key != name}
