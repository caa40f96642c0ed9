"""Columns of sparse samples as players: the dense game, for what is stored."""

import itertools
from math import factorial

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.metrics import balanced_accuracy_score
from skorch import NeuralNetClassifier
from torch import nn

from skprune.evaluation import CoalitionEvaluator, SparseRows, build_mlp
from skprune.evaluation import _evaluator as evaluator_module
from skprune.evaluation import _reconstruction as reconstruction_module
from skprune.evaluation import _sparse_inputs as sparse_module
from skprune.evaluation._data import concatenate
from skprune.evaluation._stored_entries import SampleTile, StoredEntries
from skprune.games import BlockOrders
from skprune.networks import find_players
from skprune.samplers import antithetic_orders, bernoulli_coalitions, uniform_orders
from skprune.scorers import BanzhafScorer, ShapleyScorer
from skprune.strategies import IteratedPruning

N = 12
TIMES = {"rtol": 1e-5, "atol": 1e-6}


class WithFunctions(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.up, self.out = (
            nn.Linear(N, 8, bias=False),
            nn.Linear(8, 8),
            nn.Linear(8, 3),
        )

    def forward(self, x):
        h = torch.tanh(self.words(x))
        return self.out(h + torch.relu(self.up(h)))


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Linear(N, 8), nn.Linear(8, 3)

    def forward(self, x):
        h = torch.relu(self.words(x))
        return self.out(-h if h.sum() > 1e9 else h)


class Wide(nn.Module):
    """Reads the words twice, which no single layer can be asked for."""

    def __init__(self):
        super().__init__()
        self.deep, self.wide, self.out = (
            nn.Linear(N, 6),
            nn.Linear(N, 3),
            nn.Linear(6, 3),
        )

    def forward(self, x):
        return self.out(torch.relu(self.deep(x))) + self.wide(x)


MODULES = {
    "mlp": lambda: build_mlp(N, (8, 6), 3),
    "stored by column": lambda: build_mlp(N, (8,), 3, is_sparse=True),
    "one layer": lambda: nn.Sequential(nn.Linear(N, 3)),
    "softmax": lambda: nn.Sequential(
        nn.Linear(N, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(-1)
    ),
    "layer norm": lambda: nn.Sequential(
        nn.Dropout(0.3), nn.Linear(N, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3)
    ),
    "batch norm": lambda: nn.Sequential(
        nn.Linear(N, 8), nn.BatchNorm1d(8), nn.ELU(), nn.Linear(8, 3)
    ),
    "functions": WithFunctions,
    "untraceable": Untraceable,
}


def words(n_samples=50, n_words=N, density=0.3, seed=0):
    X = sparse.random_array(
        (n_samples, n_words), density=density, format="csr", rng=seed
    )
    X.data = np.random.default_rng(seed).normal(size=X.nnz)
    return sparse.csr_matrix(X, dtype=np.float32)


def problem(zoo, name="mlp", kind="multiclass", **parameters):
    """A net on random weights, and sparse samples."""
    made = zoo.make_net(
        MODULES[name]() if isinstance(name, str) else name,
        kind,
        n_samples=50,
        shape=(N,),
        **parameters,
    )
    made.X = words()
    return made


def game_of(own, backend="auto", **parameters):
    return CoalitionEvaluator(
        own.net, own.X, own.y, players="inputs", backend=backend, **parameters
    )


def both(own, **parameters):
    """The sparse game, and the one of a dense matrix."""
    own_game = game_of(own, **parameters)
    assert own_game.backend_ == "sparse"
    return own_game, game_of(own, "batched", **parameters)


def assert_equal_games(one, other, payoff="log_likelihood"):
    """Payoffs, walks and flips, with orders for all, for one block and for each."""
    times = {"rtol": 0, "atol": 1e-12} if payoff == "accuracy" else TIMES
    n, rng = one.n_players, np.random.default_rng(1)
    coalitions = np.vstack(
        [bernoulli_coalitions(n, 5, rng), np.eye(2, n, dtype=bool)[[0]] * False]
    )
    np.testing.assert_allclose(one(coalitions), other(coalitions), **times)
    for blocks in (None, 1, one.n_blocks):
        orders = uniform_orders(n, 3, rng, n_blocks=blocks)
        around = bernoulli_coalitions(n, 3, rng, n_blocks=blocks)
        np.testing.assert_allclose(one.walk(orders), other.walk(orders), **times)
        np.testing.assert_allclose(one.flip(around), other.flip(around), **times)


@pytest.mark.parametrize("name", MODULES)
def test_any_module_behind_the_first_layer_plays_as_on_dense_samples(zoo, name):
    softmax = {"criterion": nn.NLLLoss} if name == "softmax" else {}
    own = problem(zoo, name, **softmax)
    for payoff in ("accuracy", "log_likelihood"):
        assert_equal_games(*both(own, payoff=payoff), payoff)


@pytest.mark.parametrize(
    ("kind", "payoffs"),
    [
        ("multiclass", ["smoothed_accuracy", "margin", "true_class_probability"]),
        ("binary", ["accuracy", "log_likelihood", "margin"]),
        ("regression", ["r2", "neg_mean_squared_error"]),
    ],
)
def test_every_payoff_is_that_of_dense_samples(zoo, kind, payoffs):
    n_outputs = {"multiclass": 3, "binary": 1, "regression": 2}[kind]
    own = problem(zoo, build_mlp(N, (8,), n_outputs), kind)
    for payoff in payoffs:
        assert_equal_games(*both(own, payoff=payoff), payoff)


def test_metrics_read_the_predictions_in_the_order_of_the_samples(zoo):
    own = problem(zoo)
    weights = np.random.default_rng(0).random(len(own.y))

    def weighted(y, predicted):
        return balanced_accuracy_score(y, predicted, sample_weight=weights)

    for payoff in ("f1_macro", weighted):
        one, other = both(own, payoff=payoff)
        assert one.n_blocks == 1
        coalitions = bernoulli_coalitions(N, 4, np.random.default_rng(0))
        np.testing.assert_allclose(one(coalitions), other(coalitions), rtol=1e-12)
        order = np.random.default_rng(0).permutation(N)[None]
        np.testing.assert_allclose(one.walk(order), other.walk(order), atol=1e-12)


def test_restricted_games_are_those_of_dense_samples(zoo):
    own = problem(zoo)
    always_in, always_out = np.arange(N) < 3, np.arange(N) > 8
    one, other = (
        game.restrict(always_in, always_out)
        for game in both(own, payoff="log_likelihood")
    )
    assert_equal_games(one, other)
    nobody = np.zeros(one.n_players, dtype=bool)
    assert_equal_games(*(game.restrict(always_out=nobody) for game in (one, other)))


def test_a_walk_costs_one_row_for_each_stored_entry(zoo, monkeypatch):
    own = problem(zoo)
    game, rows = game_of(own), []
    backend, restricted = game._backend, game.restrict(always_out=np.arange(N) < 6)
    earn = backend._earn

    def note(logits, samples):
        rows.append(logits[..., 0].numel())
        return earn(logits, samples)

    # So that samples of other lengths are not filled up to the same one.
    monkeypatch.setattr(backend, "memory_budget", backend._row_bytes)
    monkeypatch.setattr(backend, "_earn", note)
    for own_game, stored in [(game, own.X), (restricted, own.X[:, 6:])]:
        orders = np.arange(own_game.n_players)[None]
        for play in (own_game.walk, lambda o, g=own_game: g.flip(o > 3)):
            rows.clear()
            play(orders)
            assert sum(rows) == stored.nnz + (np.diff(stored.indptr) > 0).sum()


@pytest.mark.parametrize("payoff", ["accuracy", "log_likelihood"])
def test_no_bit_depends_on_the_threads_and_no_payoff_on_the_memory(zoo, payoff):
    own = problem(zoo, "layer norm")
    rng = np.random.default_rng(0)
    expected, budgets = game_of(own, payoff=payoff, n_jobs=1), (1, 3000, 40_000)
    orders = antithetic_orders(N, 7, rng, n_blocks=expected.n_blocks)
    around = bernoulli_coalitions(N, 7, rng, n_blocks=expected.n_blocks)
    played = around[:, 0]
    exactly = {"rtol": 0, "atol": 1e-15 if payoff == "accuracy" else 1e-6}
    for n_jobs in (None, 2, 3):
        game = game_of(own, payoff=payoff, n_jobs=n_jobs)
        assert np.array_equal(game.walk(orders), expected.walk(orders))
        assert np.array_equal(game.flip(around), expected.flip(around))
        assert np.array_equal(game(played), expected(played))
    for budget in budgets:
        game = game_of(own, payoff=payoff, memory_budget=budget, n_jobs=2)
        np.testing.assert_allclose(game.walk(orders), expected.walk(orders), **exactly)
        np.testing.assert_allclose(game.flip(around), expected.flip(around), **exactly)
        np.testing.assert_allclose(game(played), expected(played), **exactly)


def test_orders_of_blocks_may_come_as_an_array(zoo):
    game = game_of(problem(zoo), payoff="margin")
    orders = uniform_orders(N, 4, np.random.default_rng(0), n_blocks=game.n_blocks)
    assert isinstance(orders, BlockOrders)
    assert np.array_equal(game.walk(orders), game.walk(np.asarray(orders)))


def brute_force(game, weight_of):
    """Weighted mean marginals over all coalitions of the others."""
    n = game.n_players
    coalitions = np.array(list(itertools.product([False, True], repeat=n)))
    payoffs = dict(zip(map(tuple, coalitions), game(coalitions), strict=True))
    values = np.zeros(n)
    for coalition, payoff in payoffs.items():
        for player in np.flatnonzero(~np.array(coalition)):
            joined = list(coalition)
            joined[player] = True
            weight = weight_of(sum(coalition), n)
            values[player] += weight * (payoffs[tuple(joined)] - payoff)
    return values


def test_power_indices_are_those_of_all_coalitions():
    torch.manual_seed(0)
    X, y = words(30, 5, 0.45), np.arange(30) % 3
    net = NeuralNetClassifier(
        nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)),
        criterion=nn.CrossEntropyLoss,
        train_split=None,
        verbose=0,
    ).initialize()
    game = CoalitionEvaluator(net, X, y, players="inputs", payoff="log_likelihood")

    def shapley(size, n):
        return factorial(size) * factorial(n - size - 1) / factorial(n)

    for scorer, weight_of in [
        (ShapleyScorer, shapley),
        (BanzhafScorer, lambda size, n: 0.5 ** (n - 1)),
    ]:
        values = brute_force(game, weight_of)
        exact = scorer(method="exact").estimate(game)
        np.testing.assert_allclose(exact.values, values, atol=1e-12)
        drawn = scorer(
            method="sampling", n_evaluations=10_000, random_state=0
        ).estimate(game)
        errors = abs(drawn.values - values) / drawn.standard_errors
        assert errors.max() < 4
        assert drawn.standard_errors.max() < 0.05 * np.ptp(values)


