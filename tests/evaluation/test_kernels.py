"""Compiled payoffs against a plain forward pass in float64."""

import math
import os
import pickle
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from skprune.evaluation._kernels import (
    coalition_payoffs,
    flip_marginals,
    prepare_tail,
    walk_marginals,
)
from skprune.evaluation._lane_math import ACTIVATIONS
from skprune.evaluation._lane_payoffs import PAYOFFS, SMOOTHING
from skprune.games import BlockOrders

LANES = 16
FUNCTIONS = {
    "identity": lambda z: z,
    "relu": lambda z: np.where(z < 0, 0, z),
    "leaky_relu": lambda z: np.where(z < 0, 0.2 * z, z),
    "elu": lambda z: np.where(z > 0, z, 0.7 * np.expm1(np.minimum(z, 0))),
    "gelu": lambda z: 0.5 * z * (1 + np.vectorize(math.erf)(z * np.sqrt(0.5))),
    "silu": lambda z: z / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
}
PARAMETERS = {"leaky_relu": ("leaky_relu", 0.2), "elu": ("elu", 0.7)}


class PlainTail:
    """A masked forward pass, one coalition at a time."""

    def __init__(self, X, weights, biases, activations, owners, targets, payoff):
        self.X, self.weights, self.biases = X, weights, biases
        self.activations, self.owners = activations, owners
        self.targets, self.payoff = np.asarray(targets), payoff
        self.n_players = int(max(own.max(initial=-1) for own in owners)) + 1
        self.n_blocks = -(-len(X) // LANES)

    def prepare(self):
        return prepare_tail(
            self.X,
            self.weights,
            self.biases,
            [PARAMETERS.get(name, name) for name in self.activations],
            self.owners,
            self.n_players,
            self.targets,
            self.payoff,
        )

    def outputs(self, coalition):
        hidden = self.X.astype(np.float64)
        for layer, (weight, bias) in enumerate(
            zip(self.weights, self.biases, strict=True)
        ):
            owners = self.owners[layer]
            present = np.where(owners < 0, True, coalition[owners])
            hidden = (hidden * present) @ weight.T.astype(np.float64)
            hidden = hidden if bias is None else hidden + bias
            if layer < len(self.activations):
                hidden = FUNCTIONS[self.activations[layer]](hidden)
        return hidden

    def per_sample(self, coalition):
        outputs, targets = self.outputs(coalition), self.targets
        if self.payoff == "neg_mean_squared_error":
            return -((outputs - targets) ** 2).mean(axis=1)
        if outputs.shape[1] == 1:
            outputs = np.hstack([np.zeros_like(outputs), outputs])
        own = outputs[np.arange(len(targets)), targets]
        if self.payoff == "margin":
            others = np.where(
                np.arange(outputs.shape[1]) == targets[:, None], -np.inf, outputs
            )
            return own - others.max(axis=1)
        right = outputs.argmax(axis=1) == targets
        top = outputs.max(axis=1)
        log = own - top - np.log(np.exp(outputs - top[:, None]).sum(axis=1))
        return {
            "accuracy": right.astype(float),
            "log_likelihood": log,
            "true_class_probability": np.exp(log),
            "smoothed_accuracy": right + SMOOTHING * np.exp(log),
        }[self.payoff]

    def block_sum(self, coalition, block):
        return self.per_sample(coalition)[block * LANES : (block + 1) * LANES].sum()

    def payoffs(self, coalitions):
        return np.array([self.per_sample(one).mean() for one in coalitions])

    def walk(self, start, free, orders):
        out = np.zeros((len(orders), len(free)))
        for index, block in np.ndindex(len(orders), self.n_blocks):
            coalition = start.copy()
            coalition[free] = False
            before = self.block_sum(coalition, block)
            for at in orders[index, block % orders.shape[1]]:
                coalition[free[at]] = True
                now = self.block_sum(coalition, block)
                out[index, at] += (now - before) / len(self.X)
                before = now
        return out

    def flip(self, free, coalitions):
        out = np.zeros((len(coalitions), len(free)))
        for index, block in np.ndindex(len(coalitions), self.n_blocks):
            for at, player in enumerate(free):
                with_it = coalitions[index, block % coalitions.shape[1]].copy()
                with_it[player] = True
                without = with_it.copy()
                without[player] = False
                change = self.block_sum(with_it, block) - self.block_sum(without, block)
                out[index, at] += change / len(self.X)
        return out


def random_tail(rng, widths, activation, payoff, n_samples, kinds="mixed"):
    """A random network whose players own one column, several, or none of a layer."""
    weights = [
        (rng.normal(size=(n_out, n_in)) * 2 / np.sqrt(n_in)).astype(np.float32)
        for n_in, n_out in pairwise(widths)
    ]
    biases = [
        rng.normal(size=n_out).astype(np.float32) if rng.random() < 0.8 else None
        for n_out in widths[1:]
    ]
    owners, n_players = [], 0
    for layer, width in enumerate(widths[:-1]):
        kind = rng.choice(["units", "groups", "none"]) if kinds == "mixed" else kinds
        if kind == "groups":
            own = np.where(rng.random(width) < 0.2, -1, np.arange(width) // 3)
            own[0] = 0
            own = np.searchsorted(np.unique(own[own >= 0]), own) * (own >= 0) - (
                own < 0
            )
        elif kind == "units" or layer == len(widths) - 2:
            own = np.arange(width)
        else:
            own = np.full(width, -1)
        owners.append(np.where(own >= 0, own + n_players, -1))
        n_players += own.max() + 1
    X = rng.normal(size=(n_samples, widths[0])).astype(np.float32)
    if payoff == "neg_mean_squared_error":
        targets = rng.normal(size=(n_samples, widths[-1])).astype(np.float32)
    else:
        targets = rng.integers(max(2, widths[-1]), size=n_samples)
    activations = [activation] * (len(widths) - 2)
    return PlainTail(X, weights, biases, activations, owners, targets, payoff)


def compare(plain, rng, m=2, tol=3e-5):
    """Play coalitions, walks and flips on both."""
    tail, n_players = plain.prepare(), plain.n_players
    assert tail.n_blocks == plain.n_blocks
    own = int(rng.choice([1, tail.n_blocks]))
    coalitions = rng.random((m, own, n_players)) < rng.random()
    exact = plain.payoff == "accuracy"
    check = {"rtol": 0, "atol": 1e-12} if exact else {"rtol": 1e-5, "atol": tol}
    np.testing.assert_allclose(
        coalition_payoffs(tail, coalitions[:, 0]),
        plain.payoffs(coalitions[:, 0]),
        **check,
    )
    free = rng.permutation(n_players)[: rng.integers(1, n_players + 1)]
    start = rng.random(n_players) < 0.5
    orders = rng.permuted(np.tile(np.arange(len(free)), (m, own, 1)), axis=2)
    np.testing.assert_allclose(
        walk_marginals(tail, start, free, orders),
        plain.walk(start, free, orders),
        **check,
    )
    np.testing.assert_allclose(
        flip_marginals(tail, free, coalitions), plain.flip(free, coalitions), **check
    )


@pytest.mark.parametrize("payoff", sorted(PAYOFFS))
@pytest.mark.parametrize("n_hidden", [0, 1, 2, 3])
def test_payoffs(payoff, n_hidden):
    rng = np.random.default_rng(n_hidden)
    for n_outputs in [1, 2, 3, 7, 10, 13]:
        widths = [*rng.integers(1, 20, size=n_hidden + 1).tolist(), n_outputs]
        n_samples = int(rng.integers(1, 40))
        compare(random_tail(rng, widths, "relu", payoff, n_samples), rng)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_activations(activation):
    rng = np.random.default_rng(7)
    assert set(FUNCTIONS) == set(ACTIVATIONS)
    for _ in range(3):
        plain = random_tail(rng, [6, 9, 5, 4], activation, "margin", 21, "units")
        compare(plain, rng)


@pytest.mark.parametrize("n_classes", [2, 5, 6, 8, 9, 10, 11, 20, 25])
def test_last_layer(n_classes):
    """The kernels that keep the outputs in registers, for every number of classes."""
    rng = np.random.default_rng(n_classes)
    for n_samples in [1, 16, 50]:
        plain = random_tail(
            rng, [12, n_classes], "relu", "accuracy", n_samples, "units"
        )
        compare(plain, rng, m=3)
        plain.targets = np.sort(plain.targets)
        compare(plain, rng, m=3)


def whole_number_tail(rng, widths, n_samples, targets):
    """Small whole numbers: sums are exact in every order, and ties are frequent."""
    plain = random_tail(rng, widths, "relu", "accuracy", n_samples, "units")
    plain.X = rng.integers(-1, 2, size=plain.X.shape).astype(np.float32)
    for layer, weight in enumerate(plain.weights):
        draw = rng.integers(-1, 2, size=weight.shape).astype(np.float32)
        plain.weights[layer] = draw * (rng.random(weight.shape) < 0.5)
        plain.biases[layer] = None
    plain.targets = targets
    return plain


@pytest.mark.parametrize("widths", [(9, 4), (7, 8, 3), (5, 6, 6, 10)])
def test_ties_are_exact(widths):
    rng = np.random.default_rng(3)
    for _ in range(4):
        # Blocks of many classes, and blocks of one class each.
        targets = rng.integers(widths[-1], size=40)
        compare(whole_number_tail(rng, list(widths), 40, targets), rng, m=4)
        targets = np.repeat(rng.integers(widths[-1], size=3), LANES)
        compare(whole_number_tail(rng, list(widths), 48, targets), rng, m=4)


@pytest.mark.parametrize("n_classes", [2, 4, 7, 10, 13])
def test_ties_on_the_way(n_classes):
    """Biases keep the empty coalition free of ties: some walks meet one, others not."""
    rng = np.random.default_rng(n_classes)
    for _ in range(6):
        targets = rng.integers(n_classes, size=40)
        plain = whole_number_tail(rng, [25, n_classes], 40, targets)
        plain.biases = [rng.permutation(n_classes).astype(np.float32)]
        compare(plain, rng, m=6)


@pytest.mark.parametrize("payoff", ["accuracy", "log_likelihood"])
@pytest.mark.parametrize("n_classes", [3, 10, 12])
def test_columns_that_are_silent(payoff, n_classes):
    """Silent in some blocks, in all of them, or wherever there are samples."""
    rng = np.random.default_rng(n_classes)
    plain = random_tail(rng, [11, n_classes], "relu", payoff, 37, "units")
    for silent in (0.3, 0.9, 1.0):
        for block in range(plain.n_blocks):
            rows = slice(block * LANES, (block + 1) * LANES)
            plain.X[rows, rng.random(11) < silent] = 0
        plain.X[:, 4] = 0
        compare(plain, rng, m=4)


@pytest.mark.parametrize("payoff", ["log_likelihood", "true_class_probability"])
@pytest.mark.parametrize("widths", [(12, 3), (12, 10), (12, 25), (9, 8, 13)])
def test_outputs_far_apart(payoff, widths):
    """Exponentials of their differences are beyond what single precision holds."""
    rng = np.random.default_rng(6)
    for scale in (30, 300):
        plain = random_tail(rng, list(widths), "relu", payoff, 40, "units")
        plain.weights[-1] *= scale
        compare(plain, rng, m=4, tol=3e-5 * scale)


@pytest.mark.parametrize("widths", [(6, 3), (6, 5, 3)])
def test_dead_network_is_a_tie_that_class_0_wins(widths):
    rng = np.random.default_rng(0)
    targets = np.array([0] * 5 + [1] * 10 + [2] * 3)
    plain = random_tail(rng, list(widths), "relu", "accuracy", 18, "units")
    plain.targets, plain.biases = targets, [None] * len(plain.biases)
    plain.X = -np.abs(plain.X)
    plain.weights[0] = np.abs(plain.weights[0]) * (len(widths) > 2)
    tail, n_players = plain.prepare(), plain.n_players
    coalitions = rng.random((5, n_players)) < 0.5
    np.testing.assert_allclose(coalition_payoffs(tail, coalitions), 5 / 18)
    everyone = np.arange(n_players)
    marginals = flip_marginals(tail, everyone, coalitions[:, None])
    np.testing.assert_array_equal(marginals, 0)


@pytest.mark.parametrize("widths", [(5, 3), (4, 6, 3)])
def test_the_last_player_leaves_exactly_the_biases(widths):
    """Leaving out is not subtracting: rounding must not break the tie that remains."""
    rng = np.random.default_rng(5)
    plain = random_tail(rng, list(widths), "relu", "accuracy", 40, "units")
    plain.biases = [None] * len(plain.biases)
    tail, n_players = plain.prepare(), plain.n_players
    alone = np.eye(n_players, dtype=bool)
    everyone = np.arange(n_players)
    np.testing.assert_allclose(
        flip_marginals(tail, everyone, alone[:, None]),
        plain.flip(everyone, alone[:, None]),
        atol=1e-12,
    )


@pytest.mark.parametrize("where", ["own", "other", "input"])
def test_nan_is_never_right(where):
    rng = np.random.default_rng(2)
    plain = random_tail(rng, [4, 3], "relu", "accuracy", 20, "units")
    plain.biases = [np.array([0, 100, 0], dtype=np.float32)]
    plain.targets = np.ones(20, dtype=int)
    if where == "input":
        plain.X[:, 0] = np.nan
    else:
        plain.weights[0][1 if where == "own" else 2, 0] = np.nan
    tail = plain.prepare()
    marginals = walk_marginals(
        tail, np.zeros(4, dtype=bool), np.arange(4), np.arange(4)[None, None]
    )
    np.testing.assert_array_equal(marginals, [[-1, 0, 0, 0]])
    coalitions = np.array([[False, True, True, True], [True, False, False, False]])
    np.testing.assert_array_equal(coalition_payoffs(tail, coalitions), [1, 0])
    flips = flip_marginals(tail, np.arange(4), coalitions[:, None])
    np.testing.assert_array_equal(flips[:, 0], [-1, -1])


def test_one_class_missing_and_one_sample():
    rng = np.random.default_rng(4)
    plain = random_tail(rng, [5, 4, 6], "tanh", "accuracy", 17, "units")
    plain.targets = rng.choice([0, 2, 5], size=17)
    compare(plain, rng)
    plain = random_tail(rng, [1, 2], "relu", "log_likelihood", 1, "units")
    compare(plain, rng)


@pytest.mark.parametrize("payoff", ["accuracy", "log_likelihood"])
@pytest.mark.parametrize("widths", [(20, 4), (8, 12, 4)])
def test_threads_do_not_change_a_bit(payoff, widths):
    rng = np.random.default_rng(1)
    plain = random_tail(rng, list(widths), "relu", payoff, 700, "units")
    tail, n_players = plain.prepare(), plain.n_players
    free, start = np.arange(n_players), np.zeros(n_players, dtype=bool)
    coalitions = rng.random((3, tail.n_blocks, n_players)) < 0.4
    orders = rng.permuted(np.tile(free, (3, tail.n_blocks, 1)), axis=2)
    for n_threads in (2, 5):
        for one, many in (
            (
                coalition_payoffs(tail, coalitions[:, 0]),
                coalition_payoffs(tail, coalitions[:, 0], n_threads=n_threads),
            ),
            (
                walk_marginals(tail, start, free, orders),
                walk_marginals(tail, start, free, orders, n_threads=n_threads),
            ),
            (
                flip_marginals(tail, free, coalitions),
                flip_marginals(tail, free, coalitions, n_threads=n_threads),
            ),
        ):
            np.testing.assert_array_equal(one, many)


def test_walks_telescope_and_leave_the_others_where_they_start():
    rng = np.random.default_rng(8)
    plain = random_tail(rng, [10, 20, 15, 4], "gelu", "log_likelihood", 33, "units")
    tail, n_players = plain.prepare(), plain.n_players
    start = rng.random(n_players) < 0.5
    for free in (np.arange(30, 45), np.arange(10, 45), np.arange(n_players)):
        ends = np.tile(start, (2, 1))
        ends[:, free] = [[False], [True]]
        orders = rng.permuted(np.tile(np.arange(len(free)), (4, 1, 1)), axis=2)
        marginals = walk_marginals(tail, start, free, orders)
        empty, grand = coalition_payoffs(tail, ends)
        np.testing.assert_allclose(marginals.sum(axis=1), grand - empty, atol=1e-5)


def test_a_later_game_forgets_earlier_prefixes():
    rng = np.random.default_rng(9)
    plain = random_tail(rng, [6, 7, 5, 3], "relu", "margin", 20, "units")
    tail, late = plain.prepare(), np.arange(13, 18)
    for _ in range(3):
        start = rng.random(plain.n_players) < 0.5
        orders = rng.permutation(5)[None, None]
        np.testing.assert_allclose(
            walk_marginals(tail, start, late, orders),
            plain.walk(start, late, orders),
            atol=3e-5,
        )


def test_nothing_asked_is_nothing_answered():
    plain = random_tail(np.random.default_rng(0), [3, 2], "relu", "margin", 5, "units")
    tail, nobody = plain.prepare(), np.zeros(0, dtype=int)
    nothing = np.zeros((0, 1, 3), dtype=bool)
    assert coalition_payoffs(tail, nothing[:, 0]).shape == (0,)
    assert flip_marginals(tail, np.arange(3), nothing).shape == (0, 3)
    orders = np.zeros((2, 1, 0), dtype=int)
    assert walk_marginals(tail, np.ones(3, dtype=bool), nobody, orders).shape == (2, 0)


def test_pickled_tail_plays_the_same():
    rng = np.random.default_rng(6)
    plain = random_tail(rng, [5, 6, 3], "silu", "log_likelihood", 20, "units")
    tail = plain.prepare()
    coalitions = rng.random((4, plain.n_players)) < 0.5
    again = pickle.loads(pickle.dumps(tail))
    np.testing.assert_array_equal(
        coalition_payoffs(again, coalitions), coalition_payoffs(tail, coalitions)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"payoff": "f1"}, "payoff must be one of .*got 'f1'"),
        ({"activations": ["mish"]}, "activations.*got 'mish'"),
        ({"activations": []}, "2 layers need 1 activations"),
        ({"targets": [0, 1, 3]}, "targets must be whole numbers from 0 to 2"),
        ({"targets": [0, 1]}, "targets must have the shape"),
        ({"inputs": np.zeros((0, 2))}, "inputs must have the shape"),
        ({"inputs": np.zeros((3, 3))}, "weights.0. must have the shape"),
        ({"biases": [np.zeros(3), None]}, "biases.0."),
        ({"owners": [[0, 1], [1, 2]]}, "owners.1..0. must be -1 or a player"),
        ({"owners": [[0, 1], [-1, -1]]}, "owners must give each player"),
    ],
)
def test_errors_say_what_is_wrong(change, message):
    arguments = {
        "inputs": np.zeros((3, 2)),
        "weights": [np.ones((2, 2)), np.ones((3, 2))],
        "biases": [None, None],
        "activations": ["relu"],
        "owners": [[0, 1], [2, 3]],
        "n_players": 4,
        "targets": [0, 1, 2],
        "payoff": "accuracy",
    }
    with pytest.raises(ValueError, match=message):
        prepare_tail(**{**arguments, **change})


