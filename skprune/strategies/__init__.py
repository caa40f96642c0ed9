"""Who leaves, and how fast: from a game and a scorer to a compression path.

`_selection` turns scores into masks of who stays, `_removal` into masks of who leaves
next, `_path` holds what a search found, `_search` builds or prunes step by step,
`_refinement` swaps players of a found coalition, and `_allocation` splits a number of
players over layers. Nothing here knows networks: a search plays any `Game` and asks any
`PowerIndexScorer`.
"""

from skprune.strategies._allocation import search_allocation
from skprune.strategies._path import CompressionPath
from skprune.strategies._refinement import (
    IteratedLocalSearch,
    Refinement,
    SwapRefinement,
)
from skprune.strategies._removal import (
    BelowShare,
    Bottom,
    Bucket,
    RemovalStrategy,
)
from skprune.strategies._search import IteratedBuilding, IteratedPruning, Search, TopN
from skprune.strategies._selection import check_groups, keep_best, scaled_split

__all__ = [
    "BelowShare",
    "Bottom",
    "Bucket",
    "CompressionPath",
    "IteratedBuilding",
    "IteratedLocalSearch",
    "IteratedPruning",
    "Refinement",
    "RemovalStrategy",
    "Search",
    "SwapRefinement",
    "TopN",
    "check_groups",
    "keep_best",
    "scaled_split",
    "search_allocation",
]
