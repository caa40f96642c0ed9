"""Players inside a PyTorch module: found, masked, removed, measured.

`find_players` says which units, or whole layers, of a module may leave, and which
rows and columns of which layers belong to each of them. `masked` plays a coalition
in place by hooks; `remove_players` gives a new module that is really smaller. For
every supported network and coalition both give the same outputs, to rounding.
`Participation` puts trainable gates on players, `ParticipationGame` says what each
of them gains and pays for taking part.
"""

from skprune.networks._benefits import (
    contributions,
    curvature_benefits,
    weight_norms,
)
from skprune.networks._discovery import find_players
from skprune.networks._fill import column_means
from skprune.networks._inputs import call, evaluating, map_tensors, tensors_in
from skprune.networks._keystone import agree
from skprune.networks._masking import MaskedModule, masked
from skprune.networks._participation import Participation
from skprune.networks._participation_game import ParticipationGame, PlayerUtilities
from skprune.networks._players import Players, is_within
from skprune.networks._selection import ColumnSelection
from skprune.networks._size import NetworkSize, latency, size_of
from skprune.networks._surgery import remove_players, remove_rows
from skprune.networks._thetas import competition, squared_norms

__all__ = [
    "ColumnSelection",
    "MaskedModule",
    "NetworkSize",
    "Participation",
    "ParticipationGame",
    "PlayerUtilities",
    "Players",
    "agree",
    "call",
    "column_means",
    "competition",
    "contributions",
    "curvature_benefits",
    "evaluating",
    "find_players",
    "is_within",
    "latency",
    "map_tensors",
    "masked",
    "remove_players",
    "remove_rows",
    "size_of",
    "squared_norms",
    "tensors_in",
    "weight_norms",
]
