"""Multi-layer perceptrons that end small: equilibrium pruning without torch code."""

from __future__ import annotations

from numbers import Integral, Real
from typing import ClassVar

import numpy as np
import torch
from scipy import sparse
from sklearn.base import ClassifierMixin, clone
from sklearn.utils._param_validation import Interval, StrOptions
from skorch import NeuralNetClassifier
from skorch.dataset import Dataset
from skorch.helper import predefined_split

from skprune.evaluation import (
    ACTIVATIONS,
    ColumnAdamW,
    TensorBatches,
    build_mlp,
    class_weights_of,
    device_named,
    encoded_class_weight,
    neurons_of,
)
from skprune.pruners._data import check_table
from skprune.pruners._equilibrium import MARKET_CONSTRAINTS, BaseEquilibriumPruner

__all__ = ["BaseEquilibriumMLP", "EquilibriumPrunedMLP"]

# Weight decay by itself: this over the number of steps, at most that. The former is .05
# of validation images of MNIST, the latter of cross-validation on digits, breast cancer
# and diabetes.
_TOTAL_DECAY, _MOST_DECAY = 1000, 0.5
# Samples from which on batches are larger.
_MANY = 10_000


class BaseEquilibriumMLP(BaseEquilibriumPruner):
    """A multi-layer perceptron that is built from the shape of the data."""

    _parameter_constraints: ClassVar[dict] = {
        "hidden_layer_sizes": [
            "array-like",
            Interval(Integral, 1, None, closed="left"),
        ],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
        ],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [
            Interval(Real, 0, None, closed="left"),
            StrOptions({"auto"}),
        ],
        "net_callbacks": ["array-like", None],
        "device": [str, torch.device],
        **MARKET_CONSTRAINTS,
    }

    def __init__(
        self,
        hidden_layer_sizes=(512, 256),
        *,
        n_players_to_keep=None,
        min_per_layer=1,
        utility="descent",
        alpha=1.0,
        beta=0.0,
        gamma="auto",
        eta=0.0,
        benefit="curvature",
        participation_optimizer="adam",
        participation_lr=0.02,
        removal_period="auto",
        n_rivals=16,
        activation="relu",
        max_epochs=20,
        batch_size="auto",
        lr=3e-3,
        weight_decay="auto",
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=5,
        net_callbacks=None,
        condition_numbers=False,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.n_players_to_keep = n_players_to_keep
        self.min_per_layer = min_per_layer
        self.utility = utility
        self.alpha = alpha
        self.beta = beta
        self.gamma = gamma
        self.eta = eta
        self.benefit = benefit
        self.participation_optimizer = participation_optimizer
        self.participation_lr = participation_lr
        self.removal_period = removal_period
        self.n_rivals = n_rivals
        self.activation = activation
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.net_callbacks = net_callbacks
        self.condition_numbers = condition_numbers
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def _prepare(self, X, y, sample_weight, X_val, y_val):
        """Check the data, and the layers against the number to keep."""
        self._precision, self._keeps_integers = np.float32, False
        X, y, X_val, y_val = self._validated(X, y, X_val, y_val, _labels)
        sizes = self._sizes()
        self._check_period()
        device_named(self.device)
        self._counts(sizes, np.minimum(sizes, self.min_per_layer))
        return self._split(X, y, sample_weight, X_val, y_val)

    def _checked(self, X, reset=False):
        """X as the net reads it, refused where it is no table."""
        remedy = "For other data use EquilibriumPruner with a net of yours."
        return check_table(super()._checked(X, reset), remedy)

    def _device(self):
        return device_named(self.device)

    def _sizes(self):
        """Neurons of each hidden layer."""
        sizes = neurons_of(self.hidden_layer_sizes)
        if not sizes:
            raise ValueError(
                f"hidden_layer_sizes={self.hidden_layer_sizes!r} must hold one whole "
                "number for each hidden layer, and one layer at least, such as (512,)."
            )
        return np.array(sizes)

    def _new_net(self, data):
        """A skorch net around a perceptron for these data."""
        sizes = self._sizes()
        n_outputs = self._n_outputs(data)
        is_sparse = sparse.issparse(data.X)
        module = build_mlp(
            data.X.shape[1], sizes, n_outputs, self.activation, is_sparse
        )
        split = None
        if data.X_val is not data.X:
            split = predefined_split(Dataset(data.X_val, data.y_val))
        net_class, criterion = self._net_class, self._criterion
        return net_class(
            module,
            criterion=criterion,
            optimizer=ColumnAdamW,
            optimizer__fused=True,
            optimizer__betas=(0.9, 0.995),
            optimizer__weight_decay=self._decay(len(data.y)),
            # Means of those who left sit in the biases, and must not fade.
            optimizer__param_groups=[("*.bias", {"weight_decay": 0.0})],
            lr=self.lr,
            max_epochs=self.max_epochs,
            batch_size=self._batch_size(len(data.y)),
            iterator_train=TensorBatches,
            iterator_train__shuffle=True,
            iterator_valid=TensorBatches,
            train_split=split,
            callbacks=self._callbacks(),
            device=device_named(self.device),
            verbose=0,
        ).initialize()

    def _batch_size(self, n_samples):
        """Samples of a step: small data need the steps."""
        if self.batch_size != "auto":
            return self.batch_size
        return 64 if n_samples >= _MANY else 32

    def _decay(self, n_samples):
        """Weight decay, in trainings of any length the same in all."""
        if self.weight_decay != "auto":
            return self.weight_decay
        n_steps = -(-n_samples // self._batch_size(n_samples)) * self.max_epochs
        return min(_MOST_DECAY, _TOTAL_DECAY / n_steps)

    def _callbacks(self):
        if self.net_callbacks is None:
            return None
        callbacks = list(self.net_callbacks)
        # The pruned net gets copies: what has none should fail before the training.
        clone(callbacks, safe=False)
        return callbacks

    def _player_kinds(self):
        return "neurons"


class EquilibriumPrunedMLP(ClassifierMixin, BaseEquilibriumMLP):
    """Classifier whose neurons leave while it trains, as staying no longer pays.

    Parameters
    ----------
    hidden_layer_sizes : int or array-like of int of shape (n_layers,), \
            default=(512, 256)
        Neurons of each hidden layer before anybody leaves.
    n_players_to_keep : int, float, array-like of int or None, default=None
        Players of the pruned network: a number or a fraction, shared out in proportion
        to the widths but with ``log2(n_classes) + 1`` at least for each layer, if there
        are as many; or one number for each layer. None: those who want to stay at a
        fixed price, see Notes.
    min_per_layer : int, default=1
        Players that stay in each layer.
    utility : {"descent", "joint", "ascent"}, default="descent"
        What participation brings when it is played: see `ParticipationGame`. "ascent"
        is the paper as printed, and destroys most networks.
    alpha, beta, gamma, eta : float, default=1.0, 0.0, "auto", 0.0
        Weight of the benefit, and the prices of squared participation, of
        participation and of competition. "auto": a price that clears the market where
        there is a number to keep; else one that rises during the removals to the loss
        of the untrained network over the number of its players. Only where
        participations are played (``n_players_to_keep=None`` or
        ``benefit="participation"``) does anybody pay `beta` and `eta`; `gamma` is paid
        where there is no number to keep.
    benefit : {"curvature", "participation", "weight_norm"}, default="curvature"
        What staying is worth to a player where there is a number to keep: what the loss
        would gain if it left, to second order; what it contributes at a participation
        that it chooses; or the norm of its weights, as magnitude pruning has it.
    participation_optimizer : {"adam", "sgd"}, default="adam"
        How participations move; "sgd" is equation (17).
    participation_lr : float, default=0.02
        Their learning rate.
    removal_period : (float, float) or "auto", default="auto"
        Shares of the training between which players leave. "auto": (0.05, 0.1) with a
        number to keep, else (0.1, 0.5).
    n_rivals : int, default=16
        Networks that go their own way from most of the removals on, on the same
        batches, until one is left; 1 where participations are played. Where they would
        hold more than 67 million parameters together, they part later, or are fewer.
    activation : str, default="relu"
        "elu", "gelu", "leaky_relu", "relu", "sigmoid", "silu" or "tanh".
    max_epochs : int, default=20
        Passes over the data, all phases together.
    batch_size : int or "auto", default="auto"
        Samples of a step. "auto": 64 from 10,000 training samples on, else 32.
    lr : float, default=0.003
        Learning rate of AdamW: a third of it before the removals and five thirds during
        them, then times the square root of how much the network narrowed (at most 7),
        and down to 0 along a cosine.
    weight_decay : float or "auto", default="auto"
        Of AdamW, for weights; biases do not decay. "auto": 1000 over the number of
        steps, at most 0.5, so that weights which nothing holds up fade as much in short
        trainings as in long ones.
    early_stopping : bool, default=False
        Whether to hold out `validation_fraction` of X, where `fit` is given no
        validation set, and to stop when the validation loss has not improved for
        `n_iter_no_change` epochs since the last rival gave up.
    validation_fraction : float, default=0.1
        Share of X held out, stratified by class.
    n_iter_no_change : int, default=5
        Epochs without improvement.
    class_weight : dict, "balanced" or None, default=None
        What training samples of each class count, times their `sample_weight`: a dict
        from labels to weights, where labels that it does not name weigh 1; or
        "balanced", in inverse proportion to how often a class is met.
    net_callbacks : list of skorch.callbacks.Callback or None, default=None
        Callbacks of the skorch net, used as they are, so that what they note can be
        read afterwards. A learning rate scheduler among them replaces the course
        described under `lr`; with one that acts on gradients there are no rivals.
    condition_numbers : bool, default=False
        Whether to record condition numbers of the effective weights.
    device : str or torch.device, default="auto"
        "auto": a GPU where there is one.
    random_state : int, RandomState instance or None, default=None
        Draws the initial weights, the batches and what rivals perceive.
    verbose : int, default=0
        1 prints a line for each step, and some ten for the epochs of a training.

    Attributes
    ----------
    estimator_ : skorch.NeuralNet
        The pruned, trained net, with the history of the training.
    module_ : torch.nn.Module
        Its module.
    players_ : Players
        The surviving players, as players of `module_`.
    support_ : ndarray of bool of shape (n_players,)
        Which players of the dense net survived.
    names_ : list of str
        Names of the players of the dense net.
    active_players_ : dict of str to int
        Surviving players of each layer.
    size_report_ : dict of str to NetworkSize
        Players, parameters and FLOPs "before" and "after".
    participation_history_ : ndarray of shape (n_epochs, n_players)
        Participations after each epoch; 0 for players that have left.
    sparsity_history_ : ndarray of shape (n_epochs,)
        Share of players without participation.
    price_history_ : dict of str to ndarray of shape (n_removals,)
        "step", and for each layer the price that the players paid to stay.
    soft_score_, hard_score_ : float
        Accuracy or R² right before and after the last removal, on validation samples
        or, where there are none, on training samples; fine-tuning follows.
    leave_one_out_ : ndarray of shape (n_players_left,)
        What the training loss gains, on some of its samples and by their weights, if
        one survivor is left out, exactly, at the end.
    exploitability_ : float
        The most that one player would gain by moving alone: where participations were
        played, by its best response when the game ended; else by leaving now at the
        last prices. NaN where prices are not in units of the loss.
    dominated_fraction_ : float
        Share of all players that left, or would rather leave.
    condition_numbers_ : dict of str to ndarray of shape (n_epochs,)
        For each layer; where asked for.
    collapsed_ : bool
        Whether the network predicts one class for all validation samples, or for
        training samples where there are no others. A warning says so.
    classes_ : ndarray of shape (n_classes,)
        Labels, for a classifier.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Their names, where X has some.

    References
    ----------
    .. [1] Z. Shah and N. Khan, "Pruning as a Game: Equilibrium-Driven Sparsification of
       Neural Networks".

    Notes
    -----
    With a number to keep, the price of staying rises along a geometric path of players,
    so that at each removal those leave to whom staying is worth least. Their mean
    output goes into the next layer's bias, and the optimizer goes on with the state of
    those who stay. Several rivals part from each other on the way and end in different
    equilibria; as the game has a potential, of which the loss is the part that differs,
    those of higher loss give up until one is left.

    With ``n_players_to_keep=None`` each player has a gate behind its activation, whose
    value follows the gradient of its utility, equations (13) to (18), at fixed prices.
    Whoever contributes less than a hundredth of the most in its layer leaves; the paper
    looks at the value of the gate itself, which means nothing, because weights can grow
    as much as gates shrink.

    X is best scaled, such as by `sklearn.preprocessing.StandardScaler`; a sparse one is
    never made dense as a whole.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skprune import EquilibriumPrunedMLP
    >>> X, y = load_digits(return_X_y=True)
    >>> mlp = EquilibriumPrunedMLP((64, 32), n_players_to_keep=0.5, random_state=0)
    >>> mlp.fit(X / 16, y).active_players_
    {'hidden_1': 32, 'hidden_2': 16}
    """

    _net_class, _criterion = NeuralNetClassifier, torch.nn.CrossEntropyLoss
    _parameter_constraints: ClassVar[dict] = {
        **BaseEquilibriumMLP._parameter_constraints,
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        hidden_layer_sizes=(512, 256),
        *,
        n_players_to_keep=None,
        min_per_layer=1,
        utility="descent",
        alpha=1.0,
        beta=0.0,
        gamma="auto",
        eta=0.0,
        benefit="curvature",
        participation_optimizer="adam",
        participation_lr=0.02,
        removal_period="auto",
        n_rivals=16,
        activation="relu",
        max_epochs=20,
        batch_size="auto",
        lr=3e-3,
        weight_decay="auto",
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=5,
        class_weight=None,
        net_callbacks=None,
        condition_numbers=False,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        super().__init__(
            hidden_layer_sizes,
            n_players_to_keep=n_players_to_keep,
            min_per_layer=min_per_layer,
            utility=utility,
            alpha=alpha,
            beta=beta,
            gamma=gamma,
            eta=eta,
            benefit=benefit,
            participation_optimizer=participation_optimizer,
            participation_lr=participation_lr,
            removal_period=removal_period,
            n_rivals=n_rivals,
            activation=activation,
            max_epochs=max_epochs,
            batch_size=batch_size,
            lr=lr,
            weight_decay=weight_decay,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            net_callbacks=net_callbacks,
            condition_numbers=condition_numbers,
            device=device,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def _split(self, X, y, sample_weight, X_val, y_val):
        """Samples that count as much as their class, times their own weights."""
        encoded = encoded_class_weight(self.class_weight, self.classes_)
        if encoded is not None:
            weights = class_weights_of(encoded, y, len(self.classes_), sample_weight)[y]
            sample_weight = weights * (1.0 if sample_weight is None else sample_weight)
        return super()._split(X, y, sample_weight, X_val, y_val)

    def _n_outputs(self, data):
        return len(self.classes_)


def _labels(X, y):
    return np.unique(y)
