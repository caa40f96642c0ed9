"""The parts of the market: its course, its prices, its contenders and their rivalry."""

import copy

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, LRScheduler
from torch import nn

from skprune import EquilibriumPrunedMLP
from skprune.networks import ParticipationGame, find_players
from skprune.pruners import _play
from skprune.pruners._contender import Contender, clearing_prices
from skprune.pruners._course import Course
from skprune.pruners._gates import Gates, shares
from skprune.pruners._play import MarketPlay

COURSES = [
    Course(1000, 0.1, 0.3, peak=4.0, rivalry=0.2, warm_up=0.02),
    Course(1000, 0.1, 0.3, peak=1.0, rivalry=0.0),
    Course(140, 0.05, 0.1, peak=7.0, rivalry=0.4),
    Course(50, 0.0, 1.0, peak=2.0, rivalry=0.2),
    Course(20, 0.5, 0.5, peak=2.0, rivalry=0.3),
    Course(12, 0.0, 0.0, peak=2.0, rivalry=0.3),
    Course(3, 0.05, 0.1, peak=7.0, rivalry=0.2),
    Course(1, 0.05, 0.1, peak=7.0, rivalry=0.2),
]
named = pytest.mark.parametrize("course", COURSES, ids=str)


@pytest.fixture
def long():
    return COURSES[0]


# The course


def test_landmarks(long):
    assert (long.first, long.last, long.decided) == (100, 300, 500)
    assert 100 < long.fork < 300


@named
def test_landmarks_are_in_order(course):
    landmarks = [course.first, course.fork, course.last, course.decided]
    assert landmarks == sorted(landmarks)
    assert course.first >= 0
    assert course.decided <= course.n_steps


def test_the_rate_warms_up_rises_twice_and_falls_to_zero(long):
    rates = np.array([long.rate(step) for step in range(1001)])
    np.testing.assert_allclose(rates[:20], np.arange(1, 21) / 60)
    np.testing.assert_allclose(rates[20:100], 1 / 3)
    np.testing.assert_allclose(rates[100:300], 5 / 3)
    assert (np.diff(rates[299:320]) > 0).all()
    assert rates[319] == pytest.approx(4.0) == rates.max()
    assert (np.diff(rates[320:]) < 0).all()
    assert rates[1000] == pytest.approx(0, abs=1e-12)
    middle = 320 + 340
    assert rates[middle] == pytest.approx(2.0)


@named
def test_rates_are_sane_in_any_course(course):
    rates = np.array([course.rate(step) for step in range(course.n_steps)])
    assert np.isfinite(rates).all()
    assert (rates >= 0).all()
    assert rates.max() <= max(5 / 3, course.peak) + 1e-12
    assert rates[0] > 0


@named
def test_players_leave_after_steps_of_the_training(course):
    steps = course.removal_steps()
    assert (np.diff(steps) > 0).all()
    assert steps[0] >= 1
    assert steps[-1] == max(course.last, 1)
    assert steps[-1] <= course.n_steps
    assert steps[0] >= course.first
    assert len(steps) <= 60


@named
def test_counts_go_down_to_what_is_asked_for(course):
    before, after = np.array([512, 256, 3]), np.array([10, 5, 3])
    path = np.array(
        [course.counts(step, before, after) for step in range(course.n_steps + 1)]
    )
    assert path.dtype.kind in "iu"
    assert (np.diff(path, axis=0) <= 0).all()
    assert (path <= before).all()
    assert (path >= after).all()
    np.testing.assert_array_equal(path[course.last :], path[course.last :] * 0 + after)
    assert (path[:, 2] == 3).all()


