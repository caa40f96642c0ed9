"""Payoffs and tasks against torch and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn import metrics
from skorch import (
    NeuralNet,
    NeuralNetBinaryClassifier,
    NeuralNetClassifier,
    NeuralNetRegressor,
)
from torch import nn
from torch.nn import functional

from skprune.evaluation import PAYOFFS, Task, resolve_payoff, task_of

MULTICLASS = Task("multiclass", nn.CrossEntropyLoss())
BINARY = Task("binary", nn.BCEWithLogitsLoss())
REGRESSION = Task("regression", nn.MSELoss())


def sample(task, n=50, n_outputs=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if task.kind == "binary":
        n_outputs, y = 1, torch.randint(2, (n,), generator=generator)
    elif task.kind == "multiclass":
        y = torch.randint(n_outputs, (n,), generator=generator)
    else:
        y = torch.randn(n, n_outputs, generator=generator)
    return torch.randn(n, n_outputs, generator=generator), y


def mean_payoff(name, task, logits, y):
    return float(resolve_payoff(name, task, y).per_sample(logits, y).double().mean())


def test_payoffs_of_classes_are_what_they_say():
    logits, y = sample(MULTICLASS)
    probability = logits.softmax(1)
    own = probability[torch.arange(50), y]
    accuracy = (logits.argmax(1) == y).double().mean().item()
    others = logits.clone()
    others[torch.arange(50), y] = -torch.inf
    wanted = {
        "accuracy": accuracy,
        "log_likelihood": -functional.cross_entropy(logits, y).item(),
        "true_class_probability": own.mean().item(),
        "smoothed_accuracy": accuracy + 0.05 * own.mean().item(),
        "margin": (logits[torch.arange(50), y] - others.amax(1)).mean().item(),
    }
    for name, value in wanted.items():
        assert mean_payoff(name, MULTICLASS, logits, y) == pytest.approx(value, 1e-5)


def test_payoffs_of_one_logit_are_those_of_two():
    logits, y = sample(BINARY)
    two = torch.cat([torch.zeros_like(logits), logits], 1)
    for name, (kinds, _) in PAYOFFS.items():
        if "binary" in kinds:
            assert mean_payoff(name, BINARY, logits, y) == pytest.approx(
                mean_payoff(name, MULTICLASS, two, y), rel=1e-5
            )


def test_payoffs_of_values_are_those_of_scikit_learn():
    outputs, y = sample(REGRESSION)
    y = y * torch.tensor([1.0, 5.0, 0.1, 3.0])
    assert mean_payoff("r2", REGRESSION, outputs, y) == pytest.approx(
        metrics.r2_score(y.numpy(), outputs.numpy()), rel=1e-5
    )
    assert mean_payoff("neg_mean_squared_error", REGRESSION, outputs, y) == (
        pytest.approx(-metrics.mean_squared_error(y.numpy(), outputs.numpy()), rel=1e-5)
    )


def test_a_constant_target_earns_nothing_and_stays_finite():
    outputs, y = sample(REGRESSION, n_outputs=2)
    y[:, 1] = 0.1
    one = mean_payoff("r2", REGRESSION, outputs[:, :1], y[:, :1])
    assert mean_payoff("r2", REGRESSION, outputs, y) == pytest.approx(one / 2)


def test_leading_axes_are_coalitions():
    for task in (MULTICLASS, BINARY, REGRESSION):
        logits, y = sample(task)
        stacked = torch.stack([logits, 2 * logits, -logits])
        for name, (kinds, _) in PAYOFFS.items():
            if task.kind in kinds:
                per_sample = resolve_payoff(name, task, y).per_sample
                wanted = torch.stack([per_sample(part, y) for part in stacked])
                torch.testing.assert_close(per_sample(stacked, y), wanted)


def test_the_lowest_class_wins_ties():
    y = torch.arange(3)
    assert mean_payoff("accuracy", MULTICLASS, torch.zeros(3, 3), y) == 1 / 3
    assert mean_payoff("accuracy", BINARY, torch.zeros(2, 1), torch.arange(2)) == 0.5


@pytest.mark.parametrize("name", sorted(PAYOFFS))
@pytest.mark.parametrize("task", [MULTICLASS, BINARY, REGRESSION])
def test_payoffs_that_do_not_fit_the_task_are_refused(name, task):
    _, y = sample(task)
    if task.kind in PAYOFFS[name][0]:
        assert resolve_payoff(name, task, y).name == name
        return
    with pytest.raises(ValueError, match=f"payoff='{name}' does not fit a {task.kind}"):
        resolve_payoff(name, task, y)


def test_unknown_payoffs_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"payoff='nonsense' is unknown; .*'accuracy'"):
        resolve_payoff("nonsense", MULTICLASS, torch.zeros(1))


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("f1_macro", MULTICLASS),
        ("balanced_accuracy", MULTICLASS),
        ("neg_log_loss", MULTICLASS),
        ("roc_auc_ovr", MULTICLASS),
        ("roc_auc", BINARY),
        ("average_precision", BINARY),
        ("neg_brier_score", BINARY),
        ("f1", BINARY),
        ("neg_mean_absolute_error", REGRESSION),
        ("explained_variance", REGRESSION),
    ],
)
def test_scorers_of_scikit_learn_are_fed_with_outputs(name, task):
    logits, y = sample(task)
    payoff = resolve_payoff(name, task, y)
    assert payoff.per_sample is None
    value = payoff.metric(logits.double().numpy(), y.numpy())
    two = torch.cat([torch.zeros_like(logits), logits], 1)
    positive = two.double().softmax(1)[:, 1].numpy()
    classes = logits.double().softmax(1).numpy()
    wanted = {
        "f1_macro": lambda: metrics.f1_score(y, logits.argmax(1), average="macro"),
        "balanced_accuracy": lambda: metrics.balanced_accuracy_score(
            y, logits.argmax(1)
        ),
        "neg_log_loss": lambda: -metrics.log_loss(y, classes),
        "roc_auc_ovr": lambda: metrics.roc_auc_score(y, classes, multi_class="ovr"),
        "roc_auc": lambda: metrics.roc_auc_score(y, positive),
        "average_precision": lambda: metrics.average_precision_score(y, positive),
        "neg_brier_score": lambda: -metrics.brier_score_loss(y, positive),
        "f1": lambda: metrics.f1_score(y, logits[:, 0] > 0),
        "neg_mean_absolute_error": lambda: -metrics.mean_absolute_error(y, logits),
        "explained_variance": lambda: metrics.explained_variance_score(y, logits),
    }[name]()
    assert value == pytest.approx(wanted, rel=1e-6)


def test_metrics_get_classes_or_values():
    logits, y = sample(MULTICLASS)
    payoff = resolve_payoff(metrics.matthews_corrcoef, MULTICLASS, y)
    assert payoff.name == "matthews_corrcoef"
    assert payoff.metric(logits.numpy(), y.numpy()) == pytest.approx(
        metrics.matthews_corrcoef(y, logits.argmax(1))
    )
    outputs, y = sample(REGRESSION, n_outputs=1)
    shapes = []
    payoff = resolve_payoff(
        lambda *args: shapes.extend(a.shape for a in args) or 0.0, REGRESSION, y
    )
    payoff.metric(outputs.numpy(), y.numpy())
    assert shapes == [(50,), (50,)]


@pytest.mark.parametrize(
    ("net_class", "criterion", "kind"),
    [
        (NeuralNetClassifier, nn.CrossEntropyLoss, "multiclass"),
        (NeuralNetClassifier, nn.NLLLoss, "multiclass"),
        (NeuralNet, nn.CrossEntropyLoss, "multiclass"),
        (NeuralNetBinaryClassifier, nn.BCEWithLogitsLoss, "binary"),
        (NeuralNetClassifier, nn.BCELoss, "binary"),
        (NeuralNetBinaryClassifier, nn.SoftMarginLoss, "binary"),
        (NeuralNetClassifier, nn.MultiMarginLoss, "multiclass"),
        (NeuralNetRegressor, nn.MSELoss, "regression"),
        (NeuralNetRegressor, nn.HuberLoss, "regression"),
    ],
)
def test_the_criterion_says_what_outputs_mean(net_class, criterion, kind):
    net = net_class(nn.Linear(2, 1), criterion=criterion).initialize()
    assert task_of(net).kind == kind


def test_logits_undo_what_the_criterion_expects():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    task = Task("multiclass", nn.NLLLoss())
    torch.testing.assert_close(
        task.logits(logits.softmax(1)).softmax(1), logits.softmax(1)
    )
    torch.testing.assert_close(
        task.logits(logits.log_softmax(1)), logits.log_softmax(1)
    )
    task = Task("binary", nn.BCELoss())
    torch.testing.assert_close(task.logits(logits.sigmoid()), logits)
    assert torch.isfinite(task.logits(torch.tensor([[0.0], [1.0]]))).all()
    torch.testing.assert_close(MULTICLASS.logits(logits), logits)


def test_the_loss_is_the_criterion_of_the_logits():
    logits, y = sample(MULTICLASS)
    weight = torch.tensor([1.0, 2.0, 0.5, 1.0])
    criterion = nn.CrossEntropyLoss(weight=weight)
    assert Task("multiclass", criterion).loss(logits, y) == criterion(logits, y)
    logits, y = sample(BINARY)
    criterion = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0))
    torch.testing.assert_close(
        Task("binary", criterion).loss(logits, y), criterion(logits[:, 0], y.float())
    )
    outputs, y = sample(REGRESSION)
    assert REGRESSION.loss(outputs, y) == functional.mse_loss(outputs, y)


def test_targets_become_indices_or_columns():
    assert MULTICLASS.targets([2, 0], "cpu").dtype == torch.int64
    assert REGRESSION.targets(np.arange(3.0), "cpu").shape == (3, 1)
    assert REGRESSION.targets(np.ones((3, 2)), "cpu").dtype == torch.float32
    assert (MULTICLASS.default_payoff, REGRESSION.default_payoff) == ("accuracy", "r2")
    assert BINARY.smooth_payoff == "smoothed_accuracy"
    assert REGRESSION.smooth_payoff == "r2"
