"""scikit-learn's own checks of estimators, with the two that cannot hold by name."""

import inspect
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils.estimator_checks import (
    check_sample_weight_equivalence_on_dense_data,
    check_sample_weight_equivalence_on_sparse_data,
    estimator_checks_generator,
    parametrize_with_checks,
)
from sklearn.utils.validation import has_fit_parameter
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback
from torch import nn

import skprune
from skprune import (
    EquilibriumPrunedMLP,
    EquilibriumPrunedMLPRegressor,
    EquilibriumPruner,
    GTAPPruner,
    PowerIndexSelector,
    ShapleyBucketPruner,
    mlp_classifier,
    mlp_regressor,
)

_REASON = "mini-batches are dealt anew: repeated rows fall into others than weights do"
CANNOT_HOLD = [
    check_sample_weight_equivalence_on_dense_data,
    check_sample_weight_equivalence_on_sparse_data,
]
EXPECTED = {check.__name__: _REASON for check in CANNOT_HOLD}
EXPORTED = [
    value
    for value in (getattr(skprune, name) for name in skprune.__all__)
    if inspect.isclass(value) and issubclass(value, BaseEstimator)
]


def small(kind, **params):
    return kind((16, 8), max_epochs=10, lr=0.01, n_rivals=2, random_state=0, **params)


def around(kind, net, **params):
    net = None if net is None else net((16,), max_epochs=10, lr=0.01)
    return kind(net, random_state=0, **params)


class ThreeLayers:
    """What builds a perceptron: a class, for the names of tests hold no address."""

    def __new__(cls, n_inputs=2, n_outputs=2):
        layers = nn.Linear(n_inputs, 16), nn.ReLU(), nn.Linear(16, n_outputs)
        return nn.Sequential(*layers)


class Widths(Callback):
    """Gives a module its widths when training begins, as skorch's guide has it."""

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        n_outputs = len(np.unique(y)) if is_classifier(net) else y.shape[1]
        found = net.module_[0].in_features, net.module_[-1].out_features
        if found != (X.shape[1], n_outputs):
            net.set_params(module__n_inputs=X.shape[1], module__n_outputs=n_outputs)

    def __repr__(self):  # the names of tests hold it
        return "Widths()"


def plain(kind=NeuralNetClassifier, **params):
    """A skorch net of the user's own: it knows nothing of skprune."""
    is_regressor = kind is NeuralNetRegressor
    return kind(
        ThreeLayers,
        criterion=nn.MSELoss if is_regressor else nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.01,
        max_epochs=10,
        train_split=None,
        iterator_train__shuffle=True,
        callbacks=[Widths()],
        verbose=0,
        **params,
    )


QUICK = [
    small(EquilibriumPrunedMLP),
    small(EquilibriumPrunedMLPRegressor),
    small(EquilibriumPrunedMLP, n_players_to_keep=0.5, class_weight="balanced"),
    around(EquilibriumPruner, mlp_classifier),
    around(EquilibriumPruner, mlp_regressor, n_players_to_keep=0.5, n_rivals=2),
    around(GTAPPruner, mlp_classifier),
    EquilibriumPruner(plain(), n_players_to_keep=0.5, n_rivals=2, random_state=0),
    around(PowerIndexSelector, mlp_classifier),
]
SLOW = [
    small(EquilibriumPrunedMLPRegressor, n_players_to_keep=0.5),
    around(EquilibriumPruner, None),
    around(GTAPPruner, None),
    around(GTAPPruner, mlp_regressor),
    # Drawn at random: checks that ask for the same twice are left out by scikit-learn.
    GTAPPruner(mlp_classifier((16,), max_epochs=10, lr=0.01)),
    GTAPPruner(plain(), random_state=0),
    GTAPPruner(plain(NeuralNetRegressor), random_state=0),
    EquilibriumPruner(plain(NeuralNetRegressor), random_state=0),
    around(ShapleyBucketPruner, None),
    around(ShapleyBucketPruner, mlp_classifier),
    around(ShapleyBucketPruner, mlp_regressor),
    ShapleyBucketPruner(plain(), random_state=0),
    around(PowerIndexSelector, None),
    around(PowerIndexSelector, mlp_regressor),
    PowerIndexSelector(plain(), random_state=0),
]


