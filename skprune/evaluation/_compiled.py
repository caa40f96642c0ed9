"""Payoffs on a tail of Linear layers, by the compiled kernels."""

from __future__ import annotations

from skprune.evaluation._graph import linear_chain
from skprune.evaluation._kernels import (
    TailProblem,
    coalition_payoffs,
    flip_marginals,
    walk_marginals,
)
from skprune.evaluation._linear_tail import chain_fault, tail_of_chain
from skprune.games import BlockOrders

__all__ = ["CompiledBackend"]


class CompiledBackend:
    """Walks, flips and payoffs by rank-one updates; see `_kernels`.

    Parameters
    ----------
    tail : TailProblem
        The tail and its samples.
    offset : float
        Added to every payoff.
    n_threads : int
        Number of threads; results do not depend on it.
    """

    name = "compiled"

    def __init__(self, tail, offset, n_threads):
        self.tail, self.offset, self.n_threads = tail, offset, n_threads
        self.n_blocks = tail.n_blocks

    @classmethod
    def fitting(cls, split, features, targets, payoff, n_threads, required=False):
        """The backend for a module, or None where it is no tail of Linear layers.

        Raises
        ------
        ValueError
            In place of None, if it is required.
        """
        links = linear_chain(split)
        fault = chain_fault(links, split, features, payoff)
        if fault is None and features[0].device.type != "cpu":
            fault = f"it is on {features[0].device}"
        if fault and required:
            raise ValueError(
                f"backend='compiled' cannot play this net with payoff={payoff.name!r}: "
                f"{fault}. Use backend='auto'."
            )
        if fault:
            return None
        tail, offset = tail_of_chain(links, split, features, targets, payoff)
        return cls(TailProblem(tail), offset, n_threads)

    def payoffs(self, coalitions):
        """Payoffs (m,) of coalitions (m, n_players)."""
        played = coalition_payoffs(self.tail, coalitions, n_threads=self.n_threads)
        return played + self.offset

    def walk(self, start, free, orders):
        """Marginals (m, k) of free players along orders (m, n_blocks or 1, k)."""
        names = None
        if isinstance(orders, BlockOrders):
            orders, names = orders.shared[:, None], orders.names
        return walk_marginals(
            self.tail, start, free, orders, names, n_threads=self.n_threads
        )

    def flip(self, free, coalitions):
        """Marginals (m, k) around coalitions (m, n_blocks or 1, n_players)."""
        return flip_marginals(self.tail, free, coalitions, n_threads=self.n_threads)
