"""The trained networks that the benchmarks play, and samples that they never saw.

With SKPRUNE_DATA=DIR these are MNIST and Adult, without it scikit-learn's bundled
digits and breast cancer.
"""

import gzip
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier

N_HELD = 1000


def images(n_train=20_000):
    """Name, then training images and labels, then 1,000 held-out ones; flat pixels."""
    folder = os.environ.get("SKPRUNE_DATA")
    if not folder:
        X, y = load_digits(return_X_y=True)
        return "digits", *_split((X / 16).astype(np.float32), y.astype(np.int64))
    with np.load(Path(folder) / "mnist" / "mnist.npz") as data:
        X, y = data["X_train"], data["y_train"].astype(np.int64)
    X = X[: n_train + N_HELD].astype(np.float32) / 255
    y = y[: n_train + N_HELD]
    return "MNIST", (X[:n_train], y[:n_train]), (X[n_train:], y[n_train:])


def table():
    """Name, then training rows and two classes, then held-out ones; scaled, one-hot."""
    folder = os.environ.get("SKPRUNE_DATA")
    if not folder:
        X, y = load_breast_cancer(return_X_y=True)
        X = StandardScaler().fit_transform(X).astype(np.float32)
        return "breast cancer", *_split(X, y.astype(np.int64), held=284)
    with gzip.open(Path(folder) / "adult" / "adult.data.gz", "rt") as file:
        rows = [line.strip().split(", ") for line in file if line.strip()]
    cells = np.array(rows, dtype=object)
    y = (cells[:, -1] == ">50K").astype(np.int64)
    numbers = [0, 2, 4, 10, 11, 12]
    encoder = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), numbers),
        (
            OneHotEncoder(min_frequency=20, handle_unknown="ignore"),
            [1, 3, *range(5, 10), 13],
        ),
        sparse_threshold=0,
    )
    cells[:, numbers] = cells[:, numbers].astype(float)
    X = encoder.fit_transform(cells[:, :-1]).astype(np.float32)
    return "Adult", *_split(X, y)


def _split(X, y, held=N_HELD):
    """Training and held-out samples, with the same share of each class."""
    X, X_held, y, y_held = train_test_split(
        X, y, test_size=held, stratify=y, random_state=0
    )
    return (X, y), (X_held, y_held)


def mlp(*sizes):
    """Linear layers with ReLU between them."""
    layers = []
    for n_in, n_out in pairwise(sizes):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def train(sizes, X, y, *, epochs, seed):
    """A trained skorch net; a plain loop, because skorch collates sample by sample."""
    torch.manual_seed(seed)
    module = mlp(*sizes)
    binary = sizes[-1] == 1
    criterion = torch.nn.BCEWithLogitsLoss() if binary else torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(module.parameters(), 2e-3)
    X = torch.from_numpy(X)
    y = torch.from_numpy(y.astype(np.float32) if binary else y)
    for _ in range(epochs):
        for rows in torch.randperm(len(X)).split(128):
            outputs = module(X[rows])
            loss = criterion(outputs[:, 0] if binary else outputs, y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    if binary:
        return NeuralNetBinaryClassifier(module, verbose=0).initialize()
    settings = {"criterion": torch.nn.CrossEntropyLoss, "verbose": 0}
    return NeuralNetClassifier(module, **settings).initialize()
