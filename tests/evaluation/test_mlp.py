"""The multi-layer perceptron that estimators build."""

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn

from skprune.evaluation import CoalitionEvaluator, build_mlp


def test_layers_are_named_after_what_they_are():
    net = build_mlp(4, (3, 2), 5, activation="tanh", dropout=0.5)
    assert [name for name, _ in net.named_children()] == [
        "hidden_1",
        "activation_1",
        "dropout_1",
        "hidden_2",
        "activation_2",
        "dropout_2",
        "output",
    ]
    assert isinstance(net.activation_2, nn.Tanh)
    assert net.dropout_1.p == 0.5
    assert net(torch.zeros(2, 4)).shape == (2, 5)


def test_without_hidden_layers_it_is_linear():
    assert [name for name, _ in build_mlp(4, (), 2).named_children()] == ["output"]


def test_sparse_input_changes_the_layout_alone():
    weights = []
    for is_sparse in (False, True):
        torch.manual_seed(0)
        weights.append(build_mlp(9, (3,), 2, is_sparse=is_sparse).state_dict())
    assert weights[1]["hidden_1.weight"].stride() == (1, 3)
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name])


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match=r"activation='maxout'; use one of .*'relu'"):
        build_mlp(4, (3,), 2, activation="maxout")


@pytest.mark.parametrize("players", ["neurons", [("inputs", "hidden_1")]])
def test_the_compiled_game_plays_a_layer_stored_by_column(players):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 9)).astype(np.float32), rng.integers(3, size=40)
    payoffs = []
    for is_sparse in (False, True):
        torch.manual_seed(0)
        net = NeuralNetClassifier(
            build_mlp(9, (6, 5), 3, is_sparse=is_sparse),
            criterion=nn.CrossEntropyLoss,
            train_split=None,
            verbose=0,
        ).initialize()
        game = CoalitionEvaluator(net, X, y, players=players, payoff="log_likelihood")
        assert game.backend_ == "compiled"
        coalitions = np.random.default_rng(1).random((8, game.n_players)) < 0.5
        payoffs.append(game(coalitions))
    np.testing.assert_allclose(payoffs[0], payoffs[1], rtol=1e-5)
    assert len(np.unique(payoffs[0])) > 2