@pytest.mark.parametrize("payoff", ["accuracy", "log_likelihood", "margin"])
def test_marginals_of_a_walk_sum_to_what_all_earn(zoo, payoff):
    game = game_of(problem(zoo), payoff=payoff)
    nobody, everybody = game(np.repeat([[False], [True]], N, axis=1))
    orders = uniform_orders(N, 5, np.random.default_rng(0), n_blocks=game.n_blocks)
    sums = game.walk(orders).sum(axis=1)
    times = 1e-12 if payoff == "accuracy" else 1e-6
    np.testing.assert_allclose(sums, everybody - nobody, rtol=0, atol=times)


def test_predictions_and_payoffs_of_samples_are_in_their_order(zoo):
    one, other = both(problem(zoo), payoff="log_likelihood")
    coalitions = bernoulli_coalitions(N, 4, np.random.default_rng(0))
    assert np.array_equal(one.predict(coalitions), other.predict(coalitions))
    earned = one.sample_payoffs(coalitions)
    np.testing.assert_allclose(earned, other.sample_payoffs(coalitions), **TIMES)
    np.testing.assert_allclose(earned.mean(axis=1), one(coalitions), rtol=1e-12)
    with pytest.raises(ValueError, match="'f1_macro' is no mean over samples"):
        game_of(problem(zoo), payoff="f1_macro").sample_payoffs(coalitions)


