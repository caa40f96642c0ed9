"""Batches for skorch, taken from whole tensors instead of sample by sample."""

from __future__ import annotations

import numbers

import numpy as np
import torch
from scipy import sparse
from skorch.dataset import Dataset
from torch.utils.data import DataLoader, Subset

from skprune.evaluation._data import plain_array
from skprune.evaluation._sparse_rows import SparseRows

__all__ = ["Batch", "TensorBatches", "cut_batches", "row_numbers"]


class Batch(tuple):
    """A pair of inputs and targets that knows which rows of the data it holds.

    Attributes
    ----------
    rows : int tensor of shape (n_rows,)
        Their numbers in the data set, before any split of it.
    """

    rows = None


class TensorBatches:
    """Iterator over batches, for skorch's `iterator_train` and `iterator_valid`.

    A batch is one indexing of whole tensors, where a DataLoader collates single
    samples; on small networks that takes longer than the training itself. Rows of CSR
    matrices become `SparseRows`, which no Linear layer makes dense.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        A skorch Dataset of arrays, tensors, CSR matrices or dicts of these, or a Subset
        of one. Any other data set goes through a DataLoader, with the batches that that
        would give.
    batch_size : int, default=128
        Number of samples of a batch; the last one may be smaller.
    shuffle : bool, default=False
        Deal the samples anew at each iteration.
    generator : torch.Generator, default=None
        Shuffles; None for torch's global one.
    device : str or torch.device, default=None
        Where dense data are put once, at construction; None to leave them where they
        are, from where skorch moves each batch.

    Attributes
    ----------
    rows : int tensor of shape (n_rows,), or None
        Numbers of the rows of the batch that was given last, in the data set before any
        split of it.

    Raises
    ------
    ValueError
        If `batch_size` is not a positive whole number.

    Examples
    --------
    >>> import numpy as np
    >>> from skorch.dataset import Dataset
    >>> from skprune.evaluation import TensorBatches
    >>> dataset = Dataset(np.eye(3, dtype=np.float32), np.arange(3))
    >>> batches = TensorBatches(dataset, batch_size=2)
    >>> [(batches.rows.tolist(), y.tolist()) for X, y in batches]
    [([0, 1], [0, 1]), ([2], [2])]
    """

    def __init__(
        self, dataset, batch_size=128, shuffle=False, generator=None, device=None
    ):
        if not isinstance(batch_size, numbers.Integral) or batch_size < 1:
            raise ValueError(
                f"batch_size={batch_size!r} must be a whole number of at least 1."
            )
        self.dataset, self.batch_size = dataset, int(batch_size)
        self.shuffle, self.generator, self.device = shuffle, generator, device
        self.rows = None
        data, self._numbers = _unwrapped(dataset)
        self._tables = _tables(data, device)

    def __len__(self):
        """Number of batches."""
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self):
        """Deal the samples, and give them batch by batch."""
        if self._tables is None:
            yield from self._collated()
            return
        for places in self._places():
            rows = self._rows_at(places)
            yield self._batch([table(rows) for table in self._tables], rows)

    def _places(self):
        """Positions in the data set, one tensor for each batch."""
        n_samples = len(self.dataset)
        if self.shuffle:
            order = torch.randperm(n_samples, generator=self.generator)
        else:
            order = torch.arange(n_samples)
        # A tensor of no samples would split into one empty batch.
        return order.split(self.batch_size) if n_samples else ()

    def _collated(self):
        """The batches of a DataLoader, which asks for each one's rows in turn."""
        dealt = [places.tolist() for places in self._places()]
        loader = DataLoader(self.dataset, batch_sampler=dealt)
        for places, pair in zip(dealt, loader, strict=True):
            if not isinstance(pair, (tuple, list)):
                yield pair
            else:
                yield self._batch(pair, self._rows_at(torch.tensor(places)))

    def _rows_at(self, places):
        return places if self._numbers is None else self._numbers[places]

    def _batch(self, pair, rows):
        """A batch that knows its rows, of which note is taken here too."""
        self.rows = rows
        batch = Batch(pair)
        batch.rows = rows
        return batch


def cut_batches(net):
    """Let a net cut its batches from tensors wherever it has skorch's own iterator.

    Parameters
    ----------
    net : skorch.NeuralNet
        A net; its iterators are set, unless it brings others or gives them options.

    Returns
    -------
    net : skorch.NeuralNet
        The same net.
    """
    params = net.get_params(deep=False)
    for name in ("iterator_train", "iterator_valid"):
        own = {key for key in params if key.startswith(f"{name}__")}
        if params[name] is DataLoader and own <= {f"{name}__shuffle"}:
            # skorch's set_params refuses this of a net that is initialized.
            setattr(net, name, TensorBatches)
    return net


def row_numbers(dataset):
    """Numbers of a data set's rows in the data below all subsets of it.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        A data set, or a Subset of one.

    Returns
    -------
    rows : ndarray of int of shape (n_samples,)
    """
    numbers_ = _unwrapped(dataset)[1]
    return np.arange(len(dataset)) if numbers_ is None else numbers_.numpy()


def _unwrapped(dataset):
    """The data set below all subsets of it, and the numbers of their rows there."""
    numbers_ = None
    while type(dataset) is Subset:
        indices = torch.as_tensor(np.asarray(dataset.indices), dtype=torch.int64)
        numbers_ = indices if numbers_ is None else indices[numbers_]
        dataset = dataset.dataset
    return dataset, numbers_


def _tables(dataset, device):
    """Functions from rows to the inputs and to the targets; None to collate."""
    kind = type(dataset)
    # A class that makes its samples in its own way is asked for each of them.
    if not (
        isinstance(dataset, Dataset)
        and kind.__getitem__ is Dataset.__getitem__
        and kind.transform is Dataset.transform
    ):
        return None
    inputs = _table(dataset.X, device)
    targets = _no_targets if dataset.y is None else _table(dataset.y, device)
    return None if inputs is None or targets is None else (inputs, targets)


def _table(data, device):
    """A function from rows to their tensors; None where only collation knows."""
    if isinstance(data, dict):
        parts = {key: _table(part, device) for key, part in data.items()}
        if any(part is None for part in parts.values()):
            return None
        return lambda rows: {key: part(rows) for key, part in parts.items()}
    if sparse.issparse(data):
        return _sparse_table(data, device) if data.format == "csr" else None
    if type(data) is np.ndarray and data.dtype.kind in "biuf":
        data = _as_tensor(data)
    if type(data) is not torch.Tensor or data.layout != torch.strided:
        return None
    data = data.detach() if device is None else data.detach().to(device)
    # Fresh tensors: a module may work in place on what it reads.
    return lambda rows: data.index_select(0, rows.to(data.device))


def _as_tensor(array):
    """A tensor of an array's memory, or of a copy where torch cannot share it."""
    try:
        return torch.from_numpy(plain_array(array))
    except TypeError:
        # A type that torch does not have: collation says so in its own words.
        return None


def _sparse_table(matrix, device):
    def take(rows):
        batch = SparseRows.from_scipy(matrix[rows.numpy()])
        return batch if device is None else batch.to(device)

    return take


def _no_targets(rows):
    """What collation makes of skorch's place-holder for absent targets."""
    return torch.zeros(len(rows), 1)
