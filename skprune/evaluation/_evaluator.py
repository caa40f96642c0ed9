"""A trained net as a coalitional game."""

from __future__ import annotations

import numpy as np
import torch
from joblib import effective_n_jobs
from sklearn.exceptions import NotFittedError
from skorch import NeuralNet

from skprune.evaluation._batched import BatchedBackend
from skprune.evaluation._compiled import CompiledBackend
from skprune.evaluation._data import as_dense, batches_of, concatenate, first_rows
from skprune.evaluation._lineup import dealt_rows
from skprune.evaluation._memory import free_memory
from skprune.evaluation._payoffs import predictions, resolve_payoff, task_of
from skprune.evaluation._sparse_inputs import SparseInputsBackend
from skprune.evaluation._sparse_rows import SparseRows
from skprune.evaluation._split import split_module
from skprune.evaluation._triton_backend import TritonBackend
from skprune.games import (
    BlockOrders,
    Game,
    RestrictedGame,
    check_coalitions,
    check_mask,
    check_orders,
)
from skprune.networks import (
    Players,
    evaluating,
    find_players,
    map_tensors,
    tensors_in,
)

__all__ = ["CoalitionEvaluator", "check_net", "check_threshold"]


class CoalitionEvaluator(Game):
    """The game that the units of a trained net play: what a sub-network earns.

    Parameters
    ----------
    net : skorch.NeuralNet
        A fitted (initialized) net. It is not changed; after further training make a
        new evaluator, for this one has read the weights.
    X : ndarray, sparse matrix, tensor or dict of these, of n_samples rows
        The samples, as the net's module reads them; best unseen in training. Where the
        players are the inputs of a Linear layer that reads a sparse matrix, such as the
        words of a vocabulary, it is never made dense.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Class indices 0, 1, ... or the values of a regression.
    players : str, list of (kind, layer) pairs or Players, default="neurons"
        Who plays; see `skprune.networks.find_players`. Single weights and whole layers
        are played by the batched backend.
    payoff : str or callable, default="accuracy"
        "accuracy", "weighted_accuracy" (in which samples count as their class does in
        the net's criterion), "smoothed_accuracy" (accuracy plus a twentieth of the true
        class's mean probability), "log_likelihood" (mean, in nats),
        "true_class_probability", "margin", "r2", "neg_mean_squared_error", a scorer
        name of scikit-learn, or a metric ``metric(y_true, y_pred) -> float``.
    backend : {"auto", "batched", "compiled", "sparse", "triton"}, default="auto"
        "compiled" plays tails of Linear layers on the CPU, "triton" on a CUDA device,
        "sparse" the columns of sparse samples, and "batched" any module. Where "auto"
        cannot play a tail of Linear layers on a CUDA device by Triton, a
        `SkpruneWarning` says why.
    memory_budget : int, default=None
        Bytes that one batched pass of a thread may take, roughly. None for a share of
        the free memory: at most 16 MB on a CPU, where more only leaves its cache.
    n_jobs : int, default=None
        Number of threads; results do not depend on it. None is one of the compiled
        backend, and for the batched one as many as torch takes for each operation;
        the threads of a number are given one of torch's each.

    Attributes
    ----------
    n_players : int
        Number of players.
    n_blocks : int
        Number of blocks of 16 samples, each of which may play its own orders; 1 for a
        payoff that is no mean over samples. With sparse inputs as players the blocks
        are larger where an order for each would be more than four million numbers.
    players : Players
        The players.
    backend_ : str
        The backend that was chosen.
    task : Task
        What the net's outputs mean.

    Raises
    ------
    NotFittedError
        If the net was not fitted.
    TypeError
        If `net` is no skorch net.
    ValueError
        If the data hold NaN or do not fit the net, the payoff does not fit the task, or
        the grand coalition's outputs are NaN.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from skorch import NeuralNetClassifier
    >>> from skprune.evaluation import CoalitionEvaluator
    >>> X = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    >>> y = (X[:, 0] > 0).astype(np.int64)
    >>> mlp = torch.nn.Sequential(
    ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
    ... )
    >>> net = NeuralNetClassifier(
    ...     mlp, criterion=torch.nn.CrossEntropyLoss, max_epochs=2, verbose=0
    ... ).fit(X, y)
    >>> game = CoalitionEvaluator(net, X, y)
    >>> game(np.ones((1, 8), dtype=bool)) == net.score(X, y)
    array([ True])
    """

    def __init__(
        self,
        net,
        X,
        y,
        *,
        players="neurons",
        payoff="accuracy",
        backend="auto",
        memory_budget=None,
        n_jobs=None,
    ):
        check_net(net)
        if backend not in ("auto", "batched", "compiled", "sparse", "triton"):
            raise ValueError(
                f"backend={backend!r}; use 'auto', 'batched' or 'compiled', 'sparse' "
                "for columns of a sparse X, or 'triton' for a net on a GPU."
            )
        module = net.module_
        self.task = task_of(net)
        with evaluating(module), torch.no_grad():
            example = first_rows(net, X)
            if not isinstance(players, Players):
                players = find_players(module, example, players)
            strip = self.task.strips_softmax
            split = split_module(module, players, example, strip)
            features = concatenate([split.features(b) for b in batches_of(net, X)])
        targets = self.task.targets(y, net.device)
        _check_samples(features, targets)
        self.players, self.n_players = players, players.n_players
        self.payoff = resolve_payoff(payoff, self.task, targets)
        self._rows = rows = torch.arange(len(targets))
        if self.payoff.metric is None:
            # A metric may hold weights or groups of the samples, in their order.
            self._rows = rows = dealt_rows(targets)
            features, targets = map_tensors(
                lambda x: x[rows.to(x.device)], (features, targets)
            )
        n_threads = effective_n_jobs(n_jobs)
        # On a device the operations run side by side already.
        alone = n_jobs is None or net.device != "cpu"
        args = targets, self.task, self.payoff, memory_budget
        args = (*args, None if alone else n_threads)
        with evaluating(module):
            self._batched = _sparse_inputs(backend, split, features, args)
            if self._batched is None:
                features = _made_dense(features)
                self._batched = BatchedBackend(split, features, *args)
        # To native backends one output is the logit of the second of two classes.
        has_one_output = self._check_outputs(targets) == 1
        if self.task.kind == "multiclass" and has_one_output:
            backend = _backend_of_one_class(backend)
        data = split, features, targets, self.payoff
        native = self._native(backend, data, n_threads, memory_budget)
        self._backend = native or self._batched
        self.backend_ = self._backend.name
        self.n_blocks = 1 if self.payoff.metric else self._batched.n_blocks

    def _native(self, backend, data, n_threads, memory_budget):
        """The backend with kernels of its own that fits, or None."""
        if self._batched.name == "sparse":
            return None
        if backend in ("auto", "compiled"):
            required = backend == "compiled"
            native = CompiledBackend.fitting(*data, n_threads, required=required)
            if native:
                return native
        if backend == "batched":
            return None
        required = backend == "triton"
        with self._evaluating():
            return TritonBackend.fitting(
                *data, self._batched, memory_budget, required=required
            )

    @property
    def reads_block_orders(self):
        """Whether walks take block orders as they are."""
        return self.walks_natively

    @property
    def walks_natively(self):
        """Whether walks cost less than the payoffs they consist of."""
        return self.payoff.metric is None

    @property
    def flips_natively(self):
        """Whether flips cost less than the payoffs they consist of."""
        return self.payoff.metric is None

    def _payoffs(self, coalitions):
        with self._evaluating():
            return self._backend.payoffs(coalitions)

    def walk(self, orders):
        """Marginals along orders, of each block or of all; see `Game.walk`."""
        if not self.walks_natively:
            return super().walk(orders)
        orders = _checked_orders(orders, self.n_players)
        nobody = np.zeros(self.n_players, dtype=bool)
        return self._walk(nobody, np.arange(self.n_players), orders)

    def flip(self, coalitions):
        """Marginals around coalitions, of each block or of all; see `Game.flip`."""
        if not self.flips_natively:
            return super().flip(coalitions)
        coalitions = _checked(coalitions, self.n_players)
        return self._flip(np.arange(self.n_players), coalitions)

    def restrict(self, always_in=None, always_out=None):
        """Fix some players; see `Game.restrict`."""
        return _RestrictedEvaluator(
            self,
            check_mask("always_in", always_in, self.n_players),
            check_mask("always_out", always_out, self.n_players),
        )

    def predict(self, coalitions):
        """Predictions of sub-networks.

        Parameters
        ----------
        coalitions : ndarray of bool of shape (n_coalitions, n_players)
            True where a player is present.

        Returns
        -------
        predictions : ndarray of shape (n_coalitions, n_samples) or (..., n_outputs)
            Class indices, or the values of a regression.
        """
        coalitions = check_coalitions(coalitions, self.n_players)
        with self._evaluating():
            logits = self._batched.logits(coalitions)
        answers = predictions(logits, self.task.kind).cpu().numpy()
        return answers[:, self._rows.argsort().numpy()]

    def sample_payoffs(self, coalitions):
        """What each sample earns, whose mean is the payoff.

        Parameters
        ----------
        coalitions : ndarray of bool of shape (n_coalitions, n_players)
            True where a player is present.

        Returns
        -------
        payoffs : ndarray of float64 of shape (n_coalitions, n_samples)
            Their spread says how sure a payoff is.

        Raises
        ------
        ValueError
            If the payoff is no mean over samples.
        """
        if self.payoff.metric is not None:
            raise ValueError(
                f"payoff={self.payoff.name!r} is no mean over samples, so that a "
                "sample earns nothing by itself; resample X and y to see its spread."
            )
        coalitions = check_coalitions(coalitions, self.n_players)
        with self._evaluating():
            logits = self._batched.logits(coalitions)
        earned = self.payoff.per_sample(logits, self._batched.targets)
        return earned.double().cpu().numpy()[:, self._rows.argsort().numpy()]

    def _walk(self, start, free, orders):
        """Native walk of the free players, with or without an axis of blocks."""
        orders = self._with_blocks(orders)
        if self.backend_ not in ("compiled", "sparse"):
            orders = np.asarray(orders)
        with self._evaluating():
            return self._backend.walk(start, free, orders)

    def _flip(self, free, coalitions):
        """Native flips of the free players, with or without an axis of blocks."""
        with self._evaluating():
            return self._backend.flip(free, self._with_blocks(coalitions))

    def _with_blocks(self, samples):
        """Orders or coalitions with an axis of blocks, of length 1 or n_blocks."""
        if samples.ndim == 2:
            return samples[:, None]
        if samples.shape[1] not in (1, self.n_blocks):
            raise ValueError(
                f"the second axis counts blocks and must be {self.n_blocks} or 1; got "
                f"shape {samples.shape}."
            )
        return samples

    def _evaluating(self):
        """Evaluation mode of the module, while it plays."""
        return evaluating(self._batched.split.rest)

    def _check_outputs(self, targets):
        """Refuse outputs that are NaN or do not fit the targets; how many there are."""
        everybody = np.ones((1, self.n_players), dtype=bool)
        with self._evaluating():
            logits = self._batched.logits(everybody)[0]
        if not torch.isfinite(logits).all():
            raise ValueError(
                "the net's outputs are NaN or infinite on X; train it again, with a "
                "lower learning rate or scaled data."
            )
        if self.task.kind != "regression":
            n_classes = 2 if self.task.kind == "binary" else logits.shape[1]
            outside = targets[(targets < 0) | (targets >= n_classes)]
            if len(outside):
                raise ValueError(
                    f"y holds class {int(outside[0])}, but the net has {n_classes} "
                    f"classes; give class indices 0 to {n_classes - 1}."
                )
        if self.task.kind == "regression" and targets.shape != logits.shape:
            raise ValueError(
                f"y has shape {tuple(targets.shape)} where the net's outputs have "
                f"{tuple(logits.shape)}; give one column for each output."
            )
        return logits.shape[1]


