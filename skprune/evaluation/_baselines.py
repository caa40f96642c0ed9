"""Scores that need no game: random, weight norm, weight times gradient, Taylor."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.utils import check_random_state

from skprune.evaluation._moments import watch_layers
from skprune.exceptions import UnsupportedNetworkError
from skprune.networks import evaluating

__all__ = [
    "random_scores",
    "taylor_scores",
    "weight_gradient_scores",
    "weight_norm_scores",
]


def random_scores(players, random_state=None):
    """Uniform random scores: the baseline that everything has to beat.

    Parameters
    ----------
    players : Players
        The players.
    random_state : int, RandomState instance or None, default=None
        Draws the scores.

    Returns
    -------
    scores : ndarray of float64 of shape (n_players,)
    """
    return check_random_state(random_state).uniform(size=players.n_players)


def weight_norm_scores(module, players, *, normalize=True):
    """Euclidean norm of the weights with which others read a player.

    Of a single weight its absolute value, of a whole layer the norm of all that is in
    it but the biases.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    players : Players
        Its players.
    normalize : bool, default=True
        Divide by the mean of each group, so that layers can be compared.

    Returns
    -------
    scores : ndarray of float64 of shape (n_players,)

    References
    ----------
    .. [1] D. Blalock et al., "What is the state of neural network pruning?",
       MLSys 2020.
    """
    squares = _summed_over_weights(
        module, players, lambda weight: weight.detach().double().square()
    )
    return _normalized(np.sqrt(squares), players, normalize)


def weight_gradient_scores(samples, split, players, task, *, normalize=True):
    """Sum of absolute weight times gradient, over the weights that read a player.

    Of a single weight or a whole layer, over that weight or all that is in the layer
    but the biases.

    Parameters
    ----------
    samples : Samples
        Samples on which the loss's gradient is taken.
    split : SplitModule
        The module.
    players : Players
        Its players.
    task : Task
        What the outputs mean, and the loss.
    normalize : bool, default=True
        Divide by the mean of each group, so that layers can be compared.

    Returns
    -------
    scores : ndarray of float64 of shape (n_players,)

    References
    ----------
    .. [1] D. Blalock et al., "What is the state of neural network pruning?",
       MLSys 2020.
    """
    weights = [weight for weight, _ in _weights_of(split.rest, players)]
    weights = list({id(weight): weight for weight in weights}.values())
    totals = [torch.zeros_like(weight) for weight in weights]
    frozen = [weight for weight in weights if not weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(True)
    try:
        for loss in _losses(samples, split, task):
            gradients = torch.autograd.grad(
                loss, weights, allow_unused=True, materialize_grads=True
            )
            for total, part in zip(totals, gradients, strict=True):
                total += part
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
    products = {
        id(weight): (weight.detach() * total).abs().double()
        for weight, total in zip(weights, totals, strict=True)
    }
    scores = _summed_over_weights(split.rest, players, lambda w: products[id(w)])
    return _normalized(scores, players, normalize)


def taylor_scores(samples, split, players, task, *, normalize=False):
    """First-order estimate of what the loss gains when a player is set to 0.

    Parameters
    ----------
    samples : Samples
        Samples on which the loss's gradient is taken.
    split : SplitModule
        The module.
    players : Players
        Its players.
    task : Task
        What the outputs mean, and the loss.
    normalize : bool, default=False
        Divide by the mean of each group.

    Returns
    -------
    scores : ndarray of float64 of shape (n_players,)
        Mean over samples of the absolute activation times gradient, summed over the
        columns of a player.

    Raises
    ------
    UnsupportedNetworkError
        If single weights or whole layers are players.

    References
    ----------
    .. [1] P. Molchanov et al., "Pruning convolutional neural networks for resource
       efficient inference", ICLR 2017.
    """
    if players.weights or players.layers:
        raise UnsupportedNetworkError(
            "taylor_scores are of what layers read, and single weights or whole layers "
            f"are players, of {[*players.weights, *players.layers]}; use "
            "weight_gradient_scores, or give neurons, filters or inputs alone."
        )
    scores = np.zeros(players.n_players)
    read = {}

    def keep_input(name, layer, inputs, output):
        read[name] = inputs

    def need_gradient(layer, args, kwargs):
        x = args[0] if args else kwargs["input"]
        x = x if x.requires_grad else x.detach().requires_grad_()
        return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "input": x})

    handles = [
        split.rest.get_submodule(name).register_forward_pre_hook(
            need_gradient, with_kwargs=True
        )
        for name in players.consumers
    ]
    try:
        with watch_layers(split.rest, players.consumers, keep_input):
            for loss in _losses(samples, split, task):
                inputs = [read[name] for name in players.consumers]
                gradients = torch.autograd.grad(loss, inputs)
                for (name, owners), x, g in zip(
                    players.consumers.items(), inputs, gradients, strict=True
                ):
                    effect = _per_column(split.rest.get_submodule(name), x * g)
                    np.add.at(scores, owners[owners >= 0], effect[owners >= 0])
    finally:
        for handle in handles:
            handle.remove()
    return _normalized(scores / len(samples), players, normalize)


def _per_column(layer, products):
    """Sum over samples of |the sum over positions|, for each input column."""
    if isinstance(layer, torch.nn.Linear):
        per_sample = products.reshape(len(products), -1, products.shape[-1]).sum(1)
    else:
        per_sample = products.flatten(2).sum(2)
    return per_sample.detach().abs().sum(0).double().cpu().numpy()


def _losses(samples, split, task):
    """Yield the loss of each batch, times its size, so that sums are over samples."""
    with evaluating(split.rest), torch.enable_grad():
        for features, targets in samples.batches():
            outputs = split.run(features)
            outputs = outputs.reshape(len(outputs), -1)
            logits = outputs if split.logits else task.logits(outputs)
            yield task.loss(logits, targets) * len(targets)


def _weights_of(module, players):
    """Yield parameters that count for players, and owners that broadcast to them."""
    for name, owners in players.consumers.items():
        weight = module.get_submodule(name).weight
        yield weight, owners.reshape(1, -1, *(1,) * (weight.ndim - 2))
    for name, owners in players.weights.items():
        yield module.get_submodule(name).weight, owners
    for name, player in players.layers.items():
        for own_name, parameter in module.get_submodule(name).named_parameters():
            if own_name.rpartition(".")[-1] != "bias":
                yield parameter, np.full((1,) * parameter.ndim, player)


def _summed_over_weights(module, players, entries):
    """Sum of a function of the weights over all that count for a player."""
    scores = np.zeros(players.n_players)
    for weight, owners in _weights_of(module, players):
        values = entries(weight)
        # Axes along which the owner is the same are summed first.
        same = [axis for axis, size in enumerate(owners.shape) if size == 1]
        values = (values.sum(same, keepdim=True) if same else values).cpu().numpy()
        np.add.at(scores, owners[owners >= 0], values[owners >= 0])
    return scores


def _normalized(scores, players, normalize):
    """Scores over the mean of their group."""
    if not normalize:
        return scores
    totals = np.bincount(players.group_of, scores)
    means = totals / np.maximum(np.bincount(players.group_of), 1)
    return scores / np.where(means > 0, means, 1.0)[players.group_of]
