"""The columns of X as players of a net, whichever of its layers read them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy import sparse
from torch import nn

from skprune.evaluation import CoalitionEvaluator, first_rows, take_rows
from skprune.exceptions import UnsupportedNetworkError
from skprune.networks import (
    agree,
    call,
    evaluating,
    find_players,
    map_tensors,
    masked,
    tensors_in,
)
from skprune.pruners._nets import forked_rng, with_own_module

__all__ = ["FeatureGames", "feature_players"]

# Resamplings behind the standard error of a metric.
_N_RESAMPLED = 30


def feature_players(net, X):
    """Find the layers that read the columns of X, and let each column be one player.

    Parameters
    ----------
    net : skorch.NeuralNet
        An initialized net.
    X : array or CSR matrix of shape (n_samples, n_features)
        Samples, as the net reads them.

    Returns
    -------
    players : Players
        Player j owns column j of all layers that read X.

    Raises
    ------
    UnsupportedNetworkError
        If no Linear layer reads X column by column, or if something else reads it too.
    """
    module, n_features = net.module_, X.shape[1]
    example = torch.zeros_like(first_rows(net, X))
    with evaluating(module), torch.no_grad():
        names = [name for name, _ in _readers(module, example)]
        if not names:
            raise UnsupportedNetworkError(
                f"no Linear layer of {type(module).__name__} reads the {n_features} "
                "columns of X one by one, so that columns cannot be its players; give "
                "an estimator whose first layer is a torch.nn.Linear of as many inputs."
            )
        players = find_players(module, example, [("inputs", names[0])])
        columns = {name: np.arange(n_features) for name in names}
        players = replace(players, consumers=columns, selections=columns)
        with masked(module, players, np.zeros(n_features, dtype=bool)):
            noise = np.random.default_rng(0).normal(size=(8, n_features))
            outputs = tensors_in(call(module, torch.from_numpy(noise).to(example)))[0]
    if not agree(outputs, outputs[:1].expand_as(outputs)):
        raise UnsupportedNetworkError(
            f"X reaches the output of {type(module).__name__} past its layers {names}, "
            "so that a column of X cannot be taken from it; give an estimator that "
            "reads X by Linear layers alone."
        )
    return players


class FeatureGames:
    """The games that the columns of X play in a trained net.

    Absent columns of a sparse X are 0; of a dense one they have the mean of the
    training samples, wherever the layers that read X have a bias to hold it.

    Parameters
    ----------
    net : skorch.NeuralNet
        A trained net; not changed.
    data : FitData
        The samples.
    n_jobs : int or None
        Threads; see `CoalitionEvaluator`.
    """

    def __init__(self, net, data, n_jobs):
        self.net, self.data, self.n_jobs = with_own_module(net), data, n_jobs
        self.players = feature_players(self.net, data.X)
        self.center = None
        if not sparse.issparse(data.X):
            center = data.X.mean(axis=0, dtype=np.float64).astype(data.X.dtype)
            self.center = self._moved_to_biases(center)

    def everywhere(self, payoff):
        """The game on all samples: those of the training, and those held out."""
        data = self.data
        X, y = data.X_game, data.y_game
        if data.X_game is data.X_val and data.X_val is not data.X:
            is_sparse = sparse.issparse(data.X) or sparse.issparse(X)
            X = (sparse.vstack if is_sparse else np.concatenate)([data.X, X])
            y = np.concatenate([data.y, y])
        return self._game(X, y, payoff)

    def held_out(self, payoff):
        """The game on the validation samples."""
        return self._game(self.data.X_val, self.data.y_val, payoff)

    @property
    def n_rows(self):
        """Rows of the net's tail that a walk on all samples costs, about."""
        X, n_samples = self.data.X, len(self.data.y_game)
        if self.data.X_game is self.data.X_val and self.data.X_val is not X:
            n_samples += X.shape[0]
        width = X.nnz / X.shape[0] if sparse.issparse(X) else X.shape[1]
        return max(1, round(n_samples * width))

    def standard_error(self, mask, payoff):
        """Standard error of what a coalition earns on the validation samples.

        Parameters
        ----------
        mask : ndarray of bool of shape (n_features,)
            The coalition.
        payoff : str or callable
            See `CoalitionEvaluator`.

        Returns
        -------
        error : float
            Over samples; of a metric that is no mean over them, by resampling the
            samples of each class.
        """
        game = self.held_out(payoff)
        if game.payoff.metric is None:
            earned = game.sample_payoffs(mask[None])[0]
            return float(earned.std(ddof=min(1, len(earned) - 1)) / len(earned) ** 0.5)
        X, y = self.data.X_val, self.data.y_val
        drawn = []
        for seed in range(_N_RESAMPLED):
            rows = _resampled(y, np.random.default_rng(seed))
            drawn.append(self._game(take_rows(X, rows), y[rows], payoff)(mask)[0])
        return float(np.std(drawn, ddof=1))

    def _game(self, X, y, payoff):
        if self.center is not None:
            X = X - self.center
        return CoalitionEvaluator(
            self.net, X, y, players=self.players, payoff=payoff, n_jobs=self.n_jobs
        )

    def _moved_to_biases(self, center):
        """Let biases hold what the means of columns add; None where they cannot."""
        module = self.net.module_
        example = torch.zeros_like(first_rows(self.net, self.data.X))
        with evaluating(module), torch.no_grad():
            readers = _readers(module, example)
            mean = torch.as_tensor(center).to(example)
            for name, reads_plainly in readers:
                layer = module.get_submodule(name)
                if layer.bias is None or not reads_plainly:
                    return None
            for name, _ in readers:
                layer = module.get_submodule(name)
                layer.bias += layer.weight @ mean
        return center


def _resampled(y, rng):
    """Rows drawn with replacement; as many of each class as there are."""
    rows = np.arange(len(y))
    parts = [rows]
    if y.ndim == 1:
        parts = [rows[y == label] for label in np.unique(y)]
    return np.concatenate([rng.choice(part, len(part)) for part in parts])


def _readers(module, example):
    """Linear layers that read an input column by column, and whether as it is.

    A column of what they read may depend on the same column of the input only, which is
    found by changing half of the columns, and then the others.
    """
    with forked_rng():
        torch.manual_seed(0)
        one, other = torch.randn(2, *example.shape).to(example)
        half = torch.rand(example.shape[1]).to(example.device) < 0.5
    reads = _inputs_of_layers(module, one)
    changed = [
        _inputs_of_layers(module, torch.where(own, other, one)) for own in (half, ~half)
    ]
    names = [
        name
        for name, read in reads.items()
        if all(name in part for part in changed)
        and read.shape == one.shape
        and torch.equal(changed[0][name][:, ~half], read[:, ~half])
        and torch.equal(changed[1][name][:, half], read[:, half])
    ]
    return [(name, torch.equal(reads[name], one)) for name in names]


def _inputs_of_layers(module, x):
    """What each Linear layer reads, for an input of the module."""
    reads, names = {}, {part: name for name, part in module.named_modules()}

    def keep(layer, args):
        if len(args) == 1 and isinstance(args[0], torch.Tensor):
            reads[names[layer]] = args[0].clone()

    handles = [
        part.register_forward_pre_hook(keep)
        for part in names
        if isinstance(part, nn.Linear)
    ]
    try:
        call(module, map_tensors(torch.clone, x))
    finally:
        for handle in handles:
            handle.remove()
    return reads