def mangled():
    """A matrix with duplicates, zeros, unsorted columns, empty rows and columns."""
    X = words(40, N, 0.3).tolil()
    X[5] = X[17] = X[39] = 0
    X[:, 4] = 0
    X = X.tocsr()
    rng = np.random.default_rng(0)
    parts = []
    for i in range(X.shape[0]):
        own = slice(X.indptr[i], X.indptr[i + 1])
        columns = np.concatenate([X.indices[own], X.indices[own][:2], [7]])
        values = np.concatenate([X.data[own], X.data[own][:2] * 0.5, [0.0]])
        shuffled = rng.permutation(len(columns)) if len(columns) > 1 else [0]
        parts.append((columns[shuffled], values[shuffled]))
    indptr = np.cumsum([0] + [len(columns) for columns, _ in parts])
    return sparse.csr_matrix(
        (
            np.concatenate([v for _, v in parts]).astype(np.float32),
            np.concatenate([c for c, _ in parts]).astype(np.int32),
            indptr.astype(np.int32),
        ),
        shape=X.shape,
    )


def test_duplicates_zeros_and_empty_rows_are_read_for_what_they_mean(zoo):
    own = problem(zoo)
    own.X, own.y = mangled(), own.y[:40]
    before = own.X.copy()
    assert not own.X.has_canonical_format
    one, other = both(own, payoff="log_likelihood")
    assert_equal_games(one, other)
    assert not one.walk(np.arange(N)[None])[0, 4]
    for name in ("data", "indices", "indptr"):
        assert np.array_equal(getattr(own.X, name), getattr(before, name))


