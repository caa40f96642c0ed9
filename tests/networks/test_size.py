"""Parameters and operations, counted by hand."""

import pytest
import torch
from torch import nn

from skprune.networks import find_players, latency, size_of


@pytest.mark.parametrize("batch", [1, 7])
def test_dense(batch):
    net = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 2))
    x = torch.zeros(batch, 5)
    size = size_of(net, x, find_players(net, x))
    assert size.n_parameters == 5 * 6 + 6 + 12 + 6 * 2 + 2
    assert size.n_flops == 2 * 30 + 2 * 6 + 2 * 12
    assert size.n_players == 6


def test_convolution():
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 2, groups=4, stride=2)
    )
    size = size_of(net.train(), torch.zeros(3, 2, 8, 8))
    assert size.n_flops == 2 * 2 * 9 * 4 * 36 + 2 * 4 * 36 + 2 * 4 * 4 * 9
    assert size.n_players is None
    assert net.training
    assert int(net[1].num_batches_tracked) == 0


def test_sequence_counts_every_position():
    net = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 3))
    assert size_of(net, torch.zeros(2, 5, dtype=torch.int64)).n_flops == 2 * 4 * 3 * 5


def test_latency_restores_threads_and_mode():
    net = nn.Sequential(nn.Linear(5, 6), nn.Dropout())
    threads = torch.get_num_threads()
    assert latency(net, torch.zeros(2, 5), n_repeats=2) > 0
    assert torch.get_num_threads() == threads
    assert net.training
    with pytest.raises(ValueError, match="n_repeats must be at least 1; got 0"):
        latency(net, torch.zeros(2, 5), n_repeats=0)
