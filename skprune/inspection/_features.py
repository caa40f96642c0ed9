"""The features of a batch, as entries that gradients are taken of."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from scipy import sparse
from torch import nn

from skprune.evaluation import SparseRows, first_rows

__all__ = ["BatchFeatures"]


class BatchFeatures:
    """A batch: its entries, each of which belongs to a feature.

    Parameters
    ----------
    net : skorch.NeuralNet
        The net that reads the batch.
    rows : ndarray, CSR matrix, tensor or dict of these
        The samples. The features of a dict are those of its parts, one after another;
        parts of whole numbers have none.

    Attributes
    ----------
    n_features : int
        Number of features.
    leaves : list of tensors
        What gradients are taken of, one for each part.
    values : list of tensors
        The entries of each part.
    """

    def __init__(self, net, rows):
        parts = rows if isinstance(rows, dict) else {None: rows}
        self._parts = {name: _part(net, name, part) for name, part in parts.items()}
        parts = self._parts.values()
        self.n_features = sum(part.n_features for part in parts)
        self.leaves = [part.leaf for part in parts]
        self.values = [part.values for part in parts]

    def argument(self):
        """What the module reads; it depends on the leaves."""
        arguments = {name: part.argument() for name, part in self._parts.items()}
        return arguments.get(None, arguments)

    def hooks(self, module):
        """Make what a module's tables give depend on the leaves.

        Parameters
        ----------
        module : torch.nn.Module
            The module.

        Returns
        -------
        handles : list
            The hooks, to be removed.
        """
        tokens = [p for p in self._parts.values() if isinstance(p, _Tokens)]

        def look_up(table, args, kwargs, output):
            if len(args) + len(kwargs) > 1:
                return None
            ids = args[0] if args else kwargs["input"]
            found = (part.looked_up(table, ids, output) for part in tokens)
            return next((given for given in found if given is not None), None)

        return [
            layer.register_forward_hook(look_up, with_kwargs=True)
            for layer in module.modules()
            if tokens and _is_table(layer)
        ]

    def check_read(self):
        """Refuse a batch, after a run on it, of which no gradients can be taken."""
        parts = self._parts.values()
        if not any(isinstance(p, (_Dense, _Sparse)) or p.is_read for p in parts):
            raise ValueError(
                "X holds whole numbers, which have gradients only where a torch.nn."
                "Embedding or EmbeddingBag (of sums or means) reads X as it is, and "
                "none does; leave X out to see the scores alone."
            )

    def contributions(self, gradients):
        """Each entry times its gradient, part by part."""
        pairs = zip(self._parts.values(), gradients, strict=True)
        return [part.contributions(gradient) for part, gradient in pairs]

    def summed(self, entries):
        """Entries summed by feature, in double precision.

        Parameters
        ----------
        entries : list of tensors
            In the shapes of `values`.

        Returns
        -------
        sums : tensor of float64 of shape (n_features,)
        """
        pairs = zip(self._parts.values(), entries, strict=True)
        return torch.cat([part.summed(some.double()) for part, some in pairs])

    def default_names(self):
        """What features are called that have no names.

        Returns
        -------
        names : list of str
            Such as "x3", "x[0,3]" in an image, "token 3", "key[3]" in a dict.
        """
        return [
            name if key is None else f"{key}[{place}]"
            for key, part in self._parts.items()
            for place, name in enumerate(part.default_names())
        ]


class _Part(ABC):
    """Entries of one array: `values`, in some form, and the `leaf` behind them."""

    def __init__(self, leaf, values, n_features):
        self.leaf, self.values, self.n_features = leaf, values, n_features

    @abstractmethod
    def argument(self):
        """What the module reads."""

    @abstractmethod
    def contributions(self, gradient):
        """Each entry times its gradient."""

    @abstractmethod
    def summed(self, entries):
        """Entries summed by feature."""

    def default_names(self):
        return [f"x{place}" for place in range(self.n_features)]


class _Dense(_Part):
    """Columns of a dense batch; of one with more axes, its flattened positions."""

    def __init__(self, batch):
        self._shape = batch.shape[1:]
        values = batch.reshape(len(batch), -1)
        super().__init__(batch.clone().requires_grad_(), values, values.shape[1])

    def argument(self):
        # A copy, on which a module may work in place.
        return self.leaf.clone()

    def contributions(self, gradient):
        return self.values * gradient.reshape(self.values.shape)

    def summed(self, entries):
        return entries.sum(0)

    def default_names(self):
        if len(self._shape) < 2:
            return super().default_names()
        return [f"x[{','.join(map(str, place))}]" for place in np.ndindex(*self._shape)]


class _Sparse(_Part):
    """Columns of a CSR batch: only what is stored has entries."""

    def __init__(self, matrix, device, dtype):
        values = torch.tensor(matrix.data, dtype=dtype, device=device)
        super().__init__(values.clone().requires_grad_(), values, matrix.shape[1])
        self._columns = torch.tensor(matrix.indices, dtype=torch.int64, device=device)
        self._starts = torch.tensor(matrix.indptr, dtype=torch.int64, device=device)

    def argument(self):
        values = self.leaf.clone()
        return SparseRows(values, self._columns, self._starts, self.n_features)

    def contributions(self, gradient):
        return self.values * gradient

    def summed(self, entries):
        return entries.new_zeros(self.n_features).index_add(0, self._columns, entries)


class _Tokens(_Part):
    """Numbers that tables look up: the features are tokens, counted by sample."""

    def __init__(self, ids, n_tokens, dtype):
        self._ids, self.is_read = ids, False
        tokens = ids.long().reshape(len(ids), -1)
        samples = torch.arange(len(ids), device=ids.device).unsqueeze(1)
        pairs, self._places, counts = torch.unique(
            tokens + n_tokens * samples, return_inverse=True, return_counts=True
        )
        self._columns = pairs % n_tokens
        # How present each token is: its vector is multiplied by it.
        leaf = torch.ones(ids.shape, dtype=dtype, device=ids.device)
        super().__init__(leaf.requires_grad_(), counts.to(dtype), n_tokens)

    def argument(self):
        return self._ids

    def contributions(self, gradient):
        flat = gradient.new_zeros(len(self.values))
        return flat.index_add(0, self._places.flatten(), gradient.flatten())

    def summed(self, entries):
        return entries.new_zeros(self.n_features).index_add(0, self._columns, entries)

    def default_names(self):
        return [f"token {token}" for token in range(self.n_features)]

    def looked_up(self, table, ids, output):
        """What a table gives, by way of `leaf`; None where it reads something else."""
        is_bag = isinstance(table, nn.EmbeddingBag)
        is_other = ids.shape != self._ids.shape or bool((ids != self._ids).any())
        if is_other or (is_bag and table.mode == "max"):
            return None
        self.is_read = True
        present = self.leaf.unsqueeze(-1)
        if not is_bag:
            return output * present
        if table.padding_idx is not None:
            present = present * (ids != table.padding_idx).unsqueeze(-1)
        total = (table.weight[ids] * present).sum(1)
        if table.mode == "mean":
            total = total / present.detach().sum(1).clamp_min(1)
        return total


class _Passed(_Part):
    """Whole numbers beside other inputs, such as lengths: they have no features."""

    is_read = False

    def __init__(self, batch):
        self._batch = batch
        nothing = torch.zeros(0, device=batch.device)
        super().__init__(nothing.clone().requires_grad_(), nothing, 0)

    def argument(self):
        return self._batch

    def contributions(self, gradient):
        return gradient

    def summed(self, entries):
        return entries


def _part(net, name, part):
    """The features of one array."""
    dtype = next((p.dtype for p in net.module_.parameters()), torch.float32)
    if sparse.issparse(part):
        if not part.has_canonical_format:
            part = part.copy()
            part.sum_duplicates()
        return _Sparse(part, net.device, dtype)
    batch = first_rows(net, part, len(part))
    if batch.is_floating_point():
        return _Dense(batch)
    if name is not None:
        return _Passed(batch)
    sizes = [t.num_embeddings for t in net.module_.modules() if _is_table(t)]
    return _Tokens(batch, max([*sizes, 1 + int(batch.max())]), dtype)


def _is_table(layer):
    return isinstance(layer, (nn.Embedding, nn.EmbeddingBag))