def test_counts_are_geometric(long):
    before, after = np.array([640, 10]), np.array([10, 10])
    halves = [long.counts(100 + 200 * i // 6, before, after)[0] for i in range(7)]
    np.testing.assert_allclose(halves, [640, 320, 160, 80, 40, 20, 10], rtol=0.03)
    np.testing.assert_array_equal(long.counts(100, before, after), before)
    np.testing.assert_array_equal(long.counts(0, before, after), before)


@named
@pytest.mark.parametrize("n_rivals", [1, 2, 3, 8, 16])
def test_rivals_give_up_until_one_is_left(course, n_rivals):
    left = course.selections(n_rivals)
    steps = sorted(left)
    numbers = [left[step] for step in steps]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[-1] == 1
    assert numbers[0] <= -(-n_rivals // 2)
    assert steps[0] >= course.last
    assert steps[-1] == course.decided


# Prices


@pytest.mark.parametrize("seed", range(5))
def test_prices_clear_the_market(seed):
    """So many want to stay at these prices; and at no other would the same stay."""
    rng = np.random.default_rng(seed)
    group_of = np.repeat([0, 1, 2], [9, 6, 4])
    benefits = rng.normal(size=19)
    counts = np.array([rng.integers(1, 9), rng.integers(1, 6), 4])
    prices = clearing_prices(benefits, counts, group_of)
    for group in (0, 1):
        mine = benefits[group_of == group]
        assert (mine > prices[group]).sum() == counts[group]
        candidates = np.linspace(mine.min() - 1, mine.max() + 1, 4001)
        clear = [p for p in candidates if (mine > p).sum() == counts[group]]
        assert min(clear) - 1e-2 <= prices[group] <= max(clear) + 1e-2
        middle = (min(clear) + max(clear)) / 2
        assert prices[group] == pytest.approx(middle, abs=2e-2)
    assert prices[2] == 0


def test_prices_among_equals():
    prices = clearing_prices(np.full(4, 0.5), np.array([2]), np.zeros(4, int))
    assert prices.tolist() == [0.5]


# Contenders


def make_net(**params):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)
    )
    net = NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.01,
        train_split=None,
        verbose=0,
        **params,
    ).initialize()
    for _ in range(5):
        net.train_step(batch())
    return net


def batch(n=40, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 5)).astype(np.float32)
    return torch.from_numpy(X), torch.from_numpy(X[:, :3].argmax(1))


def contender_of(net, benefit="curvature", noise=0.0):
    players = find_players(net.module_, torch.zeros(2, 5))
    return Contender(net, players, benefit, noise, np.random.default_rng(0))


@pytest.mark.parametrize("benefit", ["curvature", "weight_norm", "participation"])
def test_the_least_benefits_leave(benefit):
    contender = contender_of(make_net(), benefit)
    weights = contender.net.module_[0].weight.detach().clone()
    contender.leave_to(np.array([5, 6]), 17, batch())
    assert contender.counts.tolist() == [5, 6]
    assert torch.equal(contender.net.module_[0].weight, weights[contender.kept[:5]])
    (departure,) = contender.departures
    assert departure.step == 17
    assert departure.counts.tolist() == [5, 6]
    assert departure.prices[0] > 0 == departure.prices[1]
    if benefit == "weight_norm":
        theta = torch.linalg.vector_norm(weights, dim=1)
        assert theta[contender.kept[:5]].min() > 0
    contender.leave_to(np.array([5, 6]), 18, batch())
    assert len(contender.departures) == 1


def test_numbers_of_those_who_stay_are_kept_through_all_removals():
    contender = contender_of(make_net())
    names = np.array(contender.players.names)
    for counts in ([7, 5], [4, 5], [2, 3]):
        contender.leave_to(np.array(counts), 1, batch())
        assert names[contender.kept].tolist() == contender.players.names


def test_a_fork_goes_on_with_the_same_players():
    contender = contender_of(make_net())
    names = np.array(contender.players.names)
    contender.leave_to(np.array([6, 4]), 1, batch())
    rival = contender.fork(seed=3, noise=0.0)
    kept = contender.kept.copy()
    rival.leave_to(np.array([3, 2]), 2, batch())
    assert names[rival.kept].tolist() == rival.players.names
    assert set(rival.kept) < set(kept)
    np.testing.assert_array_equal(contender.kept, kept)
    assert [d.step for d in rival.departures] == [1, 2]
    assert [d.step for d in contender.departures] == [1]
    assert contender.net.module_[0].out_features == 6


def test_noise_is_what_rivals_differ_by():
    contender = contender_of(make_net())
    rivals = [contender.fork(seed, noise=2.0) for seed in (0, 1, 1)]
    for rival in rivals:
        rival.leave_to(np.array([4, 3]), 1, batch())
    np.testing.assert_array_equal(rivals[1].kept, rivals[2].kept)
    assert not np.array_equal(rivals[0].kept, rivals[1].kept)


