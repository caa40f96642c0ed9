"""Batches sliced from tensors against those that a DataLoader collates."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.dataset import Dataset, ValidSplit
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from skprune.evaluation import SparseRows, TensorBatches, build_mlp

RNG = np.random.default_rng(0)
X = RNG.normal(size=(11, 6)).astype(np.float32)
X[np.abs(X) < 0.8] = 0
Y = RNG.integers(3, size=11)


class Collated(Dataset):
    """A user's own data set, which makes its samples in its own way."""

    def transform(self, X, y):
        return X + 1, y


class Windows(torch.utils.data.Dataset):
    def __len__(self):
        return 7

    def __getitem__(self, i):
        return torch.full((2,), float(i)), i


def dense(value):
    """A batch whose sparse rows are dense, as collation makes them."""
    if isinstance(value, dict):
        return {key: dense(part) for key, part in value.items()}
    return value.to_dense() if isinstance(value, SparseRows) else value


DATA = {
    "array": Dataset(X, Y),
    "tensor": Dataset(torch.from_numpy(X), torch.from_numpy(Y)),
    "images": Dataset(X.reshape(11, 2, 3), Y),
    "csr_matrix": Dataset(sparse.csr_matrix(X), Y),
    "dict": Dataset({"a": X, "b": torch.arange(11)}, Y),
    "no targets": Dataset(X),
    "regression": Dataset(X, X[:, :2]),
    "integers": Dataset(np.arange(22).reshape(11, 2), Y.astype(bool)),
    "reversed": Dataset(X[::-1], Y[::-1]),
    "by column": Dataset(np.asfortranarray(X), Y),
    "split": Subset(Dataset(X, Y), np.array([1, 3, 4, 8, 10])),
    "split of a split": Subset(Subset(Dataset(X, Y), [9, 7, 5, 3, 1]), [3, 0, 1]),
    "split of sparse": Subset(Dataset(sparse.csr_matrix(X), Y), [9, 7, 5]),
    "list": Dataset([X, X[:, :2]], Y),
    "frame": Dataset(pd.DataFrame(X, columns=list("abcdef")), Y),
    "transformed": Collated(X, Y),
    "own": Windows(),
    "tensors": TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)),
    "split of own": Subset(Windows(), [5, 3, 6]),
    "complex": Dataset(X, Y * 1j),
}
COLLATED = {
    "list", "frame", "transformed", "own", "tensors", "split of own", "complex"
}  # fmt: skip


# Columns of a frame are read-only, which is between skorch and torch.
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_batches_are_those_of_a_data_loader(name, batch_size):
    dataset = DATA[name]
    batches = TensorBatches(dataset, batch_size=batch_size)
    assert (batches._tables is None) == (name in COLLATED)
    expected = list(DataLoader(dataset, batch_size))
    got = [(dense(inputs), targets) for inputs, targets in batches]
    assert len(got) == len(batches) == len(expected)
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, tuple(theirs), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize("name", DATA)
def test_rows_are_numbers_in_the_whole_data(name):
    dataset = whole = DATA[name]
    while isinstance(whole, Subset):
        whole = whole.dataset
    expected = {
        "split": [1, 3, 4, 8, 10],
        "split of a split": [3, 9, 7],
        "split of sparse": [9, 7, 5],
        "split of own": [5, 3, 6],
    }.get(name, range(len(dataset)))
    torch.manual_seed(3)
    batches = TensorBatches(dataset, batch_size=2, shuffle=True)
    assert batches.rows is None
    seen = []
    for batch in batches:
        assert batches.rows is batch.rows
        seen += batch.rows.tolist()
        (alone,) = DataLoader(Subset(whole, batch.rows.tolist()), batch_size=2)
        got = (dense(batch[0]), batch[1])
        torch.testing.assert_close(got, tuple(alone), rtol=0, atol=0)
    assert sorted(seen) == sorted(expected)


@pytest.mark.parametrize("name", ["array", "csr_matrix", "own"])
def test_a_seed_fixes_the_order(name):
    def orders(seed=None, generator=None):
        if seed is not None:
            torch.manual_seed(seed)
        batches = TensorBatches(DATA[name], 4, True, generator)
        return [[batches.rows.tolist() for _ in batches] for _ in range(2)]

    assert orders(0) == orders(0) != orders(1)
    assert orders(0)[0] != orders(0)[1]
    mine = orders(5, torch.Generator().manual_seed(2))
    assert mine == orders(6, torch.Generator().manual_seed(2)) != orders(5)


