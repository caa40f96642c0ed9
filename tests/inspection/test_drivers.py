"""Strengths of drivers against networks where they are known, and brute force."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, csr_matrix
from skorch import NeuralNetClassifier
from torch import nn

from skprune.inspection._drivers import Activations, FeatureStrengths
from skprune.networks import find_players

SIZES = ["present", "standardized"]


def net_of(module, dtype=torch.float64):
    net = NeuralNetClassifier(module.to(dtype), criterion=nn.CrossEntropyLoss)
    return net.initialize()


def strengths_of(module, X, kinds="neurons", effect="standardized", example=None):
    """Strengths of all players by all features, 0 for players without activation."""
    net = net_of(module)
    example = torch.as_tensor(X[:2]) if example is None else example
    with torch.no_grad():
        players = find_players(net.module_, example, kinds)
    found = FeatureStrengths(net, players, X, effect, min_samples=1)
    table = np.zeros((players.n_players, found.n_features))
    for player, strengths in found.of_players():
        table[player] = strengths
    return table


def by_differences(activations, X, effect):
    """The same for functions of dense rows, with central differences as gradients."""
    X, step = X.astype(np.float64), 1e-5
    a = activations(X)
    table = np.zeros((a.shape[1], X.shape[1]))
    for feature in range(X.shape[1]):
        shift = step * np.eye(X.shape[1])[feature]
        g = (activations(X + shift) - activations(X - shift)) / (2 * step)
        x = X[:, [feature]]
        mean_square = (g**2 * x**2).sum(0) / (x**2).sum()
        size = x.std() if effect == "standardized" else np.sqrt((x[x != 0] ** 2).mean())
        signs = np.where((g * x**2).sum(0) < 0, -1, 1)
        table[:, feature] = signs * np.sqrt(mean_square) * size / a.std(0)
    return table


def sparse_samples(n_samples=60, n_features=7, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n_samples, n_features))
    return values * (rng.random(values.shape) < 0.4)


def perceptron(*widths, seed=0):
    torch.manual_seed(seed)
    layers = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.Tanh()]
    return nn.Sequential(*layers[:-1]).double()


def test_a_unit_that_reads_one_feature_is_driven_by_it_alone():
    module = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[0, 0, 3.0, 0], [0, -2.0, 0, 1.0]]))
        module[0].bias.fill_(100.0)
    X = np.random.default_rng(0).normal(size=(50, 4))
    table = strengths_of(module, X)
    first = X[:, 1] * -2 + X[:, 3]
    expected = [-2 * X[:, 1].std(), X[:, 3].std()] / first.std()
    # Of a linear unit, the standardized regression coefficients.
    np.testing.assert_allclose(table[0], [0, 0, 1, 0], atol=1e-10)
    np.testing.assert_allclose(table[1], [0, expected[0], 0, expected[1]], atol=1e-10)


def test_units_are_compared_in_their_own_deviations():
    """A ReLU unit computes the same if its weights grow and those behind it shrink."""
    module, X = perceptron(4, 3, 2), sparse_samples(n_features=4)
    module[1] = nn.ReLU()
    before = strengths_of(module, X)
    with torch.no_grad():
        module[0].weight[1] *= 50
        module[0].bias[1] *= 50
    np.testing.assert_allclose(strengths_of(module, X), before, rtol=1e-8)


def test_a_unit_that_answers_to_both_ends_does_not_cancel():
    module = nn.Sequential(
        nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 2)
    )
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        module[2].weight.fill_(1.0)
        for layer in (module[0], module[2]):
            layer.bias.zero_()
    X = np.linspace(-1, 1, 40)[:, np.newaxis]
    strength = abs(strengths_of(module, X, [("neurons", "2")])[0, 0])
    assert strength == pytest.approx(X.std() / np.abs(X).std())


def test_what_never_varies_drives_nothing():
    module, X = perceptron(3, 4, 2), sparse_samples(n_features=3)
    X[:, 1] = 7.0
    with torch.no_grad():
        module[0].weight[2] = 0
    table = strengths_of(module, X)
    assert (table[:, 1] == 0).all()
    assert (table[2] == 0).all()
    assert (table[[0, 1, 3]][:, [0, 2]] != 0).all()


@pytest.mark.parametrize("effect", SIZES)
def test_deep_neurons_are_those_of_finite_differences(effect):
    module, X = perceptron(7, 6, 5, 3), sparse_samples()

    def activations(rows):
        with torch.no_grad():
            first = module[:2](torch.from_numpy(rows))
            return torch.cat([first, module[2:4](first)], 1).numpy()

    expected = by_differences(activations, X, effect)
    np.testing.assert_allclose(strengths_of(module, X, effect=effect), expected, 1e-6)


def test_filters_are_summed_over_positions():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2)
    ).double()
    X = np.random.default_rng(1).normal(size=(30, 9))

    def activations(rows):
        with torch.no_grad():
            images = torch.from_numpy(rows.reshape(-1, 1, 3, 3))
            return module[:2](images).sum((2, 3)).numpy()

    table = strengths_of(module, X.reshape(-1, 1, 3, 3), "filters")
    expected = by_differences(activations, X, "standardized")
    np.testing.assert_allclose(table, expected, 1e-6)


def test_inputs_as_players_are_driven_by_themselves():
    module, X = perceptron(5, 4, 2), sparse_samples(n_features=5)
    for samples in (X, csr_matrix(X)):
        table = strengths_of(module, samples, "inputs", example=torch.as_tensor(X[:2]))
        np.testing.assert_allclose(table, np.eye(5), atol=1e-12)


def test_weights_and_layers_have_no_drivers():
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3), nn.Linear(3, 2))
    X = sparse_samples(n_features=4)
    assert (strengths_of(module, X, "weights") == 0).all()
    assert (strengths_of(module, X, [("layers", "2")]) == 0).all()


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.inner = nn.Linear(4, 3), nn.Linear(3, 3)
        self.last, self.relu = nn.Linear(3, 2), nn.ReLU(inplace=True)

    def forward(self, x):
        h = self.first(x)
        return self.last(self.relu(h + self.inner(h)))


def test_units_read_twice_count_at_their_first_reader():
    torch.manual_seed(0)
    module, X = Residual().double(), sparse_samples(n_features=4)

    def activations(rows):
        with torch.no_grad():
            return module.first(torch.from_numpy(rows)).numpy()

    expected = by_differences(activations, X, "standardized")
    np.testing.assert_allclose(strengths_of(module, X), expected, 1e-6)


@pytest.mark.parametrize("effect", SIZES)
@pytest.mark.parametrize("kind", [csr_array, csr_matrix])
def test_sparse_rows_are_as_dense_ones(kind, effect):
    module, X = perceptron(7, 6, 5, 3), sparse_samples()
    dense = strengths_of(module, X, effect=effect)
    example = torch.as_tensor(X[:2])
    some = strengths_of(module, kind(X), effect=effect, example=example)
    np.testing.assert_allclose(some, dense, rtol=1e-9)


def test_entries_stored_twice_or_as_zero_are_one_or_none():
    module, X = perceptron(7, 6, 3), sparse_samples()
    rows, columns = np.nonzero(X)
    halves = np.concatenate([X[rows, columns] / 2] * 2 + [[0.0]])
    places = [np.append(np.tile(some, 2), 0) for some in (rows, columns)]
    order = np.lexsort((places[1], places[0]))
    starts = np.searchsorted(places[0][order], np.arange(len(X) + 1))
    X_twice = csr_matrix((halves[order], places[1][order], starts), shape=X.shape)
    assert X_twice.nnz == 2 * np.count_nonzero(X) + 1
    example = torch.as_tensor(X[:2])
    for effect in SIZES:
        np.testing.assert_allclose(
            strengths_of(module, X_twice, effect=effect, example=example),
            strengths_of(module, X, effect=effect),
        )
    assert X_twice.nnz == 2 * np.count_nonzero(X) + 1


def test_a_module_that_makes_sparse_rows_dense_is_read_too():
    class Scaled(nn.Module):
        def __init__(self, tail):
            super().__init__()
            self.tail = tail

        def forward(self, x):
            return self.tail(x * 2)

    module, X = perceptron(7, 6, 3), sparse_samples()
    example = torch.as_tensor(X[:2])
    some = strengths_of(Scaled(module), csr_matrix(X), example=example)
    np.testing.assert_allclose(some, strengths_of(Scaled(module), X), rtol=1e-9)


class Bag(nn.Module):
    """Tokens looked up and added, or averaged, in front of a perceptron."""

    def __init__(self, table, tail, mode):
        super().__init__()
        self.table, self.tail, self.mode = table, tail, mode

    def forward(self, ids):
        x = self.table(input=ids)
        if isinstance(self.table, nn.Embedding):
            x = x.sum(1) if self.mode == "sum" else x.mean(1)
        return self.tail(x)


@pytest.mark.parametrize("effect", SIZES)
@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_tokens_count_as_their_words_do(kind, mode, effect):
    torch.manual_seed(0)
    n_tokens, length = 12, 5
    ids = np.random.default_rng(0).integers(0, n_tokens, (40, length))
    counts = np.zeros((40, n_tokens))
    np.add.at(counts, (np.arange(40)[:, np.newaxis], ids), 1.0)
    tail = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))
    options = {"mode": mode} if kind is nn.EmbeddingBag else {}
    table = kind(n_tokens, 6, **options)
    module = Bag(table, tail, mode).double()
    first = nn.Linear(n_tokens, 6, bias=False)
    first.weight = nn.Parameter(table.weight.detach().T.clone())
    words = nn.Sequential(first, *tail)
    x = counts if mode == "sum" else counts / length
    expected = strengths_of(words, x, [("neurons", "1")], effect)
    found = strengths_of(module, ids, [("neurons", "tail.0")], effect)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_padding_is_no_word():
    torch.manual_seed(0)
    ids = np.random.default_rng(0).integers(0, 6, (40, 5))
    tail = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    tables = [
        nn.Embedding(6, 3, padding_idx=0),
        nn.EmbeddingBag(6, 3, mode="mean", padding_idx=0),
    ]
    for table in tables:
        found = strengths_of(Bag(table, tail, "sum"), ids, [("neurons", "tail.0")])
        assert (found[:, 0] == 0).all()
        assert (found[:, 1:] != 0).all()


def test_whole_numbers_that_no_table_reads_are_refused():
    tail = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    module = Bag(nn.EmbeddingBag(6, 3, mode="max"), tail, "max")
    ids = np.random.default_rng(0).integers(0, 6, (20, 5))
    with pytest.raises(ValueError, match=r"whole numbers.*leave X out"):
        strengths_of(module, ids, [("neurons", "tail.0")])


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(2, 3), nn.Linear(3, 3)
        self.last = nn.Linear(6, 2)

    def forward(self, left, right, mask):
        h = torch.cat([self.left(left), self.right(right)], 1)
        return self.last(torch.tanh(h) * mask)


def test_features_of_a_dict_are_those_of_its_parts():
    torch.manual_seed(0)
    net, X = net_of(TwoInputs()), sparse_samples(n_features=5)
    mask = np.ones((len(X), 1), dtype=np.int64)
    parts = {"left": X[:, :2], "right": csr_matrix(X[:, 2:]), "mask": mask}
    example = {
        "left": torch.as_tensor(X[:2, :2]),
        "right": torch.as_tensor(X[:2, 2:]),
        "mask": torch.as_tensor(mask[:2]),
    }
    players = find_players(net.module_, example)
    found = FeatureStrengths(net, players, parts, "standardized", 1)
    table = np.array([strengths for _, strengths in found.of_players()])
    assert found.default_names() == [
        *("left[0]", "left[1]", "right[0]", "right[1]", "right[2]")
    ]
    assert (table[:3, 2:] == 0).all()
    assert (table[3:, :2] == 0).all()
    assert (table[:3, :2] != 0).all()
    assert (table[3:, 2:] != 0).all()


def test_few_samples_of_a_feature_do_not_count():
    module, X = perceptron(3, 4, 2), np.ones((20, 3))
    X[1:, 1], X[4:, 2] = 0, 0
    X[:, 0] = np.arange(20) - 9.5
    net = net_of(module)
    players = find_players(net.module_, torch.as_tensor(X[:2]))
    for min_samples, driving in [(1, [0, 1, 2]), (4, [0, 2]), (5, [0])]:
        found = FeatureStrengths(net, players, X, "present", min_samples)
        table = np.array([strengths for _, strengths in found.of_players()])
        assert np.flatnonzero((table != 0).all(0)).tolist() == driving
        assert np.flatnonzero((table != 0).any(0)).tolist() == driving


@pytest.mark.parametrize(
    ("share", "effect"), [(0.02, "present"), (0.2, "standardized")]
)
def test_auto_takes_rare_features_where_they_are(share, effect):
    rng = np.random.default_rng(0)
    X = (rng.random((200, 7)) < share).astype(float)
    X[:5] = 1.0
    net = net_of(perceptron(7, 4, 2))
    players = find_players(net.module_, torch.as_tensor(X[:2]))
    found = FeatureStrengths(net, players, X, "auto", 1)
    automatic = np.array([strengths for _, strengths in found.of_players()])
    assert found.effect == effect
    np.testing.assert_array_equal(
        automatic, strengths_of(net.module_, X, effect=effect)
    )


def test_batches_and_parts_of_players_change_nothing(monkeypatch):
    module, X = perceptron(7, 6, 5, 3), sparse_samples()
    whole = strengths_of(module, X)
    for name, value in [("_BATCH_SIZE", 7), ("_SUMS", 14)]:
        monkeypatch.setattr(f"skprune.inspection._drivers.{name}", value)
    np.testing.assert_allclose(strengths_of(module, X), whole, rtol=1e-10)


def test_the_module_stays_as_it_is():
    module = nn.Sequential(
        nn.ReLU(inplace=True), nn.Linear(7, 6), nn.Dropout(), nn.Linear(6, 2)
    )
    X = sparse_samples()
    before, net = X.copy(), net_of(module)
    net.module_.train()
    players = find_players(net.module_, torch.as_tensor(X[:2]))
    with torch.no_grad():
        found = FeatureStrengths(net, players, X, "standardized", 1)
        assert len(list(found.of_players())) == 6
    assert all(layer.training for layer in net.module_.modules())
    assert all(p.requires_grad and p.grad is None for p in net.module_.parameters())
    assert not any(layer._forward_pre_hooks for layer in net.module_.modules())
    np.testing.assert_array_equal(X, before)


def test_activations_are_what_the_next_layers_read():
    module, X = perceptron(7, 6, 5, 3), sparse_samples()
    players = find_players(module, torch.as_tensor(X[:2]))
    activations = Activations(module, players)
    assert {k: v.tolist() for k, v in activations.players_of.items()} == {
        "2": list(range(6)),
        "4": list(range(6, 11)),
    }


_MEMORY = """
import os, re
import numpy as np, torch
from scipy import sparse
from skorch import NeuralNetClassifier
from torch import nn
from skprune.inspection._drivers import FeatureStrengths
from skprune.networks import find_players

