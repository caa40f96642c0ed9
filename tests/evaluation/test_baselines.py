"""Baselines against hand computations and autograd."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from skprune.evaluation import (
    random_scores,
    taylor_scores,
    weight_gradient_scores,
    weight_norm_scores,
)
from skprune.networks import find_players


def hand_net():
    net = nn.Sequential(
        nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)
    )
    with torch.no_grad():
        net[2].weight.copy_(torch.tensor([[3.0, 0.0], [4.0, 1.0]]))
        net[4].weight.copy_(torch.tensor([[2.0, -6.0]]))
    return net


def test_weight_norms_by_hand():
    net = hand_net()
    players = find_players(net, torch.zeros(2, 1))
    raw = weight_norm_scores(net, players, normalize=False)
    np.testing.assert_allclose(raw, [5, 1, 2, 6])
    np.testing.assert_allclose(
        weight_norm_scores(net, players), [5 / 3, 1 / 3, 2 / 4, 6 / 4]
    )


def test_weight_norms_of_filters_add_up_columns_and_readers(zoo):
    net = zoo.conv_net()
    players = find_players(net, torch.zeros(2, 2, 6, 6), "filters")
    raw = weight_norm_scores(net, players, normalize=False)
    second = net[3].weight.detach().double()
    last = net[6].weight.detach().double().reshape(3, 5, 4)
    np.testing.assert_allclose(raw[:4], second.square().sum((0, 2, 3)).sqrt())
    np.testing.assert_allclose(raw[4:], last.square().sum((0, 2)).sqrt())
    residual = zoo.ResidualMLP()
    players = find_players(residual, torch.zeros(2, 6))
    raw = weight_norm_scores(residual, players, normalize=False)
    read = torch.cat([residual.up.weight, residual.out.weight]).detach().double()
    np.testing.assert_allclose(raw[:8], read.norm(dim=0))


def test_a_group_without_weights_is_not_divided_by_zero():
    net = hand_net()
    with torch.no_grad():
        net[4].weight.zero_()
    players = find_players(net, torch.zeros(2, 1))
    scores = weight_norm_scores(net, players)
    np.testing.assert_allclose(scores, [5 / 3, 1 / 3, 0, 0])


def test_random_scores_are_drawn_anew_and_reproducibly(zoo):
    players = find_players(zoo.mlp(), torch.zeros(2, 6))
    first, second = (random_scores(players, random_state=s) for s in (0, 1))
    assert first.shape == (16,)
    np.testing.assert_array_equal(first, random_scores(players, random_state=0))
    assert (first != second).all()
    assert ((first >= 0) & (first < 1)).all()


@pytest.mark.parametrize("kind", ["multiclass", "binary", "regression"])
def test_weight_times_gradient_is_autograd_s(zoo, kind):
    n_outputs = {"multiclass": 3, "binary": 1, "regression": 2}[kind]
    problem = zoo.make_net(zoo.mlp([6, 5, 4, n_outputs]), kind)
    own = zoo.prepare(problem)
    scores = weight_gradient_scores(
        own.samples, own.split, own.split.players, own.task, normalize=False
    )
    module = problem.module.eval()
    X, y = torch.from_numpy(problem.X), torch.as_tensor(problem.y)
    if kind == "binary":
        loss = functional.binary_cross_entropy_with_logits(
            module(X)[:, 0], y.float(), reduction="sum"
        )
    elif kind == "regression":
        loss = functional.mse_loss(module(X), y) * len(X)
    else:
        loss = functional.cross_entropy(module(X), y, reduction="sum")
    loss.backward()
    wanted = [
        (layer.weight * layer.weight.grad).abs().sum(0).detach()
        for layer in (module[2], module[4])
    ]
    np.testing.assert_allclose(scores, torch.cat(wanted), rtol=1e-4)
    normalized = weight_gradient_scores(
        own.samples, own.split, own.split.players, own.task
    )
    assert normalized[:5].mean() == pytest.approx(1)
    assert normalized[5:].mean() == pytest.approx(1)


def test_taylor_is_activation_times_gradient(zoo):
    problem = zoo.make_net(zoo.mlp([6, 5, 4, 3]))
    own = zoo.prepare(problem)
    scores = taylor_scores(own.samples, own.split, own.split.players, own.task)
    module = problem.module.eval()
    first = module[:2](torch.from_numpy(problem.X))
    second = module[2:4](first)
    loss = functional.cross_entropy(
        module[4](second), torch.as_tensor(problem.y), reduction="sum"
    )
    gradients = torch.autograd.grad(loss, [first, second])
    wanted = [
        (h * g).abs().mean(0).detach()
        for h, g in zip([first, second], gradients, strict=True)
    ]
    np.testing.assert_allclose(scores, torch.cat(wanted), rtol=1e-4, atol=1e-7)


def test_taylor_of_filters_sums_over_positions_first(zoo):
    problem = zoo.make_net(zoo.conv_net(), shape=(2, 6, 6), n_samples=12)
    own = zoo.prepare(problem, "filters")
    scores = taylor_scores(own.samples, own.split, own.split.players, own.task)
    module = problem.module.eval()
    first = module[:3](torch.from_numpy(problem.X))
    second = module[3:6](first)
    loss = functional.cross_entropy(
        module[6](second), torch.as_tensor(problem.y), reduction="sum"
    )
    one, two = torch.autograd.grad(loss, [first, second])
    np.testing.assert_allclose(
        scores[:4], (first * one).sum((2, 3)).abs().mean(0).detach(), rtol=1e-4
    )
    by_filter = (second * two).abs().mean(0).detach().reshape(5, 4).sum(1)
    np.testing.assert_allclose(scores[4:], by_filter, rtol=1e-4)


@pytest.mark.parametrize("frozen", [True, False])
def test_scores_leave_no_trace(zoo, frozen):
    problem = zoo.make_net(zoo.mlp())
    problem.module.train()
    if frozen:
        problem.module.requires_grad_(False)
    own = zoo.prepare(problem)
    arguments = own.samples, own.split, own.split.players, own.task
    assert np.isfinite(taylor_scores(*arguments)).all()
    assert np.isfinite(weight_gradient_scores(*arguments)).all()
    for part in problem.module.modules():
        assert part.training
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
    assert all(p.grad is None for p in problem.module.parameters())
    assert all(p.requires_grad != frozen for p in problem.module.parameters())
