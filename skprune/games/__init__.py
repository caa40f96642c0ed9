"""Coalitional games: coalitions of players in, payoffs out.

`Game` is the base class: ``_payoffs`` is all that a game must state, and walks, flips
and restricted games follow. `as_game` takes plain functions and games of other
packages. The known games have exact power indices to test estimates against.
"""

from skprune.games._base import Game, RestrictedGame
from skprune.games._block_orders import BlockOrders
from skprune.games._callable import CallableGame, as_game
from skprune.games._checks import check_coalitions, check_mask, check_orders
from skprune.games._known import (
    AirportGame,
    GloveGame,
    UnanimityGame,
    WeightedVotingGame,
    un_security_council,
)
from skprune.games._reconstruction import ReconstructionGame
from skprune.games._tables import PerturbedUniformGame, TableGame, three_player_game

__all__ = [
    "AirportGame",
    "BlockOrders",
    "CallableGame",
    "Game",
    "GloveGame",
    "PerturbedUniformGame",
    "ReconstructionGame",
    "RestrictedGame",
    "TableGame",
    "UnanimityGame",
    "WeightedVotingGame",
    "as_game",
    "check_coalitions",
    "check_mask",
    "check_orders",
    "three_player_game",
    "un_security_council",
]