def test_what_does_not_fit_is_refused():
    rng = np.random.default_rng(0)
    plain = random_tail(rng, [3, 2], "relu", "accuracy", 40, "units")
    tail, free = plain.prepare(), np.arange(3)
    start = np.ones(3, dtype=bool)
    with pytest.raises(ValueError, match=r"coalitions must have the shape \(2, 3\)"):
        coalition_payoffs(tail, np.ones((2, 4), dtype=bool))
    with pytest.raises(ValueError, match=r"coalitions must have the shape \(2, 3, 3\)"):
        flip_marginals(tail, free, np.ones((2, 2, 3), dtype=bool))
    with pytest.raises(ValueError, match="free must hold numbers from 0 to 2"):
        flip_marginals(tail, free + 1, np.ones((2, 1, 3), dtype=bool))
    with pytest.raises(ValueError, match=r"each player once, got \[0, 2, 2\]"):
        flip_marginals(tail, np.array([0, 2, 2]), np.ones((2, 1, 3), dtype=bool))
    with pytest.raises(ValueError, match="orders must hold numbers from 0 to 2"):
        walk_marginals(tail, start, free, free[None, None] - 1)
    with pytest.raises(ValueError, match=r"orders must have the shape \(1, 1, 3\)"):
        walk_marginals(tail, start, free, free[None, None, :2])
    with pytest.raises(ValueError, match=r"start must have the shape \(3,\)"):
        walk_marginals(tail, start[:2], free, free[None, None])


