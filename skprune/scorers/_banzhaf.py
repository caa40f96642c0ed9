"""Banzhaf values: the mean marginal around coalitions of (biased) coins."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils._param_validation import Interval, Real, StrOptions

from skprune.games import Game
from skprune.samplers import bernoulli_coalitions
from skprune.scorers._base import PowerIndexScorer
from skprune.scorers._least_squares import LeastSquares, PairedLeastSquares
from skprune.scorers._sampling import CoalitionMeans, Sampling

__all__ = ["BanzhafScorer", "BiasedBanzhafScorer"]

# Estimates from coalitions need each player often enough on either side.
_MIN_EXPECTED_COUNT = 20


class _CoinScorer(PowerIndexScorer):
    """What the Banzhaf values share: coalitions of independent coins."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **PowerIndexScorer._parameter_constraints,
        "sampler": [StrOptions({"auto", "flips", "least_squares", "sample_reuse"})],
    }

    inclusion_probability: float

    def coalition_weights(self, n_players: int) -> NDArray[np.float64]:
        """Return ``d**size * (1 - d)**(n - 1 - size)`` for every size of the others."""
        sizes, d = np.arange(n_players), self.inclusion_probability
        return d**sizes * (1 - d) ** (n_players - 1 - sizes)

    def draw_marginals(
        self, game: Game, n_samples: int, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Flip every player of drawn coalitions."""
        return game.flip(
            bernoulli_coalitions(
                game.n_players,
                n_samples,
                rng,
                inclusion_probability=self.inclusion_probability,
                n_blocks=game.n_blocks if game.n_blocks > 1 else None,
            )
        )

    def _sampling(self, game: Game, n_evaluations: int) -> Sampling:
        sampler = self._resolve_sampler(game, n_evaluations)
        if sampler == "flips":
            return super()._sampling(game, n_evaluations)
        if sampler == "sample_reuse":
            return CoalitionMeans(game, self.inclusion_probability)
        fit = self._fit(game)
        if n_evaluations < fit.min_units * fit.unit_cost:
            raise ValueError(
                f"n_evaluations={n_evaluations} is too few for sampler='least_squares' "
                f"with {game.n_players} players; it must be at least "
                f"{fit.min_units * fit.unit_cost}, or use sampler='sample_reuse'."
            )
        return fit

    def _fit(self, game: Game) -> LeastSquares:
        """The regression that fits this bias."""
        if self.inclusion_probability == 0.5:
            return PairedLeastSquares(game)
        return LeastSquares(game, self.inclusion_probability)

    def _resolve_sampler(self, game: Game, n_evaluations: int) -> str:
        """Name of the sampler that "auto" stands for."""
        if self.sampler != "auto":
            return str(self.sampler)
        d = self.inclusion_probability
        expected_count = min(d, 1 - d) * n_evaluations
        if game.flips_natively or expected_count < _MIN_EXPECTED_COUNT:
            return "flips"
        fit = self._fit(game)
        if n_evaluations >= fit.min_units * fit.unit_cost:
            return "least_squares"
        return "sample_reuse"


class BiasedBanzhafScorer(_CoinScorer):
    """The biased Banzhaf value of every player: the power index of GTAP.

    Parameters
    ----------
    inclusion_probability : float, default=0.225
        Probability d that each other player is present, between 0 and 1, both
        excluded. The default is the size that GTAP finds critical for LeNet5; at 0.5
        this is the Banzhaf value.
    sampler : {"auto", "flips", "least_squares", "sample_reuse"}, default="auto"
        "flips" averages the marginals around drawn coalitions. "least_squares" fits a
        linear game to drawn coalitions and their payoffs, "sample_reuse" compares the
        mean payoffs with and without each player. "auto" is "flips" where the game
        plays them faster than their payoffs, or a player would be in (or out) less
        than 20 times; elsewhere "least_squares" if about three payoffs per player can
        be paid, else "sample_reuse".
    method : {"auto", "exact", "sampling"}, default="auto"
        "exact" plays all ``2**n_players`` coalitions, of 20 players at most, and pays
        no heed to the budget. "auto" does so where the budget allows it.
    n_evaluations : int or "auto", default="auto"
        Budget, in payoffs of the whole data set. A flip counts `n_players`, and one
        more where the game has no flips of its own. "auto" is the larger of 10,000 and
        ``40 * n_players``.
    tol : float, default=None
        Stop where the largest standard error is at most this.
    stable_ranking : float, default=None
        Stop where the rank correlation (Spearman) between the scores and those at
        half as many samples is at least this.
    random_state : int, RandomState, Generator or None, default=None
        Draws the samples; an int gives the same scores in every call.

    References
    ----------
    M. Diaz-Ortiz Jr, B. Kempinski et al., "Using cooperative game theory to prune
    neural networks" (GTAP), Algorithm 2 and footnote 5.

    Examples
    --------
    >>> from skprune.games import UnanimityGame
    >>> from skprune.scorers import BiasedBanzhafScorer
    >>> scorer = BiasedBanzhafScorer(inclusion_probability=0.2)
    >>> scorer.estimate(UnanimityGame(3, carrier=[0, 1])).values
    array([0.2, 0.2, 0. ])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **_CoinScorer._parameter_constraints,
        "inclusion_probability": [Interval(Real, 0, 1, closed="neither")],
    }

    def __init__(
        self,
        inclusion_probability: float = 0.225,
        *,
        sampler: str = "auto",
        method: str = "auto",
        n_evaluations: int | str = "auto",
        tol: float | None = None,
        stable_ranking: float | None = None,
        random_state: Any = None,
    ) -> None:
        super().__init__(
            method=method,
            n_evaluations=n_evaluations,
            tol=tol,
            stable_ranking=stable_ranking,
            random_state=random_state,
        )
        self.inclusion_probability = inclusion_probability
        self.sampler = sampler


