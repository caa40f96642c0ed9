"""Closed-form repair: what it must keep, what it must win back."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from skprune.evaluation import Repairer, Samples, sample_logits
from skprune.networks import masked, remove_players


def prepared(zoo, module=None, kind="multiclass", players="neurons", **parameters):
    problem = zoo.make_net(
        zoo.mlp() if module is None else module,
        kind,
        **{"n_samples": 300, **parameters},
    )
    problem.module.eval()
    own = zoo.prepare(problem, players)
    own.problem = problem
    return own


def repairer_of(own, **parameters):
    return Repairer(own.split, own.samples, own.task, **parameters)


def outputs_of(own, split):
    return sample_logits(split, own.samples, own.task)


def loss_of(own, split):
    return float(own.task.loss(outputs_of(own, split), own.samples.targets))


def drop(own, *gone):
    return ~np.isin(np.arange(own.players.n_players), gone)


def pre_activations(own, split, name, keep):
    """What a layer gives, for the units that stay."""
    seen = []
    layer = split.layer_in(split.rest, name)
    handle = layer.register_forward_hook(
        lambda *args: seen.append(args[2].detach().clone())
    )
    outputs_of(own, split)
    handle.remove()
    units = own.split.players.producers.get(name)
    gave = torch.cat(seen)
    if units is None or gave.shape[1] < len(units):
        return gave
    return gave[:, torch.as_tensor((units < 0) | keep[units])]


MODULES = {
    "mlp": (lambda zoo: zoo.mlp(), "neurons", (6,)),
    "mlp without biases": (lambda zoo: zoo.mlp(bias=False), "neurons", (6,)),
    "tanh": (lambda zoo: zoo.mlp(activation=nn.Tanh), "neurons", (6,)),
    "inplace relu": (
        lambda zoo: zoo.mlp(activation=lambda: nn.ReLU(inplace=True)), "neurons", (6,)
    ),
    "softmax": (lambda zoo: zoo.mlp(last=[nn.LogSoftmax(1)]), "neurons", (6,)),
    "residual": (lambda zoo: zoo.ResidualMLP(), "neurons", (6,)),
    "concatenation": (lambda zoo: zoo.Concatenated(), "neurons", (6,)),
    "layer norm": (lambda zoo: zoo.norm_net(), "neurons", (6,)),
    "untraceable": (lambda zoo: zoo.DataDependent(), "neurons", (6,)),
    "convolutions": (lambda zoo: zoo.conv_net(), "filters", (2, 6, 6)),
}  # fmt: skip


@pytest.fixture(params=MODULES)
def own(request, zoo):
    build, players, shape = MODULES[request.param]
    return prepared(zoo, build(zoo), players=players, shape=shape)


def some_of(own):
    rng = np.random.default_rng(0)
    keep = np.ones(own.players.n_players, bool)
    for group in range(len(own.players.groups)):
        members = rng.permutation(np.flatnonzero(own.players.group_of == group))
        keep[members[: len(members) // 2]] = False
    return keep


def test_none_is_the_masked_network(own):
    keep = some_of(own)
    pruned = repairer_of(own).repaired(keep, "none")
    X = torch.from_numpy(own.problem.X)
    with torch.no_grad(), masked(own.problem.module, own.players, keep):
        wanted = own.problem.module(X)
    with torch.no_grad():
        given = pruned.run(pruned.features(X))
    if own.split.logits:
        given = given.log_softmax(1)
    torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-5)


def test_with_everybody_there_is_nothing_to_repair(own):
    # Without iterations the output layer is regressed on what it was, as the others.
    repairer = repairer_of(own, ridge=1e-9, max_iter=0)
    everybody = np.ones(own.players.n_players, bool)
    dense = outputs_of(own, own.split)
    torch.testing.assert_close(
        outputs_of(own, repairer.repaired(everybody, "layers")),
        dense,
        rtol=1e-2,
        atol=1e-2 * float(dense.abs().max()),
    )


def test_layers_come_nearer_to_what_they_were(own):
    keep = some_of(own)
    repairer = repairer_of(own, n_rectified=0, ridge=1e-6, max_iter=0)
    masked_split, repaired = (repairer.repaired(keep, m) for m in ("none", "layers"))
    for name in own.split.players.consumers:
        dense = pre_activations(own, own.split, name, keep)
        errors = [
            float((pre_activations(own, split, name, keep) - dense).square().sum())
            for split in (repaired, masked_split)
        ]
        assert errors[0] < errors[1]


@pytest.mark.parametrize("method", ["output", "layers"])
def test_an_output_refit_lowers_the_training_loss(own, method):
    keep, repairer = some_of(own), repairer_of(own)
    repaired, plain = (repairer.repaired(keep, m) for m in (method, "none"))
    assert torch.isfinite(outputs_of(own, repaired)).all()
    assert loss_of(own, repaired) < loss_of(own, plain)


def test_the_given_module_is_unchanged(own):
    before = copy.deepcopy(own.problem.module.state_dict())
    features = copy.deepcopy(own.samples.features)
    own.problem.module.train()
    repairer = repairer_of(own)
    for method in ("none", "output", "layers"):
        repairer.repaired(some_of(own), method)
    for key, value in own.problem.module.state_dict().items():
        assert torch.equal(before[key], value), key
    for part in own.problem.module.modules():
        assert part.training
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
    for old, new in zip(
        features if isinstance(features, list) else [features],
        own.samples.features if isinstance(features, list) else [own.samples.features],
        strict=True,
    ):
        assert torch.equal(old, new)


def test_repaired_weights_make_a_whole_module(own):
    keep = some_of(own)
    repaired = repairer_of(own).repaired(keep, "layers")
    module = remove_players(own.problem.module, own.players, ~keep).eval()
    repaired.copy_weights(repaired.rest, module, own.players, keep)
    X = torch.from_numpy(own.problem.X)
    with torch.no_grad():
        given, wanted = module(X), repaired.run(repaired.features(X))
    if own.split.logits:
        wanted = wanted.log_softmax(1)
    torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rounds", [0, 10])
def test_one_of_two_equal_neurons_is_not_missed(zoo, rounds):
    own = prepared(zoo)
    module = own.problem.module
    with torch.no_grad():
        module[0].weight[4], module[0].bias[4] = module[0].weight[1], module[0].bias[1]
        module[2].weight[3], module[2].bias[3] = module[2].weight[0], module[2].bias[0]
    own = zoo.prepare(own.problem)
    keep = drop(own, 4, 9 + 3)
    repairer = repairer_of(own, ridge=1e-7, n_rectified=rounds, max_iter=0)
    dense = outputs_of(own, own.split)
    torch.testing.assert_close(
        outputs_of(own, repairer.repaired(keep)), dense, rtol=1e-2, atol=2e-2
    )
    assert (outputs_of(own, repairer.repaired(keep, "none")) - dense).abs().max() > 0.5


def test_behind_a_relu_only_the_positive_part_matters(zoo):
    own = prepared(zoo, zoo.mlp([6, 12, 8, 3]), n_samples=500)
    keep = drop(own, 0, 2, 4, 6, 8)
    dense = pre_activations(own, own.split, "2", keep).relu()
    errors = []
    for rounds in (0, 1, 10, 30):
        repairer = repairer_of(own, n_rectified=rounds, ridge=1e-6)
        repaired = repairer.repaired(keep, "layers")
        gave = pre_activations(own, repaired, "2", keep).relu()
        errors.append(float((gave - dense).square().mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.99 * errors[0]


def test_rounds_do_nothing_without_a_relu(zoo):
    own = prepared(zoo, zoo.mlp(activation=nn.Tanh))
    once, often = (
        outputs_of(own, repairer_of(own, n_rectified=n).repaired(some_of(own)))
        for n in (0, 10)
    )
    torch.testing.assert_close(once, often, rtol=0, atol=0)


def test_a_relu_that_works_in_place_changes_no_target(zoo):
    answers = []
    for inplace in (False, True):
        own = prepared(zoo, zoo.mlp(activation=lambda i=inplace: nn.ReLU(inplace=i)))
        answers.append(outputs_of(own, repairer_of(own).repaired(some_of(own))))
    torch.testing.assert_close(*answers)


def test_sums_in_place_change_no_sample(zoo):
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.up = nn.Linear(6, 8), nn.Linear(8, 7)
            self.down, self.out = nn.Linear(7, 8), nn.Linear(8, 3)

        def forward(self, x):
            h = functional.relu(self.stem(x))
            h.add_(self.down(functional.relu(self.up(h))))
            return self.out(h)

    own = prepared(zoo, InPlace(), players=[("neurons", "up")])
    first = outputs_of(own, own.split)
    torch.testing.assert_close(outputs_of(own, own.split), first)


@pytest.mark.parametrize("kind", ["binary", "regression"])
@pytest.mark.parametrize("bias", [True, False])
def test_other_tasks_are_repaired_too(zoo, kind, bias):
    n_outputs = {"binary": 1, "regression": 2}[kind]
    own = prepared(zoo, zoo.mlp([6, 10, 8, n_outputs], bias=bias), kind)
    keep, repairer = some_of(own), repairer_of(own)
    losses = [loss_of(own, repairer.repaired(keep, m)) for m in ("none", "output")]
    assert losses[1] < losses[0]
    assert loss_of(own, repairer.repaired(keep, "layers")) < losses[0]


def test_a_regression_without_bias_finds_the_least_squares_fit(zoo):
    own = prepared(zoo, zoo.mlp([6, 10, 2], bias=False), "regression", n_samples=500)
    X = own.problem.X
    own.problem.y = 3 + X[:, :2] + 0.1 * np.random.default_rng(0).normal(size=(500, 2))
    own.samples = zoo.prepare(own.problem).samples
    keep = drop(own, 0, 3, 7)
    repaired = repairer_of(own, max_iter=100).repaired(keep, "output")
    H = own.problem.module[:2](torch.from_numpy(X)).detach().numpy()[:, keep]
    residual = own.problem.y - H @ np.linalg.lstsq(H, own.problem.y)[0]
    assert loss_of(own, repaired) == pytest.approx((residual**2).mean(), rel=1e-3)


@pytest.mark.parametrize("constant", [0.0, 0.1, 3.3])
@pytest.mark.parametrize("bias", [True, False])
def test_dead_layers_stay_finite(zoo, constant, bias):
    own = prepared(zoo, zoo.mlp([6, 9, 7, 3], bias=bias), n_samples=1000)
    with torch.no_grad():
        own.problem.module[0].weight.zero_()
        if bias:
            own.problem.module[0].bias.fill_(constant)
    own = zoo.prepare(own.problem)
    keep, repairer = some_of(own), repairer_of(own)
    for method in ("none", "output", "layers"):
        repaired = repairer.repaired(keep, method)
        outputs = outputs_of(own, repaired)
        assert torch.isfinite(outputs).all()
        assert float(outputs.abs().max()) < 1e3


def test_one_dead_neuron_stays_finite(zoo):
    own = prepared(zoo)
    with torch.no_grad():
        own.problem.module[0].weight[2] = 0
        own.problem.module[0].bias[2] = -1
        own.problem.module[2].weight[1] = 0
        own.problem.module[2].bias[1] = 0.7
    own = zoo.prepare(own.problem)
    repaired = repairer_of(own).repaired(some_of(own) | ~drop(own, 2, 10))
    assert torch.isfinite(outputs_of(own, repaired)).all()


def test_large_means_are_repaired_behind_a_relu(zoo):
    own = prepared(zoo, zoo.mlp([6, 12, 8, 3]), n_samples=2000)
    with torch.no_grad():
        own.problem.module[0].bias.add_(3000.0)
        shift = own.problem.module[2].weight.sum(1) * 3000.0
        own.problem.module[2].bias.sub_(shift)
    own = zoo.prepare(own.problem)
    # Four of the twelve cannot say all that six inputs do.
    keep = drop(own, *range(8))
    dense = pre_activations(own, own.split, "2", keep).relu()
    errors = []
    for rounds in (0, 10):
        repairer = repairer_of(own, n_rectified=rounds, ridge=1e-4)
        gave = pre_activations(own, repairer.repaired(keep), "2", keep).relu()
        errors.append(float((gave - dense).square().mean()))
    assert errors[1] < 0.99 * errors[0]


def test_a_small_memory_budget_uses_fewer_samples(zoo):
    own = prepared(zoo, n_samples=1000)
    few, all_of_them = repairer_of(own, memory_budget=1), repairer_of(own)
    assert len(few.samples) == 256
    assert len(all_of_them.samples) == 1000
    assert torch.isfinite(outputs_of(own, few.repaired(some_of(own)))).all()


def test_a_method_that_is_none_is_refused(zoo):
    own = prepared(zoo)
    with pytest.raises(
        ValueError, match="method='all'; use 'none', 'output' or 'layers'"
    ):
        repairer_of(own).repaired(some_of(own), "all")


def test_samples_are_drawn_without_replacement_and_in_order():
    samples = Samples([torch.arange(100.0)], torch.arange(100))
    part = samples.subset(30)
    assert len(part) == 30
    assert part.targets.unique().numel() == 30
    assert torch.equal(part.features[0], part.targets.float())
    assert torch.equal(part.targets, part.targets.sort().values)
    assert samples.subset(100) is samples


def test_opened_layers_cut_hardly_anything_off(zoo):
    own = prepared(zoo)
    keep = drop(own, *range(0, own.players.n_players, 3))
    repairer = repairer_of(own)
    assert repairer.opens
    closed = repairer.repaired(keep, "layers")
    opened = repairer.repaired(keep, "layers", opened=True)
    name = next(iter(repairer._rectified & set(repairer._trace.names)))
    shares = [
        float((pre_activations(own, split, name, keep) < 0).float().mean())
        for split in (closed, opened)
    ]
    assert shares[1] <= 0.03 < shares[0]


def test_an_opened_layer_is_the_dense_one_but_for_its_biases(zoo):
    own = prepared(zoo)
    everybody = drop(own)
    repairer = repairer_of(own, ridge=0.0)
    opened = repairer.repaired(everybody, "layers", opened=True)
    for name in repairer._rectified & set(repairer._trace.names):
        dense = pre_activations(own, own.split, name, everybody)
        shift = pre_activations(own, opened, name, everybody) - dense
        # One constant for each unit, and none below 0.
        assert shift.std(0).max() < 1e-3
        assert shift.min() > -1e-3


def test_without_a_relu_there_is_nothing_to_open(zoo):
    own = prepared(zoo, zoo.mlp(activation=nn.Tanh))
    repairer = repairer_of(own)
    assert not repairer.opens
    keep = drop(own, 0, 1)
    plain = outputs_of(own, repairer.repaired(keep, "layers"))
    opened = outputs_of(own, repairer.repaired(keep, "layers", opened=True))
    assert torch.equal(plain, opened)


def output_weights(split):
    return split.layer_in(split.rest, "4").weight.detach().clone()


def test_the_pull_of_the_output_layer_is_the_one_that_is_judged_best(zoo):
    own = prepared(zoo)
    keep, repairer = some_of(own), repairer_of(own)
    losses = []

    def judge(split, sign=1):
        losses.append(loss_of(own, split))
        return sign * losses[-1]

    # On the training samples themselves a harder pull is worse.
    hard = repairer.repaired(keep, judge=judge)
    assert losses == sorted(set(losses))
    assert len(losses) == 4
    assert loss_of(own, hard) == losses[-1]
    weak = repairer.repaired(keep, judge=lambda split: judge(split, -1))
    assert loss_of(own, weak) == losses[0]
    # Without a judge nothing is compared, and the weakest pull is taken.
    alone = output_weights(repairer.repaired(keep))
    torch.testing.assert_close(output_weights(weak), alone, rtol=0, atol=0)


def test_of_equals_the_weakest_pull_is_taken_and_nan_is_not(zoo):
    own = prepared(zoo)
    keep, repairer = some_of(own), repairer_of(own)

    def chosen(*worths):
        seen = []

        def judge(split):
            seen.append(output_weights(split))
            return worths[len(seen) - 1]

        best = repairer.repaired(keep, judge=judge)
        assert torch.isfinite(outputs_of(own, best)).all()
        return [bool((output_weights(best) == weights).all()) for weights in seen]

    nan = float("nan")
    assert chosen(0.5, 0.5, 0.2, 0.5) == [True, False, False, False]
    assert chosen(nan, 0.1, nan, nan) == [False, True, False, False]
    # The regression that all start from.
    assert chosen(nan, nan, nan, nan) == [False] * 4


def test_a_hard_pull_learns_less_of_targets_that_tell_nothing(zoo):
    own = prepared(zoo, n_samples=120)
    own.problem.y = np.random.default_rng(0).permutation(own.problem.y)
    own.samples = zoo.prepare(own.problem).samples
    keep = some_of(own)
    start = output_weights(repairer_of(own, max_iter=0).repaired(keep))
    moved = []

    def judge(split):
        moved.append(float((output_weights(split) - start).norm()))
        return 0.0

    repairer_of(own).repaired(keep, judge=judge)
    assert moved == sorted(moved, reverse=True)
    assert moved[3] < 0.2 * moved[0]
