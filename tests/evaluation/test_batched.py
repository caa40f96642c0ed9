"""Any module: the plain loop's payoffs, whatever the stages, tiles and threads."""

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from skprune.evaluation import CoalitionEvaluator, resolve_payoff, split_module
from skprune.evaluation import _batched as batched
from skprune.evaluation import _compaction as compaction
from skprune.evaluation import _memory as memory
from skprune.evaluation._batched import BLOCK_SIZE, BatchedBackend
from skprune.evaluation._payoffs import Task
from skprune.evaluation._split import SplitModule
from skprune.networks import call, find_players, masked, tensors_in
from skprune.samplers import bernoulli_coalitions, uniform_orders


def network_patterns():
    """The list of networks that drives the keystone tests."""
    path = Path(__file__).parents[1] / "networks" / "conftest.py"
    spec = importlib.util.spec_from_file_location("network_patterns", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # A net of two outputs has no payoff.
    return [pattern for pattern in module.PATTERNS if pattern.name != "two heads"]


PATTERNS = network_patterns()
N_SAMPLES = 19


def margins(logits, y):
    own = functional.one_hot(y, logits.shape[-1]).bool()
    others = logits.masked_fill(own, -torch.inf).amax(-1)
    return logits.gather(-1, y[:, None])[:, 0] - others


class PlainLoop:
    """One masked forward pass for every coalition, and margins of all samples."""

    def __init__(self, module, players, inputs, y):
        self.module, self.players, self.inputs, self.y = module, players, inputs, y
        self.blocks = np.arange(len(y)) // BLOCK_SIZE
        # Rounding is in units of the largest margin, also where marginals are small.
        everybody = np.ones(players.n_players, dtype=bool)
        self.scale = max(1.0, np.abs(self.values(everybody)).max())

    def values(self, coalition):
        with masked(self.module, self.players, coalition), torch.no_grad():
            outputs = call(self.module, self.inputs)
        return margins(outputs.reshape(len(outputs), -1), self.y).double().numpy()

    def payoff(self, coalitions):
        """Mean over samples, each of which plays its block's coalition."""
        values = [
            self.values(coalitions[block % len(coalitions)])[self.blocks == block]
            for block in range(self.blocks[-1] + 1)
        ]
        return np.concatenate(values).mean()

    def walk(self, orders):
        """Marginals of one order, of shape (n_blocks or 1, n_players)."""
        marginals = np.zeros(orders.shape[1])
        for block in range(self.blocks[-1] + 1):
            present = np.zeros(orders.shape[1], dtype=bool)
            before = self.values(present)
            for player in orders[block % len(orders)]:
                present[player] = True
                after = self.values(present)
                gain = (after - before)[self.blocks == block]
                marginals[player], before = marginals[player] + gain.sum(), after
        return marginals / len(self.y)

    def flip(self, coalitions):
        """Marginals around one coalition, of shape (n_blocks or 1, n_players)."""
        marginals = []
        for player in range(coalitions.shape[1]):
            ends = np.stack([coalitions, coalitions])
            ends[0, :, player], ends[1, :, player] = False, True
            marginals.append(self.payoff(ends[1]) - self.payoff(ends[0]))
        return np.array(marginals)


def problem_of(pattern):
    """Plain loop and arguments of a backend for a network of the list."""
    module, inputs = pattern.build(), pattern.input(N_SAMPLES)
    players = find_players(module, inputs, pattern.players)
    if pattern.name == "one layer":
        split = SplitModule(module, players)
    else:
        split = split_module(module, players, inputs)
    with torch.no_grad():
        features = split.features(inputs)
        n_outputs = call(module, inputs).flatten(1).shape[1]
    y = torch.arange(N_SAMPLES) % n_outputs
    task = Task("multiclass", nn.CrossEntropyLoss())
    payoff = resolve_payoff("margin", task, y)
    return PlainLoop(module, players, inputs, y), (split, features, y, task, payoff)


@pytest.fixture(params=PATTERNS, ids=lambda pattern: pattern.name.replace(" ", "-"))
def case(request):
    return problem_of(request.param)


def some_of(n_players):
    """A few players, when there are many: walks of the plain loop are slow."""
    return np.random.default_rng(3).permutation(n_players)[:12]


def assert_like(found, wanted, plain):
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * plain.scale)