@pytest.mark.parametrize(
    "given",
    [
        lambda X: X.tocsc(),
        lambda X: X.tocoo(),
        sparse.csr_array,
        lambda X: X.astype(np.float64),
        lambda X: (X * 4).astype(np.int64),
    ],
)
def test_any_sparse_matrix_will_do(zoo, given):
    own = problem(zoo)
    own.X = given(own.X)
    assert_equal_games(*both(own, payoff="log_likelihood"))


def test_nothing_is_stored_at_all(zoo):
    own = problem(zoo)
    own.X = sparse.csr_matrix((50, N), dtype=np.float32)
    one, other = both(own, payoff="margin")
    assert_equal_games(one, other)
    assert not one.walk(np.arange(N)[None]).any()


def test_one_column(zoo):
    own = problem(zoo, build_mlp(1, (4,), 3))
    own.X = words(50, 1, 0.4)
    assert_equal_games(*both(own, payoff="margin"))


def test_the_matrix_is_never_made_dense(zoo, monkeypatch):
    to_dense, sizes = SparseRows.to_dense, []

    def noting(self):
        sizes.append(len(self))
        return to_dense(self)

    monkeypatch.setattr(SparseRows, "to_dense", noting)
    for name in ("mlp", "layer norm", "untraceable"):
        game = game_of(problem(zoo, name), payoff="log_likelihood")
        assert game.backend_ == "sparse"
        ShapleyScorer(n_evaluations=200, random_state=0).estimate(game)
        BanzhafScorer(n_evaluations=200, random_state=0).estimate(game)
        game.predict(np.ones((1, N), dtype=bool))
    # Examples of two rows, by which modules are looked into.
    assert max(sizes) <= 16


