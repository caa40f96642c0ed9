"""A game that reports how many payoffs were played."""

from __future__ import annotations

import numpy as np

from skprune.games import Game

__all__ = ["WatchedGame"]


class WatchedGame(Game):
    """Another game, move for move, that tells what was spent of a budget.

    Payoffs are counted as scorers count them: a walk and a flip are as many as there
    are players.

    Parameters
    ----------
    game : Game
        The game that is played.
    report : callable
        Takes the number of payoffs that were played since it was last called.
    portion : int or None
        Payoffs after which there is a report, about: what is asked for at once is then
        played in parts. None leaves it whole, for games whose last digits depend on
        what is played together, as on a GPU.

    Examples
    --------
    >>> import numpy as np
    >>> from skprune.games import un_security_council
    >>> from skprune.pruners._watched_game import WatchedGame
    >>> game = WatchedGame(un_security_council(), print, 60)
    >>> game.walk(np.tile(np.arange(15), (6, 1))).shape
    60
    30
    (6, 15)
    """

    def __init__(self, game, report, portion):
        self.game, self.report, self.portion = game, report, portion
        self.n_players, self.n_blocks = game.n_players, game.n_blocks

    def _payoffs(self, coalitions):
        return self._in_parts(self.game, coalitions, 1)

    def walk(self, orders):
        """Marginals along orders; see `Game.walk`."""
        return self._in_parts(self.game.walk, orders, self.n_players)

    def flip(self, coalitions):
        """Marginals around coalitions; see `Game.flip`."""
        return self._in_parts(self.game.flip, coalitions, self.n_players)

    def greedy_order(self, n_steps):
        """Add the player that earns most, again and again; see `Game.greedy_order`."""
        order = self.game.greedy_order(n_steps)
        self.report(n_steps * self.n_players)
        return order

    def restrict(self, always_in=None, always_out=None):
        """Fix some players; what is left reports to the same."""
        rest = self.game.restrict(always_in, always_out)
        return WatchedGame(rest, self.report, self.portion)

    @property
    def players(self):
        """Numbers of the players in the game that was restricted."""
        return self.game.players

    @property
    def reads_block_orders(self):
        """Whether walks take block orders as they are."""
        return self.game.reads_block_orders

    @property
    def walks_natively(self):
        """Whether walks cost less than the payoffs they consist of."""
        return self.game.walks_natively

    @property
    def flips_natively(self):
        """Whether flips cost less than the payoffs they consist of."""
        return self.game.flips_natively

    @property
    def builds_natively(self):
        """Whether `greedy_order` costs less than the flips it consists of."""
        return self.game.builds_natively

    def _in_parts(self, play, samples, cost):
        """Play samples, so many at a time that each part costs a portion."""
        step = len(samples)
        if self.portion is not None:
            step = max(1, self.portion // cost)
        played = []
        for first in range(0, max(1, len(samples)), max(1, step)):
            part = samples[first : first + step]
            played.append(play(part))
            self.report(len(part) * cost)
        return np.concatenate(played)
