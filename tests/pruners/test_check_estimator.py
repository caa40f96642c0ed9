"""scikit-learn's own checks of estimators, with the two that cannot hold by name."""

import os
import subprocess
import sys

import pytest
from sklearn.utils.estimator_checks import (
    estimator_checks_generator,
    parametrize_with_checks,
)
from sklearn.utils.validation import has_fit_parameter

from skprune import (
    EquilibriumPrunedMLP,
    EquilibriumPrunedMLPRegressor,
    EquilibriumPruner,
    GTAPPruner,
    ShapleyBucketPruner,
    mlp_classifier,
    mlp_regressor,
)

_REASON = "mini-batches are dealt anew: repeated rows fall into others than weights do"
EXPECTED = {
    "check_sample_weight_equivalence_on_dense_data": _REASON,
    "check_sample_weight_equivalence_on_sparse_data": _REASON,
}


def small(kind, **params):
    return kind((16, 8), max_epochs=10, lr=0.01, n_rivals=2, random_state=0, **params)


def around(kind, net, **params):
    net = None if net is None else net((16,), max_epochs=10, lr=0.01)
    return kind(net, random_state=0, **params)


QUICK = [
    small(EquilibriumPrunedMLP),
    small(EquilibriumPrunedMLPRegressor),
    small(EquilibriumPrunedMLP, n_players_to_keep=0.5),
    around(EquilibriumPruner, mlp_classifier),
    around(EquilibriumPruner, mlp_regressor, n_players_to_keep=0.5, n_rivals=2),
    around(GTAPPruner, mlp_classifier),
]
SLOW = [
    small(EquilibriumPrunedMLPRegressor, n_players_to_keep=0.5),
    around(EquilibriumPruner, None),
    around(GTAPPruner, None),
    around(GTAPPruner, mlp_regressor),
    # Drawn at random: checks that ask for the same twice are left out by scikit-learn.
    GTAPPruner(mlp_classifier((16,), max_epochs=10, lr=0.01)),
    around(ShapleyBucketPruner, None),
    around(ShapleyBucketPruner, mlp_classifier),
    around(ShapleyBucketPruner, mlp_regressor),
]


def may_fail(estimator):
    return EXPECTED if has_fit_parameter(estimator, "sample_weight") else {}


# Where y is random nothing pays, and everybody leaves.
@pytest.mark.filterwarnings("ignore:the pruned network")
@parametrize_with_checks(QUICK, expected_failed_checks=may_fail)
def test_scikit_learn_s_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the pruned network")
@parametrize_with_checks(SLOW, expected_failed_checks=may_fail)
def test_scikit_learn_s_checks_of_more(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", [*QUICK, *SLOW], ids=lambda e: type(e).__name__)
def test_only_these_two_may_fail(estimator):
    names = [check.func.__name__ for _, check in estimator_checks_generator(estimator)]
    assert len(names) > 50
    weighted = {
        "check_sample_weight_equivalence_on_dense_data",
        "check_sample_weight_equivalence_on_sparse_data",
    }
    takes_weights = isinstance(
        estimator,
        (EquilibriumPrunedMLP, EquilibriumPrunedMLPRegressor, EquilibriumPruner),
    )
    assert {name for name in names if name in may_fail(estimator)} == (
        weighted if takes_weights else set()
    )


_WITH_ARRAY_API = """
from sklearn.utils.estimator_checks import check_array_api_input
from skprune import *

net = mlp_classifier((8,), max_epochs=3, lr=0.01)
for kind in (EquilibriumPruner, GTAPPruner, ShapleyBucketPruner):
    check_array_api_input(
        kind.__name__,
        kind(net, random_state=0),
        array_namespace="numpy",
        expect_only_array_outputs=False,
    )
    print(kind.__name__)
"""


@pytest.mark.slow
def test_array_api_dispatch_changes_nothing():
    # SciPy reads the variable when it is imported: a check in here would be skipped.
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _WITH_ARRAY_API],
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    names = "EquilibriumPruner\nGTAPPruner\nShapleyBucketPruner\n"
    assert (done.stdout, done.returncode) == (names, 0), done.stderr
