"""What all pruners share: scikit-learn's face of a trained, pruned skorch net."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from scipy import sparse
from sklearn.base import (
    BaseEstimator,
    TransformerMixin,
    is_classifier,
    is_regressor,
)
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data
from skorch import NeuralNet

from skprune.base import Documented, forget_columns
from skprune.evaluation import (
    check_net,
    check_threshold,
    first_rows,
    is_mlp,
    net_targets,
    plain_array,
    task_of,
)
from skprune.networks import call, evaluating, tensors_in
from skprune.pruners._choices import check_parts
from skprune.pruners._data import check_pair, check_targets, encode, split_data
from skprune.pruners._epochs import epochs_of, telling_epochs
from skprune.pruners._nets import (
    cloned_for,
    forked_rng,
    input_types,
    known_labels,
    net_of,
    set_up_by_callbacks,
    unreadable,
    with_own_module,
)
from skprune.pruners._progress import ReportingMixin

__all__ = ["BasePruner"]


def _classifies(pruner):
    """Whether a pruner is a classifier."""
    if not is_classifier(pruner):
        raise AttributeError(
            f"{type(pruner).__name__} has predict_proba with a classifier only, and "
            f"estimator is {pruner.estimator!r:.200}."
        )
    return True


class BasePruner(ReportingMixin, TransformerMixin, Documented, BaseEstimator):
    """Base class of the pruners: data in, predictions out.

    A pruner sets ``estimator_``, ``players_`` and what else it learned in ``fit``; all
    that is here reads ``estimator_``.
    """

    # Of values that are predicted, as the net's criterion wants them.
    _target_precision = np.float32

    def predict(self, X):
        """Predict with the pruned network.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Samples; or what the net reads.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Labels, or values.
        """
        predicted = self._predicted(X, "predict")
        if hasattr(self, "classes_"):
            return self.classes_[np.asarray(predicted).astype(np.intp)]
        predicted = predicted.astype(np.float64)
        predicted = predicted.reshape(len(predicted), -1)
        return predicted[:, 0] if self._y_is_1d else predicted

    @available_if(_classifies)
    def predict_proba(self, X):
        """Class probabilities of the pruned network.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Samples; or what the net reads.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            Columns in the order of `classes_`.
        """
        return self._predicted(X, "predict_proba").astype(self._precision, copy=False)

    def score(self, X, y, sample_weight=None):
        """Accuracy of a classifier, R² of a regressor.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Samples; or what the net reads.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            True labels or values.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples.

        Returns
        -------
        score : float
        """
        metric = accuracy_score if hasattr(self, "classes_") else r2_score
        return metric(y, self.predict(X), sample_weight=sample_weight)

    def transform(self, X):
        """Activations of the last hidden layer that survived.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Samples; or what the net reads.

        Returns
        -------
        activations : ndarray of shape (n_samples, n_units)
            What the output layer reads, in the precision of the net.
        """
        self._check_transforms()
        net, read = self._answering_net(), []
        layer = net.module_.get_submodule(self._output_layer)
        owner = threading.get_ident()

        def keep(_, args):
            # Another thread may run the same module meanwhile.
            if threading.get_ident() == owner:
                read.append(args[0])

        handle = layer.register_forward_pre_hook(keep)
        try:
            for _ in net.forward_iter(self._checked(X), training=False):
                pass
        finally:
            handle.remove()
        if read[0].ndim != 2:
            raise ValueError(
                f"transform gives one row for each sample, and the last Linear layer "
                f"reads {tuple(read[0].shape)} for {len(read[0])}; use predict."
            )
        return torch.cat(read).cpu().numpy().astype(self._precision, copy=False)

    def get_feature_names_out(self, input_features=None):
        """Names of the columns of `transform`.

        Parameters
        ----------
        input_features : None
            Not used; present by convention.

        Returns
        -------
        names : ndarray of str
            Names of the units that the output layer reads.
        """
        self._check_transforms()
        name = self._output_layer
        width = self.module_.get_submodule(name).in_features
        owners = self.players_.consumers.get(name, np.full(width, -1))
        return np.array(
            [
                self.players_.names[owner] if owner >= 0 else f"{name}.input[{column}]"
                for column, owner in enumerate(owners)
            ],
            dtype=object,
        )

    def _check_transforms(self):
        """Refuse `transform` where there is no layer that reads what it gives."""
        check_is_fitted(self)
        if self._output_layer is None:
            raise ValueError(
                f"transform gives what the last Linear layer reads, and "
                f"{type(self.module_).__name__} has none; use predict."
            )

    @property
    def module_(self):
        """The pruned module."""
        check_is_fitted(self)
        return self.estimator_.module_

    def __sklearn_is_fitted__(self):
        """Whether there is a pruned net."""
        return hasattr(self, "estimator_")

    def __sklearn_tags__(self):
        """Tags that follow the net."""
        tags = super().__sklearn_tags__()
        net = net_of(self.estimator) if hasattr(self, "estimator") else None
        if isinstance(net, NeuralNet):
            own = get_tags(net)
            tags.estimator_type = own.estimator_type
            tags.classifier_tags = own.classifier_tags
            tags.regressor_tags = own.regressor_tags
            tags.target_tags.multi_output = own.estimator_type == "regressor"
        tags.input_tags.sparse = True
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = []
        tags.non_deterministic = self.random_state is None
        return tags

    def _prepare(self, X, y, X_val, y_val):
        """Check and encode the data and split them; the net is told its classes."""
        check_parts(self)
        net, frozen = self._checked_net()
        X, y, X_val, y_val = self._validated_for(net, frozen, X, y, X_val, y_val)
        return split_data(
            X,
            y,
            X_val,
            y_val,
            self.validation_fraction,
            getattr(self, "classes_", None),
            self._seed(),
            frozen,
        )

    def _validated_for(self, net, frozen, X, y, X_val, y_val):
        """The same for a given net."""
        if isinstance(X, torch.utils.data.Dataset):
            raise TypeError(
                f"X is a {type(X).__name__}; give X and y as arrays, tensors, sparse "
                "matrices or dicts of these."
            )
        self._precision, self._keeps_integers = input_types(net)
        known = partial(known_labels, net, frozen)
        return self._validated(X, y, X_val, y_val, known)

    def _validated(self, X, y, X_val, y_val, labels_of):
        """X as the net reads it, y as class indices or columns of values."""
        classifier = is_classifier(self)
        check_pair(X_val, y_val)
        precision = self._target_precision
        X, y = self._checked(X, reset=True), check_targets(y, classifier, precision)
        if len(y) != _n_rows(X):
            raise ValueError(f"X has {_n_rows(X)} samples where y has {len(y)}.")
        self._y_is_1d = y.ndim == 1
        if X_val is not None:
            y_val = check_targets(y_val, classifier, precision)
            X_val = self._checked(X_val)
        if classifier:
            self.classes_ = _checked_classes(labels_of(X, y))
            y = encode(y, self.classes_, "y")
            y_val = None if y_val is None else encode(y_val, self.classes_, "y_val")
        else:
            vars(self).pop("classes_", None)
            y, y_val = (v if v is None else v.reshape(len(v), -1) for v in (y, y_val))
            if y_val is not None and y_val.shape[1] != y.shape[1]:
                raise ValueError(
                    f"y_val has {y_val.shape[1]} columns where y has {y.shape[1]}."
                )
        return X, y, X_val, y_val

    def _device(self):
        """Where the net is going to live."""
        return getattr(net_of(self.estimator), "device", None)

    def _trained_net(self, data):
        """The frozen net, or a clone trained on the training samples."""
        net, frozen = self._checked_net()
        if frozen:
            return with_own_module(net)
        net = cloned_for(net, getattr(self, "classes_", None))
        with (
            self._step("train", epochs_of(net)) as step,
            telling_epochs(net, step),
            self._seeded(),
        ):
            net.fit(data.X, net_targets(net, data.y))
        return net

    def _fresh_net(self, data):
        """A clone of the net, which knows its widths where it takes them from data."""
        net = cloned_for(self._checked_net()[0], getattr(self, "classes_", None))
        return net.sized_for(data.X, data.y) if hasattr(net, "sized_for") else net

    @contextmanager
    def _seeded(self, seed=None):
        """Torch draws by `random_state`, or by a seed from it, and then as before."""
        if self.random_state is None:
            yield
            return
        with forked_rng():
            torch.manual_seed(self._seed() if seed is None else seed)
            yield

    def _seed(self):
        """A seed drawn by `random_state`."""
        return check_random_state(self.random_state).randint(2**31 - 1)

    def _rehearse(self, data):
        """Run a copy of the net once, so that errors come before training.

        Returns
        -------
        net : skorch.NeuralNet or None
            The copy; None where the module takes its shape
            in training, and can be checked only afterwards.
        """
        net, frozen = self._checked_net()
        try:
            with forked_rng():
                if frozen:
                    net = with_own_module(net)
                else:
                    net = self._fresh_net(data).initialize()
            fault = self._output_fault(net, data)
            if fault is not None and not frozen:
                with forked_rng():
                    is_set_up = set_up_by_callbacks(net, data.X, data.y)
                fault = self._output_fault(net, data) if is_set_up else fault
        except Exception as error:
            if frozen:
                raise unreadable(data.X, error) from error
            # Any error of the user's module is his to see, in training.
            return None
        if fault is not None:
            raise ValueError(fault)
        return net

    def _output_fault(self, net, data):
        """What is wrong with the shape of a net's outputs for these targets."""
        with evaluating(net.module_), torch.no_grad():
            outputs = tensors_in(call(net.module_, first_rows(net, data.X)))[0]
        if is_classifier(net):
            width = 2 if task_of(net).kind == "binary" else outputs.shape[-1]
            if width != len(self.classes_):
                return (
                    f"the net has outputs for {width} classes where y holds "
                    f"{len(self.classes_)}; give the module one output for each class "
                    "(or one logit for two, in a NeuralNetBinaryClassifier)."
                )
        elif outputs.shape[1:] != data.y.shape[1:]:
            return (
                f"the module's outputs have shape {tuple(outputs.shape)} for "
                f"{len(outputs)} samples; for this y they must have shape "
                f"{(len(outputs), *data.y.shape[1:])}."
            )
        return None

    def _checked_net(self):
        """The net inside `estimator`, and whether it is frozen."""
        net = net_of(self.estimator)
        if not isinstance(net, NeuralNet):
            raise TypeError(
                f"estimator must be a skorch net, or one in a FrozenEstimator; got "
                f"{type(net).__name__}. Wrap a torch module in "
                "skorch.NeuralNetClassifier or NeuralNetRegressor."
            )
        if not (is_classifier(net) or is_regressor(net)):
            raise TypeError(
                f"estimator is a {type(net).__name__}, for scikit-learn neither a "
                "classifier nor a regressor; use skorch.NeuralNetClassifier, "
                "NeuralNetBinaryClassifier or NeuralNetRegressor."
            )
        check_threshold(net)
        frozen = isinstance(self.estimator, FrozenEstimator)
        if frozen:
            check_net(net)
        return net, frozen

    def _checked(self, X, reset=False):
        """X as the net reads it: float32, or integers for an embedding."""
        passed = (dict, torch.Tensor, torch.utils.data.Dataset)
        if type(X) is torch.Tensor and X.is_floating_point() and X.device.type == "cpu":
            X = X.detach().to(torch.promote_types(X.dtype, torch.float32)).numpy()
        if isinstance(X, passed) and not sparse.issparse(X):
            if reset:
                forget_columns(self)
            return X
        X = validate_data(
            self, X, reset=reset, accept_sparse="csr", allow_nd=True, dtype="numeric"
        )
        if sparse.issparse(X):
            with np.errstate(over="ignore"):
                X = sparse.csr_matrix(X.astype(self._precision, copy=False))
            self._check_finite(X.data)
            return X
        is_index = self._keeps_integers and not np.issubdtype(X.dtype, np.floating)
        with np.errstate(over="ignore"):
            X = X.astype(np.int64 if is_index else self._precision, copy=False)
        self._check_finite(X)
        return plain_array(X)

    def _check_finite(self, values):
        """Refuse what the net's precision cannot hold."""
        if not np.isfinite(values).all():
            raise ValueError(
                f"X holds values beyond the range of {values.dtype}, such as infinity; "
                "scale X, by sklearn.preprocessing.StandardScaler for instance."
            )

    def _predicted(self, X, method):
        """What the pruned net answers."""
        check_is_fitted(self)
        return getattr(self._answering_net(), method)(self._checked(X))

    def _answering_net(self):
        """The net that predicts, for a perceptron in double precision.

        What a row gets then does not depend on the others: in single precision, other
        sums in batches of other sizes change the seventh digit. On a GPU double
        precision is slow, and is not used; other modules may not be able to.
        """
        net = self.estimator_
        if torch.device(net.device).type != "cpu" or not is_mlp(net.module_):
            return net
        twin = with_own_module(net)
        twin.module_.double().register_forward_pre_hook(_in_double, with_kwargs=True)
        return twin


def _in_double(_, args, kwargs):
    """A hook that lets a module read double precision, by place or by name."""
    kwargs = {name: value.double() for name, value in kwargs.items()}
    return tuple(value.double() for value in args), kwargs


def _checked_classes(known):
    """Labels, refused where there is one only."""
    if len(known) < 2:
        raise ValueError(
            f"y holds one class only, {known.tolist()}; a classifier needs samples of "
            "two classes at least."
        )
    return known


def _n_rows(X):
    """Number of samples."""
    if isinstance(X, dict):
        return _n_rows(next(iter(X.values())))
    return X.shape[0] if hasattr(X, "shape") else len(X)
