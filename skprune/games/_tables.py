"""Small games given by a table of the payoffs of all coalitions."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skprune.games._base import Game

__all__ = ["PerturbedUniformGame", "TableGame", "three_player_game"]

# The most players for which a table of all payoffs is drawn (8 MB of payoffs).
_MAX_TABLE_PLAYERS = 20


class TableGame(Game):
    """A game given by the payoffs of all its coalitions.

    Parameters
    ----------
    payoffs : array-like of shape (2**n_players,)
        Payoff of each coalition, at the index whose bit i says whether player i is
        present.

    Examples
    --------
    >>> import numpy as np
    >>> from skprune.games import TableGame
    >>> TableGame([0, 1, 2, 4])(np.array([[True, False], [True, True]]))
    array([1., 4.])
    """

    def __init__(self, payoffs: ArrayLike) -> None:
        self.table = np.asarray(payoffs, dtype=np.float64)
        self.n_players = self.table.size.bit_length() - 1
        if self.table.shape != (2**self.n_players,) or self.n_players < 1:
            raise ValueError(
                f"payoffs of shape {self.table.shape} must have shape (2**n_players,) "
                "with at least one player."
            )

    def _payoffs(self, coalitions: NDArray[np.bool_]) -> ArrayLike:
        return self.table[coalitions @ (1 << np.arange(self.n_players))]


def three_player_game() -> TableGame:
    """Return the three sellers of Stier et al., section 3.1.

    Returns
    -------
    game : TableGame
        Its Shapley values are 1.5, 2 and 1.5.

    References
    ----------
    J. Stier, G. Gianini, M. Granitzer and K. Ziegler, "Analysing neural network
    topologies: a game theoretic approach", 2018, section 3.1.

    Examples
    --------
    >>> from skprune.games import three_player_game
    >>> three_player_game().table
    array([0., 1., 2., 4., 2., 3., 3., 5.])
    """
    return TableGame([0, 1, 2, 4, 2, 3, 3, 5])


class PerturbedUniformGame(TableGame):
    """A randomly perturbed uniform game: players are worth nearly the same.

    A coalition earns the share of the players in it plus normal noise; the empty
    coalition earns 0 and the grand coalition 1.

    Parameters
    ----------
    n_players : int
        Number of players, at most 20: all payoffs are kept.
    noise : float, default=0.1
        Standard deviation of the noise of a payoff.
    random_state : int, RandomState, Generator or None, default=None
        Draws the noise.

    Notes
    -----
    Section 3.4 of Stier et al. names such games without a formula; this one is ours.

    Examples
    --------
    >>> from skprune.games import PerturbedUniformGame
    >>> PerturbedUniformGame(2, noise=0.0).table
    array([0. , 0.5, 0.5, 1. ])
    """

    def __init__(
        self,
        n_players: int,
        noise: float = 0.1,
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
    ) -> None:
        if not 1 <= n_players <= _MAX_TABLE_PLAYERS:
            raise ValueError(
                f"n_players={n_players} must lie between 1 and {_MAX_TABLE_PLAYERS}: "
                "the payoffs of all coalitions are kept."
            )
        self.noise = noise
        sizes = np.bitwise_count(np.arange(2**n_players))
        payoffs = sizes / n_players
        noises = np.random.default_rng(random_state).normal(0.0, noise, payoffs.size)
        payoffs[1:-1] += noises[1:-1]
        super().__init__(payoffs)
