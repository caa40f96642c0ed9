"""Power indices as the coefficients of the nearest linear game."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from skprune.games import Game
from skprune.samplers import bernoulli_coalitions, complement_pairs
from skprune.scorers._sampling import Estimate, Sampling, TooFewSamplesError

__all__ = ["LeastSquares", "PairedLeastSquares"]


class LeastSquares(Sampling):
    """Coefficients of the linear game nearest to a game.

    Under independent players the best linear approximation has the biased Banzhaf
    values as its coefficients. Standard errors are of the sandwich form (HC2), which
    does not take the residuals for equally large.

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
        self.min_units = self.required_units(game.n_players)
        # Packed to bits: what was played can be large, and is needed once more.
        self.played: list[NDArray[np.uint8]] = []
        self.responses: list[NDArray[np.float64]] = []

    @classmethod
    def required_units(cls, n_players: int) -> int:
        """Return the number of units below which the fit is not stable."""
        return 3 * n_players + 20

    def draw(self, n_units: int, rng: np.random.Generator) -> None:
        """Draw further coalitions."""
        coalitions, responses = self._play(n_units, rng)
        self.played.append(np.packbits(coalitions, axis=1))
        self.responses.append(responses)

    def estimate(self) -> Estimate:
        """Return the coefficients of the players and their standard errors."""
        # Products split over threads differ in their last bits.
        with threadpool_limits(limits=1, user_api="blas"):
            return self._solve()

    def _solve(self) -> Estimate:
        """Fit what was drawn so far."""
        moment = np.sum([design.T @ y for design, y in self._designs()], axis=0)
        inverse = self._inverse()
        coefficients = inverse @ moment
        variances = np.zeros_like(coefficients)
        for design, y in self._designs():
            influence = design @ inverse
            leverage = np.einsum("ij,ij->i", influence, design)
            errors = (y - design @ coefficients) ** 2
            # A leverage of one leaves no residual to judge by; its error is unknown.
            variances += (errors / np.maximum(1 - leverage, 1e-9)) @ influence**2
        return self._players(coefficients), self._players(np.sqrt(variances))

    def _play(
        self, n_units: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Coalitions and their payoffs."""
        coalitions = bernoulli_coalitions(
            self.game.n_players,
            n_units,
            rng,
            inclusion_probability=self.inclusion_probability,
        )
        return coalitions, self.game(coalitions)

    def _design(self, coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Regressors of coalitions: a constant and the centred memberships."""
        design = np.empty((len(coalitions), coalitions.shape[1] + 1))
        design[:, 0] = 1.0
        design[:, 1:] = coalitions - self.inclusion_probability
        return design

    def _players(self, per_regressor: NDArray[np.float64]) -> NDArray[np.float64]:
        """What belongs to the players: all but the constant."""
        return per_regressor[1:]

    def _designs(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Yield regressors and responses, one batch at a time."""
        n = self.game.n_players
        for packed, responses in zip(self.played, self.responses, strict=True):
            coalitions = np.unpackbits(packed, axis=1, count=n).astype(bool)
            yield self._design(coalitions), responses

    def _inverse(self) -> NDArray[np.float64]:
        """Inverse of the Gram matrix, refused where the fit has no one solution."""
        gram = np.zeros(())
        for design, _ in self._designs():
            gram = gram + design.T @ design
        try:
            inverse = np.asarray(np.linalg.inv(gram), dtype=np.float64)
        except np.linalg.LinAlgError:
            inverse = np.full_like(gram, np.inf)
        if not np.linalg.norm(gram, 1) * np.linalg.norm(inverse, 1) < 1e10:
            raise TooFewSamplesError(
                "sampler='least_squares' has no unique solution: some players were "
                "always present, absent or together in the coalitions drawn; raise "
                "n_evaluations or use sampler='flips'."
            )
        return inverse


class PairedLeastSquares(LeastSquares):
    """Least squares on pairs of complements, for coalitions of fair coins.

    Half the difference of a coalition and its complement holds no even interaction,
    so that neither these nor the constant disturb the fit.

    Parameters
    ----------
    game : Game
        The game to play.
    """

    unit_cost = 2
    samples_per_unit = 2

    def __init__(self, game: Game) -> None:
        super().__init__(game, 0.5)

    @classmethod
    def required_units(cls, n_players: int) -> int:
        """Return the number of pairs below which the fit is not stable."""
        return (3 * n_players + 1) // 2 + 10

    def _play(
        self, n_units: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        coalitions = complement_pairs(self.game.n_players, 2 * n_units, rng)
        payoffs = self.game(coalitions)
        return coalitions[::2], (payoffs[::2] - payoffs[1::2]) / 2

    def _design(self, coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
        design: NDArray[np.float64] = coalitions.astype(np.float64) - 0.5
        return design

    def _players(self, per_regressor: NDArray[np.float64]) -> NDArray[np.float64]:
        return per_regressor
