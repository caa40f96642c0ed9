"""What an estimate costs beside payoffs: a second core, memory, and the import."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from _machine import timed
from _nets import images, train

from skprune import CoalitionEvaluator
from skprune.samplers import uniform_orders
from skprune.scorers import ShapleyScorer

_IMPORT = """
import time, torch, skorch, sklearn
start = time.process_time()
{}
print(time.process_time() - start)
"""


def two_cores(net, X, y, settings, seconds, repeats):
    """Wall-clock seconds of one core over those of two, for one call of `seconds`."""
    if len(os.sched_getaffinity(0)) < 2:
        return None
    games = [
        CoalitionEvaluator(net, X, y, n_jobs=n_jobs, **settings) for n_jobs in (1, 2)
    ]
    rng = np.random.default_rng(0)

    def draw(count):
        return uniform_orders(games[0].n_players, count, rng)

    count, wall = 4, 0.0
    games[1].walk(draw(count))
    while wall < seconds / 8:
        count *= 2
        _, _, wall = timed(games[0].walk, draw(count))
    orders = draw(round(count * seconds / wall))
    rows = [[timed(game.walk, orders)[2] for game in games] for _ in range(repeats)]
    one, two = np.median(rows, axis=0)
    return {"one_core_s": one, "two_cores_s": two, "speed_up": one / two}


def import_seconds(repeats, statement="import skprune"):
    """CPU seconds of an import after torch, skorch and sklearn; a median."""
    command = [sys.executable, "-c", _IMPORT.format(statement)]
    runs = [
        float(
            subprocess.run(command, capture_output=True, check=True, text=True).stdout
        )
        for _ in range(repeats)
    ]
    return float(np.median(runs))


def estimate_megabytes():
    """Memory that an estimate of 100,000 payoffs on 10,000 samples adds; in a process.

    The compiler and its code are in memory before: a small game was played.
    """
    command = [sys.executable, __file__]
    run = subprocess.run(command, capture_output=True, check=True, text=True)
    return float(run.stdout)


def _resident(field):
    """VmRSS (now) or VmHWM (the highest so far) of this process, in megabytes."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) / 1024


def _added_megabytes():
    """Peak memory above that before the estimate."""
    _, (X, y), _ = images(n_train=10_000)
    net = train([X.shape[1], 512, 256, 10], X, y, epochs=0, seed=0)
    X, y = (np.resize(part, (10_000, *part.shape[1:])) for part in (X, y))
    scorer = ShapleyScorer(n_evaluations=100_000, random_state=0)
    scorer.estimate(CoalitionEvaluator(net, X[:64], y[:64], players=[("neurons", "2")]))
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    scorer.estimate(CoalitionEvaluator(net, X, y, players=[("neurons", "2")]))
    return _resident("VmHWM") - before


if __name__ == "__main__":
    print(_added_megabytes())
