"""Nets that shrink while they train: state carried over, twins, adoption."""

import copy

import numpy as np
import pytest
import torch
from scipy import sparse
from skorch import NeuralNetClassifier
from skorch.callbacks import LRScheduler
from torch import nn

from skprune.evaluation import (
    SparseRows,
    TensorBatches,
    adopt_training,
    shrink,
    store_by_column,
    transplant,
    twin_of,
)
from skprune.networks import column_means, find_players, masked

OPTIMIZERS = {
    "adam": {"optimizer": torch.optim.Adam},
    "amsgrad": {"optimizer": torch.optim.Adam, "optimizer__amsgrad": True},
    "adamw fused": {"optimizer": torch.optim.AdamW, "optimizer__fused": True},
    "sgd": {"optimizer": torch.optim.SGD},
    "momentum": {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9},
    "groups": {
        "optimizer": torch.optim.AdamW,
        "optimizer__param_groups": [("hidden.*", {"lr": 0.003, "weight_decay": 0.3})],
    },
}
# Neurons 1 and 4 of the first layer, and 0 of the second.
DROP = np.isin(np.arange(14), [1, 4, 8])
ROWS, COLUMNS = [0, 2, 3, 5, 6, 7], [1, 2, 3, 4, 5]


class MLP(nn.Module):
    def __init__(self, first=8, second=6):
        super().__init__()
        self.hidden1 = nn.Linear(5, first)
        self.hidden2 = nn.Linear(first, second)
        self.out = nn.Linear(second, 3)

    def forward(self, x):
        x = torch.relu(self.hidden1(x))
        return self.out(torch.relu(self.hidden2(x)))


