"""The way down from a trained net: some players leave, the rest train, and again."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields

import numpy as np

from skprune.pruners._epochs import epochs_of
from skprune.pruners._stage import Stage, one_thread
from skprune.strategies import Bottom

__all__ = ["Descent", "Station", "Step"]

# Single players whose removal is tried by repair, and by training, before it is said
# that none of them can leave.
_REPAIRED, _TRAINED = 16, 2


@dataclass(frozen=True, eq=False)
class Station:
    """A network on the way down.

    Parameters
    ----------
    stage : Stage
        The network with its players and samples.
    kept : ndarray of int of shape (n_players_left,)
        Numbers of its players among those of the dense network.
    score : float
        Its validation score.
    """

    stage: Stage
    kept: np.ndarray
    score: float

    def __len__(self):
        """Number of its players."""
        return len(self.kept)

    def learned(self):
        """What a pruner predicts by that ends here."""
        return {"estimator_": self.stage.net, "players_": self.stage.players}


@dataclass(frozen=True, eq=False)
class Step:
    """What is written down of a step.

    Parameters
    ----------
    support : ndarray of bool of shape (n_players,)
        Who of the dense network was left.
    score : float
        Validation score after it.
    removed_value : float
        What those who left were worth.
    n_epochs : int
        Epochs of retraining.
    seconds : float
        Wall-clock seconds.
    held : bool
        Whether the score was high enough.
    refining : bool
        Whether the step belongs to the finer end.
    """

    support: np.ndarray
    score: float
    removed_value: float
    n_epochs: int
    seconds: float
    held: bool
    refining: bool


class Descent:
    """Steps down from a network.

    Parameters
    ----------
    start : Stage
        The trained net.
    goal : float
        The score that has to hold.
    index : callable
        Takes a stage, and returns what its players are worth: PlayerScores.
    strategy : RemovalStrategy
        Says who leaves.
    min_per_layer : int
        Players that stay in each layer; all whole layers may leave.
    normalize : bool
        Whether scores are divided by their sum.
    repair : {"none", "output", "layers"}
        See `Stage.finish`.
    retraining : callable
        A context in which a net is retrained.
    note : callable
        From a step to a text about it.
    """

    def __init__(
        self,
        start,
        goal,
        *,
        index,
        strategy,
        min_per_layer,
        normalize,
        repair,
        retraining,
        note,
    ):
        n_players = start.players.n_players
        self.start = Station(start, np.arange(n_players), start.score)
        self.goal, self.index, self.strategy = goal, index, strategy
        self.min_per_layer, self.normalize = min_per_layer, normalize
        self.repair = repair
        self.retraining, self.note = retraining, note
        self.n_players = n_players
        self.steps, self.scores, self._task = [], None, None
        self._since = time.perf_counter()

    def table(self):
        """The steps, as arrays by name."""
        # A descent of no steps has columns of these types too.
        types = {"support": bool, "n_epochs": int, "held": bool, "refining": bool}
        columns = {
            name: np.array([getattr(s, name) for s in self.steps], types.get(name))
            for name in (field.name for field in fields(Step))
        }
        columns["support"] = columns["support"].reshape(-1, self.n_players)
        return {"n_players": columns["support"].sum(axis=1), **columns}

    def descend(self, task, epochs, to_the_end=False):
        """Step down until the score no longer holds, or a callback asks for an end.

        Parameters
        ----------
        task : Task
            What the steps are parts of.
        epochs : int
            Epochs of retraining after each step.
        to_the_end : bool, default=False
            Whether to go on until nobody may leave.

        Returns
        -------
        best : Station
            The smallest network that held.
        n_failed : int
            Players of the first network that did not hold and was smaller; those of
            `best` where there was none.
        """
        here = best = self.start
        n_failed, self._task = None, task
        while len(here) and (to_the_end or n_failed is None) and not task.is_stopped:
            values = self._values(here)
            leave = self._leavers(self.strategy, here, values)
            if not leave.any():
                break
            here = self._step(here, leave, values, epochs)
            if here.score >= self.goal:
                best, n_failed = here, None
            elif n_failed is None:
                n_failed = len(here)
        return best, len(best) if n_failed is None else n_failed

    def refine(self, task, best, n_failed, epochs):
        """Go on in finer steps, down to single players, until none of these holds.

        Parameters
        ----------
        task : Task
            What the steps are parts of.
        best : Station
            A network that held.
        n_failed : int
            Players of a smaller one that did not.
        epochs : int
            Epochs of retraining after each step.

        Returns
        -------
        best : Station
            The smallest network that held.
        """
        # Half of what was too much; each removal that fails is halved again.
        n_leaving = max(1, (len(best) - n_failed) // 2)
        values, self._task = None, task
        while n_leaving and len(best) and not task.is_stopped:
            values = self._values(best) if values is None else values
            found = self._attempt(best, values, n_leaving, epochs)
            if found is None:
                n_leaving //= 2
            else:
                best, values = found, None
        return best

    def _attempt(self, here, values, n_leaving, epochs):
        """A network with so many players less that holds, or None."""
        for leave in self._candidates(here, values, n_leaving):
            there = self._step(here, leave, values, epochs, refining=True)
            if there.score >= self.goal:
                return there
            if self._task.is_stopped:
                break
        return None

    def _candidates(self, here, values, n_leaving):
        """Who may leave; of single players those first whom a repair replaces best."""
        if n_leaving > 1:
            leave = self._leavers(Bottom(n_leaving), here, values)
            return [leave] if leave.sum() == n_leaving else []
        players = np.flatnonzero(self._leavers(Bottom(_REPAIRED), here, values))
        choices = [np.arange(len(values)) == player for player in players]
        with one_thread():
            worth = [self._worth_without(leave, here.stage) for leave in choices]
        best_first = np.lexsort((values[players], -np.array(worth)))
        return [choices[i] for i in best_first[:_TRAINED]]

    def _worth_without(self, leave, stage):
        """What a network earns after a quick repair, without training.

        On training samples: the best of many on few validation samples is best by
        chance (digits: a validation score 2 points too high).
        """
        repairer = stage.quick_repairer
        return stage.judge(repairer.repaired(~leave, self.repair), repairer.samples)

    def _values(self, here):
        """What players are worth, as shares of their sum where asked for."""
        with one_thread():
            scores = self.index(here.stage)
        if self.scores is None:
            self.scores = scores
        values = scores.values
        total = values.sum()
        return values / total if self.normalize and total > 0 else values

    def _leavers(self, strategy, here, values):
        """Who leaves, by a strategy."""
        players = here.stage.players
        floors = players.floors(self.min_per_layer)
        return strategy.leavers(
            values,
            groups=players.group_of,
            # Groups whose players all left are none to a strategy.
            min_per_group=floors[np.unique(players.group_of)],
            ties=here.stage.weight_norms,
        )

    def _step(self, here, leave, values, epochs, refining=False):
        """Remove players, repair and retrain."""
        part = self._task.begin("step", epochs_of(here.stage.net, epochs))
        with one_thread():
            pruned = here.stage.finish(~leave, self.repair)
        if epochs:
            with self.retraining():
                narrowing = self.n_players / max(1, pruned.players.n_players)
                pruned = here.stage.retrained(pruned, epochs, narrowing, part)
        kept = here.kept[pruned.keep]
        there = Station(here.stage.at(pruned), kept, pruned.payoff)
        # What players are worth is part of the step that it is asked for.
        before, self._since = self._since, time.perf_counter()
        step = Step(
            support=np.isin(np.arange(self.n_players), kept),
            score=there.score,
            removed_value=float(values[~pruned.keep].sum()),
            n_epochs=pruned.n_epochs,
            seconds=self._since - before,
            held=there.score >= self.goal,
            refining=refining,
        )
        self.steps.append(step)
        part.note(self.note(step))
        part.end(there.learned)
        return there
