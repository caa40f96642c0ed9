"""The reconstruction game: how much of a target the present players still explain."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import qr

from skprune.games._base import Game
from skprune.games._building import GreedyBuilding
from skprune.games._checks import check_coalitions, check_mask, check_orders
from skprune.games._cholesky import (
    diagonal_blocks,
    dot_blocks,
    factor,
    gather,
    invert,
    solve_left,
    solve_left_transposed,
    solve_right,
    threads_for,
)

__all__ = ["ReconstructionGame"]

FloatArray = NDArray[np.float64]


class ReconstructionGame(Game):
    r"""Explained variance of a target after the best linear repair.

    The players own columns of a random vector h, and a target vector z is known
    together with it. A coalition S earns the share of the variance of z that a
    ridge regression on the columns of S explains,

    .. math:: v(S) = \mathrm{tr}\, C_S^T (G_{SS} + \lambda I)^{-1} C_S
              \; / \; \mathrm{tr}\, \mathrm{cov}(z),

    with G = cov(h) and C = cov(h, z). Only these moments are needed, so a payoff
    costs the same for a thousand samples as for a billion.

    Parameters
    ----------
    gram : array-like of shape (n_columns, n_columns)
        Covariance of the columns, G.
    cross : array-like of shape (n_columns, n_targets)
        Covariance of columns and targets, C.
    target_variance : float
        Total variance of the targets, tr cov(z).
    owners : array-like of int of shape (n_columns,), default=None
        The player that owns each column, -1 for a column that is always present. By
        default each column is a player.
    ridge : float, default=1e-3
        λ as a share of the mean of G's diagonal; 0 needs a G of full rank.

    Attributes
    ----------
    n_players : int
        Number of players.
    players : ndarray of int of shape (n_players,)
        Their numbers in the game that was restricted, if any.

    Raises
    ------
    ValueError
        If the moments do not fit together or cannot be those of any data, `ridge` is
        negative, or `owners` leaves a player without a column.

    Notes
    -----
    A walk is one Cholesky factorisation of the permuted G: the squared rows of
    :math:`L^{-1} C` are the marginals. Building greedily, one player at a time, is
    orthogonal matching pursuit; the Shapley values are a decomposition of R².

    References
    ----------
    .. [1] J.-H. Luo, J. Wu and W. Lin, "ThiNet: a filter level pruning method for
       deep neural network compression", ICCV 2017.
    .. [2] W. Kruskal, "Relative importance by averaging over orderings", The American
       Statistician 41, 1987.

    Examples
    --------
    >>> import numpy as np
    >>> from skprune.games import ReconstructionGame
    >>> game = ReconstructionGame(np.eye(2), np.diag([2.0, 1.0]), 5.0, ridge=0.0)
    >>> game(np.array([[True, False], [True, True]]))
    array([0.8, 1. ])
    """

    def __init__(
        self,
        gram: ArrayLike,
        cross: ArrayLike,
        target_variance: float,
        *,
        owners: ArrayLike | None = None,
        ridge: float = 1e-3,
    ) -> None:
        G, C = np.asarray(gram, np.float64), np.asarray(cross, np.float64)
        _check_moments(G, C, target_variance, ridge)
        owner = _check_owners(owners, len(G))
        # A layer whose columns never vary has G = 0; the game is then null, not 0/0.
        penalty = ridge * G.diagonal().mean() + np.finfo(np.float64).tiny ** 0.5
        G = G.copy()
        G.flat[:: len(G) + 1] += penalty
        scale = max(float(target_variance), np.finfo(np.float64).tiny)
        G, C, base = _project_out(G, C / np.sqrt(scale), np.flatnonzero(owner < 0))
        G, C, width = _one_width(G, C, owner[owner >= 0], penalty)
        self._set(G, C, base, width, np.arange(len(G) // width))

    def _set(
        self,
        gram: FloatArray,
        cross: FloatArray,
        base: float,
        width: int,
        players: NDArray[np.intp],
    ) -> None:
        """Set the state: player i owns the columns i * width to (i + 1) * width."""
        if cross.shape[1] > len(cross):
            # Payoffs know the targets by C Cᵀ only, so the n x n root of it will do.
            cross = qr(cross.T, mode="r", check_finite=False)[0][: len(cross)].T
        self._gram, self._cross = gram, np.ascontiguousarray(cross)
        self._blocks = diagonal_blocks(gram, width)
        self._base, self._width = base, width
        self.players = players
        self.n_players = len(players)

    def _payoffs(self, coalitions: NDArray[np.bool_]) -> FloatArray:
        space = np.empty_like(self._gram)
        payoffs = np.full(len(coalitions), self._base)
        with threads_for(len(space)):
            for i in np.flatnonzero(coalitions.any(axis=1)):
                present = np.flatnonzero(coalitions[i])
                payoffs[i] += self._explained(present, space).sum()
        return payoffs

    def _explained(self, players: NDArray[np.integer], space: FloatArray) -> FloatArray:
        """What each column earns when players join in the given order."""
        columns = self._columns(players)
        lower = self._factor(columns, space)
        projected = solve_left(lower, self._cross[columns])
        return np.einsum("kq,kq->k", projected, projected)

    def _factor(self, columns: NDArray[np.intp], space: FloatArray) -> FloatArray:
        """The Cholesky factor of G on some columns, in a part of the space given."""
        size = columns.size
        out = space.reshape(-1)[: size**2].reshape(size, size)
        return factor(gather(self._gram, columns, out))

    def walk(self, orders: NDArray[np.integer]) -> FloatArray:
        """Marginals along orders by one factorisation each; see `Game.walk`."""
        orders = self._single_block(check_orders(orders, self.n_players))
        marginals, space = np.empty(orders.shape), np.empty_like(self._gram)
        with threads_for(len(space)):
            for row, order in zip(marginals, orders, strict=True):
                gains = self._explained(order, space)
                row[order] = gains.reshape(-1, self._width).sum(axis=1)
        return marginals

    def flip(self, coalitions: NDArray[np.bool_]) -> FloatArray:
        """Marginals around coalitions in closed form; see `Game.flip`."""
        if np.ndim(coalitions) == 3:
            coalitions = self._single_block(np.asarray(coalitions))
        coalitions = check_coalitions(coalitions, self.n_players)
        space = np.empty_like(self._gram)
        with threads_for(len(space)):
            marginals = [self._flip_one(coalition, space) for coalition in coalitions]
        return np.array(marginals).reshape(-1, self.n_players)

    def _flip_one(self, coalition: NDArray[np.bool_], space: FloatArray) -> FloatArray:
        """Every player's marginal around one coalition."""
        inside, outside = np.flatnonzero(coalition), np.flatnonzero(~coalition)
        marginals, width = np.empty(self.n_players), self._width
        if not inside.size:
            return _block_gains(self._blocks, self._cross)
        s, o = self._columns(inside), self._columns(outside)
        lower = self._factor(s, space)
        explained = solve_left(lower, self._cross[s])
        if outside.size:
            between = solve_right(lower, self._gram[o].take(s, axis=1))
            left = self._blocks[outside] - dot_blocks(between.T, between.T, width)
            rest = self._cross[o] - between @ explained
            marginals[outside] = _block_gains(left, rest)
        # Removing i from S loses tr Wᵢᵀ (A⁻¹)ᵢᵢ⁻¹ Wᵢ: the mirror image of a gain.
        weights = solve_left_transposed(lower, explained)
        root = invert(lower)
        marginals[inside] = _block_gains(dot_blocks(root, root, width), weights)
        return marginals

    def greedy_order(self, n_steps: int) -> tuple[NDArray[np.intp], FloatArray]:
        """Add the player that earns most, again and again.

        Parameters
        ----------
        n_steps : int
            Number of players to add.

        Returns
        -------
        order : ndarray of int of shape (n_steps,)
            The players in the order in which they join.
        marginals : ndarray of float64 of shape (n_steps,)
            What each earned when it joined.

        Raises
        ------
        ValueError
            If there are fewer players than steps.

        Notes
        -----
        Orthogonal matching pursuit with a growing Cholesky factor: O(k n (k + q))
        for k steps, n columns and q targets, in products of panels and matrices.
        """
        n = self.n_players
        if not 0 <= n_steps <= n:
            raise ValueError(
                f"n_steps={n_steps} must lie between 0 and the {n} players."
            )
        building = GreedyBuilding(self._gram, self._cross, self._width, n_steps)
        order, marginals = np.empty(n_steps, dtype=np.intp), np.empty(n_steps)
        with threads_for(len(self._gram)):
            for step in range(n_steps):
                order[step], marginals[step] = building.add()
        return order, marginals

    def restrict(
        self,
        always_in: NDArray[np.bool_] | None = None,
        always_out: NDArray[np.bool_] | None = None,
    ) -> Game:
        """Fix some players; a smaller game of the same kind. See `Game.restrict`."""
        inside = check_mask("always_in", always_in, self.n_players)
        outside = check_mask("always_out", always_out, self.n_players)
        free = np.flatnonzero(~(inside | outside))
        if (inside & outside).any() or not free.size:
            # The general restriction raises the error that names the cure.
            return super().restrict(always_in, always_out)
        columns = self._columns(np.flatnonzero(~outside))
        fixed = np.flatnonzero(np.repeat(inside[~outside], self._width))
        gram, cross, base = _project_out(
            self._gram[np.ix_(columns, columns)], self._cross[columns], fixed
        )
        game = object.__new__(type(self))
        game._set(gram, cross, self._base + base, self._width, self.players[free])
        return game

    def _columns(self, players: NDArray[np.integer]) -> NDArray[np.intp]:
        """The columns of some players, player by player."""
        offsets = np.arange(self._width)
        return (np.asarray(players)[:, None] * self._width + offsets).ravel()


