"""Networks that no tracer can judge are found by their numbers, or named."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from skprune.exceptions import UnsupportedNetworkError
from skprune.networks import find_players


class Winners(nn.Module):
    """A unit is silent unless it is one of the two largest."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(5, 16), nn.Linear(16, 3)

    def forward(self, x):
        h = self.hidden(x)
        return self.out(h * (h >= h.topk(2).values[:, -1:]))


class Pooling(nn.Module):
    """Reads its samples all at once."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x):
        h = self.hidden(x).relu()
        return self.out(h) + h.mean(0)[:3]


def batch(seed, n=16):
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))


def made(build, seed=0):
    torch.manual_seed(seed)
    return build()


@pytest.mark.parametrize("seed", range(20))
def test_units_that_compete_are_no_players(seed):
    with pytest.raises(UnsupportedNetworkError, match="cannot be removed"):
        find_players(made(Winners, seed), batch(seed))


def test_samples_must_stand_alone():
    with pytest.raises(UnsupportedNetworkError, match="depend on the samples beside"):
        find_players(made(Pooling), batch(0), "inputs")


def test_batch_statistics_in_evaluation_are_named():
    norm = nn.BatchNorm1d(8, track_running_stats=False)
    module = nn.Sequential(nn.Linear(5, 8), norm, nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(UnsupportedNetworkError, match="track_running_stats=False"):
        find_players(module, batch(0))


def test_a_network_that_draws_numbers_is_not_taken_for_one():
    class Noisy(nn.Sequential):
        def forward(self, x):
            return super().forward(x + torch.randn_like(x))

    module = Noisy(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(UnsupportedNetworkError, match="cannot be removed"):
        find_players(module, batch(0))


def test_pruning_masks_of_torch_are_made_permanent_first():
    module = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    prune.l1_unstructured(module[0], "weight", 0.4)
    with pytest.raises(UnsupportedNetworkError, match=r"weight_orig.*prune\.remove"):
        find_players(module, batch(0))
    prune.remove(module[0], "weight")
    assert find_players(module, batch(0)).n_players == 8


def test_a_parameter_of_that_name_that_no_hook_reads_is_let_be():
    module = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    module[2].register_parameter("scale_orig", nn.Parameter(torch.ones(1)))
    assert find_players(module, batch(0)).n_players == 8
