"""Classes that are rare: weights for them, and a warning where one is forgotten."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from skprune import (
    CoalitionEvaluator,
    EquilibriumPrunedMLP,
    EquilibriumPruner,
    GTAPPruner,
    ShapleyBucketPruner,
    mlp_classifier,
    mlp_regressor,
)
from skprune.evaluation import (
    class_weights_of,
    encoded_class_weight,
    resolve_payoff,
    task_of,
    transplant,
)
from skprune.exceptions import SkpruneWarning
from skprune.pruners._collapse import has_one_answer
from skprune.scorers import ShapleyScorer

RARE = 0.05


def samples(n_samples=1000, seed=0):
    """Two classes that overlap, one of them rare."""
    rng = np.random.default_rng(seed)
    y = (np.arange(n_samples) < RARE * n_samples).astype(int)
    X = rng.normal(size=(n_samples, 8))
    X[:, 0] += 1.5 * y
    X[:, 1] += y
    return X.astype(np.float32), np.array(["common", "rare"])[y]


def net_of(class_weight=None, **params):
    settings = {"max_epochs": 15, "lr": 0.01, "device": "cpu"} | params
    return mlp_classifier((20,), class_weight=class_weight, **settings)


def gtap(class_weight=None, n_kept=2, **params):
    net = net_of(class_weight)
    return GTAPPruner(net, n_players_to_keep=n_kept, random_state=0, **params)


def bucket(class_weight=None, **params):
    return ShapleyBucketPruner(net_of(class_weight), random_state=0, **params)


def equilibrium(class_weight=None):
    net = net_of(class_weight)
    return EquilibriumPruner(net, n_players_to_keep=2, n_rivals=2, random_state=0)


def perceptron(class_weight=None):
    return EquilibriumPrunedMLP(
        (20,),
        n_players_to_keep=2,
        n_rivals=2,
        max_epochs=15,
        lr=0.01,
        class_weight=class_weight,
        random_state=0,
        device="cpu",
    )


PRUNERS = [gtap, bucket, equilibrium, perceptron]
by_pruner = pytest.mark.parametrize("make", PRUNERS, ids=lambda make: make.__name__)


# From what a user gives to numbers


def test_balanced_is_that_of_scikit_learn():
    y = np.repeat([0, 1, 2], [50, 30, 20])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=y)
    np.testing.assert_allclose(class_weights_of("balanced", y), expected)
    assert class_weights_of("balanced", y)[y].mean() == pytest.approx(1)
    weight = np.random.default_rng(0).uniform(size=100)
    expected = compute_class_weight(
        "balanced", classes=np.arange(3), y=y, sample_weight=weight
    )
    got = class_weights_of("balanced", y, sample_weight=weight)
    np.testing.assert_allclose(got, expected)


def test_classes_that_are_not_met_or_not_named_weigh_1():
    y = np.array([0, 0, 0, 2])
    assert class_weights_of("balanced", y, 5).tolist() == [2 / 3, 1, 2, 1, 1]
    assert class_weights_of({2: 7}, y, 4).tolist() == [1, 1, 7, 1]
    assert class_weights_of(None, y).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("classes", "given"),
    [
        (["ham", "spam"], {"spam": 3.0, "ham": 1.0}),
        ([False, True], {True: 3, False: 1}),
        ([-4, -1], {-4: 1, -1: 3}),
        (np.array(["ham", "spam"], dtype=object), {"spam": 3, "ham": 1}),
        ([1, 2], {1: 1, 2: 3, 3: 9}),
    ],
)
def test_labels_become_indices(classes, given):
    assert encoded_class_weight(given, np.array(classes)) == {0: 1, 1: 3}


def test_labels_that_are_none_are_refused():
    message = (
        r"class_weight has weights for \['Spam'\].*none for its classes \['spam'\]"
    )
    with pytest.raises(ValueError, match=message):
        encoded_class_weight({"Spam": 3, "ham": 1}, ["ham", "spam"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("heavy", "class_weight='heavy' must be None, 'balanced' or a dict"),
        (3.0, "class_weight=3.0 must be"),
        ({0: -1.0}, r"gives 0 the weight -1.0; weights are\s+positive"),
        ({0: 0}, "gives 0 the weight 0;"),
        ({0: np.nan}, "gives 0 the weight nan"),
        ({0: np.inf}, "gives 0 the weight inf"),
        ({0: "2"}, "gives 0 the weight '2'"),
    ],
)
def test_what_are_no_weights(given, message):
    with pytest.raises(ValueError, match=message):
        encoded_class_weight(given, [0, 1])
    y = np.arange(20) % 2
    with pytest.raises(ValueError, match=message):
        net_of(given).fit(np.ones((20, 2)), y)


# In the net


def test_the_criterion_has_them():
    X, labels = samples(200)
    y = (labels == "rare").astype(int)
    net = net_of("balanced").fit(X, y)
    assert net.criterion_.weight.tolist() == pytest.approx([200 / 380, 10.0])
    assert net.fit(X[10:], 1 - y[10:]).criterion_.weight[0] == 1
    assert net_of({1: 4.0}).fit(X, y).criterion_.weight.tolist() == [1, 4]
    assert net_of().fit(X, y).criterion_.weight is None


def test_the_loss_is_that_of_weighted_samples():
    X, labels = samples(200)
    y = (labels == "rare").astype(int)
    net = net_of({0: 1.0, 1: 9.0}, max_epochs=1).fit(X, y)
    net.module_.eval()
    logits = net.forward(X)
    each = nn.functional.cross_entropy(logits, torch.tensor(y), reduction="none")
    weight = torch.tensor(np.where(y, 9.0, 1.0))
    expected = float((each * weight).sum() / weight.sum())
    got = float(net.get_loss(logits, torch.tensor(y), training=False))
    assert got == pytest.approx(expected, rel=1e-5)


def test_they_live_on_in_copies_and_pruned_nets():
    X, labels = samples(200)
    y = (labels == "rare").astype(int)
    net = net_of("balanced").fit(X, y)
    assert clone(net).class_weight == "balanced"
    assert clone(net).fit(X, y).criterion_.weight[1] == 10
    smaller = transplant(net, net.module_)
    assert torch.equal(smaller.criterion_.weight, net.criterion_.weight)
    assert smaller.fit(X[:100], y[:100]).criterion_.weight[1] == 5
    # Without a sample of the last class the outputs stay what they are.
    assert len(smaller.fit(X[10:], y[10:]).criterion_.weight) == 2


def test_what_does_not_go_together():
    X, y = np.ones((20, 2)), np.arange(20) % 2
    with pytest.raises(ValueError, match="both class_weight='balanced' and criterion"):
        net_of("balanced", criterion__weight=torch.ones(2)).fit(X, y)
    with pytest.raises(ValueError, match="parameter `weight`, and SoftMargin"):
        net_of("balanced", criterion=nn.SoftMarginLoss).fit(X, y)
    with pytest.raises(ValueError, match="call fit"):
        net_of("balanced").initialize()
    with pytest.raises(ValueError, match="partial_fit sees some"):
        net_of("balanced").partial_fit(X, y)
    assert net_of({1: 2}).partial_fit(X, y).criterion_.weight.tolist() == [1, 2]
    with pytest.raises((TypeError, ValueError), match="class_weight"):
        mlp_regressor((4,), class_weight="balanced").fit(X, X)


# In pruners


@by_pruner
@pytest.mark.parametrize("class_weight", ["balanced", {"rare": 19.0}])
def test_rare_classes_survive(make, class_weight):
    pruner = make(class_weight).fit(*samples())
    X, y = samples(2000, seed=1)
    assert balanced_accuracy_score(y, pruner.predict(X)) > 0.65
    assert not pruner.collapsed_
    assert pruner.support_.sum() <= 4


@pytest.mark.parametrize("make", [bucket, equilibrium, perceptron])
def test_without_weights_a_forgotten_class_is_said(make):
    pruner = make()
    with pytest.warns(SkpruneWarning, match="predicts one class.*'balanced'") as caught:
        pruner.fit(*samples())
    assert caught[0].filename == __file__
    assert pruner.collapsed_
    assert set(pruner.predict(samples(2000, seed=1)[0])) == {"common"}


@by_pruner
def test_weights_of_labels_that_are_none_are_refused(make):
    with pytest.raises(ValueError, match=r"weights for \['Rare'\], which are no class"):
        make({"Rare": 19.0}).fit(*samples(200))


@by_pruner
@pytest.mark.filterwarnings("ignore:the pruned network")
def test_the_order_of_the_labels_does_not_matter(make):
    X, y = samples(400)
    names = {"common": "zebra", "rare": "ant"}
    renamed = np.array([names[label] for label in y])
    one = make({"rare": 9.0}).fit(X, y)
    other = make({"ant": 9.0, "zebra": 1.0}).fit(X, renamed)
    for pruner, rare in ((one, "rare"), (other, "ant")):
        column = pruner.classes_.tolist().index(rare)
        assert (pruner.predict_proba(X)[:, column] > 0.5).mean() > RARE


def test_class_weights_multiply_sample_weights():
    X, y = samples(300)
    weight = np.random.default_rng(0).uniform(0.5, 2, 300)
    both = perceptron({"rare": 6.0}).fit(X, y, sample_weight=weight)
    product = weight * compute_sample_weight({"rare": 6.0, "common": 1.0}, y)
    expected = perceptron().fit(X, y, sample_weight=product)
    np.testing.assert_array_equal(both.predict_proba(X), expected.predict_proba(X))
    balanced = perceptron("balanced").fit(X, y, sample_weight=(y == "rare") + 0.5)
    assert not balanced.collapsed_


def test_a_grid_over_class_weights():
    search = GridSearchCV(
        gtap(),
        {"estimator__class_weight": [{"rare": 0.01}, "balanced"]},
        scoring="balanced_accuracy",
        cv=2,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the pruned network")
        search.fit(*samples())
    assert search.best_params_ == {"estimator__class_weight": "balanced"}


# Without the weights the repaired network forgets the rare class.
@pytest.mark.filterwarnings("ignore:the pruned network")
@pytest.mark.parametrize("repair", ["output", "layers"])
def test_a_repair_keeps_the_weights(repair):
    X, labels = samples()
    y = (labels == "rare").astype(int)
    torch.manual_seed(0)
    net = net_of("balanced").fit(X, y)
    settings = {"n_players_to_keep": 8, "repair": repair, "random_state": 0}
    weighted = GTAPPruner(FrozenEstimator(net), **settings).fit(X, y)
    assert weighted.repair_ == repair
    assert balanced_accuracy_score(y, weighted.predict(X)) > 0.75
    share = weighted.predict(X).mean()
    net.set_params(class_weight=None)
    net.criterion_ = nn.CrossEntropyLoss()
    plain = GTAPPruner(FrozenEstimator(net), **settings).fit(X, y)
    assert plain.estimator_.criterion_.weight is None
    assert share > 2 * plain.predict(X).mean()


def test_other_nets_bring_weights_of_their_own():
    X, labels = samples()
    module = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 2))
    settings = {"optimizer": torch.optim.Adam, "lr": 0.01, "verbose": 0}
    many = NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        criterion__weight=torch.tensor([1.0, 19.0]),
        **settings,
    )
    module = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 1))
    one = NeuralNetBinaryClassifier(
        module, criterion__pos_weight=torch.tensor([19.0]), **settings
    )
    for net in (many, one):
        weights = task_of(clone(net).initialize()).class_weights
        assert weights.tolist() == [1, 19]
        pruner = GTAPPruner(net, n_players_to_keep=3, random_state=0).fit(X, labels)
        assert balanced_accuracy_score(labels, pruner.predict(X)) > 0.65


# What networks are judged by


def test_weighted_accuracy_is_balanced_where_the_net_is():
    X, labels = samples()
    y = (labels == "rare").astype(int)
    torch.manual_seed(0)
    net = net_of("balanced", max_epochs=3).fit(X, y)
    everybody = np.ones((1, 20), dtype=bool)
    weighted = CoalitionEvaluator(net, X, y, payoff="weighted_accuracy")
    expected = balanced_accuracy_score(y, net.predict(X))
    assert weighted(everybody)[0] == pytest.approx(expected, abs=1e-6)
    assert weighted.backend_ == "batched"
    plain = net_of(max_epochs=1).fit(X, y)
    same = CoalitionEvaluator(plain, X, y, payoff="weighted_accuracy")
    assert same.payoff.name == "accuracy"
    assert same.backend_ == "compiled"


def test_values_have_no_classes_to_weight():
    net = mlp_regressor((4,), max_epochs=1, device="cpu").fit(
        np.ones((9, 2)), [1.0] * 9
    )
    with pytest.raises(ValueError, match="payoff='weighted_accuracy' is unknown"):
        resolve_payoff("weighted_accuracy", task_of(net), torch.ones(9, 1))


def test_the_bucket_pruner_holds_the_weighted_score():
    pruner = bucket("balanced", tol=0.05).fit(*samples())
    # By plain accuracy the majority alone would score 0.95, and hold.
    assert pruner.unpruned_score_ < 0.92
    assert pruner.validation_score_ >= pruner.unpruned_score_ - 0.05


# When a network has collapsed


class WorstFirst(ShapleyScorer):
    """Says the opposite of what players are worth."""

    def estimate(self, game):
        scores = super().estimate(game)
        return replace(scores, values=-scores.values)


@pytest.mark.parametrize(
    ("predicted", "y", "is_one"),
    [
        ([1, 1, 1], [0, 1, 1], True),
        ([1, 1, 0], [0, 1, 1], False),
        ([1, 1, 1], [1, 1, 1], False),
        ([1], [0], False),
        ([[0.5, 1.0]] * 3, [[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]], True),
        ([[0.5, 1.0], [0.5, 1.1]], [[0.0, 1.0], [1.0, 1.0]], False),
        ([[np.nan]] * 2, [[0.0], [1.0]], False),
    ],
)
def test_one_answer_where_there_should_be_several(predicted, y, is_one):
    assert has_one_answer(predicted, y) is is_one


def and_gate():
    """A net whose second class needs both of its first two neurons."""
    module = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, 0], [0, 1], [0.1, 0], [0, 0.1]]))
        module[0].bias.zero_()
        module[2].weight.copy_(torch.tensor([[0.0] * 4, [1, 1, 0.01, 0.01]]))
        module[2].bias.copy_(torch.tensor([1.5, 0.0]))
    net = NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss).initialize()
    X = np.random.default_rng(0).uniform(size=(400, 2)).astype(np.float32)
    return FrozenEstimator(net), X, net.predict(X)


def test_each_size_of_a_path_says_so():
    net, X, y = and_gate()
    assert 0.05 < y.mean() < 0.2
    pruner = GTAPPruner(
        net, n_players_to_keep=2, path_sizes=[1, 4], repair="none", random_state=0
    )
    with pytest.warns(SkpruneWarning, match="1 players predicts one class") as caught:
        pruner.fit(X, y)
    assert [w.filename for w in caught] == [__file__]
    assert "repair='layers'" in str(caught[0].message)
    assert "class_weight='balanced'" in str(caught[0].message)
    assert [pruner.at_size(size).collapsed_ for size in (1, 2, 4)] == [
        True,
        False,
        False,
    ]
    assert set(pruner.at_size(1).predict(X)) == {0}


def test_a_net_that_knew_one_class_only_is_not_blamed_on_pruning():
    X, labels = samples(400)
    y = (labels == "rare").astype(int)
    torch.manual_seed(0)
    net = net_of({1: 0.01}).fit(X, y)
    assert set(net.predict(X)) == {0}
    pruner = GTAPPruner(FrozenEstimator(net), n_players_to_keep=6, random_state=0)
    assert pruner.fit(X, y).collapsed_


def test_regressors_collapse_too():
    module = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        # The first neuron knows all, the second one is dead.
        module[0].weight.copy_(torch.tensor([[1.0], [0.0]]))
        module[0].bias.copy_(torch.tensor([0.0, -1.0]))
    net = NeuralNetRegressor(module).initialize()
    X = np.random.default_rng(0).uniform(size=(200, 1)).astype(np.float32)
    pruner = ShapleyBucketPruner(
        FrozenEstimator(net),
        strategy="bottom",
        min_score=-1e9,
        refine=False,
        repair="none",
        retrain_epochs=0,
        power_index=WorstFirst(),
        random_state=0,
    )
    with pytest.warns(SkpruneWarning, match="same output for every sample"):
        pruner.fit(X, X[:, 0])
    assert pruner.collapsed_
