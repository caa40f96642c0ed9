"""MNIST for the reproductions: from SKPRUNE_DATA, or by scikit-learn's downloader."""

import os
from pathlib import Path

import numpy as np


def load_mnist():
    """Images (n, 1, 28, 28) as float32 in [0, 1] and labels, training and test."""
    folder = os.environ.get("SKPRUNE_DATA")
    if folder:
        with np.load(Path(folder) / "mnist" / "mnist.npz") as data:
            parts = [data[key] for key in ("X_train", "y_train", "X_test", "y_test")]
    else:
        from sklearn.datasets import fetch_openml

        X, y = fetch_openml("mnist_784", return_X_y=True, as_frame=False)
        parts = [X[:60000], y[:60000], X[60000:], y[60000:]]
    X_train, y_train, X_test, y_test = parts
    images = [
        X.reshape(-1, 1, 28, 28).astype(np.float32) / 255 for X in (X_train, X_test)
    ]
    return images[0], y_train.astype(np.int64), images[1], y_test.astype(np.int64)
