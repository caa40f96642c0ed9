"""Which features drive the units of a network, and how much."""

from __future__ import annotations

import copy

import numpy as np
import torch
from skorch.dataset import get_len
from torch import nn

from skprune.evaluation import store_by_column, take_rows
from skprune.inspection._features import BatchFeatures
from skprune.networks import call

__all__ = ["Activations", "FeatureStrengths"]

# Samples of a batch, entries of one that a layer makes dense, and sums by player and
# feature that are held at a time: at most.
_BATCH_SIZE, _BATCH_ENTRIES, _SUMS = 1024, 2**23, 2**21
# Share of entries that are not 0, below which features are things that are there or
# not: texts have some thousandths, tables of one-hot columns mostly over a tenth.
_RARE = 0.05
# A variance below this share of the mean square is rounding.
_ROUNDING = 1e-10


class FeatureStrengths:
    r"""How much the features of some samples drive the players of a net.

    A driver's strength says by how many of its standard deviations the player's
    activation :math:`a` moves with the feature: with the gradient :math:`g` of the
    activation, and sums over the samples,

    .. math:: \pm \frac{s}{\sigma_a} \sqrt{\frac{\sum_i g_i^2 x_i^2}{\sum_i x_i^2}}

    with the sign of :math:`\sum_i g_i x_i^2`. The feature's size :math:`s` is its
    standard deviation, or the root mean square of those values that are not 0.

    Parameters
    ----------
    net : skorch.NeuralNet
        An initialized net.
    players : Players
        Players of its module.
    X : ndarray, CSR matrix, tensor or dict of these
        Samples, as the net reads them.
    effect : {"auto", "present", "standardized"}
        The size: of what is not 0, or the standard deviation. "auto" takes the former
        where few entries are not 0.
    min_samples : int
        Features that are not 0 in fewer samples drive nothing.

    Attributes
    ----------
    n_features : int
        Number of features of X.
    effect : {"auto", "present", "standardized"}
        The size that is taken; no longer "auto" once strengths were asked for.

    Notes
    -----
    Gradients are asked for only where an entry is not 0: so a word counts by the texts
    that hold it, and X stays sparse. Their mean square does not cancel where a unit
    answers to both ends of a feature. No single size serves both tables and texts: by
    standard deviations, words that stand in most texts lead the lists of texts; by what
    is not 0, the rarest categories lead those of tables.
    """

    def __init__(self, net, players, X, effect, min_samples):
        self._net, self._X, self._min_samples = net, X, min_samples
        self._n_samples = get_len(X)
        if self._n_samples < max(2, min_samples):
            raise ValueError(
                f"X holds {self._n_samples} samples, too few to tell what drives a "
                f"survivor; give at least min_samples={min_samples}, better hundreds."
            )
        self.effect, self._activations = effect, Activations(net.module_, players)
        first = BatchFeatures(net, take_rows(X, slice(0, 2)))
        self._activations.of(first)
        first.check_read()
        self.n_features, self.default_names = first.n_features, first.default_names

    def of_players(self):
        """Yield the strengths of all features, player by player.

        Yields
        ------
        player : int
            Number of a player that has an activation.
        strengths : ndarray of shape (n_features,)
            0 where a feature or the activation never varies.
        """
        self._measure()
        for layer, numbers in self._activations.players_of.items():
            n_parts = -(-len(numbers) * self.n_features // _SUMS)
            places = np.arange(len(numbers))
            for some in np.array_split(places, min(n_parts, len(places))):
                squares, products = self._sums(layer, some)
                gradients = np.sqrt(_divided(squares, self._squares))
                signs = np.where(products < 0, -1, 1)
                strengths = signs * gradients * self._sizes
                deviations = self._deviations_of[layer][some]
                strengths = _divided(strengths, deviations[:, np.newaxis])
                yield from zip(numbers[some], strengths, strict=True)

    def _measure(self):
        """Sizes of features, and standard deviations of activations."""
        sums = torch.zeros(3, self.n_features, dtype=torch.float64)
        sums_of = {
            layer: torch.zeros(2, len(numbers), dtype=torch.float64)
            for layer, numbers in self._activations.players_of.items()
        }
        for features in self._batches():
            values = [some.double() for some in features.values]
            powers = [
                values,
                [some.square() for some in values],
                [(some != 0).double() for some in values],
            ]
            sums += torch.stack([features.summed(power) for power in powers]).cpu()
            for layer, units in self._activations.of(features).items():
                units = units.detach().double().cpu()
                sums_of[layer] += torch.stack([units.sum(0), units.square().sum(0)])
        self._sizes, self._squares = self._sized(*sums.numpy()), sums[1].numpy()
        self._deviations_of = {
            layer: _deviations(*some.numpy(), self._n_samples)
            for layer, some in sums_of.items()
        }

    def _sized(self, sums, squares, counts):
        """Sizes of the features, 0 for those that are hardly ever there."""
        if self.effect == "auto":
            is_rare = counts.mean() < _RARE * self._n_samples
            self.effect = "present" if is_rare else "standardized"
        if self.effect == "present":
            sizes = np.sqrt(_divided(squares, counts))
        else:
            sizes = _deviations(sums, squares, self._n_samples)
        return np.where(counts < self._min_samples, 0, sizes)

    def _sums(self, layer, places):
        """Sums of g² x² and of g x² over the samples, for some players of a layer."""
        shape = (2, len(places), self.n_features)
        sums = torch.zeros(shape, dtype=torch.float64, device=self._net.device)
        for features in self._batches():
            totals = self._activations.of(features)[layer].sum(0)
            if not totals.requires_grad:
                continue
            for row, place in enumerate(places):
                gradients = torch.autograd.grad(
                    totals[place],
                    features.leaves,
                    retain_graph=True,
                    allow_unused=True,
                    materialize_grads=True,
                )
                parts = features.contributions(gradients)
                pairs = list(zip(parts, features.values, strict=True))
                sums[0, row] += features.summed([part.square() for part, _ in pairs])
                sums[1, row] += features.summed([part * x for part, x in pairs])
        return sums.cpu().numpy()

    def _batches(self):
        """The samples, batch by batch."""
        size = int(np.clip(_BATCH_ENTRIES // self.n_features, 1, _BATCH_SIZE))
        for start in range(0, self._n_samples, size):
            yield BatchFeatures(
                self._net, take_rows(self._X, slice(start, start + size))
            )


class Activations:
    """What the layers behind the players of a module read of each of them.

    Parameters
    ----------
    module : torch.nn.Module
        The network; it is copied.
    players : Players
        Its players. Single weights and whole layers have no activation.

    Attributes
    ----------
    players_of : dict of str to ndarray of int
        Layers that read players which no layer before them reads, and these.
    """

    def __init__(self, module, players):
        # A copy: others may run the module meanwhile, and its gradients are theirs.
        self._module = copy.deepcopy(module).eval().requires_grad_(False)
        for layer in self._module.modules():
            if isinstance(layer, nn.Linear) and layer.in_features > layer.out_features:
                # The gradient of each word gathers its weights.
                store_by_column(layer)
        self.players_of, self._read = {}, {}
        taken = np.zeros(players.n_players, dtype=bool)
        for name, owners in players.consumers.items():
            # What several layers read is the same to all of them.
            columns = np.flatnonzero((owners >= 0) & ~taken[owners])
            if len(columns):
                numbers, places = np.unique(owners[columns], return_inverse=True)
                self.players_of[name] = numbers
                taken[numbers] = True
                self._watch(name, columns, places, len(numbers))

    def of(self, features):
        """Run the module on a batch.

        Parameters
        ----------
        features : BatchFeatures
            The batch.

        Returns
        -------
        activations : dict of str to tensor of shape (n_samples, n_players_of_layer)
            As in `players_of`, summed over positions, with the graph by which they
            depend on the features.
        """
        self._read = {}
        handles = features.hooks(self._module)
        try:
            with torch.enable_grad():
                call(self._module, features.argument())
        finally:
            for handle in handles:
                handle.remove()
        return self._read

    def _watch(self, name, columns, places, n_players):
        """Note what a layer reads, at its first call."""
        layer = self._module.get_submodule(name)
        n_axes = 1 if isinstance(layer, nn.Linear) else 1 + len(layer.kernel_size)
        columns, places = torch.from_numpy(columns), torch.from_numpy(places)

        def note(_, args, kwargs):
            if name in self._read:
                return
            x = args[0] if args else kwargs["input"]
            units = x.movedim(x.ndim - n_axes, 1)
            units = units.index_select(1, columns.to(x.device))
            units = units.reshape(*units.shape[:2], -1).sum(2)
            nothing = units.new_zeros(len(units), n_players)
            self._read[name] = nothing.index_add(1, places.to(x.device), units)

        layer.register_forward_pre_hook(note, with_kwargs=True)


def _deviations(sums, squares, n_samples):
    """Standard deviations, from sums of values and of their squares."""
    mean, mean_square = sums / n_samples, squares / n_samples
    variance = mean_square - mean**2
    return np.sqrt(np.where(variance > _ROUNDING * mean_square, variance, 0))


def _divided(numerator, denominator):
    """A quotient that is 0 where the denominator is."""
    shape = np.broadcast_shapes(np.shape(numerator), np.shape(denominator))
    return np.divide(numerator, denominator, out=np.zeros(shape), where=denominator > 0)
