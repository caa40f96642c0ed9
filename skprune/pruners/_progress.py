"""How far a fit has come: told to scikit-learn's callbacks, and printed.

This module alone knows scikit-learn's callback API. A pruner derives from
`ReportingMixin`, has its `fit` decorated by `whole_fit`, below scikit-learn's
``_fit_context``, gives the names of its steps by ``_steps()`` and the device of its net
by ``_device()``, and takes each step in a context::

    with self._step("train", epochs_of(net)) as step, telling_epochs(net, step):
        net.fit(X, y)
    with self._step("score", budget=scorer.budget(n_players)) as step:
        scores = scorer.estimate(step.watched(game))
    with self._step("remove and repair", len(masks)) as step:
        for mask in masks:
            with step.part(f"{mask.sum()} players"):
                ...

Where the number of parts is not known before a step begins, it is None.
"""

from __future__ import annotations

import functools
import math
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from sklearn.callback import CallbackSupportMixin

from skprune.evaluation import queued_for
from skprune.pruners._nets import forked_rng
from skprune.pruners._watched_game import WatchedGame

__all__ = ["ReportingMixin", "Task", "whole_fit"]

# Parts into which the payoff budget of a step is shared out.
_SHARES = 20
# Lines printed of the parts of a step at most, and seconds between two that only say
# how far it has come.
_LINES, _SILENCE = 10, 5.0


@dataclass(frozen=True)
class _Fit:
    """The fit that tasks belong to, as callbacks are told of it."""

    pruner: Any
    X: Any = None
    y: Any = None
    metadata: dict | None = None

    def told(self):
        """What every callback may ask for."""
        data = {"X": self.X, "y": self.y, "metadata": self.metadata}
        return {"estimator": self.pruner, **data}


