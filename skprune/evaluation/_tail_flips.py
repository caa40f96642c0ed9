"""Compiled flips on a tail: every free player's marginal around a coalition.

To add a player is one rank-one update of the first layer that reads it. To leave one
out by subtraction would cancel and turn exact ties into noise; instead the sums that
exclude one player come from a tree: a node holds the sum of all but a range of players,
and its two halves add each other's contributions. That costs log2(n) updates a player.
"""

import numpy as np

from skprune.evaluation._lanes import load
from skprune.evaluation._pointers import entry_point, kernel_part
from skprune.evaluation._tail import read_tail
from skprune.evaluation._tail_joins import add_column, feeds_at_once, join_column
from skprune.evaluation._tail_layers import accumulate, finish, n_outputs, settle
from skprune.evaluation._tail_workspace import read_workspace

__all__ = ["play_flips"]


@entry_point
def play_flips(tail_table, work_table, free, coalitions, out):
    """Add the marginals of the free players to `out` (m, n_free).

    `coalitions` has the shape (m, n_blocks, n_players), or 1 in place of n_blocks.
    """
    tail, work = read_tail(tail_table), read_workspace(work_table)
    position = np.full(tail.n_players, -1, dtype=np.int64)
    for at in range(len(free)):
        position[free[at]] = at
    is_free = position >= 0
    n_fixed = np.zeros(tail.n_layers, dtype=np.int64)
    for block in range(tail.n_blocks):
        own = block if coalitions.shape[1] > 1 else 0
        for index in range(len(coalitions)):
            coalition = coalitions[index, own]
            payoff = settle(tail, work, block, coalition, is_free, n_fixed)
            for player in free:
                if not coalition[player]:
                    added = _payoff_with(tail, work, player, block)
                    out[index, position[player]] += added - payoff
            for layer in range(tail.n_layers):
                if n_fixed[layer] < work.n_present[layer]:
                    _leave_out(
                        tail,
                        work,
                        layer,
                        n_fixed[layer],
                        position,
                        block,
                        payoff,
                        out[index],
                    )


@kernel_part
def _payoff_with(tail, work, player, block):
    """Payoff of the settled coalition and one player more."""
    layer = tail.player_layer[player]
    first, last = tail.player_start[player], tail.player_start[player + 1]
    units = tail.first_row[layer + 1]
    if last - first == 1 and feeds_at_once(tail, work, layer):
        column = tail.player_columns[first]
        value = load(work.full, tail.first_row[layer] + column)
        join_column(tail, work, layer, column, value, work.sums, units, work.trial)
        return finish(tail, work, layer + 1, block)
    base = work.sums
    for at in range(first, last):
        column = tail.player_columns[at]
        value = load(work.full, tail.first_row[layer] + column)
        add_column(tail, work, layer, column, value, base, work.trial)
        base = work.trial
    return finish(tail, work, layer, block)


@kernel_part
def _leave_out(tail, work, layer, n_fixed, position, block, payoff, marginals):
    """Add the marginals of a layer's present free players to `marginals`."""
    players, bounds = _present_players(tail, work, layer, n_fixed)
    units, n_out = tail.first_row[layer + 1], n_outputs(tail, work, layer)
    ranges = np.empty((2 * len(bounds), 5), dtype=np.int64)
    ranges[0] = np.array([0, len(players), 0, 0, n_fixed])
    n_ranges = 1
    at_once = feeds_at_once(tail, work, layer)
    while n_ranges:
        n_ranges -= 1
        low, high, depth, start, stop = ranges[n_ranges]
        is_leaf = high - low == 1
        if is_leaf and depth and stop - start == 1 and at_once:
            column = work.columns[tail.first_row[layer] + start]
            value = load(work.packed, tail.first_row[layer] + start)
            above = (depth - 1) * tail.stride[layer]
            join_column(tail, work, layer, column, value, work.stack, above, work.trial)
            without = finish(tail, work, layer + 1, block)
            marginals[position[players[low]]] += payoff - without
            continue
        accumulate(
            work.weights,
            tail.weight_start[layer],
            tail.widths[layer],
            start,
            stop,
            work.packed,
            tail.first_row[layer],
            work.stack if depth else work.bias,
            (depth - 1) * tail.stride[layer] if depth else units,
            work.trial if is_leaf else work.stack,
            units if is_leaf else depth * tail.stride[layer],
            n_out,
            False,
        )
        if is_leaf:
            without = finish(tail, work, layer, block)
            marginals[position[players[low]]] += payoff - without
            continue
        middle = (low + high) // 2
        for half, other in (
            ((low, middle), (middle, high)),
            ((middle, high), (low, middle)),
        ):
            ranges[n_ranges, 0], ranges[n_ranges, 1] = half
            ranges[n_ranges, 2] = depth + 1
            ranges[n_ranges, 3] = bounds[other[0]]
            ranges[n_ranges, 4] = bounds[other[1]]
            n_ranges += 1


@kernel_part
def _present_players(tail, work, layer, n_fixed):
    """A layer's present free players, and where their columns start in its list."""
    first, n_present = tail.first_row[layer], work.n_present[layer]
    players = np.empty(n_present - n_fixed, dtype=np.int64)
    bounds = np.empty(n_present - n_fixed + 1, dtype=np.int64)
    n_players = 0
    at = n_fixed
    while at < n_present:
        player = tail.owners[first + work.columns[first + at]]
        players[n_players], bounds[n_players] = player, at
        n_players += 1
        at += tail.player_start[player + 1] - tail.player_start[player]
    bounds[n_players] = n_present
    return players[:n_players], bounds[: n_players + 1]