class _RestrictedEvaluator(RestrictedGame):
    """Restricted walks and flips that pay for the free players only."""

    @property
    def reads_block_orders(self):
        return self.parent.reads_block_orders

    def walk(self, orders):
        if not self.walks_natively:
            return super().walk(orders)
        orders = _checked_orders(orders, self.n_players)
        return self.parent._walk(self.always_in, self.players, orders)

    def flip(self, coalitions):
        if not self.flips_natively:
            return super().flip(coalitions)
        coalitions = _checked(coalitions, self.n_players)
        return self.parent._flip(self.players, self._embed(coalitions))


def _checked_orders(orders, n_players):
    """Orders, with or without an axis of blocks, checked; block orders as they are."""
    if isinstance(orders, BlockOrders) and orders.shape[-1] == n_players:
        return orders
    return check_orders(orders, n_players)


def _checked(coalitions, n_players):
    """Coalitions, with or without an axis of blocks, checked."""
    coalitions = np.asarray(coalitions)
    if coalitions.ndim < 3:
        return check_coalitions(coalitions, n_players)
    check_coalitions(coalitions.reshape(-1, coalitions.shape[-1]), n_players)
    return coalitions


def check_net(net):
    """Refuse what is no fitted skorch net.

    Parameters
    ----------
    net : object
        What was given as a net.

    Raises
    ------
    TypeError
        If it is no skorch net.
    NotFittedError
        If it was not fitted.
    ValueError
        If it has a threshold of its own.
    """
    if not isinstance(net, NeuralNet):
        raise TypeError(
            f"net must be a skorch net, got {type(net).__name__}; wrap a torch module "
            "in skorch.NeuralNetClassifier or NeuralNetRegressor and fit it."
        )
    if not net.initialized_:
        raise NotFittedError(
            f"This {type(net).__name__} is not fitted yet; call fit before it plays."
        )
    check_threshold(net)


