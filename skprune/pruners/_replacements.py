"""Who of few survivors is replaced by a player that left, judged after repair."""

from __future__ import annotations

import numpy as np

__all__ = ["Replacements", "n_replacements"]

# Rounds, and the survivors up to which there are any: with two texts, a fiftieth of 768
# neurons gained 1 to 2.5 points of accuracy, a thirtieth 0 to 1, a twentieth nothing.
_ROUNDS, _FEW = 2, 24


class Replacements:
    """Puts another player in the place of a survivor where the network gains by it.

    The reconstruction game of a layer proposes, for each survivor, whoever explains
    most in its place; the repaired network decides. Where few stay, the game of one
    layer knows too little of what the others make of it.

    Parameters
    ----------
    games : LayerGames
        The games of the layers.
    worth : callable
        From a mask of survivors to what the repaired network earns.
    tell : callable
        Is told how many replacements were tried.
    """

    def __init__(self, games, worth, tell):
        self.games, self.worth, self.tell = games, worth, tell
        self._group_of = games.players.group_of
        self._known = {}

    def improved(self, keep):
        """The survivors after the replacements that paid.

        Parameters
        ----------
        keep : ndarray of bool of shape (n_players,)
            Who stays.

        Returns
        -------
        keep : ndarray of bool of shape (n_players,)
            As many players of each layer.
        """
        most = n_replacements(keep.sum())
        earned, n_tried = self.worth(keep) if most else None, 0
        for _ in range(_ROUNDS if most else 0):
            before = keep
            for survivor in np.flatnonzero(keep):
                replaced = self._replaced(keep, survivor)
                if replaced is None:
                    continue
                worth = self.worth(replaced)
                n_tried += 1
                self.tell(1)
                # NaN compares false.
                if worth > earned:
                    keep, earned = replaced, worth
            if keep is before:
                break
        self.tell(most - n_tried)
        return keep

    def _replaced(self, keep, survivor):
        """Survivors with the best player of its layer in the place of one, or None."""
        group = self._group_of[survivor]
        members = np.flatnonzero(self._group_of == group)
        others = (keep & (np.arange(len(keep)) != survivor))[members]
        gains = self._game(group, keep).flip(others[None])[0]
        gains[keep[members]] = -np.inf
        if np.isneginf(gains).all():
            return None
        replaced = keep.copy()
        replaced[survivor], replaced[members[gains.argmax()]] = False, True
        return replaced

    def _game(self, group, keep):
        """The game of a layer, which depends on who stays in those behind it."""
        behind = keep[self._group_of > group].tobytes()
        if self._known.get(group, (None,))[0] != behind:
            self._known[group] = behind, self.games.game(group, keep)
        return self._known[group][1]


def n_replacements(n_survivors):
    """Replacements that are tried at most.

    Parameters
    ----------
    n_survivors : int
        Number of survivors.

    Returns
    -------
    n_replacements : int
    """
    return _ROUNDS * int(n_survivors) if n_survivors <= _FEW else 0