@pytest.mark.parametrize("payoff", ["accuracy", "log_likelihood", "margin"])
def test_a_thousand_classes(payoff):
    rng = np.random.default_rng(11)
    for widths in ([5, 1000], [4, 6, 1000]):
        compare(random_tail(rng, widths, "relu", payoff, 18), rng, m=1)


def run_apart(code, **variables):
    """What code prints that runs by itself, with these variables set."""
    path = [str(Path(__file__).parent), *filter(None, sys.path)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path), **variables}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr
    return done.stdout.strip()


WIDE = """
import numpy as np
from test_kernels import compare, random_tail

rng = np.random.default_rng(3)
for widths in ([600, 3], [600, 10], [600, 13]):
    for payoff in ("accuracy", "log_likelihood"):
        compare(random_tail(rng, widths, "relu", payoff, 40, "units"), rng, tol=1e-3)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc overwrites what is freed")
def test_memory_in_use_is_not_given_up():
    run_apart(WIDE, GLIBC_TUNABLES="glibc.malloc.perturb=85")


NARROW = """
import numpy as np
from test_kernels import compare, random_tail

rng = np.random.default_rng(3)
for payoff in ("accuracy", "smoothed_accuracy"):
    for widths in ([9, 10], [6, 7, 3], [5, 6, 4, 11]):
        compare(random_tail(rng, widths, "gelu", payoff, 21), rng)