def test_mean_loss_since_it_was_forgotten():
    contender = contender_of(make_net())
    for loss in (1.0, 2.0, 6.0):
        contender.note(torch.tensor(loss), window=9)
    assert contender.mean_loss == pytest.approx(3.0)
    contender.forget()
    contender.note(torch.tensor(0.5), window=9)
    assert contender.mean_loss == pytest.approx(0.5)


def test_mean_loss_forgets_what_is_long_ago():
    contender = contender_of(make_net())
    for loss in [100.0] * 10 + [1.0] * 200:
        contender.note(torch.tensor(loss), window=10)
    assert contender.mean_loss == pytest.approx(1.0, abs=1e-4)


# Gates


def test_gates_go_on_when_players_leave():
    net = make_net()
    contender = contender_of(net)
    contender.open_gates(ParticipationGame(gamma=0.01), "adam", 0.05)
    for _ in range(4):
        net.module_.zero_grad()
        loss = nn.functional.cross_entropy(net.module_(batch()[0]), batch()[1])
        loss.backward()
        contender.gates.update()
    values = contender.gates.values
    assert ((values >= 0) & (values <= 1)).all()
    assert (values < 1).any()
    state = copy.deepcopy(contender.gates._adam.state[contender.gates.gates.values])
    contender.leave_to(np.array([5, 4]), 1, batch())
    kept = contender.kept
    np.testing.assert_array_equal(contender.gates.values, values[kept])
    moved = contender.gates._adam.state[contender.gates.gates.values]
    assert torch.equal(moved["exp_avg"], state["exp_avg"][torch.from_numpy(kept)])
    with torch.no_grad():
        gated = net.module_(batch()[0])
        contender.come_to_rest()
        torch.testing.assert_close(net.module_(batch()[0]), gated, atol=1e-5, rtol=1e-5)
    assert contender.gates is None
    assert not any(m._forward_pre_hooks for m in net.module_.modules())


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_high_price_closes_gates_and_no_price_keeps_them(optimizer):
    for price, expected in ((10.0, 0.0), (0.0, None)):
        net = make_net()
        players = find_players(net.module_, torch.zeros(2, 5))
        game = ParticipationGame(gamma=price)
        gates = Gates(net.module_, players, game, optimizer, 0.1)
        for _ in range(15):
            loss = nn.functional.cross_entropy(net.module_(batch()[0]), batch()[1])
            loss.backward()
            gates.update()
        if expected is not None:
            np.testing.assert_array_equal(gates.values, expected)
        else:
            assert gates.values.max() == 1
            assert gates.values.mean() > 0.3
        gates.close()


def test_prices_of_layers_are_those_of_their_players():
    net = make_net()
    players = find_players(net.module_, torch.zeros(2, 5))
    gates = Gates(net.module_, players, ParticipationGame(), "adam", 0.1)
    gates.set_prices(np.array([0.5, -1.0]))
    np.testing.assert_array_equal(gates.game.gamma, [0.5] * 8 + [0.0] * 6)
    gates.close()


def test_shares_are_of_the_most_in_each_layer():
    net = make_net()
    players = find_players(net.module_, torch.zeros(2, 5))
    found = shares(net.module_, players, batch()[0])
    assert found[:8].max() == found[8:].max() == 1
    assert (found >= 0).all()


# The rivalry, as a fit plays it


class LastLoss(Callback):
    """Keeps the net's own loss and learning rate."""

    def on_batch_end(self, net, batch=None, training=False, loss=None, **_):
        if training:
            LastLoss.net, LastLoss.loss = net, float(loss.detach())


def fit(n_rivals, **params):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(160, 5))
    settings = {
        "n_players_to_keep": 8,
        "max_epochs": 8,
        "batch_size": 16,
        "removal_period": (0.1, 0.4),
        "random_state": 0,
        "net_callbacks": [LastLoss()],
    }
    model = EquilibriumPrunedMLP((16, 8), n_rivals=n_rivals, **settings | params)
    return model.fit(X, X[:, :3].argmax(1))


def test_each_contender_notes_its_own_loss(monkeypatch):
    noted, note = [], Contender.note

    def spy(self, loss, window):
        noted.append((self.net is LastLoss.net, float(loss), LastLoss.loss))
        note(self, loss, window)

    monkeypatch.setattr(Contender, "note", spy)
    fit(6)
    own = np.array([(loss, true) for is_net, loss, true in noted if is_net])
    assert len(own) > 40
    np.testing.assert_array_equal(own[:, 0], own[:, 1])
    others = [loss == true for is_net, loss, true in noted if not is_net]
    assert others
    assert not all(others)


