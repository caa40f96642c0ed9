"""Greedy building in the reconstruction game: a Cholesky factor that picks its pivots.

A player that joins changes what everybody else would earn, so a step needs one column
of G and one of C Cᵀ, both as the players present leave them. Taken one by one they cost
a pass over all targets each, and the memory sets the pace. Here they are made in
batches, for the players likely to join, by matrix products; a panel of steps corrects
them among itself, and is then subtracted from the targets at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.linalg.blas import dgemm

from skprune.games._cholesky import diagonal_blocks, dot_blocks, factor

__all__ = ["GreedyBuilding"]

FloatArray = NDArray[np.float64]

# Columns of a panel of steps, and of a batch of rows; of rows two panels are kept.
_PANEL = 128
_BATCH = 32
# Players leave the arrays when this share of the columns has joined.
_STALE = 0.125
# Within a panel gains lose digits to cancellation; this share of what they might
# have been at its start is the last to be trusted.
_TRUSTED = 1e-6
# The root of the least float, so that no quotient by it overflows.
_LEAST = np.finfo(np.float64).tiny ** 0.5


class GreedyBuilding:
    r"""Players that join one by one, the one that earns most first.

    Parameters
    ----------
    gram : ndarray of float64 of shape (n_columns, n_columns)
        Positive definite.
    cross : ndarray of float64 of shape (n_columns, n_targets)
        Covariance of columns and targets.
    width : int
        Number of columns of each player.
    n_steps : int
        Number of players that will join.

    Notes
    -----
    With F = L⁻¹ G, a row for each column that has joined, A = G - Fᵀ F is what is left
    of G, and R = C - Fᵀ L⁻¹ C of the targets. Player i earns tr Rᵢᵀ Aᵢᵢ⁻¹ Rᵢ =
    tr Aᵢᵢ⁻¹ Nᵢᵢ, where N = R Rᵀ. When player b joins, with f = A_bb^{-1/2} A_b. and
    u = A_bb^{-1/2} N_b.,

    .. math:: A' = A - f^T f, \quad N' = N - f^T g - g^T f, \quad
        g = u - \tfrac12 (A_{bb}^{-1/2} N_{bb} A_{bb}^{-1/2}) f,

    so the panel's f and g correct the rows of A and N that were made at its start.
    R itself is kept, N is not: subtracting from squares would lose twice the digits.
    """

    def __init__(
        self, gram: FloatArray, cross: FloatArray, width: int, n_steps: int
    ) -> None:
        self._gram, self._width, self._one = gram, width, np.eye(width)
        self._live = np.arange(len(gram) // width)
        self._barred = np.zeros(self._live.size)
        self._residual = np.array(cross, order="C")
        self._factor = np.empty((n_steps * width, len(gram)))
        self._left = diagonal_blocks(gram, width)
        self._panel, self._batch = max(1, _PANEL // width), max(1, _BATCH // width)
        self._n_done = self._n_joined = self._n_slots = 0
        self._joined: list[int] = []
        self._start_panel()

    def add(self) -> tuple[int, float]:
        """Let the player join that earns most; who it is, and what it earns."""
        best, gain = self._best()
        own = slice(best * self._width, (best + 1) * self._width)
        done, joined = self._n_done, self._n_joined
        rows, mates = self._factor[done:joined], self._mates[: joined - done]
        slot = self._slots[best]
        near = self._near[slot] - rows[:, own].T @ rows
        dots = self._dots[slot] - rows[:, own].T @ mates
        dots -= mates[:, own].T @ rows
        root = _inverse_root(self._left[best])
        new = self._factor[joined : joined + self._width]
        np.matmul(root, near, out=new)
        mate = self._mates[joined - done : joined - done + self._width]
        np.matmul(root, dots, out=mate)
        mate -= (root @ self._norms[best] @ (0.5 * root.T)) @ new
        self._left -= dot_blocks(new, new, self._width)
        crossed = dot_blocks(new, mate, self._width)
        self._norms -= crossed
        self._norms -= crossed.transpose(0, 2, 1)
        self._n_joined += self._width
        self._joined.append(best)
        self._barred[best] = -np.inf
        self._left[best] = self._one
        self._norms[best] = self._norms_before[best] = 0.0
        return int(self._live[best]), gain

    def _best(self) -> tuple[int, float]:
        """Who earns most, with its rows at hand, and what it earns."""
        gains, trusted = self._gains()
        best = int(gains.argmax())
        full = len(self._joined) == self._panel
        missed = self._slots[best] < 0 and self._n_slots == len(self._near)
        if self._joined and (full or missed or gains[best] < trusted):
            self._end_panel()
            return self._best()
        if self._slots[best] < 0:
            self._fetch(best, gains)
        return best, float(gains[best])

    def _gains(self) -> tuple[FloatArray, float]:
        """What each player would earn, and the least of it that is no rounding."""
        if self._width == 1:
            pivots = np.maximum(self._left[:, 0, 0], _LEAST)
            gains = self._norms[:, 0, 0] / pivots
            before = self._norms_before[:, 0, 0] / pivots
        else:
            both = np.concatenate([self._norms, self._norms_before], axis=2)
            solved = np.linalg.solve(self._left, both)
            gains, before = np.split(solved, 2, axis=2)
            gains = np.trace(gains, axis1=1, axis2=2)
            before = np.trace(before, axis1=1, axis2=2)
        return gains + self._barred, _TRUSTED * float(before.max())

    def _fetch(self, best: int, gains: FloatArray) -> None:
        """Rows of A and N, as they were at the panel's start, of likely players."""
        room = min(self._batch, len(self._near) - self._n_slots)
        wanted = np.where(self._slots < 0, gains, -np.inf)
        wanted[best] = np.inf
        picked = np.arange(wanted.size)
        if room < wanted.size:
            picked = np.argpartition(wanted, -room)[-room:]
        picked = picked[wanted[picked] > -np.inf]
        slots = slice(self._n_slots, self._n_slots + picked.size)
        self._slots[picked] = np.arange(slots.start, slots.stop)
        self._n_slots = slots.stop
        columns, places = self._columns(self._live), self._columns(picked)
        shape = (picked.size, self._width, columns.size)
        done = self._factor[: self._n_done]
        near = self._gram[columns[places]]
        if columns.size < near.shape[1]:
            near = near.take(columns, axis=1)
        near -= done[:, places].T @ done
        dots = self._residual[places] @ self._residual.T
        self._near[slots], self._dots[slots] = near.reshape(shape), dots.reshape(shape)

    def _end_panel(self) -> None:
        """Subtract the panel from the targets and begin another."""
        panel = self._factor[self._n_done : self._n_joined]
        own = self._columns(np.array(self._joined))
        explained = solve_triangular(
            panel[:, own], self._residual[own], trans="T", check_finite=False
        )
        # In place: Rᵀ -= explainedᵀ · panel, on transposed views.
        residual = dgemm(
            -1.0,
            np.ascontiguousarray(explained).T,
            panel.T,
            beta=1.0,
            c=self._residual.T,
            trans_b=True,
            overwrite_c=True,
        )
        self._residual = residual.T
        self._n_done = self._n_joined
        stays = self._barred == 0
        if stays.mean() <= 1 - _STALE and stays.any():
            self._compact(stays)
        self._start_panel()

    def _start_panel(self) -> None:
        """Forget the batches of the last panel."""
        n, N = self._live.size, len(self._residual)
        self._norms = dot_blocks(self._residual.T, self._residual.T, self._width)
        self._norms[self._barred < 0] = 0.0
        self._norms_before = self._norms.copy()
        self._joined = []
        self._slots, self._n_slots = np.full(n, -1), 0
        self._near = np.empty((2 * self._panel, self._width, N))
        self._dots = np.empty_like(self._near)
        self._mates = np.empty((self._panel * self._width, N))

    def _compact(self, stays: NDArray[np.bool_]) -> None:
        """Drop the columns of those that have joined."""
        columns = np.repeat(stays, self._width)
        rows = np.empty((len(self._factor), int(columns.sum())))
        rows[: self._n_done] = self._factor[: self._n_done, columns]
        self._factor, self._residual = rows, self._residual[columns]
        self._live, self._barred = self._live[stays], self._barred[stays]
        self._left = self._left[stays]

    def _columns(self, players: NDArray[np.intp]) -> NDArray[np.intp]:
        """The columns of some players, player by player."""
        return (players[:, None] * self._width + np.arange(self._width)).ravel()


def _inverse_root(block: FloatArray) -> FloatArray:
    """B⁻¹ of a block B Bᵀ."""
    if len(block) == 1 and block[0, 0] > 0:
        return 1 / np.sqrt(block)
    return solve_triangular(factor(block.copy()), np.eye(len(block)), lower=True)