module = nn.Sequential(nn.Linear(50_000, 24), nn.ReLU(), nn.Linear(24, 2))
net = NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss).initialize()
X = sparse.random(4000, 50_000, density=1e-3, format="csr", dtype=np.float32, rng=0)
players = find_players(net.module_, torch.zeros(1, 50_000))
list(FeatureStrengths(net, players, X[:200], "auto", 1).of_players())
with open("/proc/self/statm") as file:
    before = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
for _, strengths in FeatureStrengths(net, players, X, "auto", 1).of_players():
    assert np.count_nonzero(strengths) > 20_000
# The peak of this process: that of `resource` begins at what its parent holds.
with open("/proc/self/status") as file:
    peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", file.read())[1]) * 1024
print(peak - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_fifty_thousand_words_are_never_dense():
    """Dense, X and its gradient would take 800 MB each."""
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 400e6


@pytest.mark.cuda
def test_a_gpu_finds_the_same():
    X = sparse_samples()
    module = perceptron(7, 6, 5, 3)
    net = NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, device="cuda")
    net.initialize()
    for samples in (X, csr_matrix(X)):
        players = find_players(net.module_, torch.as_tensor(X[:2], device="cuda"))
        found = FeatureStrengths(net, players, samples, "standardized", 1)
        table = np.array([strengths for _, strengths in found.of_players()])
        expected = strengths_of(perceptron(7, 6, 5, 3), X)
        np.testing.assert_allclose(table, expected, rtol=1e-8)
