"""The same game as other tools play it: torch, hooks, captum and shapiq.

Every game here takes boolean coalitions and returns payoffs, caches what lies before
the first masked layer, and is called with the chunk of coalitions that suits it best.
"""

import warnings

import numpy as np
import torch
from _machine import Method, require, timed


class TorchGame:
    """A multilayer perceptron with masks on the inputs of its last Linear layers.

    Parameters
    ----------
    module : Sequential of Linear and ReLU
        The network.
    X, y : ndarrays
        Samples and classes.
    hidden : list of int
        Hidden layers whose neurons play, counted from 0.
    payoff : {"accuracy", "log_likelihood"}
    """

    def __init__(self, module, X, y, hidden, payoff):
        linears = [layer for layer in module if isinstance(layer, torch.nn.Linear)]
        self.module, self.payoff = module, payoff
        self.X, self.y = torch.from_numpy(X), torch.from_numpy(y)
        self.readers = [linears[i + 1] for i in hidden]
        self.layers = linears[hidden[0] + 1 :]
        front = torch.nn.Sequential(*module[: 2 * (hidden[0] + 1)])
        with torch.no_grad():
            self.features = front(self.X)
        self.columns = self.features.T.contiguous()
        self.widths = [layer.in_features for layer in self.readers]
        self.n_players = sum(self.widths)
        self.chunk = 1

    def masks(self, coalitions):
        """One float mask for each remaining layer: (n_coalitions, inputs), or None."""
        parts = iter(torch.as_tensor(coalitions).float().split(self.widths, dim=-1))
        return [next(parts) if lay in self.readers else None for lay in self.layers]

    def _chunked(self, play, coalitions):
        """Payoffs of coalitions, `chunk` at a time."""
        coalitions = np.atleast_2d(coalitions)
        with torch.no_grad():
            parts = [
                play(coalitions[at : at + self.chunk])
                for at in range(0, len(coalitions), self.chunk)
            ]
        return torch.cat(parts).double().numpy()

    def _score(self, logits):
        """Payoffs of logits (n_coalitions, n_classes, n_samples)."""
        return self._score_at(logits, self.y.expand(len(logits), 1, -1))

    def _score_at(self, logits, y):
        true = logits.gather(1, y)[:, 0]
        if self.payoff == "accuracy":
            return (true == logits.amax(1)).float().mean(1)
        return (true - logits.logsumexp(1)).mean(1)

    def batched(self, coalitions):
        """Masked activations of many coalitions through the rest of the network."""
        return self._chunked(self._batched, coalitions)

    def _batched(self, coalitions):
        hidden = self.features
        for layer, mask in zip(self.layers, self.masks(coalitions), strict=True):
            hidden = hidden if mask is None else hidden * mask[:, None]
            hidden = layer(hidden)
            hidden = hidden if layer is self.layers[-1] else hidden.relu()
        if self.payoff == "accuracy":
            return (hidden.argmax(-1) == self.y).float().mean(1)
        picked = hidden.log_softmax(-1).gather(
            -1, self.y.expand(len(hidden), -1)[..., None]
        )
        return picked[..., 0].mean(1)

    def folded(self, coalitions):
        """Masks folded into weights: one product of stacked weights, class-major."""
        return self._chunked(self._folded, coalitions)

    def _folded(self, coalitions):
        hidden, m = self.columns, len(coalitions)
        for layer, mask in zip(self.layers, self.masks(coalitions), strict=True):
            weight = layer.weight
            if mask is not None:
                weight = weight * mask[:, None]
            if hidden.ndim == 2:
                hidden = weight.reshape(-1, weight.shape[-1]) @ hidden
                hidden = hidden.reshape(m, layer.out_features, -1)
            else:
                hidden = weight @ hidden
            hidden += layer.bias[:, None]
            hidden = hidden if layer is self.layers[-1] else hidden.relu_()
        return self._score(hidden)

    def compacted(self, coalitions):
        """One coalition at a time, with only the rows and columns of those present."""
        return self._chunked(self._compacted, coalitions)

    def _compacted(self, coalitions):
        return torch.cat([self._compact_one(c) for c in coalitions])

    def _compact_one(self, coalition):
        hidden = self.columns
        masks = [m if m is None else m.nonzero()[:, 0] for m in self.masks(coalition)]
        rows = masks[0]
        hidden = hidden if rows is None else hidden[rows]
        for i, layer in enumerate(self.layers):
            weight, bias, below = layer.weight, layer.bias, rows
            last = layer is self.layers[-1]
            rows = None if last else masks[i + 1]
            if rows is not None:
                weight, bias = weight[rows], bias[rows]
            weight = weight if below is None else weight[:, below]
            hidden = torch.addmm(bias[:, None], weight, hidden)
            hidden = hidden if last else hidden.relu_()
        return self._score(hidden[None])

    def hooked(self, coalitions):
        """One whole forward pass for each coalition, masks in forward pre-hooks."""
        payoffs = []
        for coalition in np.atleast_2d(coalitions):
            masks = torch.as_tensor(coalition).float().split(self.widths)
            hooks = [
                layer.register_forward_pre_hook(
                    lambda _, args, mask=mask: args[0] * mask
                )
                for layer, mask in zip(self.readers, masks, strict=True)
            ]
            with torch.no_grad():
                logits = self.module(self.X)
            for hook in hooks:
                hook.remove()
            payoffs.append(float(self._score(logits.T[None])))
        return np.array(payoffs)

    def tuned(self, play, chunks=(1, 4, 16, 64, 256)):
        """A game of the fastest chunk, and that chunk."""
        coalitions = prefixes(self.n_players, max(chunks), np.random.default_rng(0))

        def rate(chunk):
            self.chunk = chunk
            n_played = min(len(coalitions), max(chunk, 16))
            play(coalitions[:chunk])
            return n_played / timed(play, coalitions[:n_played])[1]

        best = max(chunks, key=rate)

        def game(coalitions):
            self.chunk = best
            return play(coalitions)

        return game, best