class Tempered(nn.Module):
    """A criterion with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(()))

    def forward(self, outputs, targets):
        return nn.functional.cross_entropy(outputs * self.temperature, targets)


def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(96, 5)).astype(np.float32)
    return X, X[:, :3].argmax(1)


def trained(module=MLP, steps=12, **params):
    """A net some steps into its training."""
    torch.manual_seed(0)
    defaults = {"criterion": nn.CrossEntropyLoss, "optimizer": torch.optim.Adam}
    net = NeuralNetClassifier(
        module, **defaults | params, lr=0.01, train_split=None, verbose=0
    ).initialize()
    train(net, steps)
    return net


def batch_at(step):
    X, y = data()
    rows = np.random.default_rng(step).integers(len(y), size=16)
    return torch.from_numpy(X[rows]), torch.from_numpy(y[rows])


def train(net, steps, first=0):
    batches = [batch_at(first + step) for step in range(steps)]
    return [float(net.train_step(batch)["loss"].detach()) for batch in batches]


def players_of(net):
    return find_players(net.module_, torch.zeros(2, 5))


def state_of(net, name):
    return net.optimizer_.state[dict(net.module_.named_parameters())[name]]


def own_parameters(net):
    return {id(p) for p in net.module_.parameters()}


def parameters_in(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def cut(name, tensor):
    """The rows and columns that stay, by hand."""
    layer, kind = name.split(".")
    if layer == "hidden1":
        return tensor[ROWS]
    if layer == "hidden2":
        tensor = tensor[COLUMNS]
        return tensor[:, ROWS] if kind == "weight" else tensor
    return tensor[:, COLUMNS] if kind == "weight" else tensor


@pytest.fixture(params=OPTIMIZERS)
def net(request):
    return trained(**OPTIMIZERS[request.param])


def test_the_optimizer_stays_and_its_state_is_cut(net):
    optimizer, players = net.optimizer_, players_of(net)
    before = {
        name: copy.deepcopy(dict(optimizer.state.get(p, {})))
        for name, p in net.module_.named_parameters()
    }
    groups = [
        {k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups
    ]
    names = {id(p): n for n, p in net.module_.named_parameters()}
    members = [[names[id(p)] for p in g["params"]] for g in optimizer.param_groups]
    left = shrink(net, players, DROP)
    assert net.optimizer_ is optimizer
    assert left.n_players == 11
    assert [net.module_.hidden1.out_features, net.module_.hidden2.out_features] == [
        6,
        5,
    ]
    names = {id(p): n for n, p in net.module_.named_parameters()}
    for group, others, own in zip(optimizer.param_groups, groups, members, strict=True):
        assert {k: v for k, v in group.items() if k != "params"} == others
        assert [names[id(p)] for p in group["params"]] == own
    assert len(optimizer.state) == sum(bool(state) for state in before.values())
    for name, parameter in net.module_.named_parameters():
        state = dict(optimizer.state.get(parameter, {}))
        assert state.keys() == before[name].keys()
        for key, value in state.items():
            old = before[name][key]
            if isinstance(old, torch.Tensor) and old.ndim:
                old = cut(name, old)
                assert value.shape == parameter.shape
            assert old is value is None or torch.equal(value, old)


def test_training_goes_on_as_if_the_net_had_always_been_small(net):
    """Beside a net that is built at the small size, with the state cut by hand."""
    small = NeuralNetClassifier(
        MLP(6, 5),
        **{k: v for k, v in net.get_params(deep=False).items() if k != "module"}
        | {k: v for k, v in net.get_params().items() if k.startswith("optimizer__")},
    ).initialize()
    state = net.optimizer_.state_dict()
    names = [
        name
        for p in parameters_in(net.optimizer_)
        for name, q in net.module_.named_parameters()
        if p is q
    ]
    small.module_.load_state_dict(
        {name: cut(name, value) for name, value in net.module_.state_dict().items()}
    )
    state["state"] = {
        i: {
            key: cut(names[i], value).clone()
            if isinstance(value, torch.Tensor) and value.ndim
            else copy.deepcopy(value)
            for key, value in own.items()
        }
        for i, own in state["state"].items()
    }
    small.optimizer_.load_state_dict(state)
    shrink(net, players_of(net), DROP)
    assert train(net, 10, first=50) == train(small, 10, first=50)
    for (name, one), other in zip(
        net.module_.named_parameters(), small.module_.parameters(), strict=True
    ):
        assert torch.equal(one, other), name
    assert len({id(p) for p in parameters_in(net.optimizer_)}) == 6


def test_shrinking_twice_is_shrinking_once(net):
    other = twin_of(net)
    players = players_of(net)
    first = np.isin(np.arange(14), [1])
    left = shrink(net, players, first)
    shrink(net, left, DROP[~first])
    shrink(other, players, DROP)
    assert train(net, 5) == train(other, 5)


def test_a_criterion_keeps_its_parameters():
    net = trained(criterion=Tempered)
    parameter = net.criterion_.temperature
    moment = net.optimizer_.state[parameter]["exp_avg"].clone()
    shrink(net, players_of(net), DROP)
    assert net.criterion_.temperature is parameter
    assert any(p is parameter for p in parameters_in(net.optimizer_))
    assert torch.equal(net.optimizer_.state[parameter]["exp_avg"], moment)
    before = parameter.detach().clone()
    train(net, 3)
    assert not torch.equal(parameter, before)


@pytest.mark.parametrize("fused", [True, False])
def test_weights_that_lie_column_by_column_go_on_doing_so(fused):
    torch.manual_seed(0)
    module = MLP()
    store_by_column(module.hidden1)
    weights = copy.deepcopy(module.state_dict())
    params = {"optimizer": torch.optim.AdamW, "optimizer__fused": fused}
    by_column = trained(module, **params)
    by_row = trained(MLP, steps=0, **params)
    by_row.module_.load_state_dict(weights)
    train(by_row, 12)
    for net in (by_column, by_row):
        shrink(net, players_of(net), DROP)
    weight = by_column.module_.hidden1.weight
    assert weight.stride() == (1, 6)
    for key in ("exp_avg", "exp_avg_sq"):
        assert state_of(by_column, "hidden1.weight")[key].stride() == weight.stride()
    np.testing.assert_allclose(train(by_column, 8), train(by_row, 8), rtol=1e-4)
    torch.testing.assert_close(weight, by_row.module_.hidden1.weight)


def test_sparse_rows_train_on_in_the_smaller_net():
    net = trained(MLP)
    store_by_column(net.module_.hidden1)
    net.initialize_optimizer()
    train(net, 3)
    twin = twin_of(net)
    players = players_of(net)
    shrink(net, players, DROP)
    shrink(twin, players, DROP)
    X, y = batch_at(7)
    rows = SparseRows.from_scipy(sparse.csr_array(X.numpy()))
    dense = float(net.train_step((X, y))["loss"].detach())
    found = float(twin.train_step((rows, y))["loss"].detach())
    assert found == pytest.approx(dense, rel=1e-5)


def test_a_refused_removal_leaves_the_net_as_it_was(net):
    module, players = net.module_, players_of(net)
    before = copy.deepcopy(net.optimizer_.state_dict())
    with pytest.raises(ValueError, match="empty"):
        shrink(net, players, np.arange(14) < 8)
    assert net.module_ is module
    assert {id(p) for p in parameters_in(net.optimizer_)} == own_parameters(net)
    after = net.optimizer_.state_dict()
    assert before["param_groups"] == after["param_groups"]
    assert train(net, 1)[0] > 0


@pytest.mark.parametrize("seed", range(3))
def test_removal_itself_changes_nothing(seed):
    """As the network whose leaving players are replaced by what is folded in."""
    net = trained(steps=30)
    rng = np.random.default_rng(seed)
    players = players_of(net)
    drop = rng.permutation(np.arange(14) % 2 == 0)
    X = torch.from_numpy(data()[0])
    fill = column_means(net.module_, players, X)
    with masked(net.module_, players, ~drop, fill=fill), torch.no_grad():
        expected = net.module_(X)
    dense = net.module_
    shrink(net, players, drop, fill)
    torch.testing.assert_close(net.module_(X), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(dense(X), expected, atol=1e-3)
    assert net.module_.hidden1.out_features < 8


def test_a_schedule_holds_on_to_the_optimizer():
    X, y = data()
    schedule = LRScheduler("StepLR", step_size=1, gamma=0.5)
    net = trained(callbacks=[schedule], steps=0)
    net.partial_fit(X, y, epochs=2)
    shrink(net, players_of(net), DROP)
    net.partial_fit(X, y, epochs=1)
    assert net.optimizer_.param_groups[0]["lr"] < 0.01


def test_a_twin_goes_its_own_way(net):
    twin = twin_of(net)
    assert type(twin) is type(net)
    assert twin.get_params(deep=False).keys() == net.get_params(deep=False).keys()
    assert twin.callbacks_ == []
    assert {id(p) for p in parameters_in(twin.optimizer_)} == own_parameters(twin)
    assert not own_parameters(twin) & own_parameters(net)
    weights = [p.detach().clone() for p in net.module_.parameters()]
    state = copy.deepcopy(net.optimizer_.state_dict()["state"])
    losses = train(twin, 6)
    for old, new in zip(weights, net.module_.parameters(), strict=True):
        assert torch.equal(old, new)
    after = net.optimizer_.state_dict()["state"]
    for number, own in state.items():
        for key, value in own.items():
            assert str(after[number][key]) == str(value)
    assert train(net, 6) == losses


def test_a_twin_has_its_own_learning_rate(net):
    twin = twin_of(net)
    for group in twin.optimizer_.param_groups:
        group["lr"] = 5.0
    assert all(group["lr"] < 1 for group in net.optimizer_.param_groups)


def test_adoption_goes_on_where_the_twin_is(net):
    optimizer = net.optimizer_
    twin = twin_of(net)
    train(twin, 5)
    shrink(twin, players_of(twin), DROP)
    train(net, 2, first=70)
    expected = twin_of(twin)
    adopt_training(net, twin)
    assert net.optimizer_ is optimizer
    assert {id(p) for p in parameters_in(optimizer)} == own_parameters(net)
    assert net.module_.hidden1.out_features == 6
    assert train(net, 8, first=20) == train(expected, 8, first=20)


def test_adoption_with_a_criterion_that_has_parameters():
    """The parameters that the loss reads are those that the optimizer moves."""
    net = trained(criterion=Tempered)
    twin = twin_of(net)
    train(twin, 5)
    adopt_training(net, twin)
    parameter = net.criterion_.temperature
    assert any(p is parameter for p in parameters_in(net.optimizer_))
    before = parameter.detach().clone()
    train(net, 3)
    assert not torch.equal(parameter, before)


def test_a_shrunk_net_transplants_and_predicts():
    net = trained(iterator_train=TensorBatches)
    shrink(net, players_of(net), DROP)
    new = transplant(net, net.module_)
    X, y = data()
    np.testing.assert_array_equal(new.predict(X), net.predict(X))
    new.partial_fit(X, y)
    assert new.module_.hidden2.out_features == 5
