"""Batched masked passes: chunks, padding and memory."""

import numpy as np
import pytest
import torch

from skprune.evaluation import resolve_payoff
from skprune.evaluation._batched import BLOCK_SIZE, BatchedBackend
from skprune.networks import masked
from skprune.samplers import bernoulli_coalitions, uniform_orders


def backend_of(prepared, payoff="margin", memory_budget=2**28):
    targets = prepared.samples.targets
    prepared.split.rest.eval()
    return BatchedBackend(
        prepared.split,
        prepared.samples.features,
        targets,
        prepared.task,
        resolve_payoff(payoff, prepared.task, targets),
        memory_budget,
    )


@pytest.mark.parametrize("n_samples", [1, 16, 17, 50])
@pytest.mark.parametrize("memory_budget", [1, 10**4, 2**28])
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


@pytest.mark.parametrize("payoff", ["margin", "accuracy", "f1_macro"])
def test_memory_changes_no_payoff(zoo, payoff):
    prepared = zoo.prepare(zoo.make_net(zoo.mlp(), n_samples=70))
    roomy, tight = (backend_of(prepared, payoff, b) for b in (2**28, 1))
    assert tight._rows == BLOCK_SIZE
    coalitions = bernoulli_coalitions(16, 9, np.random.default_rng(0))
    np.testing.assert_allclose(
        roomy.payoffs(coalitions), tight.payoffs(coalitions), rtol=1e-6
    )


def test_walks_of_free_players_start_from_the_fixed_ones(zoo):
    prepared = zoo.prepare(zoo.make_net(zoo.mlp(), n_samples=20))
    backend = backend_of(prepared)
    start, free = np.arange(16) < 5, np.array([7, 2, 15])
    orders = uniform_orders(3, 4, np.random.default_rng(0), n_blocks=2)
    marginals = backend.walk(start, free, orders)
    ends = np.stack([start, start])
    ends[0, free], ends[1, free] = False, True
    low, high = backend.payoffs(ends)
    np.testing.assert_allclose(marginals.sum(axis=1), high - low, rtol=1e-5)


def test_a_device_out_of_memory_halves_the_chunk(zoo, monkeypatch):
    prepared = zoo.prepare(zoo.make_net(zoo.mlp(), n_samples=200))
    backend, wanted = backend_of(prepared), backend_of(prepared)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    run, sizes = backend._run, []

    def limited(coalitions, start, size):
        rows = min(backend._rows, len(coalitions) * size)
        if rows > 64:
            raise torch.OutOfMemoryError("too many rows")
        sizes.append(size)
        return run(coalitions, start, size)

    backend._run = limited
    coalitions = bernoulli_coalitions(16, 3, np.random.default_rng(0))
    np.testing.assert_allclose(
        backend.payoffs(coalitions), wanted.payoffs(coalitions), rtol=1e-6
    )
    assert all(size % BLOCK_SIZE == 0 for size in sizes)
    assert sum(sizes) == 208


def test_a_device_that_holds_not_even_a_block_says_so(zoo):
    prepared = zoo.prepare(zoo.make_net(zoo.mlp(), n_samples=20))
    backend = backend_of(prepared, memory_budget=1)

    def full(*_):
        raise torch.OutOfMemoryError("no room")

    backend._run = full
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        backend.payoffs(np.ones((1, 16), bool))
