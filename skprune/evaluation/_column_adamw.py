"""AdamW that is as fast on a weight that lies column by column as on any other."""

from __future__ import annotations

import torch

__all__ = ["ColumnAdamW"]


class ColumnAdamW(torch.optim.AdamW):
    """AdamW whose steps read weights in the order in which they lie in memory.

    Its steps are those of `torch.optim.AdamW`, whose parameters it takes. Of a weight
    that `store_by_column` laid out column by column, though, the fused kernel of
    torch's copies the gradient at each step, which on a vocabulary of 50,000 words
    takes five times as long as the step itself, and takes a gradient that lies
    otherwise for another one. Here the transpose of such a weight is stepped on, which
    lies in memory row by row.

    Examples
    --------
    >>> import torch
    >>> from skprune.evaluation import ColumnAdamW, store_by_column
    >>> layer = store_by_column(torch.nn.Linear(50, 8))
    >>> optimizer = ColumnAdamW(layer.parameters(), lr=0.1, fused=True)
    >>> layer(torch.ones(1, 50)).sum().backward()
    >>> optimizer.step()
    >>> optimizer.state[layer.weight]["exp_avg"].stride()
    (1, 8)
    """

    # torch's optimizers step on what this method lists.
    def _init_group(self, group, params, grads, *others):
        has_complex = super()._init_group(group, params, grads, *others)
        # Beside lists of moments, older versions of torch pass the option "amsgrad".
        moments = [part for part in others if isinstance(part, list)]
        for row, param in enumerate(params):
            if _lies_by_column(param):
                params[row], grads[row] = param.T, grads[row].T.contiguous()
                for part in moments:
                    # Numbers of steps have no dimensions, and amsgrad's list is empty
                    # where it is not asked for.
                    if row < len(part) and part[row].ndim:
                        part[row] = part[row].T
        return has_complex


def _lies_by_column(tensor):
    """Whether each column of a matrix lies together in memory, and not each row."""
    return tensor.ndim == 2 and not tensor.is_contiguous() and tensor.T.is_contiguous()
