"""A tail of Linear layers as the arrays that native backends lay out."""

from __future__ import annotations

import numpy as np
import torch

from skprune.evaluation._lane_payoffs import PAYOFFS
from skprune.evaluation._tail import Tail, lay_out

__all__ = ["chain_fault", "has_kernel", "tail_of_chain"]

# Share of a column's spread that rounding to single precision may take.
_LOST = 1e-3


def has_kernel(payoff):
    """Whether the kernels can play a payoff."""
    # R² is laid out as a squared error.
    is_mean = payoff.per_sample is not None
    return is_mean and (payoff.name == "r2" or payoff.name in PAYOFFS)


def chain_fault(links, split, features, payoff):
    """Why no native backend can play a chain of layers, or None.

    Parameters
    ----------
    links : list of ChainLink or None
        The layers, from `linear_chain`.
    split : SplitModule
        The module they are in.
    features : list of tensors
        What the first layer reads, alone.
    payoff : Payoff
        What a coalition earns.

    Returns
    -------
    fault : str or None
    """
    if links is None:
        return (
            "what follows its first players is more than Linear layers with pointwise "
            "activations in a row, or has hooks"
        )
    if not has_kernel(payoff):
        return "there are kernels for some means over samples alone"
    feature, players = features[0], split.players
    if players.weights or players.layers:
        return "single weights or whole layers are players"
    if feature.ndim != 2 or feature.dtype not in (torch.float32, torch.float64):
        return (
            f"what its layers read is {feature.dtype} of shape {tuple(feature.shape)}, "
            "and no float32 matrix"
        )
    if feature.dtype is torch.float64 and _blurs(feature):
        return "float32 would blur what its layers read"
    # Every player owns columns of one layer: no residual sums.
    owned = [np.unique(owners[owners >= 0]) for owners in players.consumers.values()]
    alone = np.concatenate(owned).size == players.n_players
    inside = set(players.consumers) <= {link.name for link in links}
    if not (alone and inside) or players.normalizations:
        return "a player is in more than one layer, or in a normalization"
    return None


def _blurs(feature):
    """Whether single precision would lose what tells samples apart."""
    lost = (feature - feature.float()).abs().amax(dim=0)
    spread = feature.std(dim=0, correction=0)
    return bool(((lost > _LOST * spread) & (spread > 0)).any())


def tail_of_chain(links, split, features, targets, payoff) -> tuple[Tail, float]:
    """Lay out a tail of Linear layers, wherever its tensors lie.

    Parameters
    ----------
    links : list of ChainLink
        The layers, from `linear_chain`.
    split : SplitModule
        The module they are in.
    features : list of tensors
        What the first layer reads, alone.
    targets : tensor of shape (n_samples, ...)
        What the outputs should be.
    payoff : Payoff
        A mean over samples.

    Returns
    -------
    tail : Tail
        The layout.
    offset : float
        What to add to payoffs, but not to marginals.
    """
    layers = [split.rest.get_submodule(link.name) for link in links]
    players = split.players
    weights = [_array(layer.weight) for layer in layers]
    biases = [None if layer.bias is None else _array(layer.bias) for layer in layers]
    owners = [
        players.consumers.get(link.name, np.full(layer.in_features, -1))
        for link, layer in zip(links, layers, strict=True)
    ]
    y, name, offset = _array(targets), payoff.name, 0.0
    if name == "r2":
        # R² is a negative squared error of outputs in units of their spread.
        name = "neg_mean_squared_error"
        spread = np.where(np.ptp(y, axis=0) > 0, y.std(axis=0, dtype=float), 0)
        offset = float((spread > 0).mean())
        scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
        weights[-1] = weights[-1] * scale[:, None]
        biases[-1] = None if biases[-1] is None else biases[-1] * scale
        y = y * scale
    activations = [link.activation for link in links[:-1]]
    arrays = (_array(features[0]), weights, biases, activations, owners)
    return lay_out(*arrays, players.n_players, y, name), offset


def _array(tensor):
    """A tensor as an array."""
    return tensor.detach().cpu().numpy()
