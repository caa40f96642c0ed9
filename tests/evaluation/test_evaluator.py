"""A net as a game: backends agree with each other, with Game and with the net."""

import copy

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn import metrics
from sklearn.exceptions import NotFittedError
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor
from torch import nn
from torch.nn import functional

from skprune.evaluation import PAYOFFS, CoalitionEvaluator, check_net
from skprune.evaluation._lineup import dealt_rows
from skprune.games import Game
from skprune.networks import find_players, remove_players
from skprune.samplers import bernoulli_coalitions, uniform_orders

TIMES = {"rtol": 1e-5, "atol": 1e-6}


def coalitions_of(n_players, seed=0):
    drawn = bernoulli_coalitions(n_players, 6, np.random.default_rng(seed))
    return np.vstack([drawn, np.zeros_like(drawn[:1]), np.ones_like(drawn[:1])])


def orders_of(game, n_blocks=None, seed=0):
    rng = np.random.default_rng(seed)
    return uniform_orders(game.n_players, 3, rng, n_blocks=n_blocks)


def assert_plays_like(first, second, payoff):
    """Both give the same payoffs, walks and flips, with and without blocks."""
    exactly = {"rtol": 0, "atol": 1e-12} if payoff == "accuracy" else TIMES
    n, rng = first.n_players, np.random.default_rng(1)
    coalitions = coalitions_of(n)
    np.testing.assert_allclose(first(coalitions), second(coalitions), **exactly)
    for blocks in (None, 1, first.n_blocks):
        orders = uniform_orders(n, 2, rng, n_blocks=blocks)
        around = bernoulli_coalitions(n, 2, rng, n_blocks=blocks)
        np.testing.assert_allclose(first.walk(orders), second.walk(orders), **exactly)
        np.testing.assert_allclose(first.flip(around), second.flip(around), **exactly)


def assert_plays_like_a_game(game, tolerance=TIMES):
    """Walks and flips are those that follow from the payoffs alone."""
    orders, coalitions = orders_of(game), coalitions_of(game.n_players)
    plain = Plain(game)
    np.testing.assert_allclose(game.walk(orders), plain.walk(orders), **tolerance)
    np.testing.assert_allclose(
        game.flip(coalitions), plain.flip(coalitions), **tolerance
    )


class Plain(Game):
    """A game known by its payoffs alone."""

    def __init__(self, game):
        self.game, self.n_players = game, game.n_players

    def _payoffs(self, coalitions):
        return self.game(coalitions)


