"""Orders in which players join."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

__all__ = ["antithetic_orders", "sobol_orders", "uniform_orders"]


def uniform_orders(
    n_players: int,
    n_samples: int,
    rng: np.random.Generator,
    *,
    n_blocks: int | None = None,
) -> NDArray[np.intp]:
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
        Number of blocks that each get an order of their own.

    Returns
    -------
    orders : ndarray of int of shape (n_samples, [n_blocks,] n_players)
        The players of each order, the first to join first.

    Examples
    --------
    >>> import numpy as np
    >>> from skprune.samplers import uniform_orders
    >>> uniform_orders(4, 3, np.random.default_rng(0), n_blocks=2).shape
    (3, 2, 4)
    """
    shape: tuple[int, ...] = (n_samples, n_players)
    if n_blocks is not None:
        shape = (n_samples, n_blocks, n_players)
    return rng.permuted(np.broadcast_to(np.arange(n_players), shape), axis=-1)


def antithetic_orders(
    n_players: int,
    n_samples: int,
    rng: np.random.Generator,
    *,
    n_blocks: int | None = None,
) -> NDArray[np.intp]:
    """Draw orders in pairs: each uniform order is followed by its reverse.

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
    orders : ndarray of int of shape (n_samples, [n_blocks,] n_players)
        Row 2k + 1 is the reverse of row 2k.

    Examples
    --------
    >>> import numpy as np
    >>> from skprune.samplers import antithetic_orders
    >>> first, second = antithetic_orders(4, 2, np.random.default_rng(0))
    >>> bool((first == second[::-1]).all())
    True
    """
    forward = uniform_orders(n_players, (n_samples + 1) // 2, rng, n_blocks=n_blocks)
    pairs = np.stack([forward, forward[..., ::-1]], axis=1)
    return pairs.reshape(-1, *forward.shape[1:])[:n_samples]


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