@pytest.mark.parametrize("worth", [0.0, np.inf], ids=["compacted", "masked"])
def test_payoffs_are_those_of_the_plain_loop(case, worth, monkeypatch):
    plain, args = case
    monkeypatch.setattr(compaction, "_WORTH_A_LAYER", {"cpu": worth})
    backend = BatchedBackend(*args)
    n, rng = plain.players.n_players, np.random.default_rng(0)
    coalitions = bernoulli_coalitions(n, 6, rng, inclusion_probability=0.6)
    coalitions = np.vstack([coalitions, np.zeros((1, n), bool), np.ones((1, n), bool)])
    wanted = np.array([plain.payoff(coalition[None]) for coalition in coalitions])
    assert_like(backend.payoffs(coalitions), wanted, plain)
    shrunk = [backend._pays(keep, N_SAMPLES) for keep in coalitions]
    assert any(shrunk) == (worth == 0)
    # Nobody leaves a layer to play on.
    assert not shrunk[-2]


@pytest.mark.parametrize("n_blocks", [1, 2])
def test_walks_are_those_of_the_plain_loop(case, n_blocks):
    plain, args = case
    n = plain.players.n_players
    free, start = some_of(n), np.random.default_rng(0).random(n) < 0.5
    orders = uniform_orders(len(free), 2, np.random.default_rng(1), n_blocks=n_blocks)
    found = BatchedBackend(*args).walk(start, free, orders)
    for marginals, order in zip(found, orders, strict=True):
        wanted, present = np.zeros(len(free)), np.tile(start, (2, 1))
        present[:, free] = False
        for block, joins in enumerate(np.broadcast_to(order, (2, len(free)))):
            own, rows = present[block].copy(), plain.blocks == block
            before = plain.values(own)[rows]
            for player in joins:
                own[free[player]] = True
                after = plain.values(own)[rows]
                wanted[player] += (after - before).sum() / N_SAMPLES
                before = after
        assert_like(marginals, wanted, plain)


@pytest.mark.parametrize("n_blocks", [1, 2])
def test_flips_are_those_of_the_plain_loop(case, n_blocks):
    plain, args = case
    n = plain.players.n_players
    free = some_of(n)
    rng = np.random.default_rng(2)
    coalitions = bernoulli_coalitions(n, 2, rng, n_blocks=n_blocks)
    found = BatchedBackend(*args).flip(free, coalitions)
    for marginals, around in zip(found, coalitions, strict=True):
        for player, marginal in zip(free, marginals, strict=True):
            ends = np.stack([around, around])
            ends[0, :, player], ends[1, :, player] = False, True
            wanted = plain.payoff(ends[1]) - plain.payoff(ends[0])
            assert_like(marginal, wanted, plain)


STAGES = {
    "mlp relu": (2, 2),
    "mlp batch norm": (2, 2),
    "layer norm first": (2, 0),
    "lenet5 flatten": (3, 3),
    "lenet5 filters": (3, 2),
    "conv net": (2, 1),
    "residual conv": (2, 0),
    "residual mlp": (2, 2),
    "residual norm": (2, 1),
    "conv net strided": (2, 1),
    "embedding bag": (1, 1),
    "squeeze neurons": (2, 2),
}


@pytest.mark.parametrize("name", STAGES)
def test_networks_are_divided_by_who_reads_whom(name):
    """A network that silently fell back to one stage would only be slow."""
    pattern = next(pattern for pattern in PATTERNS if pattern.name == name)
    _, args = problem_of(pattern)
    stages = BatchedBackend(*args)._staged.stages
    assert (len(stages), sum(bool(stage.entries) for stage in stages)) == STAGES[name]


