"""AdamW on weights that lie column by column."""

import copy

import pytest
import torch
from torch import nn

from skprune.evaluation import ColumnAdamW, build_mlp, mlp_classifier, store_by_column

torch_adamw = torch.optim.AdamW


def gradients(module, seed):
    """A gradient for each parameter, laid out as the parameter is."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        parameter.grad = torch.empty_like(parameter).copy_(drawn)


def steps(kind, module, n_steps=4, **params):
    """The optimizer after some steps."""
    optimizer = kind(module.parameters(), lr=0.1, **params)
    for seed in range(n_steps):
        gradients(module, seed)
        optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    "params",
    [
        {"fused": True},
        {"fused": True, "amsgrad": True, "maximize": True},
        {"fused": False},
        {"foreach": True, "amsgrad": True},
    ],
    ids=str,
)
def test_steps_are_those_of_adamw_and_leave_the_layout_as_it_was(params):
    torch.manual_seed(0)
    by_row = build_mlp(30, (6,), 3)
    by_column = copy.deepcopy(by_row)
    store_by_column(by_column.hidden_1)
    params |= {"weight_decay": 0.3}
    expected = steps(torch_adamw, by_row, **params)
    got = steps(ColumnAdamW, by_column, **params)
    for a, b in zip(by_column.parameters(), by_row.parameters(), strict=True):
        torch.testing.assert_close(a, b)
        assert got.state[a].keys() == expected.state[b].keys()
        for key, value in got.state[a].items():
            torch.testing.assert_close(value, expected.state[b][key])
            assert not value.ndim or value.stride() == a.stride()
    assert by_column.hidden_1.weight.stride() == (1, 6)


def test_a_gradient_that_lies_otherwise_is_taken_for_what_it_is():
    torch.manual_seed(0)
    layer = store_by_column(nn.Linear(30, 6))
    twin = copy.deepcopy(layer)
    drawn = torch.randn(6, 30)
    layer.weight.grad, twin.weight.grad = drawn, drawn.T.contiguous().T
    for module in (layer, twin):
        ColumnAdamW([module.weight], lr=0.1, fused=True).step()
    assert torch.equal(layer.weight, twin.weight)


def test_no_step_copies_what_lies_column_by_column():
    layer = store_by_column(nn.Linear(30, 6))
    optimizer = steps(ColumnAdamW, layer, fused=True)
    gradients(layer, 9)
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], record_shapes=True) as profile:
        optimizer.step()
    shapes = [
        event.input_shapes[0]
        for event in profile.events()
        if event.name in ("aten::clone", "aten::contiguous")
    ]
    assert all(len(shape) < 2 for shape in shapes)


def test_training_goes_on_from_a_saved_state():
    torch.manual_seed(0)
    layer = store_by_column(nn.Linear(30, 6))
    optimizer = steps(ColumnAdamW, layer, fused=True)
    twin = copy.deepcopy(layer)
    resumed = ColumnAdamW(twin.parameters(), lr=0.1, fused=True)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for module, part in ((layer, optimizer), (twin, resumed)):
        gradients(module, 9)
        part.step()
    assert torch.equal(layer.weight, twin.weight)


def test_perceptrons_are_trained_by_it():
    assert mlp_classifier().get_params()["optimizer"] is ColumnAdamW
