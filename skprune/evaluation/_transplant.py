"""A pruned module back into a skorch net that trains, clones, pickles and refits."""

from __future__ import annotations

import copy
import dis
import math
from contextlib import contextmanager
from functools import partial

import torch
from sklearn.base import clone
from skorch.callbacks import Callback, LRScheduler

from skprune.evaluation._data import net_targets
from skprune.exceptions import UnsupportedNetworkError
from skprune.networks import remove_players, remove_rows

__all__ = [
    "adapts",
    "adopt_training",
    "check_shrinkable",
    "learns",
    "optimizers_of",
    "retrain",
    "shrink",
    "transplant",
    "twin_of",
]


_ADAPTIVE = (
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.Adamax,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.RMSprop,
)
# What the rate of an adaptive optimizer may be raised to in retraining, and how it
# grows as a network narrows: chosen on validation images of MNIST, held on tables.
_HIGHEST_RATE, _GROWTH = 0.01, 1.5


def transplant(net, module):
    """Put another module into a net like the given one.

    Parameters
    ----------
    net : skorch.NeuralNet
        An initialized net; it is not changed.
    module : torch.nn.Module
        The module that the new net gets; it is copied.

    Returns
    -------
    net : skorch.NeuralNet
        A new, initialized net of the same class and parameters, with an optimizer of
        its own. Its parameter `module` is the new module, and it has no ``module__``
        parameters.

    Notes
    -----
    Replacing ``net.module_`` does not work: the optimizer goes on with the old
    parameters, a later `fit` builds the old module again, and an instance given as
    `module` is rebuilt wherever a ``module__`` parameter is left.

    Examples
    --------
    >>> import torch
    >>> from skorch import NeuralNetRegressor
    >>> from skprune.evaluation import transplant
    >>> net = NeuralNetRegressor(torch.nn.Linear, module__in_features=4,
    ...                          module__out_features=1).initialize()
    >>> transplant(net, torch.nn.Linear(2, 1)).module_
    Linear(in_features=2, out_features=1, bias=True)
    """
    params = {
        name: value
        for name, value in clone(net).get_params(deep=False).items()
        if name != "module" and not name.startswith("module__")
    }
    new = type(net)(copy.deepcopy(module), **params)
    # What is learned of the labels in fit, which this net does not see.
    if hasattr(net, "class_weights_"):
        new.class_weights_ = net.class_weights_
    new.initialize()
    if hasattr(net, "classes_inferred_"):
        new.classes_inferred_ = net.classes_inferred_
    return new


def shrink(net, players, drop, fill=None):
    """Remove players from a net in the middle of its training.

    Parameters
    ----------
    net : skorch.NeuralNet
        An initialized net; its module is replaced by a smaller one. Its optimizers stay
        the objects that they are, with the new parameters, and keep their state for
        those who stay.
    players : Players
        Neurons, filters or single weights of its module.
    drop : bool ndarray of shape (n_players,)
        True for the players that leave.
    fill : dict of str to tensor of shape (n_columns,), optional
        Constants that they leave behind, see `skprune.networks.remove_players`.

    Returns
    -------
    players : Players
        Those who stay, as players of the smaller module.

    Raises
    ------
    ValueError
        If a layer would be left empty, or an optimizer keeps its parameters in a way of
        its own, as LBFGS does; the net is then unchanged.
    """
    check_shrinkable(net)
    old = net.module_
    new = remove_players(old, players, drop, fill=fill)
    names = {id(parameter): name for name, parameter in old.named_parameters()}
    parameters = dict(new.named_parameters())
    for optimizer in optimizers_of(net):
        _carry(optimizer, old, players, drop, names, parameters)
    net.module_ = new
    return players.after_removal(drop)


def check_shrinkable(net):
    """Refuse nets that could not go on training with fewer parameters."""
    if len(net._modules) > 1:
        raise UnsupportedNetworkError(
            f"the net has several modules, {net._modules}, and players can leave one "
            "only; put them into one module."
        )
    for name, optimizer in zip(net._optimizers, optimizers_of(net), strict=True):
        if isinstance(optimizer, torch.optim.LBFGS):
            raise ValueError(
                f"{name} is LBFGS, which keeps one history of all parameters and "
                "cannot go on when players leave; use torch.optim.AdamW, Adam or SGD."
            )


def twin_of(net):
    """A net that goes its own way from where another one is in its training.

    Parameters
    ----------
    net : skorch.NeuralNet
        An initialized net; it is not changed.

    Returns
    -------
    twin : skorch.NeuralNet
        A net of the same class and parameters, with copies of the module and of the
        optimizers with their state. It has no callbacks.
    """
    twin = object.__new__(type(net))
    names = ["module_", *(f"{name}_" for name in net._optimizers)]
    if learns(net.criterion_):
        names.append("criterion_")
    # Copied together, so that the optimizers hold the parameters of the copy.
    own = copy.deepcopy({name: getattr(net, name) for name in names})
    twin.__dict__.update(net.__dict__, callbacks_=[], **own)
    return twin


def adopt_training(net, other):
    """Let a net go on where its twin is: module, parameters and optimizer state."""
    net.module_, net.criterion_ = other.module_, other.criterion_
    for mine, its in zip(optimizers_of(net), optimizers_of(other), strict=True):
        # The optimizer itself stays: schedules hold on to it.
        for group, new in zip(mine.param_groups, its.param_groups, strict=True):
            group["params"] = new["params"]
        mine.state = its.state


def adapts(optimizer):
    """Whether an optimizer scales steps by past gradients, so that rates are sizes."""
    return isinstance(optimizer, _ADAPTIVE)


def learns(criterion):
    """Whether a criterion has parameters of its own, which the optimizer trains."""
    return isinstance(criterion, torch.nn.Module) and any(
        True for _ in criterion.parameters()
    )


