"""Coalitions of players to play."""

import numpy as np
from numpy.typing import NDArray

from skprune.samplers._orders import uniform_orders

__all__ = ["bernoulli_coalitions", "complement_pairs", "fixed_size_coalitions"]


def bernoulli_coalitions(
    n_players: int,
    n_samples: int,
    rng: np.random.Generator,
    *,
    inclusion_probability: float = 0.5,
    n_blocks: int | None = None,
) -> NDArray[np.bool_]:
    """Draw coalitions that each player joins independently of the others.

    Parameters
    ----------
    n_players : int
        Number of players.
    n_samples : int
        Number of coalitions.
    rng : numpy.random.Generator
        Draws them.
    inclusion_probability : float, default=0.5
        Probability that a player is present.
    n_blocks : int, optional
        Number of blocks that each get a coalition of their own.

    Returns
    -------
    coalitions : ndarray of bool of shape (n_samples, [n_blocks,] n_players)
        True where a player is present.

    Raises
    ------
    ValueError
        If `inclusion_probability` is no probability.

    Examples
    --------
    >>> import numpy as np
    >>> from skprune.samplers import bernoulli_coalitions
    >>> rng = np.random.default_rng(0)
    >>> bernoulli_coalitions(4, 3, rng, inclusion_probability=0.2, n_blocks=2).shape
    (3, 2, 4)
    """
    if not 0 <= inclusion_probability <= 1:
        raise ValueError(
            f"inclusion_probability={inclusion_probability} must lie between 0 and 1."
        )
    shape: tuple[int, ...] = (n_samples, n_players)
    if n_blocks is not None:
        shape = (n_samples, n_blocks, n_players)
    # The 24 bits of single precision round a probability by less than 1e-7.
    return rng.random(shape, dtype=np.float32) < np.float32(inclusion_probability)


def complement_pairs(
    n_players: int, n_samples: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Draw uniform coalitions in pairs: each one is followed by its complement.

    Parameters
    ----------
    n_players : int
        Number of players.
    n_samples : int
        Number of coalitions; the last one of an odd number has no partner.
    rng : numpy.random.Generator
        Draws them.

    Returns
    -------
    coalitions : ndarray of bool of shape (n_samples, n_players)
        Row 2k + 1 is the complement of row 2k.

    Examples
    --------
    >>> import numpy as np
    >>> from skprune.samplers import complement_pairs
    >>> first, second = complement_pairs(4, 2, np.random.default_rng(0))
    >>> bool((first == ~second).all())
    True
    """
    first = bernoulli_coalitions(n_players, (n_samples + 1) // 2, rng)
    return np.stack([first, ~first], axis=1).reshape(-1, n_players)[:n_samples]


def fixed_size_coalitions(
    n_players: int,
    n_samples: int,
    rng: np.random.Generator,
    *,
    size: int,
    n_blocks: int | None = None,
) -> NDArray[np.bool_]:
    """Draw coalitions of one size, all equally likely.

    Parameters
    ----------
    n_players : int
        Number of players.
    n_samples : int
        Number of coalitions.
    rng : numpy.random.Generator
        Draws them.
    size : int
        Number of players present in each coalition.
    n_blocks : int, optional
        Number of blocks that each get a coalition of their own.

    Returns
    -------
    coalitions : ndarray of bool of shape (n_samples, [n_blocks,] n_players)
        True where a player is present.

    Raises
    ------
    ValueError
        If there are fewer than `size` players.

    Examples
    --------
    >>> import numpy as np
    >>> from skprune.samplers import fixed_size_coalitions
    >>> fixed_size_coalitions(5, 3, np.random.default_rng(0), size=2).sum(axis=1)
    array([2, 2, 2])
    """
    if not 0 <= size <= n_players:
        raise ValueError(f"size={size} must lie between 0 and n_players={n_players}.")
    # The ranks of a uniform order are uniform too, so the order itself can serve.
    orders = uniform_orders(n_players, n_samples, rng, n_blocks=n_blocks)
    return np.asarray(orders) < size