def _block_gains(blocks: FloatArray, right: FloatArray) -> FloatArray:
    """tr Rᵢᵀ Dᵢ⁻¹ Rᵢ for blocks (n, width, width) and right sides (n·width, q)."""
    n, width, _ = blocks.shape
    if width == 1:
        pivots = np.maximum(blocks[:, 0, 0], np.finfo(np.float64).tiny)
        return np.einsum("iq,iq->i", right, right) / pivots
    tall = right.reshape(n, width, -1)
    return np.einsum("iwq,iwq->i", tall, np.linalg.solve(blocks, tall))


def _project_out(
    gram: FloatArray, cross: FloatArray, fixed: NDArray[np.intp]
) -> tuple[FloatArray, FloatArray, float]:
    """Moments of the others once `fixed` are regressed out, and what those earn."""
    if not fixed.size:
        return gram, cross, 0.0
    other = np.setdiff1d(np.arange(len(gram)), fixed)
    size = fixed.size
    lower = factor(gather(gram, fixed, np.empty((size, size))))
    between = solve_right(lower, gram[other].take(fixed, axis=1))
    target = solve_left(lower, cross[fixed])
    left = gram[other].take(other, axis=1) - between @ between.T
    return left, cross[other] - between @ target, float((target**2).sum())


def _one_width(
    gram: FloatArray, cross: FloatArray, owner: NDArray[np.integer], penalty: float
) -> tuple[FloatArray, FloatArray, int]:
    """Sort the columns by owner and pad all players to one number of columns.

    A padding column is uncorrelated with everything, so it earns nothing.
    """
    counts = np.bincount(owner)
    if not counts.all():
        raise ValueError(
            f"owners leaves player {int(np.argmin(counts))} without a column; "
            "number the players 0 to n - 1 without a gap."
        )
    n, width = counts.size, int(counts.max())
    if width == 1 and (np.diff(owner) > 0).all():
        return gram, cross, 1
    order = np.argsort(owner, kind="stable")
    firsts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    slots = owner[order] * width + np.arange(order.size) - firsts[owner[order]]
    padded = np.eye(n * width) * penalty
    padded[np.ix_(slots, slots)] = gram[np.ix_(order, order)]
    targets = np.zeros((n * width, cross.shape[1]))
    targets[slots] = cross[order]
    return padded, targets, width