"""


def test_a_processor_with_narrower_vectors_plays_the_same(tmp_path):
    """Compiled for the least of the processor's family: 128-bit vectors on x86."""
    run_apart(
        NARROW,
        NUMBA_CPU_NAME="generic",
        NUMBA_CPU_FEATURES="",
        NUMBA_CACHE_DIR=str(tmp_path),
    )


def test_importing_compiles_nothing():
    code = (
        "from skprune.evaluation import _kernels as k; "
        "print([f.signatures for f in vars(k).values() if hasattr(f, 'signatures')])"
    )
    assert run_apart(code) == "[[], [], [], [], []]"


@pytest.mark.parametrize("payoff", ["accuracy", "log_likelihood"])
@pytest.mark.parametrize("widths", [(7, 4), (5, 6, 4)])
def test_orders_by_names_are_those_they_stand_for(payoff, widths):
    rng = np.random.default_rng(8)
    plain = random_tail(rng, widths, "relu", payoff, 40, "units")
    tail, n = plain.prepare(), plain.n_players
    free = rng.permutation(n)[: n - 2]
    shared, names = (
        rng.permuted(np.tile(np.arange(n - 2), (rows, 1)), axis=1)
        for rows in (3, tail.n_blocks)
    )
    played = walk_marginals(tail, np.ones(n, bool), free, shared[:, None], names)
    orders = np.asarray(BlockOrders(shared, names))
    same = walk_marginals(tail, np.ones(n, bool), free, orders)
    np.testing.assert_array_equal(played, same)