def optimizers_of(net):
    """The optimizers of an initialized net, in skorch's order."""
    return [getattr(net, f"{name}_") for name in net._optimizers]


def _carry(optimizer, module, players, drop, names, parameters):
    """Give an optimizer the parameters of the smaller module, with their state."""
    moments = {}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            is_moment = isinstance(value, torch.Tensor) and value.ndim
            if is_moment and value.shape == parameter.shape and id(parameter) in names:
                moments.setdefault(key, {})[names[id(parameter)]] = value
    left = {
        key: remove_rows(module, players, drop, tensors)
        for key, tensors in moments.items()
    }

    def successor(parameter):
        # Parameters of the criterion, where it has some, stay what they are.
        return parameters[names[id(parameter)]] if id(parameter) in names else parameter

    def cut(parameter, state):
        name = names.get(id(parameter))
        if name is None or parameters[name].shape == parameter.shape:
            return state
        kept = {key: part[name] for key, part in left.items() if name in part}
        if any(
            torch.is_tensor(v) and v.ndim and k not in kept for k, v in state.items()
        ):
            # Factors of moments, as Adafactor has them, cannot be cut: they begin anew.
            return {}
        return state | kept

    states = {successor(p): cut(p, state) for p, state in optimizer.state.items()}
    optimizer.state.clear()
    optimizer.state.update(states)
    for group in optimizer.param_groups:
        group["params"] = [successor(p) for p in group["params"]]


def retrain(net, X, y, epochs, players=None, narrowing=1.0):
    """Train a transplanted net for some more epochs.

    Parameters
    ----------
    net : skorch.NeuralNet
        A net from `transplant`; it is trained in place.
    X, y : array-like
        Training data, as the net is fitted on.
    epochs : int
        Number of epochs.
    players : Players, default=None
        Players of the net's module: single weights of them that left stay 0.
    narrowing : float, default=1.0
        How many times as many players the network had for which the learning rate was
        chosen. A narrower one bears higher rates: that of an adaptive optimizer grows
        by its power of 1.5, up to 0.01, unless the net has a schedule of its own.

    Returns
    -------
    net : skorch.NeuralNet
        The same net.

    Raises
    ------
    KeyboardInterrupt
        If the user interrupts the training. What a callback of the net raises, such as
        EarlyStopping, only ends it.

    Notes
    -----
    A network chosen by accuracy often has a poor cross-entropy, and full-rate steps
    first move it away. The rate therefore rises over the first tenth of the batches and
    falls to 0 along a cosine, unless the net brings a schedule of its own.
    """
    y = net_targets(net, y)
    trained_on, _ = net.get_split_datasets(X, y)
    n_batches = len(net.get_iterator(trained_on, training=True)) * epochs
    warm_up = max(1, n_batches // 10)
    peak = _peak(net, narrowing)

    def rate(batch):
        if batch < warm_up:
            return peak * (batch + 1) / warm_up
        left = (batch - warm_up) / max(1, n_batches - warm_up)
        return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, left)))

    has_schedule = any(isinstance(part, LRScheduler) for _, part in net.callbacks_)
    old = net.callbacks_
    rates = [group["lr"] for group in net.optimizer_.param_groups]
    if not has_schedule:
        schedule = LRScheduler(
            policy=torch.optim.lr_scheduler.LambdaLR,
            lr_lambda=rate,
            step_every="batch",
            # Else skorch goes on where the batches of earlier trainings ended.
            last_epoch=-1,
        )
        net.callbacks_ = [*old, ("skprune_rate", schedule.initialize())]
    try:
        module = net.module_
        net.notify("on_train_begin", X=X, y=y)
        if net.module_ is not module:
            raise UnsupportedNetworkError(
                "a callback of the net builds its module anew when training begins, at "
                "the sizes before pruning; set retrain_epochs=0, or give the net fixed "
                "sizes and no such callback."
            )
        with _zeros_held(net.module_, players):
            try:
                net.fit_loop(X, y, epochs=epochs)
            except KeyboardInterrupt as stop:
                if not _is_from_callback(stop):
                    raise
        net.notify("on_train_end", X=X, y=y)
    finally:
        net.callbacks_ = old
        if not has_schedule:
            # The cosine ended at 0, where no later training would move.
            for group, rate_before in zip(
                net.optimizer_.param_groups, rates, strict=True
            ):
                group["lr"] = rate_before
    return net


def _peak(net, narrowing):
    """The highest rate of a retraining, where that of the net is 1."""
    optimizers = optimizers_of(net)
    if not all(map(adapts, optimizers)):
        return 1.0
    own = max(group["lr"] for part in optimizers for group in part.param_groups)
    return max(1.0, min(narrowing**_GROWTH, _HIGHEST_RATE / max(float(own), 1e-12)))


def _is_from_callback(stop):
    """Whether a callback, or what it calls, raised an exception to end a training.

    An interrupt from the keyboard may arrive inside a callback too, but at any
    instruction: no statement raises it.
    """
    trace, in_callback = stop.__traceback__, False
    while True:
        frame = trace.tb_frame
        in_callback |= isinstance(frame.f_locals.get("self"), Callback)
        if trace.tb_next is None:
            break
        trace = trace.tb_next
    is_raised = frame.f_code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return in_callback and is_raised


@contextmanager
def _zeros_held(module, players):
    """Single weights that left have no gradient: no new optimizer moves them."""
    handles = []
    for name, owners in ({} if players is None else players.weights).items():
        weight = module.get_submodule(name).weight
        left = torch.from_numpy(owners < 0).to(weight.device)
        if weight.requires_grad and left.any():
            hook = partial(torch.Tensor.masked_fill, mask=left, value=0)
            handles.append(weight.register_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
