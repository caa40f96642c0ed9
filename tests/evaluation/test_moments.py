"""Moments against numpy; columns and rows of layers against the layers."""

import numpy as np
import pytest
import torch
from torch import nn

from skprune.evaluation import _moments
from skprune.evaluation._moments import (
    Moments,
    columns_of,
    is_linear_map,
    rows_of,
    watch_layers,
)


def streamed(columns, targets, sizes):
    moments = Moments()
    for x, z in zip(
        torch.from_numpy(columns).split(sizes),
        torch.from_numpy(targets).split(sizes),
        strict=True,
    ):
        moments.update(x, z)
    return moments


@pytest.mark.parametrize("sizes", [[101], [1, 7, 40, 53], [50, 50, 1]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mean", [0.0, 1e3])
def test_moments_are_those_of_numpy(sizes, dtype, mean):
    rng = np.random.default_rng(0)
    columns = (rng.normal(size=(101, 4)) @ rng.normal(size=(4, 4)) + mean).astype(dtype)
    targets = (columns[:, :3] + rng.normal(size=(101, 3))).astype(dtype)
    moments = streamed(columns, targets, sizes)
    x, z = columns.astype(np.float64), targets.astype(np.float64)
    both = np.cov(x.T, z.T, bias=True)
    tolerance = 1e-10 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(moments.gram, both[:4, :4], atol=tolerance)
    np.testing.assert_allclose(moments.cross, both[:4, 4:], atol=tolerance)
    np.testing.assert_allclose(moments.target_variances, z.var(0), atol=tolerance)
    np.testing.assert_allclose(moments.means[0], x.mean(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(moments.means[1], z.mean(0), rtol=1e-6, atol=1e-6)
    assert moments.n == 101
    assert moments.gram.dtype == torch.float64


def test_large_means_cost_no_digits():
    rng = np.random.default_rng(1)
    small = rng.normal(size=(500, 2)).astype(np.float32)
    # Multiples of 2**-8 near 2**14 are exact in float32; x'x of them is not.
    columns = (np.round(small * 256) / 256 + 2.0**14).astype(np.float32)
    moments = streamed(columns, small, [100] * 5)
    wanted = np.cov(columns.astype(np.float64).T, bias=True)
    np.testing.assert_allclose(moments.gram, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "numbers", "columns"), [(1, 1, 2), (7, 60, 3), (40, 2**22, 512)]
)
def test_batches_and_blocks_do_not_matter(rows, numbers, columns, monkeypatch):
    rng = np.random.default_rng(2)
    x, z = (
        rng.normal(size=(90, 11)) @ rng.normal(size=(11, 11)),
        rng.normal(size=(90, 4)),
    )
    monkeypatch.setattr(_moments, "_ROWS", rows)
    monkeypatch.setattr(_moments, "_NUMBERS", numbers)
    monkeypatch.setattr(_moments, "_COLUMNS", columns)
    wanted = np.cov(x.T, z.T, bias=True)
    for sizes in ([90], [3] * 30, [64, 1, 25]):
        moments = streamed(x, z, sizes)
        np.testing.assert_allclose(moments.gram, wanted[:11, :11], atol=1e-12)
        np.testing.assert_allclose(moments.cross, wanted[:11, 11:], atol=1e-12)
        assert torch.equal(moments.gram, moments.gram.T)


def test_moments_may_be_read_on_the_way_and_data_overwritten():
    rng = np.random.default_rng(3)
    data = rng.normal(size=(60, 50))
    moments = Moments()
    for stop in (10, 20, 30, 60):
        batch = torch.from_numpy(data[moments.n : stop].copy())
        moments.update(batch, batch[:, :2])
        batch.zero_()
        if stop != 20:
            wanted = np.cov(data[:stop].T, bias=True)
            np.testing.assert_allclose(moments.gram, wanted, atol=1e-12)
            np.testing.assert_allclose(moments.cross, wanted[:, :2], atol=1e-12)
            np.testing.assert_allclose(moments.means[0], data[:stop].mean(0))
            np.testing.assert_allclose(
                moments.target_variances, wanted.diagonal()[:2], atol=1e-12
            )


@pytest.mark.parametrize("mean", [0.0, 30.0, 1e4])
def test_float32_streams_keep_the_digits_of_float32(mean):
    rng = np.random.default_rng(4)
    x = (rng.normal(size=(5000, 20)) + mean).astype(np.float32)
    moments = streamed(x, x[:, :3], [250] * 20)
    wanted = np.cov(x.astype(np.float64).T, bias=True)
    np.testing.assert_allclose(moments.gram, wanted, atol=1e-6)
    np.testing.assert_allclose(moments.cross, wanted[:, :3], atol=1e-6)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moments_on_cuda_are_those_of_the_cpu(dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 600, generator=generator, dtype=dtype) + 5
    z = x[:, :7] ** 2
    cpu, cuda = Moments(), Moments()
    for columns, targets in zip(x.split(700), z.split(700), strict=True):
        cpu.update(columns, targets)
        cuda.update(columns.cuda(), targets.cuda())
    tolerance = 1e-10 if dtype == torch.float64 else 1e-3
    assert cuda.gram.is_cuda
    for name in ("gram", "cross", "target_variances"):
        torch.testing.assert_close(
            getattr(cuda, name).cpu(), getattr(cpu, name), rtol=0, atol=tolerance
        )


CONVOLUTIONS = {
    "plain": nn.Conv2d(3, 4, 3),
    "strided": nn.Conv2d(3, 4, (3, 2), stride=(2, 1)),
    "padded": nn.Conv2d(3, 4, 3, padding=(2, 1)),
    "same": nn.Conv2d(3, 4, (3, 5), padding="same", dilation=(2, 1)),
    "valid": nn.Conv2d(3, 4, 2, padding="valid"),
    "dilated": nn.Conv2d(3, 4, 2, dilation=(2, 3), padding=1),
    "reflecting": nn.Conv2d(3, 4, 3, padding=2, padding_mode="reflect"),
    "circular": nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
    "replicating": nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate"),
    "without bias": nn.Conv2d(3, 4, 3, bias=False),
    "sequence": nn.Conv1d(3, 4, 3),
    "strided sequence": nn.Conv1d(3, 4, 3, stride=2, dilation=2, padding=3),
    "same sequence": nn.Conv1d(3, 4, 4, padding="same", padding_mode="reflect"),
    "linear": nn.Linear(3, 4),
    "positions": nn.Linear(6, 4),
}


@pytest.mark.parametrize("layer", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_columns_times_weights_are_the_rows(layer):
    shape = {nn.Conv2d: (5, 3, 7, 6), nn.Conv1d: (5, 3, 11)}.get(type(layer))
    if shape is None:
        shape = (5, 3) if layer.in_features == 3 else (5, 2, 6)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    columns, rows = columns_of(layer, x), rows_of(layer, layer(x))
    bias = 0.0 if layer.bias is None else layer.bias
    product = columns @ layer.weight.flatten(1).T + bias
    assert len(columns) == len(rows)
    torch.testing.assert_close(product, rows, rtol=1e-5, atol=1e-5)


def test_linear_maps_are_told_apart():
    assert all(is_linear_map(layer) for layer in CONVOLUTIONS.values())
    assert not is_linear_map(nn.Conv2d(4, 4, 3, groups=2))
    assert not is_linear_map(nn.Conv3d(1, 1, 1))
    assert not is_linear_map(nn.ConvTranspose2d(1, 1, 1))
    assert not is_linear_map(nn.LayerNorm(3))


def test_watched_layers_report_and_are_left_alone():
    seen = []
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    with watch_layers(net, ["2"], lambda *args: seen.append(args)):
        output = net(torch.ones(4, 2))
    name, layer, read, gave = seen[0]
    assert name == "2"
    assert layer is net[2]
    torch.testing.assert_close(read, net[1](net[0](torch.ones(4, 2))))
    assert gave is output
    net(torch.ones(4, 2))
    assert len(seen) == 1


def test_watched_layers_are_left_alone_after_an_error():
    net = nn.Sequential(nn.Linear(2, 3))
    with pytest.raises(RuntimeError), watch_layers(net, ["0"], lambda *args: None):
        net(torch.ones(4, 3))
    assert not net[0]._forward_hooks
