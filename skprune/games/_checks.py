"""What is checked where coalitions, orders and payoffs enter a game."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skprune.games._block_orders import BlockOrders

__all__ = ["check_coalitions", "check_mask", "check_orders", "check_payoffs"]


def check_coalitions(coalitions: Any, n_players: int) -> NDArray[np.bool_]:
    """Check coalitions where they enter a game.

    Parameters
    ----------
    coalitions : array-like of bool of shape (n_coalitions, n_players)
        True where a player is present.
    n_players : int
        Number of players of the game.

    Returns
    -------
    coalitions : ndarray of bool of shape (n_coalitions, n_players)

    Raises
    ------
    TypeError
        If they are not boolean.
    ValueError
        If their shape is wrong.
    """
    coalitions = np.asarray(coalitions)
    if coalitions.dtype != np.bool_:
        raise TypeError(
            f"coalitions must be boolean, got dtype {coalitions.dtype} and shape "
            f"{coalitions.shape}; convert 0/1 masks with .astype(bool)."
        )
    if coalitions.ndim not in (1, 2) or coalitions.shape[-1] != n_players:
        raise ValueError(
            f"coalitions must have shape (n_coalitions, {n_players}), got "
            f"{coalitions.shape}."
        )
    # One coalition alone is what other packages ask for too.
    return np.atleast_2d(coalitions)


def check_payoffs(
    payoffs: NDArray[np.float64], coalitions: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Payoffs, refused where they are not one finite number per coalition."""
    if payoffs.shape != (len(coalitions),):
        raise ValueError(
            f"the game returned payoffs of shape {payoffs.shape} for "
            f"{len(coalitions)} coalitions; it must return one number for each."
        )
    bad = np.flatnonzero(~np.isfinite(payoffs))
    if bad.size:
        value = "NaN" if np.isnan(payoffs[bad[0]]) else "infinite"
        players = np.flatnonzero(coalitions[bad[0]])
        raise ValueError(
            f"the payoff of a coalition is {value} (players {players[:20].tolist()}"
            f"{', ...' if players.size > 20 else ''}); power indices need finite "
            "payoffs, so repair the game or the data behind it."
        )
    return payoffs


def check_orders(orders: Any, n_players: int) -> NDArray[np.intp]:
    """Check orders where they enter a game.

    Parameters
    ----------
    orders : array-like of int of shape (n_orders, [n_blocks,] n_players)
        Permutations of the players; BlockOrders are known to be such.
    n_players : int
        Number of players of the game.

    Returns
    -------
    orders : ndarray of int

    Raises
    ------
    TypeError
        If they are no integers.
    ValueError
        If their shape is wrong or one is no permutation.
    """
    is_checked = isinstance(orders, BlockOrders)
    orders = np.asarray(orders)
    if not np.issubdtype(orders.dtype, np.integer):
        raise TypeError(f"orders must be integers, got dtype {orders.dtype}.")
    if orders.ndim not in (2, 3) or orders.shape[-1] != n_players:
        raise ValueError(
            f"orders must have shape (n_orders, {n_players}), got {orders.shape}."
        )
    if not is_checked and (np.sort(orders) != np.arange(n_players)).any():
        raise ValueError(
            f"each order must hold every player from 0 to {n_players - 1} once."
        )
    return orders


def check_mask(name: str, mask: Any, n_players: int) -> NDArray[np.bool_]:
    """Check a mask over players.

    Parameters
    ----------
    name : str
        What the mask is called in an error.
    mask : array-like of bool of shape (n_players,) or None
        None selects nobody.
    n_players : int
        Number of players of the game.

    Returns
    -------
    mask : ndarray of bool of shape (n_players,)

    Raises
    ------
    ValueError
        If it is not boolean or its shape is wrong.
    """
    if mask is None:
        return np.zeros(n_players, dtype=bool)
    mask = np.asarray(mask)
    if mask.dtype != np.bool_ or mask.shape != (n_players,):
        raise ValueError(
            f"{name} must be a boolean mask of shape ({n_players},), got dtype "
            f"{mask.dtype} and shape {mask.shape}."
        )
    return mask