def test_those_of_lower_loss_stay(monkeypatch):
    rounds, select = [], MarketPlay._select

    def spy(self, net, n_left):
        before = {id(c): c.mean_loss for c in self.contenders}
        select(self, net, n_left)
        stayed = [before[id(c)] for c in self.contenders]
        gone = [
            loss
            for key, loss in before.items()
            if key not in {id(c) for c in self.contenders}
        ]
        rounds.append((len(before), stayed, gone))
        assert sum(c.net is net for c in self.contenders) <= 1
        assert any(c.net is net for c in self.contenders)

    monkeypatch.setattr(MarketPlay, "_select", spy)
    fit(7)
    assert rounds[0][0] == 7
    assert len(rounds[-1][1]) == 1
    for _, stayed, gone in rounds:
        assert not gone or max(stayed) <= min(gone)


@pytest.mark.parametrize("own_schedule", [False, True])
def test_rivals_learn_at_the_rate_of_the_net(monkeypatch, own_schedule):
    rates, note = [], Contender.note

    def spy(self, loss, window):
        mine, main = (
            net.optimizer_.param_groups[0]["lr"] for net in (self.net, LastLoss.net)
        )
        rates.append((mine, main))
        note(self, loss, window)

    monkeypatch.setattr(Contender, "note", spy)
    callbacks = [LastLoss()]
    if own_schedule:
        callbacks.append(LRScheduler("StepLR", step_size=1, gamma=0.5))
    fit(4, net_callbacks=callbacks)
    rates = np.array(rates)
    assert len(np.unique(rates[:, 1])) > 4
    np.testing.assert_allclose(rates[:, 0], rates[:, 1])


def test_the_winner_is_the_net(monkeypatch):
    """What the rivalry ends with is what the estimator keeps."""
    plays, finish = [], MarketPlay.finish

    def spy(self, net):
        finish(self, net)
        plays.append((self, net))

    monkeypatch.setattr(MarketPlay, "finish", spy)
    model = fit(5)
    play, net = plays[0]
    assert play.winner.net is net
    for one, other in zip(
        net.module_.parameters(), model.module_.parameters(), strict=True
    ):
        assert torch.equal(one, other)
    np.testing.assert_array_equal(np.flatnonzero(model.support_), play.winner.kept)
    own = {id(p) for p in net.module_.parameters()}
    assert {id(p) for g in net.optimizer_.param_groups for p in g["params"]} == own


def openings(monkeypatch, n_parameters, n_rivals):
    """Steps at which rivals part, how many they are, and parameters of them all."""
    opened, open_market = [], MarketPlay._open

    def spy(self):
        open_market(self)
        nets = [contender.net for contender in self.contenders]
        sizes = [sum(p.numel() for p in net.module_.parameters()) for net in nets]
        opened.append((self.step, len(nets), sum(sizes)))

    with monkeypatch.context() as patch:
        patch.setattr(MarketPlay, "_open", spy)
        patch.setattr(_play, "_N_PARAMETERS", n_parameters)
        model = fit(n_rivals)
    assert model.players_.n_players == 8
    (opening,) = opened
    return opening


def test_rivals_of_large_networks_part_later_and_may_be_fewer(monkeypatch):
    fork, n_rivals, size = openings(monkeypatch, 10**9, 6)
    assert n_rivals == 6
    later, n_rivals, smaller = openings(monkeypatch, size * 3 // 4, 6)
    assert n_rivals == 6
    assert later > fork
    assert smaller <= size * 3 // 4
    last, n_rivals, smallest = openings(monkeypatch, smaller // 3, 6)
    assert 1 < n_rivals < 6
    assert last >= later
    assert smallest <= smaller // 3
    assert openings(monkeypatch, 1, 6)[:2] == (last, 1)


def test_a_rival_holds_no_gradients_while_others_train(monkeypatch):
    held, note = [], Contender.note

    def spy(self, loss, window):
        note(self, loss, window)
        if self.net is not LastLoss.net:
            held.append([p.grad is None for p in self.net.module_.parameters()])

    monkeypatch.setattr(Contender, "note", spy)
    fit(3)
    assert len(held) > 10
    assert all(map(all, held))