class Functional(nn.Module):
    """A chain of Linear layers with functions between them."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.a, self.b, self.out = nn.Linear(6, 9), nn.Linear(9, 7), nn.Linear(7, 3)

    def forward(self, x):
        return self.out(self.function(self.b(self.function(self.a(x)))))


ACTIVATIONS = {
    "relu": nn.ReLU,
    "inplace relu": lambda: nn.ReLU(inplace=True),
    "leaky relu": lambda: nn.LeakyReLU(0.2),
    "elu": lambda: nn.ELU(0.7),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
    "dropout": nn.Dropout,
}
FUNCTIONS = {
    "relu": functional.relu,
    "torch relu": torch.relu,
    "method": lambda x: x.relu(),
    "leaky relu": lambda x: functional.leaky_relu(x, 0.3),
    "leaky relu by name": lambda x: functional.leaky_relu(x, negative_slope=0.3),
    "elu": lambda x: functional.elu(x, 0.4),
    "elu by name": lambda x: functional.elu(x, alpha=0.4),
    "gelu": functional.gelu,
    "silu": functional.silu,
    "tanh": torch.tanh,
    "tanh method": lambda x: x.tanh(),
    "sigmoid": torch.sigmoid,
    "dropout": lambda x: functional.dropout(functional.relu(x), training=False),
}


def both_backends(problem, **parameters):
    return [
        CoalitionEvaluator(
            problem.net, problem.X, problem.y, backend=backend, **parameters
        )
        for backend in ("compiled", "batched")
    ]


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
@pytest.mark.parametrize("payoff", ["accuracy", "log_likelihood"])
def test_backends_agree_on_activation_modules(zoo, activation, payoff):
    problem = zoo.make_net(zoo.mlp(activation=activation))
    compiled, batched = both_backends(problem, payoff=payoff)
    assert (compiled.backend_, batched.backend_) == ("compiled", "batched")
    assert_plays_like(compiled, batched, payoff)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_backends_agree_on_activation_functions(zoo, function):
    problem = zoo.make_net(Functional(function))
    assert_plays_like(*both_backends(problem, payoff="margin"), "margin")


@pytest.mark.parametrize(
    "activation", [nn.Softplus, lambda: nn.GELU("tanh"), lambda: nn.PReLU(), nn.ReLU6]
)
def test_other_activations_are_played_batched(zoo, activation):
    problem = zoo.make_net(zoo.mlp(activation=activation))
    game = CoalitionEvaluator(problem.net, problem.X, problem.y)
    assert game.backend_ == "batched"
    assert_plays_like_a_game(game)


@pytest.mark.parametrize(
    "payoff", [name for name, (kinds, _) in PAYOFFS.items() if "multiclass" in kinds]
)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_backends_agree_on_random_shapes(zoo, payoff, bias, seed):
    rng = np.random.default_rng(seed)
    hidden = rng.integers(1, 20, size=rng.integers(1, 4)).tolist()
    problem = zoo.make_net(
        zoo.mlp([6, *hidden, int(rng.integers(3, 14))], bias=bias),
        n_samples=int(rng.integers(2, 70)),
        seed=seed,
    )
    assert_plays_like(*both_backends(problem, payoff=payoff), payoff)


@pytest.mark.parametrize("payoff", ["accuracy", "log_likelihood", "margin"])
@pytest.mark.parametrize("bias", [True, False])
def test_backends_agree_on_one_logit(zoo, payoff, bias):
    problem = zoo.make_net(zoo.mlp([6, 8, 5, 1], bias=bias), "binary")
    assert_plays_like(*both_backends(problem, payoff=payoff), payoff)


@pytest.mark.parametrize("payoff", ["r2", "neg_mean_squared_error"])
@pytest.mark.parametrize("n_outputs", [1, 2, 5])
def test_backends_agree_on_regressions(zoo, payoff, n_outputs):
    problem = zoo.make_net(zoo.mlp([6, 8, 5, n_outputs]), "regression")
    rng = np.random.default_rng(0)
    problem.y = rng.normal(size=(40, n_outputs)).astype(np.float32) * 3
    assert_plays_like(*both_backends(problem, payoff=payoff), payoff)
    game = CoalitionEvaluator(problem.net, problem.X, problem.y, payoff="r2")
    predicted = problem.net.predict(problem.X)
    assert game(np.ones((1, 13), bool))[0] == pytest.approx(
        metrics.r2_score(problem.y, predicted), rel=1e-5
    )


def test_regression_takes_a_flat_y(zoo):
    problem = zoo.make_net(zoo.mlp([6, 8, 1]), "regression")
    problem.y = problem.y[:, 0]
    for game in both_backends(problem, payoff="r2"):
        assert game(np.ones((1, 8), bool))[0] == pytest.approx(
            metrics.r2_score(problem.y, problem.net.predict(problem.X)[:, 0]), rel=1e-5
        )


def test_backends_agree_on_a_target_that_is_constant(zoo):
    problem = zoo.make_net(zoo.mlp([6, 8, 2]), "regression")
    problem.y[:, 1] = 0.1
    assert_plays_like(*both_backends(problem, payoff="r2"), "r2")


def test_backends_agree_in_double_precision(zoo):
    problem = zoo.make_net(zoo.mlp().double())
    assert_plays_like(*both_backends(problem, payoff="margin"), "margin")


HEADS = {
    "softmax and NLL": (nn.Softmax(dim=1), NeuralNetClassifier, nn.NLLLoss),
    "log-softmax and NLL": (nn.LogSoftmax(dim=-1), NeuralNet, nn.NLLLoss),
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("payoff", ["accuracy", "log_likelihood", "margin"])
def test_a_softmax_at_the_end_is_allowed_for(zoo, head, payoff):
    last, net_class, criterion = head
    bare = zoo.make_net(zoo.mlp())
    problem = zoo.make_net(
        zoo.mlp(last=[last]), net_class=net_class, criterion=criterion
    )
    wanted = CoalitionEvaluator(bare.net, bare.X, bare.y, payoff=payoff)
    for game in both_backends(problem, payoff=payoff):
        assert_plays_like(game, wanted, payoff)


@pytest.mark.parametrize("traced", [True, False])
def test_a_sigmoid_in_front_of_bce_is_allowed_for(zoo, traced):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = nn.Linear(6, 8), nn.Linear(8, 1)

        def forward(self, x):
            h = functional.relu(self.hidden(x))
            if not traced and h.sum() > 1e9:
                h = -h
            return torch.sigmoid(self.out(h))

    problem = zoo.make_net(Model(), "binary", criterion=nn.BCELoss)
    game = CoalitionEvaluator(
        problem.net, problem.X, problem.y, payoff="log_likelihood"
    )
    probability = problem.net.forward(problem.X).reshape(-1)
    loss = nn.BCELoss()(probability, torch.as_tensor(problem.y).float())
    assert game(np.ones((1, 8), bool))[0] == pytest.approx(-loss.item(), rel=1e-5)
    assert game.backend_ == ("compiled" if traced else "batched")
    assert_plays_like_a_game(game)


def test_a_sigmoid_at_the_end_of_a_regression_is_part_of_it(zoo):
    problem = zoo.make_net(zoo.mlp([6, 8, 2], last=[nn.Sigmoid()]), "regression")
    game = CoalitionEvaluator(problem.net, problem.X, problem.y, payoff="r2")
    assert game(np.ones((1, 8), bool))[0] == pytest.approx(
        metrics.r2_score(problem.y, problem.net.predict(problem.X)), rel=1e-5
    )


def test_a_softmax_called_by_keywords_is_found(zoo):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x):
            return functional.softmax(input=self.out(self.hidden(x).relu()), dim=1)

    problem = zoo.make_net(Model(), criterion=nn.NLLLoss)
    game = CoalitionEvaluator(problem.net, problem.X, problem.y)
    assert game(np.ones((1, 8), bool))[0] == problem.net.score(problem.X, problem.y)


@pytest.mark.parametrize("backend", ["compiled", "batched"])
@pytest.mark.parametrize("payoff", ["accuracy", "log_likelihood"])
@pytest.mark.parametrize("n_samples", [1, 15, 16, 17, 33])
def test_walks_and_flips_are_those_of_the_payoffs(zoo, backend, payoff, n_samples):
    problem = zoo.make_net(zoo.mlp(), n_samples=n_samples)
    game = CoalitionEvaluator(
        problem.net, problem.X, problem.y, payoff=payoff, backend=backend
    )
    assert game.n_blocks == -(-n_samples // 16)
    assert_plays_like_a_game(game)
    assert game.walks_natively
    assert game.flips_natively


@pytest.mark.parametrize("backend", ["compiled", "batched"])
def test_blocks_play_their_own_orders_and_average(zoo, backend):
    problem = zoo.make_net(zoo.mlp(), n_samples=40)
    X, y = problem.X, problem.y
    keywords = {"payoff": "margin", "backend": backend}
    game = CoalitionEvaluator(problem.net, X, y, **keywords)
    orders = orders_of(game, n_blocks=3)
    coalitions = bernoulli_coalitions(16, 3, np.random.default_rng(3), n_blocks=3)
    walked, flipped = np.zeros((2, 3, 16))
    dealt = dealt_rows(torch.as_tensor(y)).split(16)
    assert [len(rows) for rows in dealt] == [16, 16, 8]
    for block, rows in enumerate(dealt):
        part = CoalitionEvaluator(problem.net, X[rows], y[rows], **keywords)
        share = len(X[rows]) / 40
        walked += share * part.walk(orders[:, block])
        flipped += share * part.flip(coalitions[:, block])
    np.testing.assert_allclose(game.walk(orders), walked, **TIMES)
    np.testing.assert_allclose(game.flip(coalitions), flipped, **TIMES)


@pytest.mark.parametrize("backend", ["compiled", "batched"])
@pytest.mark.parametrize("payoff", ["accuracy", "margin", "f1_macro"])
def test_restricted_games_are_the_same_game(zoo, backend, payoff):
    problem = zoo.make_net(zoo.mlp(), n_samples=20)
    backend = "auto" if payoff == "f1_macro" else backend
    game = CoalitionEvaluator(
        problem.net, problem.X, problem.y, payoff=payoff, backend=backend
    )
    inside, outside = np.arange(16) % 5 == 0, np.arange(16) % 5 == 3
    small, plain = game.restrict(inside, outside), Game.restrict(game, inside, outside)
    coalitions = coalitions_of(small.n_players)
    np.testing.assert_array_equal(small.players, plain.players)
    np.testing.assert_array_equal(small(coalitions), plain(coalitions))
    assert_plays_like_a_game(small)
    nested = small.restrict(always_in=np.arange(small.n_players) == 1)
    np.testing.assert_array_equal(nested.players, np.delete(small.players, 1))
    assert_plays_like_a_game(nested)
    if payoff != "f1_macro":
        blocks = uniform_orders(
            small.n_players, 2, np.random.default_rng(0), n_blocks=2
        )
        wanted = plain.walk(blocks)
        np.testing.assert_allclose(small.walk(blocks), wanted, **TIMES)


NETS = {
    "convolutions": (lambda zoo: zoo.conv_net(), "filters", (2, 6, 6)),
    "filters and neurons": (
        lambda zoo: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5), nn.ReLU(),
            nn.Linear(5, 3),
        ),
        [("filters", "0"), ("neurons", "3")],
        (2, 6, 6),
    ),
    "residual": (lambda zoo: zoo.ResidualMLP(), "neurons", (6,)),
    "residual made in the front": (
        lambda zoo: zoo.ResidualMLP(), [("neurons", "stem")], (6,)
    ),
    "concatenation": (lambda zoo: zoo.Concatenated(), "neurons", (6,)),
    "layer norm": (lambda zoo: zoo.norm_net(), "neurons", (6,)),
    "untraceable": (lambda zoo: zoo.DataDependent(), "neurons", (6,)),
    "inputs": (lambda zoo: zoo.mlp(), "inputs", (6,)),
    "inputs and neurons": (
        lambda zoo: zoo.mlp(), [("inputs", "2"), ("neurons", "2")], (6,)
    ),
    "batch norm": (
        lambda zoo: nn.Sequential(
            nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 3)
        ),
        "neurons",
        (6,),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("payoff", ["accuracy", "log_likelihood"])
def test_payoffs_are_those_of_the_removed_network(zoo, name, payoff):
    build, players, shape = NETS[name]
    problem = zoo.make_net(build(zoo), shape=shape, n_samples=21)
    module, X = problem.module.eval(), torch.from_numpy(problem.X)
    game = CoalitionEvaluator(
        problem.net, problem.X, problem.y, players=players, payoff=payoff
    )
    found = find_players(module, X[:2], players)
    rng, tried = np.random.default_rng(0), 0
    while tried < 4:
        keep = rng.random(game.n_players) < 0.6
        try:
            removed = remove_players(module, found, ~keep).eval()
        except ValueError:
            continue
        tried += 1
        with torch.no_grad():
            logits = removed(X)
        y = torch.as_tensor(problem.y)
        wanted = {
            "accuracy": (logits.argmax(1) == y).double().mean(),
            "log_likelihood": -functional.cross_entropy(logits, y),
        }[payoff]
        assert game(keep[None])[0] == pytest.approx(float(wanted), rel=1e-4, abs=1e-6)
    assert_plays_like_a_game(game, {"rtol": 1e-4, "atol": 1e-6})


@pytest.mark.parametrize("name", NETS)
def test_the_net_stays_as_it_was(zoo, name):
    build, players, shape = NETS[name]
    problem = zoo.make_net(build(zoo), shape=shape, n_samples=18)
    module = problem.module.train()
    before = copy.deepcopy(module.state_dict())
    game = CoalitionEvaluator(problem.net, problem.X, problem.y, players=players)
    game(coalitions_of(game.n_players))
    game.walk(orders_of(game))
    game.flip(coalitions_of(game.n_players))
    game.predict(coalitions_of(game.n_players))
    for part in module.modules():
        assert part.training
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
    after = module.state_dict()
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert torch.equal(value, after[key]), key


@pytest.mark.parametrize("name", ["convolutions", "untraceable", "layer norm"])
def test_a_tiny_memory_budget_changes_nothing(zoo, name):
    build, players, shape = NETS[name]
    problem = zoo.make_net(build(zoo), shape=shape, n_samples=40)
    keywords = {"players": players, "payoff": "margin", "backend": "batched"}
    roomy = CoalitionEvaluator(problem.net, problem.X, problem.y, **keywords)
    tight = CoalitionEvaluator(
        problem.net, problem.X, problem.y, memory_budget=1, **keywords
    )
    assert_plays_like(tight, roomy, "margin")
    coalitions = coalitions_of(roomy.n_players)
    np.testing.assert_array_equal(tight.predict(coalitions), roomy.predict(coalitions))


def test_threads_change_no_bit(zoo):
    problem = zoo.make_net(zoo.mlp(), n_samples=50)
    one, two = (
        CoalitionEvaluator(
            problem.net, problem.X, problem.y, payoff="margin", n_jobs=jobs
        )
        for jobs in (None, 2)
    )
    np.testing.assert_array_equal(one(coalitions_of(16)), two(coalitions_of(16)))
    np.testing.assert_array_equal(one.walk(orders_of(one)), two.walk(orders_of(two)))


@pytest.mark.parametrize(
    ("kind", "payoff", "metric"),
    [
        ("multiclass", "f1_macro", None),
        ("multiclass", "neg_log_loss", None),
        ("binary", "roc_auc", None),
        ("binary", "f1", None),
        ("regression", "r2", None),
        ("regression", "neg_mean_absolute_error", None),
        ("multiclass", metrics.cohen_kappa_score, None),
        ("regression", metrics.r2_score, None),
    ],
)
def test_metrics_are_scikit_learn_s_of_the_net_s_own_predictions(
    zoo, kind, payoff, metric
):
    n_outputs = {"multiclass": 3, "binary": 1, "regression": 2}[kind]
    problem = zoo.make_net(zoo.mlp([6, 8, n_outputs]), kind)
    net, X, y = problem.net, problem.X, problem.y
    game = CoalitionEvaluator(net, X, y, payoff=payoff)
    if callable(payoff):
        wanted = payoff(y, net.predict(X))
    else:
        if kind == "multiclass":
            net.classes_inferred_ = np.arange(3)
        wanted = metrics.get_scorer(payoff)(net, X, y)
    assert game(np.ones((1, 8), bool))[0] == pytest.approx(wanted, rel=1e-5)
    if payoff != "r2":
        assert game.n_blocks == 1
        assert not game.walks_natively
        assert not game.flips_natively
        assert game.walk(orders_of(game)).shape == (3, 8)


def test_predictions_are_those_of_the_removed_network(zoo):
    problem = zoo.make_net(zoo.mlp())
    game = CoalitionEvaluator(problem.net, problem.X, problem.y)
    everybody, coalition = np.ones(16, bool), np.arange(16) % 3 > 0
    predicted = game.predict(np.stack([everybody, coalition]))
    assert predicted.shape == (2, 40)
    np.testing.assert_array_equal(predicted[0], problem.net.predict(problem.X))
    removed = remove_players(problem.module, game.players, ~coalition)
    answers = removed(torch.from_numpy(problem.X)).argmax(1)
    np.testing.assert_array_equal(predicted[1], answers)


def test_integer_tokens_are_taken(zoo):
    problem = zoo.make_net(zoo.TextBag())
    problem.X = np.random.default_rng(0).integers(30, size=(40, 5))
    compiled, batched = both_backends(problem)
    assert_plays_like(compiled, batched, "accuracy")
    assert compiled(np.ones((1, 6), bool))[0] == problem.net.score(problem.X, problem.y)


def test_dicts_are_taken(zoo):
    problem = zoo.make_net(zoo.TwoInputs())
    problem.X = {"right": problem.X[:, :2], "left": problem.X[:, 2:]}
    compiled, batched = both_backends(problem)
    assert_plays_like(compiled, batched, "accuracy")
    predicted = compiled.predict(np.ones((1, 6), bool))[0]
    np.testing.assert_array_equal(predicted, problem.net.predict(problem.X))


def test_sparse_frames_tensors_and_doubles_are_taken(zoo):
    pandas = pytest.importorskip("pandas")
    problem = zoo.make_net(zoo.mlp())
    problem.X[np.abs(problem.X) < 0.7] = 0
    wanted = CoalitionEvaluator(problem.net, problem.X, problem.y)(coalitions_of(16))
    forms = [
        sparse.csr_matrix(problem.X),
        sparse.csr_array(problem.X.astype(np.float64)),
        sparse.csc_matrix(problem.X),
        sparse.coo_array(problem.X),
        pandas.DataFrame(problem.X),
        torch.from_numpy(problem.X),
        problem.X.astype(np.float64),
    ]
    for X in forms:
        game = CoalitionEvaluator(problem.net, X, problem.y)
        np.testing.assert_array_equal(game(coalitions_of(16)), wanted)


def test_players_that_were_found_before_are_taken(zoo):
    problem = zoo.make_net(zoo.mlp())
    players = find_players(
        problem.module, torch.from_numpy(problem.X), [("neurons", "2")]
    )
    game = CoalitionEvaluator(problem.net, problem.X, problem.y, players=players)
    assert game.players is players
    assert game.n_players == 7


def refused(problem, error, message, **parameters):
    with pytest.raises(error, match=message):
        CoalitionEvaluator(problem.net, problem.X, problem.y, **parameters)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"payoff": "nonsense"}, "payoff='nonsense' is unknown; use one of"),
        ({"payoff": "r2"}, "payoff='r2' does not fit a multiclass net; use one of"),
        ({"backend": "gpu"}, "backend='gpu'; use 'auto', 'batched' or 'compiled'"),
        ({"players": "synapses"}, "no kind 'synapses'"),
        (
            {"backend": "compiled", "payoff": "f1_macro"},
            "backend='compiled' cannot play .*payoff='f1_macro': there are kernels for",
        ),
    ],
)
def test_parameters_that_cannot_be_are_refused(zoo, parameters, message):
    refused(zoo.make_net(zoo.mlp()), ValueError, message, **parameters)


def test_compiled_is_refused_where_the_net_is_no_chain(zoo):
    for name in ("convolutions", "residual", "untraceable", "layer norm"):
        build, players, shape = NETS[name]
        problem = zoo.make_net(build(zoo), shape=shape)
        message = "backend='compiled' cannot play this net.*in a row"
        refused(problem, ValueError, message, backend="compiled", players=players)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_data_that_are_not_finite_are_refused(zoo, value):
    problem = zoo.make_net(zoo.mlp())
    problem.X[3, 2] = value
    refused(problem, ValueError, "X holds NaN or infinity.*impute")


def test_outputs_that_are_not_finite_are_refused(zoo):
    problem = zoo.make_net(zoo.mlp())
    with torch.no_grad():
        problem.module[-1].bias[1] = torch.nan
    refused(problem, ValueError, "outputs are NaN or infinite.*lower learning rate")


def test_data_that_do_not_fit_are_refused(zoo):
    problem = zoo.make_net(zoo.mlp())
    problem.y = problem.y[:-1]
    refused(problem, ValueError, "X has 40 samples where y has 39")
    problem.X, problem.y = problem.X[:0], problem.y[:0]
    refused(problem, ValueError, "holds? no samples; give at least one")
    problem = zoo.make_net(zoo.mlp([6, 5, 2]), "regression")
    problem.y = problem.y[:, :1]
    refused(
        problem, ValueError, r"y has shape \(40, 1\).*outputs.*\(40, 2\)", payoff="r2"
    )


@pytest.mark.parametrize("label", [3, 7, -1])
def test_a_class_out_of_range_is_refused(zoo, label):
    problem = zoo.make_net(zoo.mlp())
    problem.y[5] = label
    refused(problem, ValueError, f"class {label}.*class indices 0 to 2")


@pytest.mark.parametrize("label", [2, -1])
def test_a_class_that_is_not_binary_is_refused(zoo, label):
    problem = zoo.make_net(zoo.mlp([6, 5, 1]), "binary")
    problem.y[5] = label
    refused(problem, ValueError, f"class {label}.*0 to 1")


@pytest.mark.parametrize(
    "y",
    [list("ab") * 20, np.arange(40) % 3 + 0.5, np.ones((40, 2), int), [np.nan] * 40],
)
def test_labels_that_are_no_class_indices_are_refused(zoo, y):
    problem = zoo.make_net(zoo.mlp())
    problem.y = y
    refused(problem, ValueError, "y must hold one class index .*LabelEncoder")


def test_class_indices_may_be_a_column_or_floats(zoo):
    problem = zoo.make_net(zoo.mlp())
    wanted = CoalitionEvaluator(problem.net, problem.X, problem.y)(coalitions_of(16))
    for y in (problem.y[:, None], problem.y.astype(float), problem.y.tolist()):
        game = CoalitionEvaluator(problem.net, problem.X, y)
        np.testing.assert_array_equal(game(coalitions_of(16)), wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_played_batched(zoo, dtype):
    problem = zoo.make_net(zoo.mlp().to(dtype))
    game = CoalitionEvaluator(problem.net, problem.X, problem.y)
    assert game.backend_ == "batched"
    X = torch.from_numpy(problem.X).to(dtype)
    right = problem.module(X).argmax(1) == torch.as_tensor(problem.y)
    assert game(np.ones((1, 16), bool))[0] == pytest.approx(right.double().mean())


@pytest.mark.parametrize("backend", ["compiled", "batched"])
def test_no_coalitions_earn_nothing(zoo, backend):
    problem = zoo.make_net(zoo.mlp())
    game = CoalitionEvaluator(problem.net, problem.X, problem.y, backend=backend)
    assert game(np.ones((0, 16), bool)).shape == (0,)
    assert game.flip(np.ones((0, 16), bool)).shape == (0, 16)
    assert game.walk(np.ones((0, 16), int)).shape == (0, 16)


def test_a_target_that_is_not_finite_is_refused(zoo):
    problem = zoo.make_net(zoo.mlp([6, 5, 2]), "regression")
    problem.y[5, 1] = np.nan
    refused(problem, ValueError, "y holds NaN or infinity", payoff="r2")


def test_what_is_no_fitted_net_is_refused(zoo):
    problem = zoo.make_net(zoo.mlp())
    with pytest.raises(TypeError, match="net must be a skorch net, got Sequential"):
        CoalitionEvaluator(problem.module, problem.X, problem.y)
    net = NeuralNetRegressor(nn.Linear, module__in_features=6, module__out_features=1)
    with pytest.raises(NotFittedError, match="NeuralNetRegressor is not fitted yet"):
        check_net(net)
    check_net(problem.net)


@pytest.mark.parametrize("backend", ["compiled", "batched"])
@pytest.mark.parametrize("restricted", [False, True])
def test_coalitions_and_orders_that_cannot_be_are_refused(zoo, backend, restricted):
    problem = zoo.make_net(zoo.mlp())
    game = CoalitionEvaluator(problem.net, problem.X, problem.y, backend=backend)
    if restricted:
        game = game.restrict(always_out=np.arange(16) < 3)
    n = game.n_players
    for play in (game, game.flip):
        with pytest.raises(
            TypeError, match="coalitions must be boolean, got dtype int"
        ):
            play(np.ones((2, n), int))
        with pytest.raises(ValueError, match=rf"shape \(n_coalitions, {n}\)"):
            play(np.ones((2, n + 1), bool))
    with pytest.raises(ValueError, match=f"every player from 0 to {n - 1} once"):
        game.walk(np.zeros((1, n), int))
    with pytest.raises(TypeError, match="orders must be integers"):
        game.walk(np.zeros((1, n)))
    with pytest.raises(ValueError, match="counts blocks and must be 3 or 1"):
        game.walk(np.tile(np.arange(n), (1, 2, 1)))
    with pytest.raises(ValueError, match="counts blocks and must be 3 or 1"):
        game.flip(np.ones((1, 2, n), bool))


def test_one_coalition_may_come_alone(zoo):
    problem = zoo.make_net(zoo.mlp())
    game = CoalitionEvaluator(problem.net, problem.X, problem.y)
    everybody = np.ones(16, bool)
    assert game(everybody).shape == (1,)
    np.testing.assert_array_equal(game.flip(everybody), game.flip(everybody[None]))
    assert game.predict(everybody).shape == (1, 40)


def test_equal_outputs_are_won_by_the_lowest_class(zoo):
    problem = zoo.make_net(zoo.mlp([6, 5, 3], bias=False))
    for game in both_backends(problem):
        nobody = game(np.zeros((1, 5), bool))[0]
        assert nobody == (problem.y == 0).mean()


def test_a_net_in_training_mode_is_played_in_evaluation_mode(zoo):
    problem = zoo.make_net(
        nn.Sequential(
            nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(), nn.Linear(9, 3)
        ),
        n_samples=200,
    )
    net = problem.net.partial_fit(problem.X, problem.y)
    net.module_.train()
    mean = net.module_[1].running_mean.clone()
    game = CoalitionEvaluator(net, problem.X, problem.y)
    assert torch.equal(net.module_[1].running_mean, mean)
    assert game(np.ones((1, 9), bool))[0] == net.score(problem.X, problem.y)


def test_in_place_sums_do_not_pile_up(zoo):
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.up = nn.Linear(6, 8), nn.Linear(8, 7)
            self.down, self.out = nn.Linear(7, 8), nn.Linear(8, 3)

        def forward(self, x):
            h = functional.relu(self.stem(x))
            h.add_(self.down(functional.relu(self.up(h))))
            return self.out(h)

    problem = zoo.make_net(InPlace())
    game = CoalitionEvaluator(
        problem.net, problem.X, problem.y, players=[("neurons", "up")], payoff="margin"
    )
    coalitions = coalitions_of(7)
    first = game(coalitions)
    np.testing.assert_array_equal(game(coalitions), first)
    one_by_one = [game(coalition)[0] for coalition in coalitions]
    np.testing.assert_allclose(one_by_one, first, rtol=1e-5)


def test_blocks_get_all_classes_however_samples_are_sorted(zoo):
    problem = zoo.make_net(zoo.mlp(), n_samples=160)
    order = np.argsort(problem.y, kind="stable")
    game = CoalitionEvaluator(problem.net, problem.X[order], problem.y[order])
    whole = np.bincount(problem.y, minlength=3) / 160
    for rows in dealt_rows(torch.as_tensor(problem.y[order])).split(16):
        block = np.bincount(problem.y[order][rows], minlength=3)
        assert abs(block - 16 * whole).max() < 1.5
    coalitions = np.random.default_rng(0).random((2, game.n_players)) < 0.5
    np.testing.assert_array_equal(
        game.predict(coalitions),
        CoalitionEvaluator(problem.net, problem.X, problem.y).predict(coalitions)[
            :, order
        ],
    )


def test_values_of_a_regression_are_dealt_too():
    rows = dealt_rows(torch.linspace(0, 1, 64)[:, None])
    means = torch.linspace(0, 1, 64)[rows].reshape(4, 16).mean(1)
    assert (means - 0.5).abs().max() < 0.05


def test_a_metric_sees_samples_in_their_order(zoo):
    problem = zoo.make_net(zoo.mlp(), n_samples=40)
    weight = np.arange(40.0)

    def weighted(y_true, y_predicted):
        return np.average(y_true == y_predicted, weights=weight)

    game = CoalitionEvaluator(problem.net, problem.X, problem.y, payoff=weighted)
    expected = weighted(problem.y, problem.net.predict(problem.X))
    assert game(np.ones((1, game.n_players), bool))[0] == expected


def test_one_output_of_a_multiclass_net_always_wins(zoo):
    problem = zoo.make_net(zoo.mlp((6, 4, 1)))
    y = np.zeros(len(problem.X), dtype=np.int64)
    game = CoalitionEvaluator(problem.net, problem.X, y)
    assert game(np.zeros((1, 4), bool)) == 1