def test_a_search_plays_in_it(zoo):
    game = game_of(problem(zoo), payoff="log_likelihood")
    scorer = ShapleyScorer(n_evaluations=200, random_state=0)
    path = IteratedPruning(step=3).search(game, scorer, [3, 6])
    np.testing.assert_allclose(path.payoffs, game(path.masks), rtol=1e-9)


def test_other_players_play_on_dense_samples(zoo):
    own = problem(zoo)
    assert game_of(own, "batched").backend_ == "batched"
    assert game_of(own, "compiled").backend_ == "compiled"
    pairs = [("inputs", "hidden_1"), ("neurons", "hidden_1")]
    mixed = CoalitionEvaluator(own.net, own.X, own.y, players=pairs)
    assert mixed.backend_ != "sparse"
    neurons = CoalitionEvaluator(own.net, own.X, own.y)
    assert neurons.backend_ == "compiled"


def test_a_module_that_reads_the_words_twice_plays_on_dense_samples(zoo):
    own = problem(zoo, Wide())
    game = game_of(own, payoff="margin")
    assert game.backend_ == "batched"
    with pytest.raises(ValueError, match="nothing else of the net may read them"):
        game_of(own, "sparse")


def test_a_matrix_of_which_most_is_stored_is_played_densely(zoo):
    own = problem(zoo)
    own.X = words(density=0.8)
    assert game_of(own).backend_ == "compiled"


def test_dense_samples_and_other_players_are_refused_by_name(zoo):
    own = problem(zoo)
    with pytest.raises(ValueError, match="less than half of it stored"):
        CoalitionEvaluator(own.net, own.X, own.y, backend="sparse")
    own.X = own.X.toarray()
    with pytest.raises(ValueError, match="rows of a SciPy matrix"):
        game_of(own, "sparse")


def test_what_memory_cannot_hold_densely_is_refused_with_its_cure(zoo, monkeypatch):
    own = problem(zoo)
    monkeypatch.setattr(evaluator_module, "free_memory", lambda: 2000)
    with pytest.raises(ValueError, match=r"shape \(50, 12\).*players='inputs'"):
        game_of(own, "batched")
    assert game_of(own).backend_ == "sparse"


def test_moments_of_too_many_columns_are_refused_with_their_cure(monkeypatch):
    players = find_players(build_mlp(N, (4,), 2), torch.zeros(2, N), "inputs")
    reconstruction_module.check_reconstructible(players)
    monkeypatch.setattr(reconstruction_module, "free_memory", lambda: 24 * N**2 - 1)
    with pytest.raises(ValueError, match="payoff='log_likelihood'"):
        reconstruction_module.check_reconstructible(players)


def test_blocks_grow_where_an_order_for_each_would_not_stay_small(zoo, monkeypatch):
    own = problem(zoo)
    assert game_of(own).n_blocks == 4
    monkeypatch.setattr(sparse_module, "_BLOCK_ELEMENTS", 2 * N)
    one = game_of(own, payoff="margin")
    assert (one.n_blocks, one._backend.block_size) == (2, 32)
    orders = uniform_orders(N, 3, np.random.default_rng(0), n_blocks=2)
    around = bernoulli_coalitions(N, 3, np.random.default_rng(0), n_blocks=2)
    other = game_of(own, "batched", payoff="margin")
    spread = np.repeat([0, 1], 2)
    np.testing.assert_allclose(
        one.walk(orders), other.walk(np.asarray(orders)[:, spread]), **TIMES
    )
    np.testing.assert_allclose(one.flip(around), other.flip(around[:, spread]), **TIMES)
    monkeypatch.setattr(sparse_module, "_BLOCK_ELEMENTS", 1)
    assert game_of(own).n_blocks == 1


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("not enough memory: you tried to allocate")]
)
def test_a_tile_that_finds_no_memory_is_halved(zoo, monkeypatch, error):
    own = problem(zoo)
    expected, short = game_of(own, payoff="margin"), game_of(own, payoff="margin")
    orders = uniform_orders(N, 4, np.random.default_rng(0), n_blocks=4)
    coalitions = orders.shared > 5
    backend, most = short._backend, 60
    tail = type(backend._tail)
    play = tail.__call__

    def limited(self, sums):
        if len(sums) > most:
            raise error
        return play(self, sums)

    monkeypatch.setattr(tail, "__call__", limited)
    before = backend.memory_budget
    walked = short.walk(orders)
    assert backend.memory_budget < before
    flipped, played = short.flip(coalitions), short(coalitions)
    most = 0
    with pytest.raises(type(error)):
        short.walk(orders)
    monkeypatch.undo()
    np.testing.assert_allclose(walked, expected.walk(orders), **TIMES)
    np.testing.assert_allclose(flipped, expected.flip(coalitions), **TIMES)
    np.testing.assert_allclose(played, expected(coalitions), **TIMES)


