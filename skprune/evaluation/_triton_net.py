"""What the Triton kernels read: a net as tables, and a block of its samples."""

from typing import Any, NamedTuple

import triton.language as tl

__all__ = [
    "ABSENT",
    "DEPTH",
    "FIELDS",
    "FIRST_MEMBER",
    "FIXED",
    "IN_ROW",
    "KIND",
    "N_IN",
    "N_MEMBERS",
    "N_OUT",
    "OUT_ROW",
    "PLAYER_FIELDS",
    "PRESENT",
    "SLOPE",
    "STRIDE",
    "WEIGHTS",
    "Block",
    "Net",
]

# Columns of `Net.layers`. Rows count from the first layer's outputs on; the activation
# is that of what the layer reads; its members are the players of the game it reads, the
# leaves of a tree of some depth.
N_IN = tl.constexpr(0)
N_OUT = tl.constexpr(1)
WEIGHTS = tl.constexpr(2)
STRIDE = tl.constexpr(3)
IN_ROW = tl.constexpr(4)
OUT_ROW = tl.constexpr(5)
KIND = tl.constexpr(6)
SLOPE = tl.constexpr(7)
FIRST_MEMBER = tl.constexpr(8)
N_MEMBERS = tl.constexpr(9)
DEPTH = tl.constexpr(10)
FIELDS = tl.constexpr(11)
# Columns of the table that `Net.players` starts with: a player's layer, and the first
# and last place of its columns in `Net.players`.
PLAYER_FIELDS = tl.constexpr(3)

# Codes of presence. Who is fixed is there whatever the players of the game do.
ABSENT = tl.constexpr(0)
PRESENT = tl.constexpr(1)
FIXED = tl.constexpr(2)


class Net(NamedTuple):
    """A tail from the first layer on that a player of the game is in; see `Tail`.

    Attributes
    ----------
    layers : tensor of shape (n_layers, FIELDS), int32
        Sizes and places of each layer; slopes by their bits.
    players : tensor, int32
        Layer and columns of each player.
    owners : tensor of shape (n_rows,), int32
        Player that owns each unit, or -1.
    weights, biases : tensor, float32
        As in `Tail`, from the first layer and from its outputs on.
    inputs : tensor of shape (n_blocks, n_inputs, 16), float32
        What the first layer reads.
    base : tensor of shape (n_blocks, n_outputs, 16), float32
        What the first layer answers without the players of the game.
    goals : tensor of shape (n_blocks, n_targets, 16), float32
        What the outputs should be.
    n_samples, n_layers, n_players : int
        Sizes of the game.
    n_rows, n_wide, n_stack : int
        Rows of all units, of the widest layer, and of a tree.
    """

    layers: Any
    players: Any
    owners: Any
    weights: Any
    biases: Any
    inputs: Any
    base: Any
    goals: Any
    n_samples: int
    n_layers: int
    n_players: int
    n_rows: int
    n_wide: int
    n_stack: int


class Block(NamedTuple):
    """Sixteen samples, for a program that plays in them.

    Attributes
    ----------
    net : Net
        The net.
    inputs, base : pointer
        Those of this block.
    goal : tile
        See `load_goals`.
    n_lanes : int
        How many samples it has, or more where all 16 are there.
    n_classes : int
        Number of outputs.
    """

    net: Any
    inputs: Any
    base: Any
    goal: Any
    n_lanes: Any
    n_classes: Any