@pytest.mark.parametrize("payoff", ["accuracy", "smoothed_accuracy"])
def test_sums_that_are_equal_tie_in_every_payoff(payoff):
    # 5 + 4 + 6 = 6 + 5 + 4: class 0 wins, whichever weights come first.
    weights = [np.array([[5, 4, 6], [6, 4, 5]], np.float32)]
    X = np.ones((1, 3), np.float32)
    plain = PlainTail(X, weights, [None], [], [np.arange(3)], [0], payoff)
    everybody = np.arange(3)
    orders = np.array([[[0, 1, 2]], [[2, 0, 1]]])
    np.testing.assert_allclose(
        walk_marginals(plain.prepare(), np.zeros(3, bool), everybody, orders),
        plain.walk(np.zeros(3, bool), everybody, orders),
        atol=1e-6,
    )


@pytest.mark.parametrize("activation", ["silu", "sigmoid"])
def test_saturated_units_are_silent(activation):
    X = np.full((3, 2), -200, np.float32)
    weights = [np.eye(2, dtype=np.float32), np.array([[0, 0], [1, -1]], np.float32)]
    biases = [np.zeros(2, np.float32), None]
    owners = [np.full(2, -1), np.arange(2)]
    plain = PlainTail(X, weights, biases, [activation], owners, [0, 1, 0], "accuracy")
    coalitions = np.array([[True, False], [False, True], [True, True]])
    np.testing.assert_allclose(
        coalition_payoffs(plain.prepare(), coalitions), [2 / 3] * 3
    )


def test_large_outputs_stay_finite():
    weights = [np.full((2, 1), 1.0, np.float32) * [[3e38], [-3e38]]]
    X, owners = np.ones((1, 1), np.float32), [np.zeros(1, int)]
    tail = prepare_tail(X, weights, [None], [], owners, 1, [0], "log_likelihood")
    played = coalition_payoffs(tail, np.array([[False], [True]]))
    np.testing.assert_allclose(played, [-np.log(2), 0], atol=1e-6)