def backend_of(prepared, payoff="margin", memory_budget=None, n_threads=None):
    targets = prepared.samples.targets
    prepared.split.rest.eval()
    return BatchedBackend(
        prepared.split,
        prepared.samples.features,
        targets,
        prepared.task,
        resolve_payoff(payoff, prepared.task, targets),
        memory_budget,
        n_threads,
    )


def plays(backend, n_orders=5, seed=0):
    """Payoffs, walks and flips, with and without blocks, in one array."""
    n, rng = backend.split.players.n_players, np.random.default_rng(seed)
    everybody, nobody = np.arange(n), np.zeros(n, bool)
    found = [backend.payoffs(bernoulli_coalitions(n, 9, rng))]
    for blocks in (1, backend.n_blocks):
        orders = uniform_orders(n, n_orders, rng, n_blocks=blocks)
        around = bernoulli_coalitions(n, n_orders, rng, n_blocks=blocks)
        found.append(backend.walk(nobody, everybody, orders))
        found.append(backend.flip(everybody, around))
    return np.concatenate([part.ravel() for part in found])


@pytest.mark.parametrize("payoff", ["margin", "accuracy", "log_likelihood"])
@pytest.mark.parametrize("make", ["mlp", "conv_net", "norm_net", "DataDependent"])
def test_neither_memory_nor_threads_change_a_bit(zoo, payoff, make, monkeypatch):
    shape = (2, 6, 6) if make == "conv_net" else (6,)
    problem = zoo.make_net(getattr(zoo, make)(), n_samples=70, shape=shape)
    prepared = zoo.prepare(problem, "filters" if make == "conv_net" else "neurons")
    wanted = plays(backend_of(prepared, payoff, n_threads=1))
    for budget, n_threads in itertools.product([1, 50_000, None], [1, 2, 3]):
        monkeypatch.setattr(batched, "_RESULT_BYTES", 2**25 if n_threads == 1 else 1)
        found = plays(backend_of(prepared, payoff, budget, n_threads))
        np.testing.assert_array_equal(found, wanted)
    if payoff == "accuracy":
        np.testing.assert_array_equal(plays(backend_of(prepared, payoff)), wanted)


def test_torch_has_its_threads_back(zoo):
    prepared = zoo.prepare(zoo.make_net(zoo.mlp()))
    before, seen = torch.get_num_threads(), []
    backend = backend_of(prepared, n_threads=2)
    hidden = backend._free_seats[0].staged.rest.get_submodule("4")
    hidden.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    torch.set_num_threads(2)
    try:
        plays(backend)
        assert torch.get_num_threads() == 2
        assert set(seen) == {1}
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("n_samples", [1, 16, 17, 50])
@pytest.mark.parametrize("memory_budget", [1, 10**4, None])
def test_logits_are_those_of_masked_passes(zoo, n_samples, memory_budget):
    problem = zoo.make_net(zoo.mlp(), n_samples=n_samples)
    prepared = zoo.prepare(problem)
    backend = backend_of(prepared, memory_budget=memory_budget)
    coalitions = bernoulli_coalitions(16, 9, np.random.default_rng(0))
    logits = backend.logits(coalitions)
    assert logits.shape == (9, n_samples, 3)
    for coalition, own in zip(coalitions, logits, strict=True):
        with masked(problem.module, prepared.players, coalition), torch.no_grad():
            torch.testing.assert_close(own, problem.module(torch.from_numpy(problem.X)))


def test_a_metric_is_taken_of_all_predictions(zoo):
    prepared = zoo.prepare(zoo.make_net(zoo.mlp(), n_samples=70))
    coalitions = bernoulli_coalitions(16, 9, np.random.default_rng(0))
    roomy, tight = (backend_of(prepared, "f1_macro", b) for b in (None, 1))
    np.testing.assert_array_equal(roomy.payoffs(coalitions), tight.payoffs(coalitions))


