"""The reconstruction game: how much of a target the present players still explain."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from skprune.games._base import Game
from skprune.games._checks import check_coalitions, check_mask, check_orders

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
        G = G + penalty * np.eye(len(G))
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
        self._gram, self._cross, self._base, self._width = gram, cross, base, width
        self.players = players
        self.n_players = len(players)

    def _payoffs(self, coalitions: NDArray[np.bool_]) -> FloatArray:
        return np.array([self._explained(coalition) for coalition in coalitions])

    def _explained(self, coalition: NDArray[np.bool_]) -> float:
        """Payoff of one coalition."""
        present = np.repeat(coalition, self._width)
        if not present.any():
            return self._base
        factor = np.linalg.cholesky(self._gram[np.ix_(present, present)])
        projected = solve_triangular(factor, self._cross[present], lower=True)
        return self._base + float((projected**2).sum())

    def walk(self, orders: NDArray[np.integer]) -> FloatArray:
        """Marginals along orders by one factorisation each; see `Game.walk`."""
        orders = self._single_block(check_orders(orders, self.n_players))
        marginals = np.empty(orders.shape)
        for row, order in zip(marginals, orders, strict=True):
            columns = self._columns(order)
            factor = np.linalg.cholesky(self._gram[np.ix_(columns, columns)])
            projected = solve_triangular(factor, self._cross[columns], lower=True)
            gains = (projected**2).sum(axis=1)
            row[order] = gains.reshape(-1, self._width).sum(axis=1)
        return marginals

    def flip(self, coalitions: NDArray[np.bool_]) -> FloatArray:
        """Marginals around coalitions in closed form; see `Game.flip`."""
        if np.ndim(coalitions) == 3:
            coalitions = self._single_block(np.asarray(coalitions))
        coalitions = check_coalitions(coalitions, self.n_players)
        marginals = [self._flip_one(coalition) for coalition in coalitions]
        return np.array(marginals).reshape(-1, self.n_players)

    def _flip_one(self, coalition: NDArray[np.bool_]) -> FloatArray:
        """Every player's marginal around one coalition."""
        inside, outside = np.flatnonzero(coalition), np.flatnonzero(~coalition)
        marginals = np.empty(self.n_players)
        if not inside.size:
            return self._gains(self._gram, self._cross)
        s, o = self._columns(inside), self._columns(outside)
        factor = cho_factor(self._gram[np.ix_(s, s)], lower=True)
        inverse = cho_solve(factor, np.eye(s.size))
        weights = inverse @ self._cross[s]
        # Removing i from S loses tr Wᵢᵀ (A⁻¹)ᵢᵢ⁻¹ Wᵢ: the mirror image of a gain.
        marginals[inside] = self._gains(inverse, weights)
        if outside.size:
            between = self._gram[np.ix_(o, s)]
            left = self._gram[np.ix_(o, o)] - between @ inverse @ between.T
            marginals[outside] = self._gains(left, self._cross[o] - between @ weights)
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
        for k steps, n columns and q targets.
        """
        n, width = self.n_players, self._width
        if not 0 <= n_steps <= n:
            raise ValueError(
                f"n_steps={n_steps} must lie between 0 and the {n} players."
            )
        residual = self._cross.copy()
        factor = np.zeros((n * width, n_steps * width))
        blocks = self._diagonal_blocks(self._gram)
        free = np.ones(n, dtype=bool)
        order, marginals = np.empty(n_steps, dtype=np.intp), np.empty(n_steps)
        for step in range(n_steps):
            gains = np.where(free, _block_gains(blocks, residual), -np.inf)
            best = int(gains.argmax())
            order[step], marginals[step], free[best] = best, gains[best], False
            own = slice(best * width, (best + 1) * width)
            used = factor[:, : step * width]
            column = self._gram[:, own] - used @ used[own].T
            root = np.linalg.cholesky(blocks[best])
            new = solve_triangular(root, column.T, lower=True).T
            factor[:, step * width : (step + 1) * width] = new
            residual -= new @ solve_triangular(root, residual[own], lower=True)
            tall = new.reshape(n, width, width)
            blocks[free] -= tall[free] @ tall[free].transpose(0, 2, 1)
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

    def _diagonal_blocks(self, matrix: FloatArray) -> FloatArray:
        """Blocks of shape (n, width, width) on the diagonal, one for each player."""
        width = self._width
        n = len(matrix) // width
        index = np.arange(n)
        return matrix.reshape(n, width, n, width)[index, :, index, :].copy()

    def _gains(self, matrix: FloatArray, right: FloatArray) -> FloatArray:
        """tr Rᵢᵀ Dᵢ⁻¹ Rᵢ for every diagonal block Dᵢ of `matrix`."""
        return _block_gains(self._diagonal_blocks(matrix), right)


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
    factor = np.linalg.cholesky(gram[np.ix_(fixed, fixed)])
    between = solve_triangular(factor, gram[np.ix_(fixed, other)], lower=True)
    target = solve_triangular(factor, cross[fixed], lower=True)
    left = gram[np.ix_(other, other)] - between.T @ between
    return left, cross[other] - between.T @ target, float((target**2).sum())


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
