"""Equilibrium pruning for regression: targets are scaled in training only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from sklearn.base import RegressorMixin
from skorch import NeuralNetRegressor

from skprune.base import warn_user
from skprune.pruners._equilibrium_mlp import BaseEquilibriumMLP

__all__ = ["EquilibriumPrunedMLPRegressor"]

# Share of the spread of y that rounding may take.
_LOST = 1e-3


class EquilibriumPrunedMLPRegressor(RegressorMixin, BaseEquilibriumMLP):
    """Regressor whose neurons leave while it trains, as staying no longer pays.

    Parameters
    ----------
    hidden_layer_sizes : int or array-like of int of shape (n_layers,), \
            default=(512, 256)
        Neurons of each hidden layer before anybody leaves.
    n_players_to_keep : int, float, array-like of int or None, default=None
        Players of the pruned network: a number or a fraction, shared out in proportion
        to the widths, or one number for each layer. None: those who want to stay at a
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
        Whether the network gives the same values for all validation samples, or for
        training samples where there are no others. A warning says so.
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
    never made dense as a whole. In training, in the history of the net and in
    `leave_one_out_`, targets have mean 0 and variance 1.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skprune import EquilibriumPrunedMLPRegressor
    >>> X, y = load_diabetes(return_X_y=True, scaled=False)
    >>> mlp = EquilibriumPrunedMLPRegressor(
    ...     (32, 16), n_players_to_keep=[8, 4], random_state=0
    ... )
    >>> mlp.fit((X - X.mean(0)) / X.std(0), y).size_report_["after"].n_players
    12
    """

    _net_class, _criterion = NeuralNetRegressor, torch.nn.MSELoss
    # Their mean is taken off before anything is rounded.
    _target_precision = np.float64

    def __sklearn_tags__(self):
        """Tags of a regressor that may predict several outputs."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _n_outputs(self, data):
        return data.y.shape[1]

    def _split(self, X, y, sample_weight, X_val, y_val):
        """Samples whose targets have mean 0 and variance 1 in training."""
        with np.errstate(over="ignore"):
            is_finite = np.isfinite(y.astype(np.float32)).all()
        if not is_finite:
            raise ValueError(
                "y holds values beyond the range of float32; divide y, or let "
                "sklearn.compose.TransformedTargetRegressor do it."
            )
        data = super()._split(X, y, sample_weight, X_val, y_val)
        weights = data.sample_weight
        self._center = np.average(data.y, axis=0, weights=weights)
        variance = np.average((data.y - self._center) ** 2, axis=0, weights=weights)
        spread = np.sqrt(variance)
        self._spread = np.where(spread > 0, spread, 1.0)
        # The output layer adds the mean in single precision.
        lost = np.spacing(np.abs(self._center).astype(np.float32)) > _LOST * spread
        if np.any(lost & (spread > 0)):
            warn_user(
                f"y has mean {np.ravel(self._center)[lost][0]:.9g} and standard "
                f"deviation {np.ravel(spread)[lost][0]:.3g}, which single precision "
                "cannot hold together; take the mean off, by "
                "sklearn.compose.TransformedTargetRegressor for instance.",
            )
        y, y_val, y_game = (
            ((part - self._center) / self._spread).astype(np.float32)
            for part in (data.y, data.y_val, data.y_game)
        )
        return replace(data, y=y, y_val=y_val, y_game=y_game)

    def _conclude(self, net, data, players, play, record):
        """Let the output layer give what it learned in the units of y."""
        super()._conclude(net, data, players, play, record)
        layer = self.module_.get_submodule(self._output_layer)
        spread, center = (
            torch.as_tensor(part, dtype=layer.weight.dtype, device=layer.weight.device)
            for part in (self._spread, self._center)
        )
        with torch.no_grad():
            layer.weight.mul_(spread[:, None])
            layer.bias.mul_(spread).add_(center)
        return self
