"""Masked forward == forward of the removed network, for every supported pattern."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch

from skprune.networks import MaskedModule, find_players, masked, remove_players
from skprune.networks._inputs import call, map_tensors, tensors_in


def coalitions(players, n_coalitions, seed=0):
    """Random coalitions of very different sizes, with somebody left in each group."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.1, 0.95, size=(n_coalitions, 1))
    keep = rng.random((n_coalitions, players.n_players)) < share
    for group in range(len(players.groups)):
        members = np.flatnonzero(players.group_of == group)
        keep[np.arange(n_coalitions), rng.choice(members, n_coalitions)] = True
    return keep


def run(module, example):
    with torch.no_grad():
        return tensors_in(call(module, example))


def assert_same(outputs, expected):
    assert len(outputs) == len(expected) > 0
    for one, other in zip(outputs, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_number_and_names(case):
    pattern, _, _, players = case
    assert players.n_players == pattern.n_players == len(players.names)
    assert len(set(players.names)) == players.n_players
    assert np.all(np.diff(players.group_of) >= 0)
    for name, group in zip(players.names, players.group_of, strict=True):
        assert name.rpartition("[")[0] == players.groups[group]
    owned = np.concatenate([*players.producers.values(), *players.selections.values()])
    assert set(owned) - {-1} == set(range(players.n_players))


def test_masked_is_removed(case):
    _, module, example, players = case
    for keep in coalitions(players, 4):
        with masked(module, players, keep) as playing:
            expected = run(playing, example)
        assert_same(run(remove_players(module, players, ~keep), example), expected)


def test_coalitions_matter(case):
    _, module, example, players = case
    everybody = run(module, example)
    with masked(module, players, coalitions(players, 1)[0]):
        alone = run(module, example)
    assert any(not torch.allclose(a, b) for a, b in zip(everybody, alone, strict=True))
    assert_same(run(module, example), everybody)


def test_batched_is_single(case):
    _, module, example, players = case
    keep = coalitions(players, 3)
    keep[0] = True
    batch = map_tensors(lambda x: torch.cat([x] * 3), example)
    batch = tuple(batch) if isinstance(batch, list) else batch
    with MaskedModule(module, players) as masks, torch.no_grad():
        masks.set_masks(keep)
        together = run(module, batch)
        for number, coalition in enumerate(keep):
            masks.set_masks(torch.from_numpy(coalition))
            rows = slice(4 * number, 4 * number + 4)
            assert_same(run(module, example), [x[rows] for x in together])
        masks.set_masks(None)
        assert_same(run(module, example), [x[:4] for x in together])


def test_removed_again(case):
    _, module, example, players = case
    first, second = coalitions(players, 2, seed=3)
    first |= second
    once = remove_players(module, players, ~first)
    remaining = players.after_removal(~first)
    assert remaining.names == [players.names[i] for i in np.flatnonzero(first)]
    twice = remove_players(once, remaining, ~second[first])
    with masked(module, players, second):
        expected = run(module, example)
    assert_same(run(twice, example), expected)
    with masked(once, remaining, second[first]):
        assert_same(run(once, example), expected)
    at_once = remove_players(module, players, ~second)
    shapes = {name: x.shape for name, x in at_once.state_dict().items()}
    assert {name: x.shape for name, x in twice.state_dict().items()} == shapes


def test_saved_and_copied(case):
    _, module, example, players = case
    keep = coalitions(players, 1, seed=5)[0]
    pruned = remove_players(module, players, ~keep)
    expected = run(pruned, example)
    stored = io.BytesIO()
    try:
        torch.save(pruned, stored)
    except (AttributeError, pickle.PicklingError):
        pytest.fail("the pruned module cannot be saved")
    stored.seek(0)
    assert_same(run(torch.load(stored, weights_only=False), example), expected)
    assert_same(run(copy.deepcopy(pruned), example), expected)
    pruned.load_state_dict(copy.deepcopy(pruned).state_dict())
    again = pickle.loads(pickle.dumps(players))
    with masked(module, again, keep):
        assert_same(run(module, example), expected)


def test_found_again_in_the_pruned_module(case):
    pattern, module, example, players = case
    keep = coalitions(players, 1, seed=7)[0]
    pruned = remove_players(module, players, ~keep)
    again, known = find_players(pruned, example, pattern.players), players.subset(keep)
    assert again.n_players == known.n_players
    assert again.groups == known.groups
    assert again.selected == known.selected
    for kind in ("producers", "consumers", "normalizations", "selections"):
        found, expected = getattr(again, kind), getattr(known, kind)
        assert found.keys() == expected.keys()
        for layer, owners in expected.items():
            np.testing.assert_array_equal(found[layer], owners)


def test_pruned_module_trains(case):
    _, module, example, players = case
    pruned = remove_players(module, players, ~coalitions(players, 1)[0]).train()
    optimizer = torch.optim.SGD(pruned.parameters(), lr=0.1)
    before = [p.detach().clone() for p in pruned.parameters()]
    sum(x.square().sum() for x in tensors_in(call(pruned, example))).backward()
    optimizer.step()
    after = list(pruned.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_dead_units_read_as_zero(patterns):
    pattern = patterns["mlp relu"]
    module, example = pattern.build(), pattern.input()
    players = find_players(module, example)
    module[0].bias.data[2] = torch.inf
    keep = np.arange(players.n_players) != 2
    with masked(module, players, keep):
        expected = run(module, example)
    assert all(x.isfinite().all() for x in expected)
    assert_same(run(remove_players(module, players, ~keep), example), expected)


@pytest.mark.parametrize("place", ["first", "last"])
def test_nobody_behind_a_layer_norm_is_no_nan(patterns, place):
    pattern = patterns[f"layer norm {place}"]
    module, example = pattern.build(), pattern.input()
    players = find_players(module, example)
    with masked(module, players, np.zeros(players.n_players, dtype=bool)):
        (output,) = run(module, example)
    torch.testing.assert_close(output, module[-1].bias.detach().expand(4, -1))


def test_masks_follow_double_precision(patterns):
    pattern = patterns["layer norm first"]
    module, example = pattern.build().double(), pattern.input().double()
    players = find_players(module, example)
    keep = coalitions(players, 1)[0]
    with masked(module, players, keep):
        (expected,) = run(module, example)
    (output,) = run(remove_players(module, players, ~keep), example)
    assert output.dtype == torch.float64
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