class BanzhafScorer(_CoinScorer):
    """The Banzhaf value of every player: the mean marginal over all coalitions.

    Parameters
    ----------
    sampler : {"auto", "flips", "least_squares", "sample_reuse"}, default="auto"
        "flips" averages the marginals around drawn coalitions. "least_squares" fits a
        linear game to pairs of complements and their payoffs, "sample_reuse" compares
        the mean payoffs with and without each player. "auto" is "flips" where the game
        plays them faster than their payoffs, or the budget is below 40 payoffs;
        elsewhere "least_squares" if about three payoffs per player can be paid, else
        "sample_reuse".
    method : {"auto", "exact", "sampling"}, default="auto"
        "exact" plays all ``2**n_players`` coalitions, of 20 players at most, and pays
        no heed to the budget. "auto" does so where the budget allows it.
    n_evaluations : int or "auto", default="auto"
        Budget, in payoffs of the whole data set. A flip counts `n_players`, and one
        more where the game has no flips of its own. "auto" is the larger of 10,000 and
        ``40 * n_players``.
    tol : float, default=None
        Stop where the largest standard error is at most this.
    stable_ranking : float, default=None
        Stop where the rank correlation (Spearman) between the scores and those at
        half as many samples is at least this.
    random_state : int, RandomState, Generator or None, default=None
        Draws the samples; an int gives the same scores in every call.

    References
    ----------
    J. F. Banzhaf, "Weighted voting doesn't work: a mathematical analysis", 1965.

    Examples
    --------
    >>> from skprune.games import un_security_council
    >>> from skprune.scorers import BanzhafScorer
    >>> scorer = BanzhafScorer(method="exact")
    >>> scorer.estimate(un_security_council()).values[[0, 14]] * [1024, 4096]
    array([53., 21.])
    """

    inclusion_probability = 0.5

    def __init__(
        self,
        *,
        sampler: str = "auto",
        method: str = "auto",
        n_evaluations: int | str = "auto",
        tol: float | None = None,
        stable_ranking: float | None = None,
        random_state: Any = None,
    ) -> None:
        super().__init__(
            method=method,
            n_evaluations=n_evaluations,
            tol=tol,
            stable_ranking=stable_ranking,
            random_state=random_state,
        )
        self.sampler = sampler
