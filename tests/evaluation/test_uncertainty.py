"""MCUE on nets whose uncertainty is known."""

from types import SimpleNamespace

import numpy as np
import pytest

from skprune.evaluation import CoalitionEvaluator, critical_size, uncertainty_bands


class Toy:
    """A net of a given rule: coalitions in, predictions (m, n_samples) out."""

    task = SimpleNamespace(kind="multiclass")

    def __init__(self, n_players, rule, kind="multiclass"):
        self.n_players, self.rule = n_players, rule
        self.task = SimpleNamespace(kind=kind)
        self.played = []

    def predict(self, coalitions):
        self.played.append(np.array(coalitions))
        return np.asarray(self.rule(coalitions))


def needs_one_neuron(n_players=10, n_samples=3):
    """Class 1 while player 0 is there, class 0 otherwise."""
    return Toy(n_players, lambda c: np.repeat(c[:, :1], n_samples, axis=1).astype(int))


def test_a_net_that_needs_one_neuron_is_least_certain_at_half():
    grid = np.arange(0.1, 1.0, 0.1)
    size = critical_size(needs_one_neuron(), grid, n_subnetworks=4000, random_state=0)
    # The neuron survives both phases with probability (1 - t)²: a coin near t = 0.3.
    survival = (1 - grid) ** 2
    np.testing.assert_allclose(size.values, 2 * survival * (1 - survival), atol=0.03)
    assert size.elimination == pytest.approx(0.3)
    assert size.fraction == pytest.approx(0.7)
    assert size.surviving_fraction == pytest.approx(0.49)
    np.testing.assert_array_equal(size.grid, grid)


def test_bands_are_those_of_two_phases():
    p, q = [0.0, 0.5], [0.0, 0.2, 0.8]
    bands = uncertainty_bands(
        needs_one_neuron(), p, q, n_subnetworks=4000, random_state=1
    )
    survival = np.outer(1 - np.array(p), 1 - np.array(q))
    np.testing.assert_allclose(bands.values, 2 * survival * (1 - survival), atol=0.03)
    assert bands.values[0, 0] == 0
    np.testing.assert_array_equal(bands.p, p)
    np.testing.assert_array_equal(bands.q, q)


def test_entropy_is_that_of_the_coin():
    bands = uncertainty_bands(
        needs_one_neuron(), [0.5], [0.0], n_subnetworks=4000, variance="entropy",
        random_state=0,
    )  # fmt: skip
    assert bands.values[0, 0] == pytest.approx(np.log(2), abs=0.01)


@pytest.mark.parametrize("variance", ["one_hot", "entropy", "class_index"])
def test_a_net_that_never_changes_its_mind_is_certain(variance):
    net = Toy(6, lambda c: np.full((len(c), 5), 2))
    bands = uncertainty_bands(net, [0.2, 0.7], [0.5], variance=variance, random_state=0)
    np.testing.assert_array_equal(bands.values, 0)


def test_instances_that_differ_are_no_uncertainty_but_pooled_they_are():
    net = Toy(6, lambda c: np.tile([0, 4, 2], (len(c), 1)))
    keywords = {"n_subnetworks": 8, "random_state": 0}
    assert uncertainty_bands(net, [0.5], [0.5], **keywords).values == 0
    pooled = uncertainty_bands(net, [0.5], [0.5], variance="class_index", **keywords)
    wanted = np.var(np.tile([0, 4, 2], 8), ddof=1)
    assert pooled.values[0, 0] == pytest.approx(wanted)


def test_class_index_is_the_pooled_variance_of_what_was_predicted():
    net = needs_one_neuron(5, 2)
    value = uncertainty_bands(
        net, [0.3], [0.4], n_subnetworks=40, variance="class_index", random_state=3
    ).values[0, 0]
    played = np.concatenate(net.played)
    assert len(played) == 40
    assert value == pytest.approx(np.repeat(played[:, 0], 2).var(ddof=1))


def test_the_one_hot_variance_sums_over_classes_and_is_unbiased():
    net = Toy(8, lambda c: np.stack([c.sum(axis=1) % 3, c[:, 0]], axis=1).astype(int))
    value = uncertainty_bands(
        net, [0.4], [0.0], n_subnetworks=30, random_state=0
    ).values[0, 0]
    predicted = net.rule(np.concatenate(net.played))
    one_hot = (predicted[..., None] == np.arange(3)).astype(float)
    assert value == pytest.approx(one_hot.var(axis=0, ddof=1).sum(axis=1).mean())


def test_regression_takes_the_variance_within_an_instance():
    net = Toy(4, lambda c: np.outer(c.sum(axis=1), [1.0, 2.0])[..., None], "regression")
    value = uncertainty_bands(
        net, [0.5], [0.0], n_subnetworks=50, random_state=0
    ).values[0, 0]
    sums = np.concatenate(net.played).sum(axis=1)
    assert value == pytest.approx(sums.var(ddof=1) * 2.5)


def test_the_first_phase_leaves_an_exact_number():
    net = needs_one_neuron(10)
    uncertainty_bands(net, [0.0], [0.3], n_subnetworks=20, random_state=0)
    assert set(np.concatenate(net.played).sum(axis=1)) == {7}


def test_same_seed_same_bits_on_a_real_net(zoo):
    problem = zoo.make_net(zoo.mlp())
    game = CoalitionEvaluator(problem.net, problem.X, problem.y)
    first, second, other = (
        critical_size(game, [0.1, 0.5, 0.9], n_subnetworks=20, random_state=seed)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.values, second.values)
    assert (first.values != other.values).any()
    assert (first.values >= 0).all()


def test_the_default_grid_is_played_on_small_nets_too():
    size = critical_size(needs_one_neuron(4), n_subnetworks=4, random_state=0)
    assert size.grid[0] == pytest.approx(0.05)
    assert size.grid[-1] == pytest.approx(0.975)
    assert len(size.grid) == 38


@pytest.mark.parametrize("rates", [[1.0], [-0.1], [], [[0.1, 0.2]], [np.nan]])
def test_rates_that_cannot_be_are_refused(rates):
    net = needs_one_neuron()
    with pytest.raises(ValueError, match=r"grid must hold .* rates in \[0, 1\)"):
        critical_size(net, rates)
    with pytest.raises(ValueError, match="p must hold"):
        uncertainty_bands(net, rates, [0.5])
    with pytest.raises(ValueError, match="q must hold"):
        uncertainty_bands(net, [0.5], rates)


def test_other_parameters_that_cannot_be_are_refused():
    net = needs_one_neuron()
    with pytest.raises(ValueError, match="variance='range'; use 'one_hot'"):
        critical_size(net, [0.5], variance="range")
    with pytest.raises(ValueError, match="n_subnetworks=1 must be at least 2"):
        uncertainty_bands(net, [0.5], [0.5], n_subnetworks=1)
