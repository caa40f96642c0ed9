"""Sparse rows against the dense matrix that they stand for."""

import copy
import pickle

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from skprune.evaluation import SparseRows, build_mlp, store_by_column
from skprune.networks import find_players, remove_players


def matrix(n_rows=7, n_columns=30, dtype=np.float32, seed=0):
    """A CSR matrix with an empty row, where there are rows."""
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=(n_rows, n_columns)).astype(dtype)
    dense[rng.random((n_rows, n_columns)) < 0.8] = 0
    dense[:1] = 0
    return sparse.csr_array(dense)


def refuse(self):
    raise AssertionError("the rows were made dense")


class Sizes(TorchDispatchMode):
    """Numbers of elements of all tensors that torch makes."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, torch.Tensor):
                self.made.append(value.numel())
        return out


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("by_column", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("n_rows", [0, 1, 7])
def test_a_linear_layer_reads_them_as_dense(
    dtype, by_column, bias, n_rows, monkeypatch
):
    X = matrix(n_rows, dtype=dtype)
    torch.manual_seed(0)
    layer = nn.Linear(30, 5, bias=bias, dtype=getattr(torch, np.dtype(dtype).name))
    twin = copy.deepcopy(layer)
    if by_column:
        store_by_column(layer)
    expected = twin(torch.from_numpy(X.toarray()))
    expected.sin().sum().backward()
    with monkeypatch.context() as patch:
        patch.setattr(SparseRows, "to_dense", refuse)
        got = layer(SparseRows.from_scipy(X))
        got.sin().sum().backward()
    tolerance = {"rtol": 1e-5, "atol": 1e-6 if dtype == np.float32 else 1e-14}
    torch.testing.assert_close(got, expected, **tolerance)
    for a, b in zip(layer.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, **tolerance)


def test_rows_without_any_entry_give_the_bias():
    X = sparse.csr_array((3, 30), dtype=np.float32)
    layer = nn.Linear(30, 2)
    layer(SparseRows.from_scipy(X)).sum().backward()
    assert (layer.weight.grad == 0).all()
    torch.testing.assert_close(layer(SparseRows.from_scipy(X)), layer.bias.expand(3, 2))


def test_entries_may_repeat_a_column_and_be_in_any_order():
    parts = np.array([1.0, 2.0, 4.0], np.float32), [3, 1, 3], [0, 3]
    X = sparse.csr_array(parts, shape=(1, 5))
    rows = SparseRows.from_scipy(X)
    weight = torch.arange(10.0).reshape(2, 5)
    expected = torch.from_numpy(X.toarray()) @ weight.T
    torch.testing.assert_close(functional.linear(rows, weight), expected)
    torch.testing.assert_close(rows.to_dense(), torch.from_numpy(X.toarray()))


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_an_optimizer_steps_the_same_by_column(kind):
    X, y = matrix(), torch.arange(7) % 3
    weights, moments = [], []
    for by_column in (False, True):
        torch.manual_seed(0)
        net = build_mlp(30, (6,), 3, is_sparse=by_column)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.1, fused=True)
        for _ in range(3):
            sparse_batch = by_column and kind == "sparse"
            batch = SparseRows.from_scipy(X) if sparse_batch else X.toarray()
            optimizer.zero_grad()
            functional.cross_entropy(net(torch.as_tensor(batch)), y).backward()
            optimizer.step()
        weights.append(net.hidden_1.weight.detach())
        moments.append(optimizer.state[net.hidden_1.weight]["exp_avg"])
    assert weights[1].stride() == moments[1].stride() == (1, 6)
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moments[0], moments[1], rtol=1e-4, atol=1e-5)


def test_the_gradient_lies_as_the_weight_does():
    layer = store_by_column(nn.Linear(30, 5))
    layer(SparseRows.from_scipy(matrix())).sum().backward()
    assert layer.weight.grad.stride() == layer.weight.stride() == (1, 5)


def test_a_step_takes_memory_of_the_batch_and_not_of_the_vocabulary():
    n_rows, n_words, n_units = 64, 50_000, 4
    X = sparse.random_array(
        (n_rows, n_words), density=1e-3, format="csr", dtype=np.float32, rng=0
    )
    net = build_mlp(n_words, (n_units,), 2, is_sparse=True)
    optimizer = torch.optim.Adam(net.parameters())
    with Sizes() as sizes:
        net(SparseRows.from_scipy(X)).sum().backward()
        optimizer.step()
    assert n_words * n_units <= max(sizes.made) < n_rows * n_words / 8
    with Sizes() as sizes:
        (SparseRows.from_scipy(X) * 1).sum()
    assert max(sizes.made) == n_rows * n_words


@pytest.mark.parametrize(
    "function",
    [
        torch.relu,
        torch.sum,
        lambda x: x + 1,
        lambda x: x @ torch.ones(30, 2),
        lambda x: x[2:4, 1],
        lambda x: x.T,
        lambda x: torch.cat([x, x]),
        lambda x: torch.stack((x, torch.ones(7, 30))),
        lambda x: functional.layer_norm(x, (30,)),
        lambda x: functional.linear(x.float().clone(), torch.ones(2, 30)),
        lambda x: functional.linear(input=x, weight=torch.ones(2, 30)),
        lambda x: functional.linear(torch.ones(3, 7), x.T),
        lambda x: x.to(torch.float64).to_dense(),
        lambda x: x.detach().cpu().double() * 2,
        lambda x: torch.ones(30).mul(x),
    ],
)
def test_any_function_has_the_value_of_the_dense_matrix(function):
    X = matrix()
    got = function(SparseRows.from_scipy(X))
    assert type(got) is torch.Tensor
    torch.testing.assert_close(got, function(torch.from_numpy(X.toarray())))


def test_what_is_done_in_place_is_kept():
    rows = SparseRows.from_scipy(matrix())
    weight = torch.ones(2, 30)
    rows.add_(1.0)
    rows[0, 0] = 5.0
    expected = torch.from_numpy(matrix().toarray()) + 1
    expected[0, 0] = 5.0
    torch.testing.assert_close(rows.clone(), expected)
    torch.testing.assert_close(functional.linear(rows, weight), expected @ weight.T)


def test_facts_are_known_without_values(monkeypatch):
    monkeypatch.setattr(SparseRows, "to_dense", refuse)
    rows = SparseRows.from_scipy(matrix())
    assert rows.shape == rows.size() == (7, 30)
    assert (len(rows), rows.ndim, rows.dim(), rows.numel()) == (7, 2, 2, 210)
    assert (rows.dtype, rows.device.type, rows.is_sparse) == (
        torch.float32,
        "cpu",
        False,
    )
    assert rows.double().dtype == torch.float64
    assert repr(rows).startswith("SparseRows(shape=(7, 30), n_entries=")
    assert isinstance(rows.clone(), SparseRows)


def test_a_layer_of_other_width_refuses_them():
    with pytest.raises(RuntimeError, match="29 inputs was given sparse rows of 30"):
        nn.Linear(29, 2)(SparseRows.from_scipy(matrix()))


def test_read_only_memory_is_copied():
    X = matrix()
    for part in (X.data, X.indices, X.indptr):
        part.flags.writeable = False
    torch.testing.assert_close(
        SparseRows.from_scipy(X).to_dense(), torch.from_numpy(X.toarray())
    )


def test_a_network_goes_on_after_surgery(monkeypatch):
    net = build_mlp(30, (6, 4), 3, is_sparse=True)
    players = find_players(net, torch.zeros(2, 30))
    drop = np.isin(np.arange(10), [0, 3, 7])
    small = remove_players(net, players, drop)
    monkeypatch.setattr(SparseRows, "to_dense", refuse)
    got = small(SparseRows.from_scipy(matrix()))
    expected = small(torch.from_numpy(matrix().toarray()))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    assert store_by_column(small.hidden_1).weight.stride() == (1, 4)
    torch.testing.assert_close(
        small(SparseRows.from_scipy(matrix())), got, rtol=1e-5, atol=1e-6
    )


def test_storing_by_column_changes_no_value_and_no_flag():
    layer = nn.Linear(4, 3)
    layer.weight.requires_grad_(False)
    weight = layer.weight.clone()
    assert store_by_column(layer) is layer
    assert torch.equal(layer.weight, weight)
    assert isinstance(layer.weight, nn.Parameter)
    assert not layer.weight.requires_grad


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies_keep_the_layout(copied):
    net = build_mlp(30, (5,), 3, is_sparse=True)
    twin = copied(net)
    assert twin.hidden_1.weight.stride() == (1, 5)
    assert torch.equal(twin.hidden_1.weight, net.hidden_1.weight)
    fresh = build_mlp(30, (5,), 3, is_sparse=True)
    fresh.load_state_dict(net.state_dict())
    assert fresh.hidden_1.weight.stride() == (1, 5)
    assert torch.equal(fresh.hidden_1.weight, net.hidden_1.weight)


def test_a_traced_network_reads_them(monkeypatch):
    net = build_mlp(30, (5,), 3)
    traced = torch.fx.symbolic_trace(net)
    expected = net(torch.from_numpy(matrix().toarray()))
    monkeypatch.setattr(SparseRows, "to_dense", refuse)
    got = traced(SparseRows.from_scipy(matrix()))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
