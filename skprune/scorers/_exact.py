"""Exact power indices: all coalitions of a small game."""

import numpy as np
from numpy.typing import NDArray

from skprune.games import Game

__all__ = ["MAX_EXACT_PLAYERS", "exact_values"]

MAX_EXACT_PLAYERS = 20

# Number of coalitions that are played at once.
_CHUNK = 2**14


def exact_values(game: Game, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum every marginal of every player, weighted by the size of the coalition.

    Parameters
    ----------
    game : Game
        A game of at most 20 players.
    weights : ndarray of shape (n_players,)
        Weight of the marginal that joins a coalition of 0, 1, ... others.

    Returns
    -------
    values : ndarray of shape (n_players,)
        The power index of each player.

    Raises
    ------
    ValueError
        If there are more than 20 players.

    Examples
    --------
    >>> import numpy as np
    >>> from skprune.games import three_player_game
    >>> from skprune.scorers._exact import exact_values
    >>> exact_values(three_player_game(), np.array([1 / 3, 1 / 6, 1 / 3]))
    array([1.5, 2. , 1.5])
    """
    n = game.n_players
    if n > MAX_EXACT_PLAYERS:
        raise ValueError(
            f"method='exact' plays all 2**n_players coalitions, and n_players={n} is "
            f"more than {MAX_EXACT_PLAYERS}; use method='sampling'."
        )
    payoffs, index = np.empty(2**n), np.arange(2**n)
    for start in range(0, 2**n, _CHUNK):
        chunk = index[start : start + _CHUNK]
        payoffs[chunk] = game((chunk[:, None] >> np.arange(n) & 1).astype(bool))
    sizes = np.bitwise_count(index)
    values = np.empty(n)
    for player in range(n):
        # The middle axis is the player's bit: without it, with it.
        without, present = payoffs.reshape(-1, 2, 2**player).swapaxes(0, 1)
        others = sizes.reshape(-1, 2, 2**player)[:, 0]
        # Pairwise summation: a matrix product loses digits and depends on threads.
        values[player] = ((present - without) * weights[others]).ravel().sum()
    return values
