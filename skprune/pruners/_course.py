"""When what happens in a training: rates, the removal path, the rivalry."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Course"]

# Removals on the way from all players to those that are to stay.
_N_REMOVALS = 60
# Share of the removals after which rivals part: where they do matters little, and the
# networks are small by then.
_FORK = 0.65
# Learning rates before and during the removals. Few large steps of the whole network
# leave weights behind that no sample asked for; chosen on validation images of MNIST.
_RATE_BEFORE, _RATE_DURING = 1 / 3, 5 / 3


@dataclass(frozen=True)
class Course:
    """The course of a training, all in shares of its steps.

    Parameters
    ----------
    n_steps : int
        Steps of the optimizer in the whole training.
    begin, end : float in [0, 1]
        Shares between which players leave.
    peak : float
        Learning rate of the fine-tuning at its highest, as a multiple of the net's own.
    rivalry : float, default=0.0
        Share of the steps after `end` in which rivals compete.
    warm_up : float, default=0.02
        Share of the steps in which the rate rises.
    """

    n_steps: int
    begin: float
    end: float
    peak: float
    rivalry: float = 0.0
    warm_up: float = 0.02

    @property
    def first(self):
        """Step after which the first players leave."""
        return math.ceil(self.begin * self.n_steps)

    @property
    def last(self):
        """Step after which the last players leave."""
        return max(1, self.first, math.floor(self.end * self.n_steps))

    @property
    def fork(self):
        """Steps after which rivals go their own way: most of the path is common."""
        return self.first + int(_FORK * (self.last - self.first))

    @property
    def decided(self):
        """Step after which one rival is left."""
        return min(self.n_steps, self.last + math.ceil(self.rivalry * self.n_steps))

    @property
    def window(self):
        """Steps over which the losses of rivals are averaged: until the first leave."""
        return max(1, (self.decided - self.last) // 8)

    def rate(self, step):
        """Learning rate of a step, as a multiple of the net's own.

        Low until the first players leave, high until the last do, then up or down to
        the peak, and down to 0 along a cosine.
        """
        rise = max(1, round(self.warm_up * self.n_steps))
        start = min(1.0, (step + 1) / rise)
        since = step - self.last
        if step < self.first:
            return start * _RATE_BEFORE
        if since < 0:
            return start * _RATE_DURING
        if since < rise:
            lower = _RATE_DURING if self.end else self.peak
            return start * (lower + (self.peak - lower) * (since + 1) / rise)
        left = (since - rise) / max(1, self.n_steps - self.last - rise)
        return self.peak * 0.5 * (1 + math.cos(math.pi * min(1.0, left)))

    def progress(self, step):
        """Share of the removals that is done at a step."""
        done = (step - self.first) / max(1, self.last - self.first)
        return min(1.0, max(0.0, done))

    def removal_steps(self):
        """Steps after which players leave."""
        steps = np.linspace(self.first, self.last, _N_REMOVALS + 1)[1:]
        return np.unique(np.ceil(steps).astype(int))

    def counts(self, step, before, after):
        """Players that each layer keeps after a step of the removals.

        Parameters
        ----------
        step : int
            Number of steps done.
        before, after : ndarray of int of shape (n_groups,)
            Players of each layer at first and in the end.

        Returns
        -------
        counts : ndarray of int of shape (n_groups,)
            On a geometric path from one to the other.
        """
        if step >= self.last:
            return after
        path = np.round(before * (after / before) ** self.progress(step)).astype(int)
        return np.maximum(path, after)

    def selections(self, n_rivals):
        """After which steps how many rivals are left.

        Parameters
        ----------
        n_rivals : int
            Rivals at first.

        Returns
        -------
        left : dict of int to int
            A half after an eighth of the rivalry, a quarter after a quarter of it, an
            eighth after half of it, and one in the end.
        """
        left = {}
        for share, part in ((0.125, 2), (0.25, 4), (0.5, 8), (1.0, n_rivals)):
            step = round(self.last + share * (self.decided - self.last))
            left[step] = -(-n_rivals // part)
        return left
