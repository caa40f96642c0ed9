"""A layer that hands on some of the columns that it is given."""

import torch
from torch import nn

__all__ = ["ColumnSelection", "is_selected"]


class ColumnSelection(nn.Module):
    """Keep some positions of one axis, in their order.

    Removing an input of an inner layer leaves what is in front of that layer as it
    is: the smaller layer reads through a selection,
    ``nn.Sequential(ColumnSelection(index), layer)``.

    Parameters
    ----------
    index : array-like of int of shape (n_kept,)
        Positions that are kept.
    dim : int, default=-1
        Axis of the input that is selected from: -1 in front of a Linear layer, and
        the channel axis, counted from the end, in front of a convolution.

    Examples
    --------
    >>> import torch
    >>> from skprune.networks import ColumnSelection
    >>> ColumnSelection([0, 2])(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[1., 3.]])
    """

    index: torch.Tensor

    def __init__(self, index, dim=-1):
        super().__init__()
        self.dim = dim
        self.register_buffer("index", torch.as_tensor(index, dtype=torch.int64))

    def forward(self, x):
        """Select from `x`.

        Parameters
        ----------
        x : tensor of shape (..., n_columns, ...)
            Input of any number of axes.

        Returns
        -------
        tensor of shape (..., n_kept, ...)
            The kept positions of axis `dim`.
        """
        return x.index_select(self.dim, self.index)

    def narrowed(self, positions):
        """Compose with a further selection.

        Parameters
        ----------
        positions : tensor of int of shape (n_kept_again,)
            Positions among the columns that this selection keeps.

        Returns
        -------
        ColumnSelection
            One selection that does the work of both.
        """
        return ColumnSelection(self.index[positions.to(self.index.device)], self.dim)

    def extra_repr(self):
        """Describe the selection in the module's repr.

        Returns
        -------
        str
            Number of kept columns, and their axis.
        """
        return f"n_kept={self.index.numel()}, dim={self.dim}"


def is_selected(module, name):
    """Whether layer `name` of `module` reads through a selection of ours."""
    parent_name, _, own_name = name.rpartition(".")
    parent = module.get_submodule(parent_name)
    return (
        own_name == "1"
        and isinstance(parent, nn.Sequential)
        and len(parent) == 2
        and isinstance(parent[0], ColumnSelection)
    )
