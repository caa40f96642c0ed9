"""Equilibrium pruning of any skorch net: players leave while it trains."""

from __future__ import annotations

from typing import ClassVar

from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils._param_validation import HasMethods
from skorch.dataset import Dataset
from skorch.helper import predefined_split

from skprune.evaluation import cut_batches, first_rows, net_targets
from skprune.networks import evaluating, find_players
from skprune.pruners._equilibrium import MARKET_CONSTRAINTS, BaseEquilibriumPruner
from skprune.pruners._nets import net_of

__all__ = ["EquilibriumPruner"]


class EquilibriumPruner(BaseEquilibriumPruner):
    """Train a skorch net while the players to whom staying does not pay leave it.

    Parameters
    ----------
    estimator : skorch.NeuralNet, default=None
        A classifier or regressor, which is cloned and trained for its `max_epochs`.
        None is `skprune.mlp_classifier()`. Unless it has a schedule of its own, a third
        of its learning rate is taken before the removals and five thirds during them;
        then, with an adaptive optimizer, it is multiplied by the square root of how
        much the network narrowed (at most 7), and falls to 0 along a cosine.
    n_players_to_keep : int, float, array-like of int or None, default=None
        Players of the pruned network: a number or a fraction, shared out in proportion
        to the widths but with ``log2(n_classes) + 1`` at least for each layer, if there
        are as many; or one number for each layer. None: those who want to stay at a
        fixed price, see Notes.
    players : str or list of (kind, layer) pairs, default="neurons"
        Who plays: "neurons", "filters" or "weights"; see
        `skprune.networks.find_players`. Single weights that left are 0, in layers of
        the same size.
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
    n_rivals : int, default=4
        Networks that go their own way from most of the removals on, on the same
        batches, until one is left; 1 where participations are played. Where they would
        hold more than 67 million parameters together, they part later, or are fewer.
    early_stopping : bool, default=False
        Whether to hold out `validation_fraction` of X, where `fit` is given no
        validation set, and to stop when the validation loss has not improved for
        `n_iter_no_change` epochs since the last rival gave up.
    validation_fraction : float, default=0.1
        Share of X held out, stratified by class.
    n_iter_no_change : int, default=5
        Epochs without improvement.
    condition_numbers : bool, default=False
        Whether to record condition numbers of the effective weights.
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
    leave_one_out_ : ndarray of shape (n_players_left,) or None
        What the training loss gains, on some of its samples and by their weights, if
        one survivor is left out, exactly, at the end. None for single weights, and for
        modules of several outputs.
    exploitability_ : float
        The most that one player would gain by moving alone: where participations were
        played, by its best response when the game ended; else by leaving now at the
        last prices. NaN where prices are not in units of the loss.
    dominated_fraction_ : float
        Share of all players that left, or would rather leave.
    condition_numbers_ : dict of str to ndarray of shape (n_epochs,)
        For each layer; where asked for.
    collapsed_ : bool
        Whether the network has one answer for all validation samples, or for
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

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_digits
    >>> from skorch import NeuralNetClassifier
    >>> from skprune import EquilibriumPruner
    >>> X, y = load_digits(return_X_y=True)
    >>> net = NeuralNetClassifier(
    ...     torch.nn.Sequential(
    ...         torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
    ...     ),
    ...     criterion=torch.nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=3e-3,
    ...     max_epochs=5, batch_size=32, train_split=None, verbose=0
    ... )
    >>> pruner = EquilibriumPruner(net, n_players_to_keep=0.5, random_state=0)
    >>> pruner.fit((X / 16).astype("float32"), y).active_players_
    {'0': 16}
    """

    _parameter_constraints: ClassVar[dict] = {
        "estimator": [HasMethods(["fit", "predict"]), None],
        "players": [str, list, tuple],
        **MARKET_CONSTRAINTS,
    }

    def __init__(
        self,
        estimator=None,
        *,
        n_players_to_keep=None,
        players="neurons",
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
        n_rivals=4,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=5,
        condition_numbers=False,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.n_players_to_keep = n_players_to_keep
        self.players = players
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
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.condition_numbers = condition_numbers
        self.random_state = random_state
        self.verbose = verbose

    def _prepare(self, X, y, sample_weight, X_val, y_val):
        """Check the data by what the net reads."""
        net = self._unfrozen_net()
        self._check_period()
        X, y, X_val, y_val = self._validated_for(net, False, X, y, X_val, y_val)
        data = self._split(X, y, sample_weight, X_val, y_val)
        copy = self._rehearse(data)
        if copy is not None:
            with evaluating(copy.module_):
                example = first_rows(copy, data.X)
                self._rules(find_players(copy.module_, example, self._player_kinds()))
        return data

    def _unfrozen_net(self):
        if isinstance(self.estimator, FrozenEstimator):
            raise ValueError(
                "estimator is a FrozenEstimator, and the game is played while the net "
                "trains; give the net itself, or prune a trained net by GTAPPruner."
            )
        return self._checked_net()[0]

    def _new_net(self, data):
        """A clone, with batches cut from tensors and our validation set."""
        net = cut_batches(self._fresh_net(data))
        if data.X_val is not data.X:
            held_out = Dataset(data.X_val, net_targets(net, data.y_val))
            net.set_params(train_split=predefined_split(held_out))
        return net.initialize()

    def _train_split(self):
        return clone(net_of(self.estimator).train_split, safe=False)

    def _player_kinds(self):
        kinds = self.players
        pairs = [(kinds, None)] if isinstance(kinds, str) else kinds
        if any(pair[0] == "inputs" for pair in pairs):
            raise ValueError(
                f"players={kinds!r} names inputs, which have no activation to gate; "
                "use 'neurons', 'filters' or 'weights'."
            )
        return kinds