class InPlace(nn.Module):
    """Works in place on what other layers read."""

    def __init__(self):
        super().__init__()
        self.stem, self.out = nn.Linear(6, 8), nn.Linear(8, 3)
        self.up, self.down = nn.Linear(8, 7), nn.Linear(7, 8)

    def forward(self, x):
        h = functional.relu(self.stem(x), inplace=True)
        h += self.down(self.up(h).relu_())
        return self.out(h)


def test_layers_that_work_in_place_spoil_nothing_that_is_kept(zoo):
    problem = zoo.make_net(InPlace(), n_samples=N_SAMPLES)
    prepared = zoo.prepare(problem)
    backend = backend_of(prepared)
    inputs, y = torch.from_numpy(problem.X), torch.from_numpy(problem.y)
    plain = PlainLoop(problem.module.eval(), prepared.players, inputs, y)
    n, rng = prepared.players.n_players, np.random.default_rng(0)
    orders = uniform_orders(n, 2, rng, n_blocks=2)
    around = bernoulli_coalitions(n, 2, rng, n_blocks=2)
    walked = backend.walk(np.zeros(n, bool), np.arange(n), orders)
    assert_like(walked, np.array([plain.walk(order) for order in orders]), plain)
    flipped = backend.flip(np.arange(n), around)
    assert_like(flipped, np.array([plain.flip(center) for center in around]), plain)


@pytest.mark.parametrize("layer", [0, 2])
def test_an_infinite_unit_is_gone_when_it_leaves(zoo, layer):
    problem = zoo.make_net(zoo.mlp(), n_samples=50)
    with torch.no_grad():
        problem.module[layer].bias[4] = torch.inf
    backend = backend_of(zoo.prepare(problem), "accuracy")
    unit = 4 + 9 * (layer == 2)
    around = bernoulli_coalitions(16, 6, np.random.default_rng(0))
    around[:3, unit], around[3:, unit] = True, False
    ends = np.repeat(around, 2, axis=0)
    ends[::2, unit], ends[1::2, unit] = False, True
    low, high = backend.payoffs(ends).reshape(-1, 2).T
    marginals = backend.flip(np.array([unit]), around[:, None])[:, 0]
    np.testing.assert_allclose(marginals, high - low, rtol=0, atol=1e-12)
    assert np.abs(marginals).max() > 0.05


@pytest.mark.parametrize("memory_budget", [1, 10**4, 10**6])
def test_tiles_cover_everything_once_and_fit(zoo, memory_budget):
    prepared = zoo.prepare(zoo.make_net(zoo.mlp(), n_samples=200))
    backend = backend_of(prepared, memory_budget=memory_budget, n_threads=3)
    covered = np.zeros((11, backend.n_blocks), int)
    for tile in backend._tiles_of_lineups(11, 16):
        covered[tile.games, tile.blocks] += 1
        rows = len(tile.games) * tile.n_blocks
        kept = rows * BLOCK_SIZE * backend._staged.slot_bytes
        assert rows == 1 or kept <= memory_budget
    assert (covered == 1).all()


SHORTAGES = {
    "device": torch.OutOfMemoryError("CUDA out of memory."),
    "numpy": MemoryError("Unable to allocate 8 EiB"),
    "torch": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to"),
}


class Short:
    """Raises where a layer reads more rows than there is room for."""

    def __init__(self, error, most):
        self.error, self.most, self.raised = error, most, 0

    def __call__(self, layer, args):
        if len(args[0]) > self.most:
            self.raised += 1
            raise self.error


def short_backend(zoo, error, most, memory_budget=None):
    prepared = zoo.prepare(zoo.make_net(zoo.mlp(), n_samples=200))
    backend = backend_of(prepared, memory_budget=memory_budget)
    short = Short(error, most)
    last = backend._free_seats[0].staged.rest.get_submodule("4")
    last.register_forward_pre_hook(short)
    return backend, short, plays(backend_of(prepared))