def prefixes(n_players, n_coalitions, rng):
    """Coalitions as walks meet them, shuffled: uniform orders cut at uniform sizes."""
    ranks = rng.permuted(np.tile(np.arange(n_players), (n_coalitions, 1)), axis=1)
    return ranks < rng.integers(1, n_players, size=(n_coalitions, 1))


def direct(name, game, n_players, unit):
    """A game played on coalitions that were drawn before."""
    coalitions = prefixes(n_players, max(unit, 256), np.random.default_rng(1))

    def play(n_payoffs):
        for at in range(0, n_payoffs, len(coalitions)):
            game(coalitions[: min(n_payoffs - at, len(coalitions))])
        return n_payoffs

    return Method(name, play, unit)


def lockstep_walks(game, n_walks=32):
    """Walks of the last hidden layer in plain torch: rank-one updates, many at once."""
    (layer,), n = game.layers, game.n_players
    weights = layer.weight.T.contiguous()
    true = game.y.expand(n_walks, 1, -1)
    generator = torch.Generator().manual_seed(0)

    def walk():
        orders = torch.rand(n_walks, n, generator=generator).argsort(1)
        logits = layer.bias[:, None].repeat(n_walks, 1, len(game.X))
        sums = torch.zeros(n_walks, n)
        for step, joining in enumerate(orders.T):
            logits.baddbmm_(weights[joining][..., None], game.columns[joining][:, None])
            sums[:, step] = game._score_at(logits, true)
        return sums

    def play(n_payoffs):
        rounds = -(-n_payoffs // (n * n_walks))
        with torch.no_grad():
            for _ in range(rounds):
                walk()
        return rounds * n * n_walks

    return Method(f"torch, {n_walks} walks in step", play, n * n_walks)


def shapiq_permutations(name, game, n_players):
    """shapiq's permutation sampling, with its own sampling of orders."""
    sampler = require("shapiq.approximator").PermutationSamplingSV

    def play(n_payoffs):
        scores = sampler(n_players, random_state=0).approximate(n_payoffs, game)
        return scores.estimation_budget

    return Method(name, play, n_players + 1)


def captum_walks(name, forward, inputs, feature_mask, per_eval, n_players):
    """captum's ShapleyValueSampling, with its own sampling of orders."""
    sampling = require("captum.attr").ShapleyValueSampling(forward)

    def play(n_payoffs):
        n_samples = max(1, round(n_payoffs / n_players))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sampling.attribute(
                inputs,
                feature_mask=feature_mask,
                n_samples=n_samples,
                perturbations_per_eval=per_eval,
            )
        return n_samples * n_players + 1

    return Method(name, play, n_players)


def fastest(methods):
    """The fastest of several settings, by one unit each after one to warm up."""
    for method in methods:
        method.play(method.unit)
    return min(methods, key=lambda method: timed(method.play, method.unit)[1])


def captum_on_activations(game):
    """captum with hidden activations as inputs, in its best setting.

    Either a forward function that returns the mean payoff, which captum plays one
    perturbation at a time, or one that returns each sample's, several at a time.
    """
    inputs, ids = (game.features,), (torch.arange(game.widths[0])[None],)
    if len(game.widths) > 1:
        inputs += (torch.ones(len(game.X), game.widths[1]),)
        ids += (torch.arange(game.widths[0], game.n_players)[None],)

    def per_sample(hidden, *masks):
        logits = hidden
        for i, layer in enumerate(game.layers):
            logits = layer(logits if i == 0 or not masks else logits * masks[0])
            logits = logits if layer is game.layers[-1] else logits.relu()
        y = game.y.repeat(len(hidden) // len(game.y))
        if game.payoff == "accuracy":
            return (logits.argmax(1) == y).float()
        return logits.log_softmax(1).gather(1, y[:, None])[:, 0]

    def mean(*args):
        return per_sample(*args).mean()

    label = "captum, hidden activations as inputs"
    settings = [(mean, 1, "mean payoff")] + [
        (per_sample, k, f"each sample's payoff, {k} at a time") for k in (1, 4, 16)
    ]
    return fastest(
        [
            captum_walks(f"{label} ({words})", function, inputs, ids, k, game.n_players)
            for function, k, words in settings
        ]
    )


def captum_on_masks(game, play):
    """captum with the masks themselves as inputs of a batched game, best setting."""
    n = game.n_players

    def forward(masks):
        return torch.from_numpy(play(masks.numpy() > 0)).float()

    ids = torch.arange(n)[None]
    return fastest(
        [
            captum_walks(
                f"captum, masks as inputs ({k} at a time)",
                forward,
                torch.ones(1, n),
                ids,
                k,
                n,
            )
            for k in (16, 64, 256)
        ]
    )