def test_what_a_module_does_in_place_does_not_reach_the_data():
    data = X.copy()
    for inputs, _ in TensorBatches(Dataset(data, Y), 4):
        inputs.fill_(7.0)
    np.testing.assert_array_equal(data, X)
    matrix = sparse.csr_array(X)
    for inputs, _ in TensorBatches(Dataset(matrix, Y), 4):
        inputs.fill_(7.0)
    np.testing.assert_array_equal(matrix.toarray(), X)


@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csr_matrix])
def test_a_dict_may_hold_sparse_rows(kind):
    dataset = Dataset({"a": X, "b": kind(X)}, Y)
    for batch in TensorBatches(dataset, 4, shuffle=True):
        inputs, targets = batch
        assert isinstance(inputs["b"], SparseRows)
        expected = torch.from_numpy(X)[batch.rows]
        assert torch.equal(inputs["a"], expected)
        assert torch.equal(inputs["b"].to_dense(), expected)
        assert torch.equal(targets, torch.from_numpy(Y)[batch.rows])


def test_dense_data_are_moved_once():
    batches = TensorBatches(DATA["dict"], 4, device="meta")
    inputs, targets = next(iter(batches))
    assert {part.device.type for part in (*inputs.values(), targets)} == {"meta"}


def test_read_only_arrays_are_read():
    data = X.copy()
    data.flags.writeable = False
    inputs, _ = next(iter(TensorBatches(Dataset(data, Y), 100)))
    np.testing.assert_array_equal(inputs.numpy(), X)


def test_no_samples_give_no_batches():
    batches = TensorBatches(Dataset(X[:0], Y[:0]))
    assert (len(batches), list(batches)) == (0, [])


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, None])
def test_a_batch_size_that_is_none_is_refused(batch_size):
    with pytest.raises(ValueError, match=f"batch_size={batch_size!r} must be"):
        TensorBatches(DATA["array"], batch_size)


@pytest.mark.parametrize("kind", ["array", "csr"])
@pytest.mark.parametrize("train_split", [None, ValidSplit(3, stratified=True)])
def test_skorch_trains_and_predicts_as_with_its_own_iterator(kind, train_split):
    features = X if kind == "array" else sparse.csr_matrix(X)
    trained = []
    for iterator in (DataLoader, TensorBatches):
        torch.manual_seed(0)
        trained.append(
            NeuralNetClassifier(
                build_mlp(6, (5,), 3, is_sparse=kind == "csr"),
                criterion=nn.CrossEntropyLoss,
                iterator_train=iterator,
                iterator_valid=iterator,
                train_split=train_split,
                batch_size=4,
                max_epochs=3,
                lr=0.1,
                verbose=0,
            ).fit(features, Y)
        )
    theirs, mine = trained
    tolerance = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(
        mine.predict_proba(features), theirs.predict_proba(features), **tolerance
    )
    columns = ["train_loss"] + (["valid_loss", "valid_acc"] if train_split else [])
    for column in columns:
        np.testing.assert_allclose(
            mine.history[:, column], theirs.history[:, column], **tolerance
        )


def test_any_first_layer_trains_on_sparse_rows():
    module = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 1))
    net = NeuralNetRegressor(
        module,
        iterator_train=TensorBatches,
        iterator_valid=TensorBatches,
        train_split=None,
        verbose=0,
        max_epochs=2,
    ).fit(sparse.csr_array(X), X[:, :1])
    np.testing.assert_allclose(
        net.predict(sparse.csr_array(X)), net.predict(X), rtol=1e-5, atol=1e-6
    )


def test_the_matrix_is_never_dense_as_a_whole(monkeypatch):
    matrix = sparse.csr_array(X)

    def refuse(*args, **kwargs):
        raise AssertionError("made dense")

    monkeypatch.setattr(sparse.csr_array, "toarray", refuse)
    monkeypatch.setattr(SparseRows, "to_dense", refuse)
    net = NeuralNetClassifier(
        build_mlp(6, (5,), 3, is_sparse=True),
        criterion=nn.CrossEntropyLoss,
        iterator_train=TensorBatches,
        iterator_valid=TensorBatches,
        verbose=0,
        max_epochs=1,
        train_split=ValidSplit(3),
    ).fit(matrix, Y)
    assert net.predict_proba(matrix).shape == (11, 3)
