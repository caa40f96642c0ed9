"""Plain functions of coalitions, played as games."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skprune.games._base import Game

__all__ = ["CallableGame", "as_game"]


class CallableGame(Game):
    """A plain function of coalitions, played as a game.

    Parameters
    ----------
    function : callable
        Takes a boolean array of shape (n_coalitions, n_players) and returns the
        payoffs, shape (n_coalitions,), the same ones in every call.
    n_players : int
        Number of players.

    Examples
    --------
    >>> from skprune.games import CallableGame
    >>> CallableGame(lambda coalitions: coalitions.sum(axis=1), 3).n_players
    3
    """

    def __init__(self, function: Callable[[Any], Any], n_players: int) -> None:
        self.function = function
        self.n_players = n_players

    def _payoffs(self, coalitions: NDArray[np.bool_]) -> ArrayLike:
        return self.function(coalitions)


def as_game(obj: Any, n_players: int | None = None) -> Game:
    """Return `obj` as a Game.

    Parameters
    ----------
    obj : Game or callable
        A game, or a callable that takes boolean coalitions of shape
        (n_coalitions, n_players) and returns their payoffs.
    n_players : int, optional
        Number of players; read from ``obj.n_players`` when not given.

    Returns
    -------
    game : Game
        `obj` itself where it is a Game already.

    Raises
    ------
    TypeError
        If `obj` is not callable, or its number of players is not known.
    ValueError
        If `n_players` is not positive or differs from ``obj.n_players``.

    Examples
    --------
    >>> from skprune.games import as_game
    >>> as_game(lambda coalitions: coalitions.sum(axis=1), n_players=3).n_players
    3
    """
    if not callable(obj):
        raise TypeError(
            f"game={obj!r} is not callable; pass a Game, or a function from boolean "
            "coalitions to payoffs with its n_players."
        )
    known = getattr(obj, "n_players", None)
    if known is None and n_players is None:
        raise TypeError(
            f"the number of players of game={obj!r} is not known; call "
            "as_game(function, n_players=...) or give the object that attribute."
        )
    if known is not None and n_players is not None and int(known) != n_players:
        raise ValueError(f"n_players={n_players}, but the game has {known} players.")
    count = int(known if known is not None else n_players)  # type: ignore[arg-type]
    if count < 1:
        raise ValueError(f"n_players={count}; a game needs at least one player.")
    return obj if isinstance(obj, Game) else CallableGame(obj, count)
