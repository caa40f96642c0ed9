"""Ways to estimate the power indices of a game from samples, with standard errors.

A sampling is the state of one estimate, and is gone with it. It grows by units,
the smallest sets of payoffs that are independent of each other (a walk, a pair of
walks, a coalition, ...).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from skprune.games import Game
from skprune.samplers import bernoulli_coalitions

__all__ = [
    "CoalitionMeans",
    "Estimate",
    "MarginalMeans",
    "Sampling",
    "TooFewSamplesError",
]

Values = NDArray[np.float64]
Estimate = tuple[Values, Values]


class TooFewSamplesError(ValueError):
    """What was drawn does not tell every player's value yet."""


class Sampling(ABC):
    """An estimate that grows by independent units.

    Attributes
    ----------
    unit_cost, fixed_cost : int
        Number of payoffs of each unit, and of what is played once.
    samples_per_unit : int
        Number of walks, flips or coalitions of a unit.
    min_units : int
        Number of units below which standard errors are not to be trusted.
    """

    unit_cost: int
    fixed_cost: int = 0
    samples_per_unit: int = 1
    min_units: int = 16

    @abstractmethod
    def draw(self, n_units: int, rng: np.random.Generator) -> None:
        """Draw further units."""

    @abstractmethod
    def estimate(self) -> Estimate:
        """Return values and standard errors, each of shape (n_players,).

        Raises
        ------
        TooFewSamplesError
            If some player's value is not determined yet.
        """


class MarginalMeans(Sampling):
    """Means of marginals, whose unit may average several of them.

    Parameters
    ----------
    draw_units : callable
        ``draw_units(n_units, rng)`` returns unbiased and independent values of the
        power index, shape (n_units, n_players).
    unit_cost, samples_per_unit, fixed_cost : int
        See `Sampling`.
    """

    def __init__(
        self,
        draw_units: Callable[[int, np.random.Generator], NDArray[np.float64]],
        *,
        unit_cost: int,
        samples_per_unit: int = 1,
        fixed_cost: int = 0,
    ) -> None:
        self.draw_units = draw_units
        self.unit_cost = unit_cost
        self.samples_per_unit = samples_per_unit
        self.fixed_cost = fixed_cost
        self.count = 0
        self.mean: Values = np.zeros(0)
        self.squares, self.low, self.high = self.mean, self.mean, self.mean

    def draw(self, n_units: int, rng: np.random.Generator) -> None:
        """Draw further units and merge their moments into those so far."""
        units = self.draw_units(n_units, rng)
        mean, low, high = units.mean(axis=0), units.min(axis=0), units.max(axis=0)
        squares = ((units - mean) ** 2).sum(axis=0)
        if self.count:
            total = self.count + n_units
            step = mean - self.mean
            squares += self.squares + step**2 * (self.count * n_units / total)
            mean = self.mean + step * (n_units / total)
            low, high = np.minimum(low, self.low), np.maximum(high, self.high)
        self.count += n_units
        self.mean, self.squares, self.low, self.high = mean, squares, low, high

    def estimate(self) -> Estimate:
        """Return the means and their standard errors."""
        if self.count < 2:
            return self.mean, np.full_like(self.mean, np.inf)
        # One more unit as far out as the farthest seen (of the player, or the nearest
        # of these over players where it never varied): a rare swing that was not met
        # yet must not look certain, and few units underestimate heavy tails.
        reach = np.maximum(self.high - self.mean, self.mean - self.low)
        # What varies less than this is constant but for rounding.
        least = 1e-12 * np.maximum(abs(self.high), abs(self.low)).max()
        varying = reach[reach > least]
        if varying.size:
            reach = np.where(reach > least, reach, varying.min())
        variance = (self.squares + reach**2) / (self.count - 1)
        return self.mean, np.sqrt(variance / self.count)


class CoalitionMeans(Sampling):
    """Mean payoff of the coalitions with a player less that of those without.

    Every coalition serves every player (the maximum sample reuse of GTAP, footnote 5).

    Parameters
    ----------
    game : Game
        The game to play.
    inclusion_probability : float
        Probability that a player is present.
    """

    unit_cost = 1

    def __init__(self, game: Game, inclusion_probability: float) -> None:
        self.game = game
        self.inclusion_probability = inclusion_probability
        self.origin: float | None = None
        # Counts, sums and sums of squares; of coalitions without and with the player.
        self.totals = np.zeros((3, 2, game.n_players))

    def draw(self, n_units: int, rng: np.random.Generator) -> None:
        """Draw further coalitions."""
        coalitions = bernoulli_coalitions(
            self.game.n_players,
            n_units,
            rng,
            inclusion_probability=self.inclusion_probability,
        )
        payoffs = self.game(coalitions)
        if self.origin is None:
            self.origin = float(payoffs.mean())
        # Payoffs about their mean, so that sums of squares do not cancel.
        powers = (payoffs - self.origin) ** np.arange(3)[:, None]
        present = powers @ coalitions
        absent = powers.sum(axis=1)[:, None] - present
        self.totals += np.stack([absent, present], axis=1)

    def estimate(self) -> Estimate:
        """Return the differences of means and their standard errors."""
        counts, sums, squares = self.totals
        if (counts == 0).any():
            raise TooFewSamplesError(_one_sided(counts, self.inclusion_probability))
        means = sums / counts
        rest = np.maximum(squares - counts * means**2, 0.0)
        freedom = np.maximum(counts - 1, 1)
        variances = np.where(counts > 1, rest / freedom / counts, np.inf)
        return means[1] - means[0], np.sqrt(variances.sum(axis=0))


def _one_sided(counts: NDArray[np.float64], inclusion_probability: float) -> str:
    """Say that a player was never seen on one side."""
    side, player = np.argwhere(counts == 0)[0]
    return (
        f"player {player} was never {('absent', 'present')[side]} in the "
        f"{int(counts[:, 0].sum())} coalitions drawn with "
        f"inclusion_probability={inclusion_probability}; raise n_evaluations or use "
        "sampler='flips'."
    )
