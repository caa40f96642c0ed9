"""What the benchmarks share: one thread, the machine in words, alternating timings."""

import os

# Read when NumPy, torch and Numba start their pools: import this module before them.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import importlib  # noqa: E402
import json  # noqa: E402
import platform  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from importlib.metadata import version  # noqa: E402
from pathlib import Path  # noqa: E402

import numba  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

import skprune  # noqa: E402
from skprune.evaluation._lane_tiles import (  # noqa: E402
    load_tile,
    store_tile,
    tile_fma,
)

torch.set_num_threads(1)

_PACKAGES = (
    "numpy",
    "numba",
    "torch",
    "scikit-learn",
    "skorch",
    "shapiq",
    "captum",
    "torch-pruning",
)
# Accumulators of the loop that measures the peak: more than latency times throughput,
# and with their factors fewer than the registers.
_CHAINS = 12


def require(package):
    """A package that only the benchmarks need, or an exit that names it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = package.split(".")[0]
        raise SystemExit(
            f"this benchmark compares with {name}, which cannot be imported ({error}); "
            f"install it with `pip install {name}`."
        ) from error


def machine():
    """The processor, its load and the versions, for a table and for JSON."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        names = [line.split(": ")[1] for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    versions = {"python": platform.python_version(), "skprune": skprune.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "processor": model,
        "architecture": platform.machine(),
        "simd": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads_used": torch.get_num_threads(),
        "load_average_at_start": os.getloadavg(),
        "versions": versions,
    }


def describe(facts):
    """The machine in two lines."""
    load = facts["load_average_at_start"][0]
    known = {name: number for name, number in facts["versions"].items() if number}
    return (
        f"{facts['processor']} ({facts['architecture']}, {facts['simd']}), "
        f"{facts['cores']} cores, "
        f"{facts['threads_used']} thread used, load {load:.2f}\n"
        + ", ".join(f"{name} {number}" for name, number in known.items())
    )


def timed(function, *args):
    """What a function returns, and its CPU and wall-clock seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function(*args)
    return result, time.process_time() - cpu, time.perf_counter() - wall


@dataclass(frozen=True)
class Method:
    """One way to play coalitions: `play(n)` plays n payoffs or more, and says how many.

    `unit` is the least number of payoffs that it can be asked for.
    """

    name: str
    play: Callable[[int], int]
    unit: int = 1


def alternate(methods, repeats, seconds):
    """Payoffs per second of each method, repetition by repetition, in turn.

    Each repetition of a method takes about `seconds`, or one unit where that is longer.
    """
    sizes = {method.name: _size(method, seconds) for method in methods}
    runs = {method.name: [] for method in methods}
    for _ in range(repeats):
        for method in methods:
            played, cpu, wall = timed(method.play, sizes[method.name])
            runs[method.name].append({"payoffs": played, "cpu_s": cpu, "wall_s": wall})
    return {name: _summary(rows) for name, rows in runs.items()}


def _size(method, seconds):
    """Number of payoffs that takes about `seconds`; warms up on the way."""
    size = method.unit
    method.play(size)
    while True:
        played, _, wall = timed(method.play, size)
        if wall >= seconds / 8:
            return max(method.unit, round(played * seconds / wall))
        size = 4 * played


def _summary(rows):
    """Medians, and the spread of what CPU seconds say."""
    per_cpu = [row["payoffs"] / row["cpu_s"] for row in rows]
    per_wall = [row["payoffs"] / row["wall_s"] for row in rows]
    return {
        "payoffs_per_cpu_s": float(np.median(per_cpu)),
        "payoffs_per_wall_s": float(np.median(per_wall)),
        "lowest": min(per_cpu),
        "highest": max(per_cpu),
        "runs": rows,
    }


def fma_peak(repeats=5):
    """Single-precision FLOPs per second of one core, by fused multiply-adds."""
    weights = np.full(_CHAINS, 1e-9, dtype=np.float32)
    rows = np.ones((_CHAINS, 16), dtype=np.float32)
    n_steps = 20_000_000
    _fma_chains(rows, weights, 1)
    seconds = [timed(_fma_chains, rows, weights, n_steps)[1] for _ in range(repeats)]
    return 2 * 16 * _CHAINS * n_steps / min(seconds)


@numba.njit
def _fma_chains(rows, weights, n_steps):
    """Independent chains of fused multiply-adds that stay in registers."""
    tile = load_tile(rows, 0, _CHAINS)
    value = load_tile(rows, 0, 1)[0]
    for _ in range(n_steps):
        tile = tile_fma(tile, weights, 0, value)
    store_tile(rows, 0, tile)


def gemm_peak(repeats=5):
    """FLOPs per second of torch's single-precision matrix product, on one thread."""
    left, right = torch.randn(1024, 512), torch.randn(512, 1024)
    n_products = 20

    def products():
        for _ in range(n_products):
            left @ right

    products()
    seconds = [timed(products)[1] for _ in range(repeats)]
    return 2 * 1024 * 512 * 1024 * n_products / min(seconds)


def write_json(path, record):
    """Write the figures of a run, and say where."""
    Path(path).write_text(json.dumps(record, indent=1) + "\n")
    print(f"\nwritten to {path}")