@pytest.mark.parametrize("error", SHORTAGES.values(), ids=SHORTAGES)
def test_too_little_memory_halves_the_budget(zoo, error):
    backend, short, wanted = short_backend(zoo, error, most=64)
    before = backend.memory_budget
    np.testing.assert_array_equal(plays(backend), wanted)
    assert short.raised > 0
    assert backend.memory_budget < before


def test_room_for_not_even_a_block_is_said(zoo):
    backend, short, _ = short_backend(zoo, SHORTAGES["device"], 0, memory_budget=10**5)
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        plays(backend)
    assert 1 < short.raised < 30


def test_other_errors_are_not_taken_for_too_little_memory(zoo):
    backend, short, _ = short_backend(zoo, RuntimeError("shapes do not fit"), 0)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        plays(backend)
    assert short.raised == 1


@pytest.mark.parametrize("worth", [0.0, np.inf])
def test_an_exception_leaves_the_module_as_it_was(zoo, worth, monkeypatch):
    monkeypatch.setattr(compaction, "_WORTH_A_LAYER", {"cpu": worth})
    backend, short, wanted = short_backend(zoo, RuntimeError("no"), 10**9)
    short.most = 0
    with pytest.raises(RuntimeError, match="no"):
        plays(backend)
    short.most = 10**9
    np.testing.assert_allclose(plays(backend), wanted, rtol=1e-4, atol=1e-6)
    hooks = [len(m._forward_pre_hooks) for m in backend.split.rest.modules()]
    assert sum(hooks) == 0


def test_memory_is_asked_for_by_what_is_free(monkeypatch, tmp_path):
    cpu = torch.device("cpu")
    monkeypatch.setattr(memory, "free_memory", lambda: 8 * 10**6)
    assert memory.default_budget(cpu) == 10**6
    monkeypatch.setattr(memory, "free_memory", lambda: 10**12)
    assert memory.default_budget(cpu) == 2**24
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * 10**6, 10**9))
    assert memory.default_budget(torch.device("cuda")) == 10**6


def test_free_memory_is_known_on_other_systems_too(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", missing)
    known = memory.free_memory()
    monkeypatch.delattr(memory.os, "sysconf")
    unknown = memory.free_memory()
    monkeypatch.undo()
    assert known > 2**20
    assert unknown // 8 == 2**24


def test_an_evaluator_takes_threads_and_memory(zoo):
    problem = zoo.make_net(zoo.norm_net(), n_samples=50)
    orders = uniform_orders(9, 3, np.random.default_rng(0), n_blocks=4)
    walks = [
        CoalitionEvaluator(problem.net, problem.X, problem.y, **parameters).walk(orders)
        for parameters in ({}, {"n_jobs": 1}, {"n_jobs": 3}, {"memory_budget": 1})
    ]
    for walk in walks[1:]:
        np.testing.assert_array_equal(walk, walks[0])


def test_features_are_not_copied_for_the_samples_that_a_block_lacks(zoo):
    prepared = zoo.prepare(zoo.make_net(zoo.mlp(), n_samples=17))
    backend = backend_of(prepared)
    kept = tensors_in(backend.features)
    own = tensors_in(prepared.samples.features)
    assert [x.data_ptr() for x in kept] == [x.data_ptr() for x in own]


def test_a_call_needs_no_seat_that_another_thread_sits_on(zoo):
    problem = zoo.make_net(zoo.mlp())
    game = CoalitionEvaluator(problem.net, problem.X, problem.y, backend="batched")
    everybody = np.ones((1, game.n_players), dtype=bool)
    expected = game(everybody)
    with game._batched._seat():
        assert not game._batched._free_seats
        np.testing.assert_array_equal(game(everybody), expected)
