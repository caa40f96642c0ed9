"""What a game is: coalitions in, payoffs out; everything else follows from that."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skprune.games._checks import (
    check_coalitions,
    check_mask,
    check_orders,
    check_payoffs,
)

__all__ = ["Game", "RestrictedGame"]


class Game(ABC):
    """A coalitional game: what each coalition of players earns.

    A subclass sets `n_players` and implements ``_payoffs``. `walk`, `flip` and
    `restrict` follow from that; a game that can do better overrides them. Payoffs must
    not vary from call to call: one is played once and serves many samples, so that
    standard errors would not see its noise. Average a noisy payoff first.

    Attributes
    ----------
    n_players : int
        Number of players.
    n_blocks : int
        Number of blocks of samples that can play their own orders, 1 by default.
        A game with more than one overrides `walk` and `flip`; these then also take
        one order or coalition per block, and average over the blocks.

    Examples
    --------
    >>> import numpy as np
    >>> from skprune.games import Game
    >>> class PairGame(Game):
    ...     n_players = 3
    ...
    ...     def _payoffs(self, coalitions):
    ...         return coalitions[:, 0] & coalitions[:, 1]
    >>> game = PairGame()
    >>> game(np.array([[True, True, False], [True, False, True]]))
    array([1., 0.])
    >>> game.walk(np.array([[2, 0, 1]]))
    array([[0., 1., 0.]])
    >>> game.flip(np.array([[True, False, False]]))
    array([[0., 1., 0.]])
    """

    n_players: int
    n_blocks: int = 1

    # Elements of the largest boolean array that `walk` and `flip` build at once.
    _chunk_elements = 2**24

    @abstractmethod
    def _payoffs(self, coalitions: NDArray[np.bool_]) -> ArrayLike:
        """Payoffs, shape (n_coalitions,), of valid coalitions."""

    def __call__(self, coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Play coalitions.

        Parameters
        ----------
        coalitions : ndarray of bool of shape (n_coalitions, n_players)
            True where a player is present. A single coalition may be given as
            shape (n_players,).

        Returns
        -------
        payoffs : ndarray of float64 of shape (n_coalitions,)
            What each coalition earns.

        Raises
        ------
        TypeError
            If the coalitions are not boolean.
        ValueError
            If their shape is wrong, or a payoff is NaN or infinite.
        """
        coalitions = check_coalitions(coalitions, self.n_players)
        payoffs = np.asarray(self._payoffs(coalitions), dtype=np.float64)
        return check_payoffs(payoffs, coalitions)

    def walk(self, orders: NDArray[np.integer]) -> NDArray[np.float64]:
        """Marginals of all players as they join in the given orders.

        Parameters
        ----------
        orders : ndarray of int of shape (n_orders, n_players)
            Each row a permutation of the players, the first to join first. A game of
            several blocks also takes the shape (n_orders, n_blocks, n_players).

        Returns
        -------
        marginals : ndarray of float64 of shape (n_orders, n_players)
            Column i holds the marginals of player i.

        Raises
        ------
        ValueError
            If a row of `orders` is no permutation of the players.
        """
        orders = self._single_block(check_orders(orders, self.n_players))
        n_orders, n = orders.shape
        ends = self(np.repeat([[False], [True]], n, axis=1))
        payoffs = np.empty((n_orders, n + 1))
        payoffs[:, 0], payoffs[:, n] = ends
        ranks = np.argsort(orders, axis=1)

        def prefixes(index: NDArray[np.intp]) -> NDArray[np.bool_]:
            order, size = np.divmod(index, n - 1)
            return ranks[order] <= size[:, None]

        if n > 1:
            inner = self._play_chunked(prefixes, n_orders * (n - 1))
            payoffs[:, 1:n] = inner.reshape(n_orders, n - 1)
        return np.take_along_axis(np.diff(payoffs, axis=1), ranks, axis=1)

    def flip(self, coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Marginals of all players around the given coalitions.

        Parameters
        ----------
        coalitions : ndarray of bool of shape (n_coalitions, n_players)
            True where a player is present. A game of several blocks also takes the
            shape (n_coalitions, n_blocks, n_players).

        Returns
        -------
        marginals : ndarray of float64 of shape (n_coalitions, n_players)
            Column i holds the payoff with player i less the payoff without it, all
            others as in the coalition.
        """
        if np.ndim(coalitions) == 3:
            coalitions = self._single_block(np.asarray(coalitions))
        coalitions = check_coalitions(coalitions, self.n_players)
        n_coalitions, n = coalitions.shape

        def neighbours(index: NDArray[np.intp]) -> NDArray[np.bool_]:
            center, player = np.divmod(index, n + 1)
            flipped = coalitions[center]
            rows = np.flatnonzero(player < n)
            flipped[rows, player[rows]] ^= True
            return flipped

        payoffs = self._play_chunked(neighbours, n_coalitions * (n + 1))
        payoffs = payoffs.reshape(n_coalitions, n + 1)
        flipped, center = payoffs[:, :n], payoffs[:, n:]
        return np.where(coalitions, center - flipped, flipped - center)

    def greedy_order(
        self, n_steps: int
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Add the player that earns most to nobody, to that one, and so on.

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
        """
        if not 0 <= n_steps <= self.n_players:
            raise ValueError(
                f"n_steps={n_steps} must lie between 0 and n_players={self.n_players}."
            )
        present = np.zeros(self.n_players, dtype=bool)
        order, marginals = np.empty(n_steps, dtype=np.intp), np.empty(n_steps)
        for step in range(n_steps):
            gains = np.where(present, -np.inf, self.flip(present[None])[0])
            order[step] = best = int(gains.argmax())
            marginals[step], present[best] = gains[best], True
        return order, marginals

    def restrict(
        self,
        always_in: NDArray[np.bool_] | None = None,
        always_out: NDArray[np.bool_] | None = None,
    ) -> "Game":
        """Fix some players and return the game of the remaining ones.

        Parameters
        ----------
        always_in, always_out : ndarray of bool of shape (n_players,), optional
            The players that are present, or absent, in every coalition.

        Returns
        -------
        game : Game
            Its attribute `players` holds the indices of its players in this game.

        Raises
        ------
        ValueError
            If a mask has a wrong shape, the masks overlap or no player remains.
        """
        return RestrictedGame(
            self,
            check_mask("always_in", always_in, self.n_players),
            check_mask("always_out", always_out, self.n_players),
        )

    @property
    def reads_block_orders(self) -> bool:
        """Whether `walk` takes BlockOrders as they are; others get the array."""
        return False

    @property
    def walks_natively(self) -> bool:
        """Whether walks cost less than the payoffs they consist of."""
        return type(self).walk is not Game.walk

    @property
    def flips_natively(self) -> bool:
        """Whether flips cost less than the payoffs they consist of."""
        return type(self).flip is not Game.flip

    @property
    def builds_natively(self) -> bool:
        """Whether `greedy_order` costs less than the flips it consists of."""
        return type(self).greedy_order is not Game.greedy_order

    def _play_chunked(
        self, coalitions_at: Callable[[NDArray[np.intp]], NDArray[np.bool_]], total: int
    ) -> NDArray[np.float64]:
        """Play `total` coalitions, built a bounded number at a time."""
        step = max(1, self._chunk_elements // self.n_players)
        payoffs = np.empty(total)
        for start in range(0, total, step):
            index = np.arange(start, min(start + step, total))
            payoffs[index] = self(coalitions_at(index))
        return payoffs

    def _single_block(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Drop the axis of a single block; more blocks need a `walk` of their own."""
        if self.n_blocks > 1:
            raise TypeError(
                f"{type(self).__name__} has n_blocks={self.n_blocks} and must override "
                "walk and flip: the defaults know only one block."
            )
        if samples.ndim == 3 and samples.shape[1] == 1:
            return samples[:, 0]
        if samples.ndim != 2:
            raise ValueError(
                f"expected shape (n_samples, {self.n_players}), got {samples.shape}."
            )
        return samples


class RestrictedGame(Game):
    """The game that is left when some players of a game are fixed.

    Parameters
    ----------
    parent : Game
        The game whose players are fixed.
    always_in, always_out : ndarray of bool of shape (parent.n_players,)
        The players that are present, or absent, in every coalition.

    Attributes
    ----------
    players : ndarray of int of shape (n_players,)
        Indices of the remaining players in `parent`. A restricted game that is
        restricted again keeps the first parent, and so the first numbering.

    Raises
    ------
    ValueError
        If the masks overlap or no player remains.

    Examples
    --------
    >>> import numpy as np
    >>> from skprune.games import un_security_council
    >>> game = un_security_council().restrict(always_in=np.arange(15) < 5)
    >>> game.n_players, game(np.arange(10)[None] < 4)
    (10, array([1.]))
    """

    def __init__(
        self,
        parent: Game,
        always_in: NDArray[np.bool_],
        always_out: NDArray[np.bool_],
    ) -> None:
        both = np.flatnonzero(always_in & always_out)
        if both.size:
            raise ValueError(
                f"always_in and always_out overlap at players {both[:10].tolist()}; "
                "a player can be fixed in one way only."
            )
        self.parent = parent
        self.always_in = always_in
        self.always_out = always_out
        self.players = np.flatnonzero(~(always_in | always_out))
        self.n_players = self.players.size
        self.n_blocks = parent.n_blocks
        if self.n_players == 0:
            raise ValueError(
                f"always_in and always_out fix all {always_in.size} players; leave at "
                "least one free."
            )

    def _payoffs(self, coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
        return self.parent(self._embed(coalitions))

    def walk(self, orders: NDArray[np.integer]) -> NDArray[np.float64]:
        """Marginals of the remaining players; see `Game.walk`."""
        if not self.walks_natively:
            return super().walk(orders)
        orders = self.players[check_orders(orders, self.n_players)]
        shape = orders.shape[:-1]
        first, last = np.flatnonzero(self.always_in), np.flatnonzero(self.always_out)
        full = np.concatenate(
            [
                np.broadcast_to(first, (*shape, first.size)),
                orders,
                np.broadcast_to(last, (*shape, last.size)),
            ],
            axis=-1,
        )
        return self.parent.walk(full)[:, self.players]

    def flip(self, coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Marginals of the remaining players; see `Game.flip`."""
        if not self.flips_natively:
            return super().flip(coalitions)
        return self.parent.flip(self._embed(coalitions))[:, self.players]

    def restrict(
        self,
        always_in: NDArray[np.bool_] | None = None,
        always_out: NDArray[np.bool_] | None = None,
    ) -> Game:
        """Fix further players; masks over the players of this game."""
        masks = []
        for name, mask, fixed in [
            ("always_in", always_in, self.always_in),
            ("always_out", always_out, self.always_out),
        ]:
            full = fixed.copy()
            full[self.players] = check_mask(name, mask, self.n_players)
            masks.append(full)
        return self.parent.restrict(*masks)

    @property
    def walks_natively(self) -> bool:
        """Whether the parent's walks cost less than their payoffs."""
        return self.parent.walks_natively

    @property
    def flips_natively(self) -> bool:
        """Whether the parent's flips cost less than their payoffs."""
        return self.parent.flips_natively

    def _embed(self, coalitions: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Coalitions of this game as coalitions of the parent."""
        coalitions = np.asarray(coalitions)
        shape = (*coalitions.shape[:-1], self.always_in.size)
        full = np.broadcast_to(self.always_in, shape).copy()
        full[..., self.players] = coalitions
        return full
