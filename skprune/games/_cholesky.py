"""Factor and solve in place: the linear algebra of the reconstruction game.

Matrices are in row order, as NumPy's are; LAPACK reads them in column order, that is
transposed. A lower triangle of ours is an upper one to it, and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.blas import dtrsm
from scipy.linalg.lapack import dpotrf, dtrtri
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

__all__ = [
    "diagonal_blocks",
    "dot_blocks",
    "factor",
    "gather",
    "invert",
    "solve_left",
    "solve_left_transposed",
    "solve_right",
    "threads_for",
]

FloatArray = NDArray[np.float64]

# Rows of a matrix that are gathered at once; what lies right of them is left out.
_ROWS = 256
# Columns from which on factors gain from several threads. On smaller ones the threads
# wait for each other, up to a hundred times as long where other work keeps them away.
_THREADED = 1024
_SINGULAR = (
    "gram is not positive definite on the columns present, to rounding; raise ridge."
)


@contextmanager
def threads_for(n_columns: int) -> Iterator[None]:
    """Context of linear algebra: BLAS has one thread if the matrices are small.

    Raises
    ------
    numpy.linalg.LinAlgError
        With the cure, where a matrix is singular to rounding.
    """
    limits: AbstractContextManager[object] = nullcontext()
    if n_columns < _THREADED:
        limits = _controller().limit(limits=1, user_api="blas")
    try:
        with limits:
            yield
    except np.linalg.LinAlgError as error:
        raise np.linalg.LinAlgError(_SINGULAR) from error


@cache
def _controller() -> ThreadpoolController:
    """The BLAS libraries that are loaded; to look for them takes a while."""
    return ThreadpoolController()


def gather(matrix: FloatArray, index: NDArray[np.intp], out: FloatArray) -> FloatArray:
    """The lower triangle of ``matrix[index][:, index]``; what is above is undefined."""
    n = index.size
    for start in range(0, n, _ROWS):
        stop = min(start + _ROWS, n)
        rows = matrix[index[start:stop]]
        out[start:stop, :stop] = rows.take(index[:stop], axis=1)
    return out


def factor(matrix: FloatArray) -> FloatArray:
    """L of L Lᵀ, into the matrix given; only lower triangles are read and written.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the matrix is not positive definite.
    """
    root, info = dpotrf(matrix.T, lower=0, clean=0, overwrite_a=1)
    if info:
        raise np.linalg.LinAlgError(_SINGULAR)
    return root.T


def solve_left(lower: FloatArray, right: FloatArray) -> FloatArray:
    """L⁻¹ B, into the B given."""
    return dtrsm(1.0, lower.T, right.T, side=1, lower=0, overwrite_b=1).T


def solve_left_transposed(lower: FloatArray, right: FloatArray) -> FloatArray:
    """L⁻ᵀ B, into the B given."""
    return dtrsm(1.0, lower.T, right.T, side=1, lower=0, trans_a=1, overwrite_b=1).T


def solve_right(lower: FloatArray, left: FloatArray) -> FloatArray:
    """B L⁻ᵀ, into the B given."""
    return dtrsm(1.0, lower.T, left.T, side=0, lower=0, trans_a=1, overwrite_b=1).T


def invert(lower: FloatArray) -> FloatArray:
    """L⁻¹, into the L given."""
    return np.tril(dtrtri(lower.T, lower=0, overwrite_c=1)[0].T)


def diagonal_blocks(matrix: FloatArray, width: int) -> FloatArray:
    """Blocks of shape (n, width, width) on the diagonal, one for each player."""
    n = len(matrix) // width
    if width == 1:
        return matrix.diagonal()[:, None, None].copy()
    index = np.arange(n)
    return matrix.reshape(n, width, n, width)[index, :, index, :].copy()


def dot_blocks(left: FloatArray, right: FloatArray, width: int) -> FloatArray:
    """Diagonal blocks of ``left.T @ right``, shape (n, width, width)."""
    if width == 1:
        one = len(left) == 1
        dots = left[0] * right[0] if one else np.einsum("ki,ki->i", left, right)
        return dots[:, None, None]
    rows, n = len(left), left.shape[1] // width
    first = left.reshape(rows, n, width).transpose(1, 2, 0)
    return first @ right.reshape(rows, n, width).transpose(1, 0, 2)