def _check_owners(owners: ArrayLike | None, n_columns: int) -> NDArray[np.integer]:
    """One owner for each column; each column its own player where none is given."""
    owner = np.arange(n_columns) if owners is None else np.asarray(owners)
    whole = np.issubdtype(owner.dtype, np.integer)
    if owner.shape != (n_columns,) or not whole or owner.max() < 0:
        raise ValueError(
            f"owners has dtype {owner.dtype}, shape {owner.shape} and entries "
            f"{owner.ravel()[:10].tolist()}; give the integer number of a player, or "
            f"-1, for each of the {n_columns} columns, and at least one player."
        )
    return owner


def _check_moments(
    gram: FloatArray, cross: FloatArray, target_variance: float, ridge: float
) -> None:
    """Refuse moments that cannot be those of any data."""
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not gram.size:
        raise ValueError(f"gram must be a square matrix; got shape {gram.shape}.")
    if cross.ndim != 2 or len(cross) != len(gram):
        raise ValueError(
            f"cross must have one row for each of the {len(gram)} columns of gram; "
            f"got shape {cross.shape}."
        )
    if not (np.isfinite(gram).all() and np.isfinite(cross).all()):
        raise ValueError("gram or cross holds NaN or infinity; check the activations.")
    if not (np.isfinite(target_variance) and target_variance >= 0):
        raise ValueError(
            f"target_variance must be finite and not negative; got {target_variance}."
        )
    if not (np.isfinite(ridge) and ridge >= 0):
        raise ValueError(f"ridge must be finite and not negative; got {ridge}.")
