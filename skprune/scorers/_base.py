"""What a scorer is: an object that says what each player of a game is worth."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, StrOptions

from skprune.base import Documented, warn_user
from skprune.exceptions import ConvergenceWarning
from skprune.games import Game, as_game
from skprune.scorers._exact import MAX_EXACT_PLAYERS, exact_values
from skprune.scorers._sampling import MarginalMeans, Sampling, TooFewSamplesError
from skprune.scorers._stopping import StoppingRule

__all__ = ["PlayerScores", "PowerIndexScorer"]

# Elements of the largest array of orders or coalitions that one batch may draw.
_BATCH_ELEMENTS = 2**21


@dataclass(frozen=True, eq=False)
class PlayerScores:
    """What each player is worth, and how sure that is.

    Attributes
    ----------
    values : ndarray of float64 of shape (n_players,)
        The power index of each player, in units of the payoff.
    standard_errors : ndarray of float64 of shape (n_players,)
        Standard error of each value: 0 where it is exact or no payoff changed in
        any sample, infinite where too few samples were drawn to tell.
    n_evaluations : int
        Number of payoffs of the whole data set that were paid for.
    n_samples : int
        Number of walks, flips or coalitions that were drawn.
    converged : bool
        False where a target was asked for and the budget ran out first.
    stop_reason : {"exact", "budget", "tolerance", "ranking"}
        What ended the estimate.

    Examples
    --------
    >>> from skprune.games import three_player_game
    >>> from skprune.scorers import ShapleyScorer
    >>> scores = ShapleyScorer().estimate(three_player_game())
    >>> scores.values, scores.ranking(), scores.stop_reason
    (array([1.5, 2. , 1.5]), array([1, 0, 2]), 'exact')
    """

    values: NDArray[np.float64]
    standard_errors: NDArray[np.float64]
    n_evaluations: int
    n_samples: int
    converged: bool
    stop_reason: str

    def ranking(self) -> NDArray[np.intp]:
        """Return the players, best first; equal ones in the order of their index."""
        return np.argsort(-self.values, kind="stable")


class PowerIndexScorer(Documented, BaseEstimator, ABC):
    """Base class of the power indices.

    An index is a weighted mean of a player's marginals. A subclass states its law
    twice: `coalition_weights` for exact values and `draw_marginals` for estimates.

    Parameters
    ----------
    method : {"auto", "exact", "sampling"}, default="auto"
        "exact" plays all ``2**n_players`` coalitions, of 20 players at most, and pays
        no heed to the budget. "auto" does so where the budget allows it.
    n_evaluations : int or "auto", default="auto"
        Budget, in payoffs of the whole data set. A walk and a flip count `n_players`
        each, the empty and the grand coalition one each in an estimate by walks.
        "auto" is the larger of 10,000 and ``40 * n_players``.
    tol : float, default=None
        Stop where the largest standard error is at most this.
    stable_ranking : float, default=None
        Stop where the rank correlation (Spearman) between the scores and those at
        half as many samples is at least this.
    random_state : int, RandomState, Generator or None, default=None
        Draws the samples; an int gives the same scores in every call.

    Examples
    --------
    >>> import numpy as np
    >>> from skprune.games import un_security_council
    >>> from skprune.scorers import PowerIndexScorer
    >>> class LeaveOneOutScorer(PowerIndexScorer):
    ...     def coalition_weights(self, n_players):
    ...         return np.append(np.zeros(n_players - 1), 1.0)
    ...
    ...     def draw_marginals(self, game, n_samples, rng):
    ...         return game.flip(np.ones((n_samples, game.n_players), dtype=bool))
    >>> scorer = LeaveOneOutScorer(method="exact")
    >>> scorer.estimate(un_security_council()).values[[0, 14]]
    array([1., 0.])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "method": [StrOptions({"auto", "exact", "sampling"})],
        "n_evaluations": [
            StrOptions({"auto"}),
            Interval(Integral, 1, None, closed="left"),
        ],
        "tol": [None, Interval(Real, 0, None, closed="neither")],
        "stable_ranking": [None, Interval(Real, 0, 1, closed="right")],
        "random_state": ["random_state", np.random.Generator],
    }

    def __init__(
        self,
        *,
        method: str = "auto",
        n_evaluations: int | str = "auto",
        tol: float | None = None,
        stable_ranking: float | None = None,
        random_state: Any = None,
    ) -> None:
        self.method = method
        self.n_evaluations = n_evaluations
        self.tol = tol
        self.stable_ranking = stable_ranking
        self.random_state = random_state

    @abstractmethod
    def coalition_weights(self, n_players: int) -> NDArray[np.float64]:
        """Return the weight of joining one coalition of 0, 1, ... others.

        Parameters
        ----------
        n_players : int
            Number of players of the game.

        Returns
        -------
        weights : ndarray of float64 of shape (n_players,)
            Summed over all coalitions of the others they give 1.
        """

    @abstractmethod
    def draw_marginals(
        self, game: Game, n_samples: int, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Draw marginals whose mean is the index.

        Parameters
        ----------
        game : Game
            The game to play.
        n_samples : int
            Number of walks or flips.
        rng : numpy.random.Generator
            Draws them.

        Returns
        -------
        marginals : ndarray of float64 of shape (n_samples, n_players)
            Rows are independent of each other.
        """

    def estimate(self, game: Game | Callable[[Any], Any]) -> PlayerScores:
        """Score the players of a game.

        Parameters
        ----------
        game : Game or callable
            The game, or a callable with an attribute `n_players`.

        Returns
        -------
        scores : PlayerScores
            Values, standard errors and what they cost.

        Raises
        ------
        ValueError
            If a parameter is invalid, the budget is below one sample, the game is too
            large for ``method="exact"``, or a payoff is NaN or infinite.

        Warns
        -----
        ConvergenceWarning
            If a target was asked for and the budget ran out first.
        """
        self._validate_params()
        game = as_game(game)
        n = game.n_players
        if self._is_exact(n):
            values = exact_values(game, self.coalition_weights(n))
            return PlayerScores(values, np.zeros(n), 2**n, 2**n, True, "exact")
        return self._sample(game, self._budget(n))

    def budget(self, n_players: int) -> int:
        """Payoffs that `estimate` spends at most.

        Parameters
        ----------
        n_players : int
            Number of players of the game.

        Returns
        -------
        n_payoffs : int
            All coalitions, where these are played; else `n_evaluations`.
        """
        return 2**n_players if self._is_exact(n_players) else self._budget(n_players)

    def check_budget(self, n_players: int) -> None:
        """Refuse a budget that does not pay for one sample.

        Parameters
        ----------
        n_players : int
            Number of players of the game.

        Raises
        ------
        ValueError
            As `estimate` does for a game of so many players.
        """
        if not self._is_exact(n_players):
            game = as_game(lambda coalitions: np.zeros(len(coalitions)), n_players)
            self._affordable(self._sampling(game, self._budget(n_players)), n_players)

    def _affordable(self, sampling: Sampling, n_players: int) -> int:
        """Units that the budget pays for."""
        budget = self._budget(n_players)
        affordable = (budget - sampling.fixed_cost) // sampling.unit_cost
        if affordable < 1:
            raise ValueError(
                f"n_evaluations={budget} does not pay for one sample of this game of "
                f"{n_players} players; it must be at least "
                f"{sampling.fixed_cost + sampling.unit_cost}."
            )
        return affordable

    def _is_exact(self, n_players: int) -> bool:
        """Whether all coalitions are played."""
        if self.method != "auto":
            return self.method == "exact"
        affordable = n_players <= MAX_EXACT_PLAYERS
        return affordable and 2**n_players <= self._budget(n_players)

    def _sampling(self, game: Game, n_evaluations: int) -> Sampling:
        """How to estimate the index of this game with this budget."""
        return MarginalMeans(
            lambda n_units, rng: self.draw_marginals(game, n_units, rng),
            # A game without flips of its own plays the coalition in the middle too.
            unit_cost=game.n_players + (not game.flips_natively),
        )

    def _budget(self, n_players: int) -> int:
        """Number of payoffs that an estimate from samples may spend."""
        if self.n_evaluations == "auto":
            return max(10_000, 40 * n_players)
        return int(self.n_evaluations)

    def _sample(self, game: Game, budget: int) -> PlayerScores:
        """Draw batch after batch until a target is met or the budget is spent."""
        rng = np.random.default_rng(self.random_state)
        sampling = self._sampling(game, budget)
        affordable = self._affordable(sampling, game.n_players)
        rule = StoppingRule(self.tol, self.stable_ranking)
        largest = _largest_batch(sampling, game)
        n_units, reason = 0, None
        while reason is None and n_units < affordable:
            # Batches grow with the estimate: checks stay few, overshoot small.
            batch = max(sampling.min_units - n_units, n_units // 4, 1)
            if not rule.has_target:
                batch = affordable
            batch = min(batch, largest, affordable - n_units)
            sampling.draw(batch, rng)
            n_units += batch
            if rule.has_target and n_units >= sampling.min_units:
                with suppress(TooFewSamplesError):
                    reason = rule.reason(n_units, *sampling.estimate())
        return self._scores(sampling, n_units, reason, rule)

    def _scores(
        self, sampling: Sampling, n_units: int, reason: str | None, rule: StoppingRule
    ) -> PlayerScores:
        """Scores of a finished sampling, with a warning where a target was missed."""
        values, errors = sampling.estimate()
        if not np.isfinite(values).all():
            raise ValueError(
                "the payoff of a coalition is NaN or infinite: so are marginals of the "
                f"players {np.flatnonzero(~np.isfinite(values))[:10].tolist()}; repair "
                "the game or the data behind it."
            )
        spent = sampling.fixed_cost + n_units * sampling.unit_cost
        missed = reason is None and rule.misses(errors)
        if missed:
            warn_user(
                f"the budget of n_evaluations={spent} was spent before "
                f"tol={self.tol} or stable_ranking={self.stable_ranking} was reached; "
                f"the largest standard error is {errors.max():.3g}. Raise "
                "n_evaluations or ask for less.",
                ConvergenceWarning,
            )
        return PlayerScores(
            values=values,
            standard_errors=errors,
            n_evaluations=spent,
            n_samples=n_units * sampling.samples_per_unit,
            converged=not missed,
            stop_reason=reason or "budget",
        )


def _largest_batch(sampling: Sampling, game: Game) -> int:
    """Number of units whose orders or coalitions fit into the memory of a batch."""
    elements = sampling.samples_per_unit * game.n_blocks * game.n_players
    return max(1, _BATCH_ELEMENTS // elements)
