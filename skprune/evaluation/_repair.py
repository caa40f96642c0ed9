"""Closed-form refit of the survivors' weights: no gradient training of the network."""

from __future__ import annotations

import copy
import math

import torch

from skprune.evaluation._graph import rectified_layers
from skprune.evaluation._moments import Moments, columns_of, rows_of, watch_layers
from skprune.evaluation._samples import Samples
from skprune.evaluation._trace import trace_layers
from skprune.networks import evaluating, is_within

__all__ = ["REPAIRS", "Repairer"]

REPAIRS = ("none", "output", "layers")

# Share of its answers that an opened ReLU still cuts off, and the samples it is
# measured on.
_CUT_OFF, _FEW = 0.02, 4096
# How hard the fit of the output layer is pulled towards its start, in samples.
_PULLS = (1, 10, 100, 1000)


class _Seen(Exception):  # noqa: N818
    """Ends a forward pass at the layer whose input was wanted."""


class Repairer:
    """Refits what survivors weigh, so that they do the work of those who left.

    Layer by layer, from the input on, each survivor's weights are the ridge regression
    of its pre-activation in the dense network on what it reads in the pruned one.
    Behind a ReLU only the positive part of a pre-activation matters: where the dense
    one is negative, any negative answer is as good, and the regression is repeated
    with its own negative answers as targets. Or such a layer is opened: it is refitted
    to all of the pre-activation, and its biases are raised until hardly an answer is
    negative. Few survivors tell more that way, for nothing of what they know is cut
    off; many do better with the corners. Then the output layer is refitted on the
    training targets, a convex problem that starts from the regression. Layers that read
    no units that are players keep their weights, but for the output layer; one whose
    single weights are players keeps them too, for a refit would give back those that
    left.

    Parameters
    ----------
    split : SplitModule
        The dense module, cut in front of its first layer that reads players.
    samples : Samples
        Training samples.
    task : Task
        What the outputs mean.
    ridge : float, default=1e-3
        Ridge penalty as a share of the mean variance of a layer's inputs.
    n_rectified : int, default=10
        Repetitions of the regression behind a ReLU.
    max_iter : int, default=25
        L-BFGS iterations of the output layer at most.
    memory_budget : int, default=2**29
        Bytes of activations held at a time; with more samples than fit, a random
        choice of them is used.
    """

    def __init__(
        self,
        split,
        samples,
        task,
        *,
        ridge=1e-3,
        n_rectified=10,
        max_iter=25,
        memory_budget=2**29,
    ):
        self.split, self.players, self.task = split, split.players, task
        self.ridge, self.n_rectified, self.max_iter = ridge, n_rectified, max_iter
        self._rectified = rectified_layers(split)
        self._trace = trace_layers(split, samples)
        most = max(256, memory_budget // self._trace.bytes_per_sample)
        self.samples: Samples = samples.subset(most)
        self._dense = {}

    def repaired(self, keep, method="layers", opened=False, judge=None):
        """The rest of the module without the players that leave, refitted.

        Parameters
        ----------
        keep : ndarray of bool of shape (n_players,)
            Who stays.
        method : {"none", "output", "layers"}, default="layers"
            Leave the weights, refit the output layer, or refit layer by layer.
        opened : bool, default=False
            Whether layers in front of a ReLU are opened when they are refitted.
        judge : callable, default=None
            Takes a module as it is returned, and says how good it is on samples that
            were not trained on. The output layer is then pulled as if by one, ten, a
            hundred and a thousand samples, and the best is taken, the weakest pull of
            equals.

        Returns
        -------
        split : SplitModule
            A pruned module; the given one is unchanged.
        """
        if method not in REPAIRS:
            raise ValueError(f"method={method!r}; use 'none', 'output' or 'layers'.")
        drop = self.players.leaving(~keep)
        keep, left = ~drop, self.players.layers_in(drop)
        pruned = self.split.without(keep)
        with evaluating(pruned.rest), torch.no_grad():
            if method == "layers":
                for name in self._trace.names:
                    if not is_within(name, left):
                        self._refit_layer(pruned, name, keep, opened)
            if method != "none" and self._trace.output is not None:
                self._refit_output(pruned, judge)
        return pruned

    @property
    def opens(self):
        """Whether there is a layer that `repaired` can open."""
        return not self._rectified.isdisjoint(self._trace.names)

    def _refit_layer(self, pruned, name, keep, opened):
        """Regress a layer's dense outputs on what it reads now."""
        layer = pruned.layer_in(pruned.rest, name)
        columns = self._read(pruned, layer)
        targets = self._dense_rows(name)
        made = self.players.producers.get(name)
        if made is not None:
            stays = torch.as_tensor((made < 0) | keep[made]).to(targets.device)
            targets = targets[:, stays]
        moments = Moments()
        centred = layer.bias is not None
        for x, z in zip(columns.split(4096), targets.split(4096), strict=True):
            moments.update(x, z)
        is_cut = name in self._rectified
        opened = opened and is_cut and centred
        rounds = self.n_rectified if is_cut and not opened else 0
        weight, bias = _ridge(moments, columns, targets, self.ridge, rounds, centred)
        if opened:
            some = columns[:: -(-len(columns) // _FEW)]
            answers = torch.addmm(bias, some, weight.T)
            rank = 1 + int(_CUT_OFF * len(some))
            bias = bias - answers.kthvalue(rank, dim=0).values.clamp_max(0)
        _set_weights(layer, weight, bias)

    def _refit_output(self, pruned, judge):
        """Minimise the task's loss over the output layer."""
        layer = pruned.layer_in(pruned.rest, self._trace.output)
        columns = self._read(pruned, layer)
        start = copy.deepcopy(layer.state_dict())
        most, best = -math.inf, start
        for pull in _PULLS[:1] if judge is None else _PULLS:
            layer.load_state_dict(start)
            fit = _convex_fit(
                layer, columns, self.samples.targets, self.task, self.max_iter, pull
            )
            if fit is None:
                continue
            _set_weights(layer, *fit)
            worth = 0.0 if judge is None else judge(pruned)
            # NaN compares false.
            if worth > most:
                most, best = worth, copy.deepcopy(layer.state_dict())
        layer.load_state_dict(best)

    def _read(self, pruned, layer):
        """What a layer of the pruned module reads on all samples, as rows."""
        parts = []

        def stop(_, args, kwargs):
            parts.append(columns_of(layer, args[0] if args else kwargs["input"]))
            raise _Seen

        handle = layer.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            for features, _ in self.samples.batches():
                try:
                    pruned.run(features)
                except _Seen:
                    continue
        finally:
            handle.remove()
        return torch.cat(parts)

    def _dense_rows(self, name):
        """What a layer of the dense module gives on all samples, as rows."""
        if name not in self._dense:
            parts = []

            def keep(_, layer, inputs, output):
                # A copy: a ReLU behind it may work in place.
                parts.append(rows_of(layer, output).clone())

            rest = self.split.rest
            with watch_layers(rest, [name], keep), evaluating(rest):
                for features, _ in self.samples.batches():
                    self.split.run(features)
            self._dense[name] = torch.cat(parts)
        return self._dense[name]


def _ridge(moments, columns, targets, ridge, rounds, centred):
    """Weights and biases of the ridge regression, repeated behind a ReLU."""
    mean_x, mean_z = moments.means
    gram, cross = moments.gram, moments.cross
    if not centred:
        gram, cross = (
            gram + torch.outer(mean_x, mean_x),
            cross + torch.outer(mean_x, mean_z),
        )
    # Columns that never vary have variances of rounding errors, of either sign.
    noise = torch.finfo(columns.dtype).eps * mean_x.square().mean()
    scale = gram.diagonal().mean().clamp_min(float(noise) + 1e-30)
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    factor = torch.linalg.cholesky(gram + ridge * scale * eye)

    def solved(cross, mean_z):
        weight = torch.cholesky_solve(cross, factor).T
        bias = mean_z - weight @ mean_x if centred else torch.zeros_like(mean_z)
        return weight.to(columns.dtype), bias.to(columns.dtype)

    weight, bias = solved(cross, mean_z)
    for _ in range(rounds):
        answers = torch.addmm(bias, columns, weight.T).clamp_max(0)
        wanted = torch.where(targets > 0, targets, answers)
        mean_z = wanted.double().mean(0)
        cross = (columns.T @ wanted).double() / len(columns)
        weight, bias = solved(cross - torch.outer(mean_x, mean_z) * centred, mean_z)
    return weight, bias


def _set_weights(layer, weight, bias):
    """Give a layer weights, and a bias if it has one."""
    layer.weight.copy_(weight.reshape(layer.weight.shape))
    if layer.bias is not None:
        layer.bias.copy_(bias)


def _convex_fit(layer, columns, targets, task, max_iter, pull):
    """Weights and bias of the output layer that minimise the loss, or None.

    The columns are standardised, and the penalty keeps the weights near those from
    which the fit starts, about as much as `pull` samples would.
    """
    several = int(len(columns) > 1)
    center, spread = columns.mean(0), columns.std(0, correction=several).clamp_min(1e-6)
    if layer.bias is None:
        # Without a bias the shift by the centre has nowhere to go.
        center, spread = torch.zeros_like(center), columns.square().mean(0).sqrt()
        spread = spread.clamp_min(1e-6)
    x = (columns - center) / spread
    start = layer.weight * spread
    offset = layer.weight @ center + (0.0 if layer.bias is None else layer.bias)
    weight, bias = start.clone().requires_grad_(), offset.clone().requires_grad_()
    free = [weight] if layer.bias is None else [weight, bias]
    optimizer = torch.optim.LBFGS(
        free, max_iter=max_iter, history_size=20, line_search_fn="strong_wolfe"
    )

    def objective():
        loss = task.loss(x @ weight.T + bias, targets)
        return loss + pull * (weight - start).square().sum() / (2 * len(x))

    def closure():
        optimizer.zero_grad()
        value = objective()
        value.backward()
        return value

    with torch.enable_grad():
        before = float(objective().detach())
        optimizer.step(closure)
        after = float(objective().detach())
    # NaN compares false: a fit that diverged is not used.
    if not after <= before:
        return None
    weight, bias = weight.detach() / spread, bias.detach()
    if layer.bias is None:
        return weight, None
    return weight, bias - weight @ center