def named(estimator):
    net = getattr(estimator, "estimator", None)
    inside = "" if net is None else f"-{type(net).__name__}"
    return type(estimator).__name__ + inside


def may_fail(estimator):
    return EXPECTED if has_fit_parameter(estimator, "sample_weight") else {}


# Where y is random nothing pays, and everybody leaves.
@pytest.mark.filterwarnings("ignore:the pruned network", "ignore:no feature is worth")
@parametrize_with_checks(QUICK, expected_failed_checks=may_fail)
def test_scikit_learn_s_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the pruned network", "ignore:no feature is worth")
@parametrize_with_checks(SLOW, expected_failed_checks=may_fail)
def test_scikit_learn_s_checks_of_more(estimator, check):
    check(estimator)


def test_every_public_estimator_is_checked():
    assert EXPORTED
    for among in (QUICK, [*QUICK, *SLOW]):
        checked = {type(estimator) for estimator in among}
        missing = set(EXPORTED) - checked
        assert missing <= ({ShapleyBucketPruner} if among is QUICK else set())
    nets = {
        type(estimator): type(estimator.estimator)
        for estimator in [*QUICK, *SLOW]
        if type(getattr(estimator, "estimator", None)) is NeuralNetClassifier
    }
    takes_nets = {kind for kind in EXPORTED if "estimator" in kind().get_params()}
    assert set(nets) == takes_nets


@pytest.mark.parametrize("estimator", [*QUICK, *SLOW], ids=named)
def test_only_these_two_may_fail(estimator):
    names = [check.func.__name__ for _, check in estimator_checks_generator(estimator)]
    assert len(names) > 40
    takes_weights = isinstance(
        estimator,
        (EquilibriumPrunedMLP, EquilibriumPrunedMLPRegressor, EquilibriumPruner),
    )
    assert {name for name in names if name in may_fail(estimator)} == (
        set(EXPECTED) if takes_weights else set()
    )
    assert set(EXPECTED) == {
        "check_sample_weight_equivalence_on_dense_data",
        "check_sample_weight_equivalence_on_sparse_data",
    }


@pytest.mark.filterwarnings("ignore:the pruned network")
@pytest.mark.parametrize("check", CANNOT_HOLD, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    "estimator",
    [e for e in [*QUICK, *SLOW] if has_fit_parameter(e, "sample_weight")],
    ids=named,
)
def test_those_two_do_fail(estimator, check):
    # One that passed would be no exception any more, and would leave the list.
    with pytest.raises(AssertionError, match="is not equivalent to fitting with"):
        check(type(estimator).__name__, estimator)


_WITH_ARRAY_API = """
from sklearn.utils.estimator_checks import check_array_api_input
import skprune
from sklearn.base import BaseEstimator
from skprune import *

net = mlp_classifier((8,), max_epochs=3, lr=0.01)
kinds = [kind for kind in map(globals().get, skprune.__all__) if isinstance(kind, type)]
kinds = [kind for kind in kinds if issubclass(kind, BaseEstimator)]
for kind in kinds:
    takes_net = "estimator" in kind().get_params()
    small = kind(net) if takes_net else kind((8,), max_epochs=3)
    check_array_api_input(
        kind.__name__,
        small.set_params(random_state=0),
        array_namespace="numpy",
        expect_only_array_outputs=False,
    )
    print(kind.__name__)
"""


@pytest.mark.slow
def test_array_api_dispatch_changes_nothing():
    # SciPy reads the variable when it is imported: a check in here would be skipped.
    quiet = ["-W", "ignore:the pruned network", "-W", "ignore:no feature is worth"]
    done = subprocess.run(
        [sys.executable, "-W", "error", *quiet, "-c", _WITH_ARRAY_API],
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    names = [kind.__name__ for kind in EXPORTED]
    assert (done.stdout.split(), done.returncode) == (names, 0), done.stderr