def test_other_errors_are_not_taken_for_a_lack_of_memory(zoo, monkeypatch):
    game = game_of(problem(zoo))
    monkeypatch.setattr(
        type(game._backend._tail),
        "__call__",
        lambda *_: torch.zeros(2, 0).log_softmax(3),
    )
    with pytest.raises(IndexError):
        game.walk(np.arange(N)[None])


@pytest.mark.parametrize("capacity", [1, 7, 40, 10**6])
@pytest.mark.parametrize("with_empty", [False, True])
def test_tiles_cover_everything_once_within_their_capacity(capacity, with_empty):
    entries = StoredEntries.of(SparseRows.from_scipy(mangled()))
    counts = entries.counts
    seen = np.zeros((5, entries.n_samples), dtype=int)
    for tile in entries.tiles(5, capacity, with_empty=with_empty):
        seen[tile.games, tile.samples] += 1
        n_games = tile.games.stop - tile.games.start
        rows = n_games * len(tile.samples) * (counts[tile.samples].max() + 1)
        assert rows <= capacity or (n_games == 1 and len(tile.samples) == 1)
    assert (seen == (with_empty | (counts > 0))).all()


def test_tiles_are_halved_down_to_one_game_on_one_sample():
    def leaves(tile):
        parts = list(tile.halves())
        if len(parts) == 1:
            return [(tile.games.start, tile.games.stop, *tile.samples)]
        return [leaf for part in parts for leaf in leaves(part)]

    found = sorted(leaves(SampleTile(slice(2, 5), np.array([3, 8]))))
    assert found == [(g, g + 1, s) for g in range(2, 5) for s in (3, 8)]


def test_rows_are_picked_and_joined_without_a_dense_matrix(monkeypatch):
    X = mangled()
    rows, dense = SparseRows.from_scipy(X), X.toarray()

    def refuse(self):
        raise AssertionError("made dense")

    index = torch.tensor([3, 3, 0, 39])
    with monkeypatch.context() as patch:
        patch.setattr(SparseRows, "to_dense", refuse)
        picked = [rows[2:9], rows[index], rows[torch.arange(40) % 3 == 0], rows[5:5]]
        joined = concatenate([picked[0], picked[1]])
        dropped = nn.Dropout(0.5).eval()(rows)
    expected = [dense[2:9], dense[index], dense[np.arange(40) % 3 == 0], dense[5:5]]
    for got, want in zip(picked, expected, strict=True):
        torch.testing.assert_close(got.to_dense(), torch.from_numpy(want))
    torch.testing.assert_close(
        joined.to_dense(), torch.from_numpy(np.vstack(expected[:2]))
    )
    assert dropped is rows
    torch.manual_seed(0)
    assert (nn.Dropout(0.5)(rows) == 0).sum() > (torch.from_numpy(dense) == 0).sum()


@pytest.mark.cuda
@pytest.mark.parametrize("payoff", ["accuracy", "log_likelihood"])
def test_a_gpu_plays_the_same(zoo, payoff):
    own, there = problem(zoo), problem(zoo, device="cuda")
    there.net.module_.load_state_dict(own.net.module_.state_dict())
    assert_equal_games(game_of(own, payoff=payoff), game_of(there, payoff=payoff))
