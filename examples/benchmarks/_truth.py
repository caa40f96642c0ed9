"""What the players of a game are worth, found twice: by skprune and without it.

The plain samplers here know nothing of skprune: they draw with torch's generator, play
the masked network in plain torch (`TorchGame.batched`), and average marginals.
"""

import numpy as np
import torch
from _peers import TorchGame

# Standard errors between the truths that chance allows the player that is farthest out.
# Players err together, in one coalition or order: a mean over them says less.
FARTHEST = 5.0
# What rounding of float32 payoffs may add to a mean marginal: nearly dead players earn
# less than that, with standard errors that are smaller still.
ROUNDING = 1e-7


def plain_game(module, X, y, hidden, payoff):
    """The game in plain torch; one logit z is played as the two logits 0 and z."""
    *front, output = module
    if output.out_features == 1:
        two = torch.nn.Linear(output.in_features, 2)
        with torch.no_grad():
            two.weight.copy_(
                torch.cat([torch.zeros_like(output.weight), output.weight])
            )
            two.bias.copy_(torch.cat([torch.zeros_like(output.bias), output.bias]))
        output = two
    game = TorchGame(torch.nn.Sequential(*front, output), X, y, hidden, payoff)
    return game.tuned(game.batched, chunks=(1, 4, 16))[0]


def plain_shapley(game, n_players, n_payoffs, seed):
    """Mean marginals along uniform orders, and their standard errors."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.arange(n_players + 1)[:, None]
    marginals = []
    for _ in range(max(2, n_payoffs // (n_players + 1))):
        order = torch.randperm(n_players, generator=generator)
        ranks = order.argsort()
        payoffs = game((ranks < sizes).numpy())
        marginals.append(np.diff(payoffs)[ranks.numpy()])
    return _means(marginals)


def plain_banzhaf(game, n_players, n_payoffs, seed, probability):
    """Mean marginals around coalitions of biased coins, and their standard errors."""
    generator = torch.Generator().manual_seed(seed)
    each = torch.arange(n_players)
    marginals = []
    for _ in range(max(2, n_payoffs // (n_players + 1))):
        coalition = torch.rand(n_players, generator=generator) < probability
        flipped = coalition.repeat(n_players + 1, 1)
        flipped[each, each] = ~coalition
        payoffs = game(flipped.numpy())
        gains = payoffs[-1] - payoffs[:-1]
        marginals.append(np.where(coalition.numpy(), gains, -gains))
    return _means(marginals)


def _means(marginals):
    """Means and standard errors of rows, as if the farthest had been met once more.

    A player whose rare swings were hardly met would seem too certain otherwise.
    """
    marginals = np.array(marginals)
    mean, count = marginals.mean(0), len(marginals)
    farther = np.abs(marginals - mean)
    squares = (farther**2).sum(0) + farther.max(0) ** 2
    return mean, np.sqrt(squares / (count - 1) / count)


def agreement(scores, plain_values, plain_errors):
    """How far the two truths lie apart, in standard errors and beside the values."""
    error = np.hypot(scores.standard_errors, plain_errors) + ROUNDING
    apart = scores.values - plain_values
    z = apart / error
    spread = scores.values.std()
    rms = float(np.sqrt((z**2).mean()))
    return {
        "z_rms": rms,
        "z_largest": float(np.abs(z).max()),
        "agrees": bool(np.abs(z).max() < FARTHEST),
        "apart": float(np.sqrt((apart**2).mean()) / spread),
        "plain_error": float(np.sqrt((plain_errors**2).mean()) / spread),
        "own_error": float(np.sqrt((scores.standard_errors**2).mean()) / spread),
        "spread": float(spread),
    }
