"""Units that can only leave together, and why some can never leave."""

import numpy as np

__all__ = ["Units"]


class Units:
    """Labels of a network's units: a union-find with notes on its sets.

    A label is given to every unit that a layer makes. Where the network adds two
    units, their labels are joined. `fixed` holds why the units of a set can never
    leave, `refused` what stands in the way of playing them at all.
    """

    def __init__(self):
        self._parent = []
        self._fixed = []
        self._refused = []

    def new(self, n_units):
        """Make `n_units` fresh labels."""
        first = len(self._parent)
        self._parent.extend(range(first, first + n_units))
        return np.arange(first, first + n_units)

    def join(self, first, second):
        """Join two label arrays of one length, element by element (-1: nothing)."""
        if np.array_equal(first, second):
            return
        for one, other in zip(first.tolist(), second.tolist(), strict=True):
            if one >= 0 and other >= 0:
                # The smaller root wins: it is the unit that the network makes first.
                low, high = sorted((self._find(one), self._find(other)))
                self._parent[high] = low

    def fix(self, labels, reason):
        """Note that these units can never leave."""
        self._fixed.extend((label, reason) for label in labels.tolist() if label >= 0)

    def refuse(self, labels, reason, *, is_layer=False):
        """Note that these units cannot be players; a layer is the better reason."""
        self._refused.extend(
            (is_layer, label, reason) for label in labels.tolist() if label >= 0
        )

    def roots(self, labels):
        """Return the set that each label belongs to (-1 stays -1)."""
        return np.array([self._find(x) if x >= 0 else -1 for x in labels.tolist()], int)

    def fixed(self):
        """Return the sets that can never leave, and why."""
        return {self._find(label): reason for label, reason in self._fixed}

    def refused(self):
        """Return the sets that cannot be played, and why."""
        reasons = {}
        for _, label, reason in sorted(self._refused, key=lambda note: not note[0]):
            reasons.setdefault(self._find(label), reason)
        return reasons

    def _find(self, label):
        while self._parent[label] != label:
            self._parent[label] = self._parent[self._parent[label]]
            label = self._parent[label]
        return label
