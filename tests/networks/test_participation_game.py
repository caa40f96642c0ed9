"""The participation game: every equation against autograd and a brute-force search."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skprune.networks import ParticipationGame, competition, squared_norms

GRID = torch.linspace(0, 1, 2001, dtype=torch.float64)

GAMES = [
    ParticipationGame(),
    ParticipationGame(beta=0.3),
    ParticipationGame(alpha=2.0, beta=0.1, gamma=0.2, eta=0.05),
    ParticipationGame(beta=0.2, gamma=0.1, utility="joint"),
    ParticipationGame(alpha=0.5, beta=0.2, gamma=0.4, eta=0.1, utility="ascent"),
    ParticipationGame(
        gamma=torch.tensor([0.1, 0.9, 0.3, 0.0, 0.5], dtype=torch.float64)
    ),
]


class Table:
    """Three players of one layer and two of another, with random quantities."""

    def __init__(self, seed):
        generator = torch.Generator().manual_seed(seed)
        random = {"generator": generator, "dtype": torch.float64}
        self.thetas = [torch.randn(3, 4, **random), torch.randn(2, 6, **random)]
        self.s = torch.rand(5, **random)
        self.slope = torch.randn(5, **random)

    def at(self, game):
        return game.at(
            self.s,
            self.slope,
            1.0 if game.utility == "joint" else squared_norms(self.thetas),
            competition(self.s, self.thetas),
        )

    def utility(self, game, i, t):
        """U_i of equations (8) to (10), written out for one player."""
        theta = [*self.thetas[0], *self.thetas[1]]
        rivals = [j for j in range(5) if j != i and (j < 3) == (i < 3)]
        gamma = game.gamma[i] if isinstance(game.gamma, torch.Tensor) else game.gamma
        size = 1.0 if game.utility == "joint" else theta[i] @ theta[i]
        sign = 1 if game.utility == "ascent" else -1
        overlap = sum(self.s[j] * (theta[i] @ theta[j]) for j in rivals)
        cost = game.beta * size * t**2 + gamma * t.abs() + game.eta * t * overlap
        return sign * game.alpha * t * self.slope[i] - cost


@pytest.fixture(params=range(4))
def table(request):
    return Table(request.param)


@pytest.fixture(params=GAMES, ids=lambda game: f"{game.utility}-{game.beta}")
def game(request):
    return request.param


def test_utility_and_gradient(table, game):
    utilities = table.at(game)
    for i in range(5):
        own = table.s[i].clone().requires_grad_()
        expected = table.utility(game, i, own)
        (slope,) = torch.autograd.grad(expected, own)
        torch.testing.assert_close(utilities.utility()[i], expected.detach())
        torch.testing.assert_close(utilities.gradient()[i], slope)
    parts = utilities.benefit() - utilities.cost()
    torch.testing.assert_close(parts, utilities.utility())


def test_best_response_against_a_grid(table, game):
    utilities = table.at(game)
    values = torch.stack([table.utility(game, i, GRID) for i in range(5)])
    best = values.max(1)
    step = GRID[1].item()
    torch.testing.assert_close(
        utilities.best_response(), GRID[best.indices], rtol=0, atol=step
    )
    gains = best.values - utilities.utility()
    torch.testing.assert_close(
        utilities.unilateral_gains(), gains, rtol=0, atol=3 * step**2
    )
    torch.testing.assert_close(
        utilities.exploitability(), gains.max(), rtol=0, atol=3 * step**2
    )
    assert (utilities.unilateral_gains() >= 0).all()


def test_dominance_against_a_grid(table, game):
    values = torch.stack([table.utility(game, i, GRID) for i in range(5)])
    dominated = (values[:, 1:] < 0).all(1)
    assert torch.equal(table.at(game).is_dominated(), dominated)


def test_both_kinds_of_players_are_among_those_compared(game):
    dominated = torch.cat([Table(seed).at(game).is_dominated() for seed in range(4)])
    assert dominated.any()
    assert not dominated.all()


def test_projected_step(table, game):
    utilities = table.at(game)
    step = utilities.projected_step(0.7)
    expected = torch.clip(table.s + 0.7 * utilities.gradient(), 0, 1)
    torch.testing.assert_close(step, expected)


def test_steps_reach_an_equilibrium():
    table = Table(0)
    game = ParticipationGame(beta=0.1, gamma=0.2)
    for _ in range(200):
        table.s = table.at(game).projected_step(0.2)
    assert 0 < (table.s == 0).sum() < 5
    assert table.at(game).exploitability() < 1e-12
    torch.testing.assert_close(table.s, table.at(game).best_response())


def test_linear_utilities_are_all_or_nothing():
    game = ParticipationGame(gamma=0.5)
    s = torch.tensor([0.3, 0.3, 0.3])
    utilities = game.at(s, torch.tensor([-0.6, -0.5, -0.4]))
    assert utilities.best_response().tolist() == [1.0, 0.0, 0.0]
    assert utilities.is_dominated().tolist() == [False, False, True]
    still = game.at(torch.tensor([0.0]), torch.tensor([-0.4]))
    assert still.projected_step(10.0).item() == 0.0


@given(
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=3),
    n_parameters=st.integers(1, 4),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_competition_is_the_double_loop(sizes, n_parameters, seed):
    generator = torch.Generator().manual_seed(seed)
    random = {"generator": generator, "dtype": torch.float64}
    thetas = [torch.randn(size, n_parameters, **random) for size in sizes]
    s = torch.rand(sum(sizes), **random)
    expected, first = torch.zeros_like(s), 0
    for theta in thetas:
        for i in range(len(theta)):
            for j in range(len(theta)):
                if i != j:
                    expected[first + i] += s[first + j] * (theta[i] @ theta[j])
        first += len(theta)
    torch.testing.assert_close(competition(s, thetas), expected)
    norms = torch.cat([theta.square().sum(1) for theta in thetas])
    torch.testing.assert_close(squared_norms(thetas), norms)


class Gated(nn.Module):
    """Five gated hidden units, and a loss that is linear in each gate, or is not."""

    def __init__(self, seed, linear):
        super().__init__()
        torch.manual_seed(seed)
        self.x, self.y = torch.randn(8, 3).double(), torch.randn(8).double()
        self.inner, self.outer = nn.Linear(3, 5).double(), nn.Linear(5, 1).double()
        self.linear = linear

    def forward(self, s):
        output = self.outer(s * torch.tanh(self.inner(self.x)))[:, 0]
        return (
            (output * self.y).mean() if self.linear else (output - self.y).pow(2).sum()
        )

    def thetas(self):
        return [self.inner.weight.detach()]

    def slope(self, s):
        s = s.detach().clone().requires_grad_()
        return torch.autograd.grad(self(s), s)[0]


def potential(game, net, s):
    norms = 1.0 if game.utility == "joint" else squared_norms(net.thetas())
    return game.potential(net(s), s, norms, competition(s, net.thetas()))


@given(seed=st.integers(0, 99), player=st.integers(0, 4), t=st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_descent_is_an_exact_potential_game(seed, player, t):
    game = ParticipationGame(alpha=1.5, beta=0.2, gamma=0.1, eta=0.3)
    net = Gated(seed, linear=True)
    s = torch.rand(5, generator=torch.Generator().manual_seed(seed)).double()
    moved = s.clone()
    moved[player] = t
    norms, rivals = squared_norms(net.thetas()), competition(s, net.thetas())
    utilities = game.at(s, net.slope(s), norms, rivals)
    gained = (utilities.utility(moved) - utilities.utility())[player]
    difference = potential(game, net, moved) - potential(game, net, s)
    torch.testing.assert_close(gained, difference.detach(), rtol=1e-9, atol=1e-12)


@given(seed=st.integers(0, 99), player=st.integers(0, 4), t=st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_the_exact_benefit_has_the_same_potential(seed, player, t):
    """B_i(t) = -alpha (L(t, s_{-i}) - L(0, s_{-i})), in a loss that is not linear."""
    game = ParticipationGame(alpha=0.7, beta=0.2, gamma=0.1, eta=0.3)
    net = Gated(seed, linear=False)
    s = torch.rand(5, generator=torch.Generator().manual_seed(seed)).double()
    moved, out = s.clone(), s.clone()
    moved[player], out[player] = t, 0.0
    norms, rivals = squared_norms(net.thetas()), competition(s, net.thetas())
    utilities = game.at(s, net.slope(s), norms, rivals)

    def exact_utility(at):
        return -game.alpha * (net(at) - net(out)) - utilities.cost(at)[player]

    gained = exact_utility(moved) - exact_utility(s)
    difference = potential(game, net, moved) - potential(game, net, s)
    torch.testing.assert_close(gained, difference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("utility", ["descent", "joint"])
def test_utilities_climb_the_potential(utility):
    game = ParticipationGame(beta=0.2, gamma=0.1, eta=0.3, utility=utility)
    net = Gated(0, linear=False)
    s = torch.linspace(0.1, 0.9, 5).double().requires_grad_()
    (expected,) = torch.autograd.grad(potential(game, net, s), s)
    norms = 1.0 if utility == "joint" else squared_norms(net.thetas())
    rivals = competition(s.detach(), net.thetas())
    utilities = game.at(s.detach(), net.slope(s), norms, rivals)
    torch.testing.assert_close(utilities.gradient(), expected)


def test_ascent_rewards_what_descent_punishes_and_has_no_potential():
    s, slope = torch.ones(2), torch.tensor([1.0, -1.0])
    up, down = ParticipationGame(utility="ascent"), ParticipationGame()
    assert torch.equal(up.at(s, slope).gradient(), -down.at(s, slope).gradient())
    with pytest.raises(ValueError, match=r"'ascent' has no potential"):
        up.potential(torch.tensor(1.0), s)


def test_wrong_rules():
    with pytest.raises(ValueError, match=r"utility must be one of .*'down'"):
        ParticipationGame(utility="down")
    with pytest.raises(ValueError, match=r"eta must not be negative; got -1"):
        ParticipationGame(eta=-1)