def check_threshold(net):
    """Refuse a binary net that does not decide at one half, where payoffs are played.

    Parameters
    ----------
    net : skorch.NeuralNet
        Any net.

    Raises
    ------
    ValueError
        If it has another threshold.
    """
    if getattr(net, "threshold", 0.5) != 0.5:
        raise ValueError(
            f"the net has threshold={net.threshold!r}; payoffs are played at 0.5, so "
            "set that and choose a threshold afterwards, such as by "
            "sklearn.model_selection.TunedThresholdClassifierCV."
        )


def _sparse_inputs(backend, split, features, args):
    """The backend for the columns of sparse samples; None where others play."""
    if backend not in ("auto", "sparse"):
        return None
    found = SparseInputsBackend.fitting(split, features, *args)
    if found is None and backend == "sparse":
        raise ValueError(
            "backend='sparse' plays the inputs of one Linear layer that reads the rows "
            "of a SciPy matrix, less than half of it stored, and nothing else of the "
            "net may read them; use backend='auto'."
        )
    return found


def _made_dense(features):
    """Features of which none are sparse, refused where memory cannot hold them."""
    sizes = [
        (tensor.numel() * tensor.element_size(), tuple(tensor.shape))
        for tensor in tensors_in(features)
        if isinstance(tensor, SparseRows)
    ]
    n_bytes, shape = max(sizes, default=(0, ()))
    if n_bytes > free_memory() // 2:
        raise ValueError(
            f"X would take {n_bytes / 2**30:.1f} GiB as a dense matrix of shape "
            f"{shape}: it stays sparse only with backend='auto' and players='inputs' "
            "of a Linear layer that alone reads it. Use these, fewer columns or fewer "
            "samples."
        )
    return map_tensors(as_dense, features)


def _backend_of_one_class(backend):
    """The backend of a net with one class, which native ones do not play."""
    if backend in ("compiled", "triton"):
        raise ValueError(
            f"backend={backend!r} plays two classes or more, and this net has one; use "
            "backend='auto'."
        )
    return "batched"


def _check_samples(features, targets):
    """Refuse samples with NaN, or none, or of two lengths."""
    tensors = tensors_in(features)
    if not len(targets):
        raise ValueError("X and y hold no samples; give at least one.")
    if any(len(tensor) != len(targets) for tensor in tensors):
        raise ValueError(
            f"X has {len(tensors[0])} samples where y has {len(targets)}; give one y "
            "for each row of X."
        )
    if targets.is_floating_point() and not torch.isfinite(targets).all():
        raise ValueError("y holds NaN or infinity; drop or impute such samples.")
    for tensor in tensors:
        values = tensor.entries()[0] if isinstance(tensor, SparseRows) else tensor
        if values.is_floating_point() and not torch.isfinite(values).all():
            raise ValueError(
                "X holds NaN or infinity, or the layers before the first players make "
                "them; impute or scale X."
            )
