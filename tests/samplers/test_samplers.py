"""Samplers draw what they promise, from the generator that they are given."""

from functools import partial

import numpy as np
import pytest

from skprune.samplers import (
    antithetic_orders,
    bernoulli_coalitions,
    complement_pairs,
    fixed_size_coalitions,
    sobol_orders,
    uniform_orders,
)

ORDERS = [uniform_orders, antithetic_orders, sobol_orders]
COALITIONS = [
    partial(bernoulli_coalitions, inclusion_probability=0.3),
    complement_pairs,
    partial(fixed_size_coalitions, size=2),
]
BLOCKED = [uniform_orders, antithetic_orders, COALITIONS[0], COALITIONS[2]]


@pytest.mark.parametrize("sampler", ORDERS)
def test_orders_are_uniform_permutations(sampler):
    orders = sampler(3, 4096, np.random.default_rng(0))
    assert orders.dtype == np.intp
    np.testing.assert_array_equal(np.sort(orders, axis=1), [[0, 1, 2]] * 4096)
    counts = np.unique(orders @ [9, 3, 1], return_counts=True)[1]
    assert counts.size == 6
    # Pairs halve the independent draws, which doubles the variance of a count.
    deviation = np.sqrt(2 * 4096 * (1 / 6) * (5 / 6))
    assert abs(counts - 4096 / 6).max() < 4 * deviation


@pytest.mark.parametrize("sampler", ORDERS + COALITIONS)
def test_same_generator_state_same_samples(sampler):
    first = sampler(5, 8, np.random.default_rng(3))
    np.testing.assert_array_equal(first, sampler(5, 8, np.random.default_rng(3)))
    assert (first != sampler(5, 8, np.random.default_rng(4))).any()


@pytest.mark.parametrize("sampler", BLOCKED)
def test_blocks_draw_for_themselves(sampler):
    samples = sampler(6, 8, np.random.default_rng(0), n_blocks=3)
    assert samples.shape == (8, 3, 6)
    assert (samples[:, 0] != samples[:, 1]).any()


@pytest.mark.parametrize("second", [(0, 1), (1, 0), (1, 1)], ids=str)
def test_orders_of_blocks_are_independent_in_pairs(second):
    rng, n_draws = np.random.default_rng(0), 7200
    drawn = np.array([uniform_orders(3, 2, rng, n_blocks=2) for _ in range(n_draws)])
    codes = np.unique(drawn @ [9, 3, 1], return_inverse=True)[1]
    codes = codes.reshape(n_draws, 2, 2)
    pairs = 6 * codes[:, 0, 0] + codes[(slice(None), *second)]
    counts = np.bincount(pairs, minlength=36)
    # All 36 pairs of orders are equally likely.
    assert abs(counts - n_draws / 36).max() < 4.5 * np.sqrt(n_draws / 36)


@pytest.mark.parametrize("n_blocks", [None, 2])
@pytest.mark.parametrize("n_samples", [1, 4, 5])
def test_antithetic_orders_come_with_their_reverse(n_samples, n_blocks):
    orders = antithetic_orders(
        6, n_samples, np.random.default_rng(0), n_blocks=n_blocks
    )
    assert len(orders) == n_samples
    paired = n_samples // 2 * 2
    np.testing.assert_array_equal(orders[1:paired:2], orders[:paired:2, ..., ::-1])


def test_sobol_orders_spread_evenly():
    # Who joins first among two is balanced in every scrambling, not on average only.
    for seed in range(5):
        orders = sobol_orders(2, 64, np.random.default_rng(seed))
        assert abs(orders[:, 0].mean() - 0.5) <= 1 / 16


@pytest.mark.parametrize(("n_players", "n_samples"), [(3, 6), (3, 0), (21_202, 2)])
def test_sobol_orders_refuse(n_players, n_samples):
    with pytest.raises(ValueError, match=r"n_players=21202|n_samples="):
        sobol_orders(n_players, n_samples, np.random.default_rng(0))


def test_bernoulli_coalitions_include_with_the_probability():
    rng = np.random.default_rng(0)
    drawn = bernoulli_coalitions(4, 20_000, rng, inclusion_probability=0.2)
    assert drawn.dtype == np.bool_
    tolerance = 4 * np.sqrt(0.2 * 0.8 / 20_000)
    np.testing.assert_allclose(drawn.mean(axis=0), 0.2, atol=tolerance)
    covariance = np.cov(drawn.T, dtype=float) - 0.16 * np.eye(4)
    assert abs(covariance).max() < 4 * 0.16 / np.sqrt(20_000) * 1.5


@pytest.mark.parametrize("n_samples", [1, 6, 7])
def test_complement_pairs(n_samples):
    drawn = complement_pairs(9, n_samples, np.random.default_rng(0))
    assert drawn.shape == (n_samples, 9)
    paired = n_samples // 2 * 2
    np.testing.assert_array_equal(drawn[1:paired:2], ~drawn[:paired:2])


@pytest.mark.parametrize("size", [0, 2, 5])
def test_fixed_size_coalitions(size):
    drawn = fixed_size_coalitions(5, 4000, np.random.default_rng(0), size=size)
    assert (drawn.sum(axis=1) == size).all()
    share = size / 5
    tolerance = 4 * np.sqrt(share * (1 - share) / 4000)
    np.testing.assert_allclose(drawn.mean(axis=0), share, atol=tolerance)


def test_impossible_coalitions_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="size=6 must lie between 0 and n_players=5"):
        fixed_size_coalitions(5, 2, rng, size=6)
    with pytest.raises(ValueError, match=r"inclusion_probability=1.5"):
        bernoulli_coalitions(5, 2, rng, inclusion_probability=1.5)
