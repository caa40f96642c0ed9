"""Orders in which players join."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from skprune.games import BlockOrders

__all__ = ["antithetic_orders", "sobol_orders", "uniform_orders"]


def uniform_orders(
    n_players: int,
    n_samples: int,
    rng: np.random.Generator,
    *,
    n_blocks: int | None = None,
) -> NDArray[np.intp] | BlockOrders:
    """Draw independent orders, all equally likely.

    Parameters
    ----------
    n_players : int
        Number of players.
    n_samples : int
        Number of orders.
    rng : numpy.random.Generator
        Draws them.
    n_blocks : int, optional
        Number of blocks that each get an order of their own: any two of these orders
        are independent.

    Returns
    -------
    orders : ndarray of int of shape (n_samples, n_players) or BlockOrders
        The players of each order, the first to join first. With blocks they have the
        shape (n_samples, n_blocks, n_players), and are no array yet.

    Examples
    --------
    >>> import numpy as np
    >>> from skprune.samplers import uniform_orders
    >>> uniform_orders(4, 3, np.random.default_rng(0), n_blocks=2).shape
    (3, 2, 4)
    """
    return _for_blocks(_permutations(n_players, n_samples, rng), n_blocks, rng)


def antithetic_orders(
    n_players: int,
    n_samples: int,
    rng: np.random.Generator,
    *,
    n_blocks: int | None = None,
) -> NDArray[np.intp] | BlockOrders:
    """Draw uniform orders in pairs of an order and its reverse.

    Parameters
    ----------
    n_players : int
        Number of players.
    n_samples : int
        Number of orders; the last one of an odd number has no partner.
    rng : numpy.random.Generator
        Draws them.
    n_blocks : int, optional
        Number of blocks that each get an order of their own.

    Returns
    -------
    orders : ndarray of int of shape (n_samples, n_players) or BlockOrders
        Row 2k + 1 is the reverse of row 2k, in every block.

    Examples
    --------
    >>> import numpy as np
    >>> from skprune.samplers import antithetic_orders
    >>> first, second = antithetic_orders(4, 2, np.random.default_rng(0))
    >>> bool((first == second[::-1]).all())
    True
    """
    forward = _permutations(n_players, (n_samples + 1) // 2, rng)
    pairs = np.stack([forward, forward[:, ::-1]], axis=1)
    orders = pairs.reshape(-1, n_players)[:n_samples]
    return _for_blocks(orders, n_blocks, rng)


def sobol_orders(
    n_players: int, n_samples: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Draw orders that cover all orders evenly: ranks of scrambled Sobol points.

    Each order alone is uniform; together they are not independent, so that errors are
    measured over calls, not over the orders of one.

    Parameters
    ----------
    n_players : int
        Number of players, at most 21,201 (the dimensions of SciPy's Sobol points).
    n_samples : int
        Number of orders, a power of two.
    rng : numpy.random.Generator
        Scrambles the points.

    Returns
    -------
    orders : ndarray of int of shape (n_samples, n_players)
        The players of each order, the first to join first.

    Raises
    ------
    ValueError
        If `n_samples` is no power of two, or there are too many players.

    Examples
    --------
    >>> import numpy as np
    >>> from skprune.samplers import sobol_orders
    >>> orders = sobol_orders(4, 8, np.random.default_rng(0))
    >>> orders.shape
    (8, 4)
    """
    exponent = n_samples.bit_length() - 1
    if n_samples < 1 or n_samples != 2**exponent:
        raise ValueError(
            f"n_samples={n_samples} must be a power of two: only then are Sobol points "
            "balanced."
        )
    if n_players > qmc.Sobol.MAXDIM:
        raise ValueError(
            f"n_players={n_players} is more than the {qmc.Sobol.MAXDIM} dimensions of "
            "Sobol points; use antithetic orders."
        )
    # SciPy spawns generators, which one made from a RandomState cannot do.
    seed = int(rng.integers(2**63))
    points = qmc.Sobol(n_players, scramble=True, rng=seed).random_base2(exponent)
    return np.argsort(points, axis=1, kind="stable")


def _for_blocks(
    orders: NDArray[np.intp], n_blocks: int | None, rng: np.random.Generator
) -> NDArray[np.intp] | BlockOrders:
    """Orders of one block; or of many, each of which names the players anew."""
    if n_blocks is None:
        return orders
    return BlockOrders(orders, _permutations(orders.shape[1], n_blocks, rng))


def _permutations(
    n_players: int, n_samples: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Independent permutations, shape (n_samples, n_players)."""
    players = np.broadcast_to(np.arange(n_players), (n_samples, n_players))
    return rng.permuted(players, axis=1)