class Task:
    """A task of a fit, which begins when it is made and may have parts.

    Parameters
    ----------
    fit : _Fit
        The fit.
    name : str
        What is done.
    n_parts : int or None, default=0
        Number of its parts at most; None where that is not known before.
    context : CallbackContext, default=None
        Where callbacks are told; None where there are none.
    parent : Task, default=None
        The task that it is a part of.
    budget : int, default=None
        Payoffs that are shared out among the parts.

    Attributes
    ----------
    n_done : int
        Number of parts that came to their end.
    is_stopped : bool
        Whether a callback asked, at the end of a part, for no more of them.
    seconds : float
        Wall-clock seconds that it took; NaN before its end.
    """

    def __init__(self, fit, name, n_parts=0, context=None, parent=None, budget=None):
        self.fit, self.name, self.n_parts = fit, name, n_parts
        self.parent, self.budget = parent, budget
        self.n_done, self.is_stopped, self.seconds = 0, False, math.nan
        self._context, self._note = context, None
        self._start = self._last_line = time.perf_counter()
        self._spent, self._share, self._is_short = 0, None, False
        if context is not None:
            context.call_on_fit_task_begin(**fit.told())
        if budget and self.is_followed:
            self._share = self.begin("share")

    @property
    def is_followed(self):
        """Whether anybody is told of its parts."""
        is_printed = self.fit.pruner.verbose and self._depth < 2
        return self._context is not None or bool(is_printed)

    def note(self, text):
        """Say what came out, in the place of the seconds; nothing by an empty text."""
        self._note = text

    def begin(self, name, n_parts=0, budget=None):
        """Begin a part, which its `end` ends; `part` does both."""
        context = self._context
        if context is not None and self._has_room:
            context = context.subcontext(task_name=name, max_subtasks=n_parts)
        else:
            context = None
        return Task(self.fit, name, n_parts, context, self, budget)

    @contextmanager
    def part(self, name, n_parts=0, budget=None):
        """A part as a context; of one that breaks off no end is told."""
        task = self.begin(name, n_parts, budget)
        yield task
        task.end()

    def end(self, learned=None):
        """End the task.

        Parameters
        ----------
        learned : callable, default=None
            Gives the fitted attributes by which the pruner predicts as if `fit` had
            ended here. It is called only where a callback asks for them.
        """
        self._end_shares()
        self.seconds = time.perf_counter() - self._start
        if self.parent is not None:
            self.parent.n_done += 1
        self._print()
        if self._context is None:
            return
        # Predictions may draw from torch's generator, by which a training goes on.
        with nullcontext() if learned is None else forked_rng():
            stops = self._context.call_on_fit_task_end(
                **self.fit.told(), reconstruction_attributes=learned
            )
        if stops and self.parent is not None:
            self.parent.is_stopped = True

    def watched(self, game, *, in_parts=True):
        """A game whose payoffs are counted against the budget, where anybody follows.

        Parameters
        ----------
        game : Game
            The game.
        in_parts : bool, default=True
            Whether what is asked for at once may be played little by little: where no
            bit depends on it.

        Returns
        -------
        game : Game
            The game itself, where nobody follows.
        """
        if self._share is None:
            return game
        portion = -(-self.budget // self.n_parts) if in_parts else None
        return WatchedGame(game, self.spend, portion)

    def spend(self, amount=1):
        """Take note that so much more of the budget was spent."""
        if self._share is None:
            return
        self._spent += amount
        # The last share ends with the task.
        due = min(self.n_parts * self._spent // self.budget, self.n_parts - 1)
        while self.n_done < due:
            self._share.end()
            self._share = self.begin("share")

    def met_target(self, scores):
        """Leave out the shares of a budget that scores did not need."""
        self._is_short = scores.stop_reason in ("tolerance", "ranking")

    def _end_shares(self):
        """End the share under way, and those that nothing was left to do for."""
        while self._share is not None:
            self._share.end()
            goes_on = self._has_room and not self._is_short
            self._share = self.begin("share") if goes_on else None

    @property
    def _has_room(self):
        """Whether another part was announced: a net may train for longer."""
        return self.n_parts is None or self.n_done < self.n_parts

    @property
    def _depth(self):
        """0 for the fit, 1 for its steps, and so on."""
        return 0 if self.parent is None else self.parent._depth + 1

    def _print(self):
        """A line for a step, and for some of its parts."""
        if not self.fit.pruner.verbose or self._depth not in (1, 2):
            return
        if self._depth == 2:
            self.parent._print_part(self._note)
        elif self._note != "":
            self._say(self._note or f"{self.name}: {self.seconds:.1f} s")

    def _print_part(self, note):
        """A line for the part that ended last, of ten at most where they are many."""
        if self.n_parts is None:
            if note:
                self._say(note)
            return
        before, now = (
            _LINES * n // self.n_parts for n in (self.n_done - 1, self.n_done)
        )
        is_due = now > before
        is_silent = time.perf_counter() - self._last_line >= _SILENCE
        if note is None:
            is_due = is_due and is_silent and self.n_done < self.n_parts
        if is_due and self.n_done <= self.n_parts:
            share = f"{self.name} {self.n_done / self.n_parts:.0%}"
            self._say(f"{share}, {note}" if note else share)
            self._last_line = time.perf_counter()

    def _say(self, text):
        self.fit.pruner._say("{}", text)


class ReportingMixin(CallbackSupportMixin):
    """Mixin of estimators whose `fit` says how far it has come.

    It stands before `sklearn.base.BaseEstimator` among the bases.
    """

    def set_callbacks(self, *callbacks):
        """Set callbacks that follow `fit`, such as `sklearn.callback.ProgressBar`.

        The task "fit" has the steps of the fit as its subtasks, and these have theirs:
        epochs of a training, shares of the payoffs that a search or a scorer may ask
        for (20 at most), sizes that are cut out, networks on the way down. A training
        or a search that ends early has fewer of them than it announced.

        Where `on_fit_task_end` returns True, no further epoch of that training follows,
        or no further network of that descent; what comes after them does. Steps and
        shares are not left out, for a search that is half done has no result. The
        result of a fit that is not stopped does not depend on callbacks.

        Parameters
        ----------
        *callbacks : callback instances
            The callbacks, which replace those set before; none to have none.

        Returns
        -------
        self : estimator instance
        """
        return super().set_callbacks(*callbacks)

    def __getstate__(self):
        """What is pickled: a fit under way is not."""
        state = super().__getstate__()
        return {key: value for key, value in state.items() if key != "_fit_task"}

    @contextmanager
    def _reporting(self, X, y, metadata=None):
        """The whole fit as a task."""
        n_steps = len(self._steps())
        context = self._init_callback_context(max_subtasks=n_steps)
        if not hasattr(self, "_skl_callbacks"):
            context = None
        self._fit_task = Task(_Fit(self, X, y, metadata), "fit", n_steps, context)
        try:
            yield
        finally:
            task = vars(self).pop("_fit_task")
        task.end(learned=dict)

    @contextmanager
    def _step(self, name, n_parts=0, budget=None):
        """A step of the fit; a budget of payoffs is shared out in parts."""
        if budget:
            n_parts = min(_SHARES, budget)
        task = getattr(self, "_fit_task", None) or Task(_Fit(self), "fit", None)
        with task.part(name, n_parts, budget) as step:
            yield step

    def _say(self, text, *values):
        """Print a line, where asked for."""
        if self.verbose:
            print(f"[{type(self).__name__}] " + text.format(*values))


def whole_fit(fit):
    """Decorate `fit`: callbacks are told of it, and it waits for its turn on a GPU.

    Where it fails the pruner stays what it was.
    """

    @functools.wraps(fit)
    def reported_fit(self, X, y, *args, **kwargs):
        # The one argument besides X and y that any of our fits takes by its position.
        weights = args[0] if args else kwargs.get("sample_weight")
        metadata = None if weights is None else {"sample_weight": weights}
        with self._reporting(X, y, metadata), queued_for(self._device()):
            before = dict(vars(self))
            try:
                return fit(self, X, y, *args, **kwargs)
            except BaseException:
                # Else it would predict by the old net, and the labels of the new y.
                vars(self).clear()
                vars(self).update(before)
                raise

    return reported_fit
