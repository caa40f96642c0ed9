"""Samples as the rest of a module reads them, and what its layers do with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from skprune.evaluation._data import batches_of, concatenate
from skprune.evaluation._payoffs import Payoff
from skprune.evaluation._split import SplitModule
from skprune.networks import evaluating, map_tensors

__all__ = [
    "Samples",
    "clear_gain",
    "played_payoff",
    "played_payoffs",
    "sample_logits",
]

_BATCH = 1024


@dataclass(frozen=True)
class Samples:
    """Features of samples and their targets.

    Parameters
    ----------
    features : tensor, list or dict of tensors
        What the rest of a split module reads.
    targets : tensor of shape (n_samples, ...)
        As `Task.targets` gives them.
    """

    features: Any
    targets: torch.Tensor

    @classmethod
    def of(cls, net, split, task, X, y):
        """Run the front of a split module over data.

        Parameters
        ----------
        net : skorch.NeuralNet
            The net whose module was split.
        split : SplitModule
            Its module.
        task : Task
            What its outputs mean.
        X, y : array-like of n_samples rows
            The samples.

        Returns
        -------
        samples : Samples
        """
        with evaluating(net.module_), torch.no_grad():
            features = concatenate([split.features(b) for b in batches_of(net, X)])
        return cls(features, task.targets(y, net.device))

    def __len__(self):
        """Number of samples."""
        return len(self.targets)

    def subset(self, n_samples, seed=0):
        """At most `n_samples` of the samples, drawn without replacement."""
        if n_samples >= len(self):
            return self
        rows = np.random.default_rng(seed).permutation(len(self))[:n_samples]
        index = torch.as_tensor(np.sort(rows), device=self.targets.device)
        return Samples(
            map_tensors(lambda x: x[index], self.features), self.targets[index]
        )

    def joined(self, other):
        """These samples and others."""
        features = concatenate([self.features, other.features])
        return Samples(features, torch.cat([self.targets, other.targets]))

    def batches(self):
        """Yield (features, targets) of about a thousand samples each, as copies."""
        for start in range(0, len(self), _BATCH):
            rows = slice(start, start + _BATCH)
            # A module may work in place on what it reads.
            features = map_tensors(lambda x, r=rows: x[r].clone(), self.features)
            yield features, self.targets[rows]


def sample_logits(split: SplitModule, samples: Samples, task):
    """Logits (n_samples, n_outputs) of a split module."""
    with evaluating(split.rest), torch.no_grad():
        outputs = torch.cat([split.run(features) for features, _ in samples.batches()])
    outputs = outputs.reshape(len(outputs), -1)
    return outputs if split.logits else task.logits(outputs)


def played_payoff(split: SplitModule, samples: Samples, task, payoff: Payoff) -> float:
    """Payoff of a module as it is."""
    return float(played_payoffs(split, samples, task, payoff).mean())


def played_payoffs(split: SplitModule, samples: Samples, task, payoff: Payoff):
    """What a module as it is earns by each sample, whose mean is its payoff.

    Parameters
    ----------
    split : SplitModule
        A module.
    samples : Samples
        The samples.
    task : Task
        What the outputs mean.
    payoff : Payoff
        What is earned.

    Returns
    -------
    earned : ndarray of float64 of shape (n_samples,) or (1,)
        One number for all samples where the payoff is a metric, no mean over them.
    """
    logits = sample_logits(split, samples, task)
    if payoff.metric is not None:
        targets = samples.targets.cpu().numpy()
        return np.array([payoff.metric(logits.cpu().numpy(), targets)], np.float64)
    return payoff.per_sample(logits, samples.targets).double().cpu().numpy()


def clear_gain(new, old):
    """What is earned more, less a standard error: positive where it is hardly chance.

    Parameters
    ----------
    new, old : ndarray of shape (n_samples,) or (1,)
        What two modules earn by the same samples, see `played_payoffs`.

    Returns
    -------
    gain : float
    """
    gains = new - old
    return float(gains.mean() - gains.std() / len(gains) ** 0.5)
