"""The list of network patterns that drives the keystone tests."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from skprune.networks import find_players


class LeNet5(nn.Module):
    def __init__(self, flatten):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2 = nn.Linear(400, 120), nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)
        self.flatten = flatten

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = x.flatten(1) if self.flatten else x.view(x.size(0), -1)
        return self.fc3(functional.relu(self.fc2(functional.relu(self.fc1(x)))))


class ResidualMLP(nn.Module):
    def __init__(self, norm=False):
        super().__init__()
        self.stem, self.out = nn.Linear(6, 8), nn.Linear(8, 3)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)
        self.norm = nn.LayerNorm(8) if norm else nn.Identity()

    def forward(self, x):
        h = torch.sigmoid(self.stem(x))
        return self.out(
            functional.gelu(h + self.down(torch.cos(self.up(self.norm(h)))))
        )


class InputResidual(nn.Module):
    """Adds hidden units to the network's input: these can never leave."""

    def __init__(self):
        super().__init__()
        self.up, self.down, self.out = nn.Linear(6, 9), nn.Linear(9, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(x + self.down(functional.relu(self.up(x))))


class ResidualConv(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.conv1, self.bn1 = nn.Conv2d(6, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.conv2, self.bn2 = nn.Conv2d(5, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        x = functional.relu(self.stem(x))
        x = functional.relu(
            x + self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        )
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Concatenated(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 5)
        self.c, self.out = nn.Linear(15, 7), nn.Linear(7, 3)

    def forward(self, x):
        x = torch.cat([torch.tanh(self.a(x)), x, functional.relu(self.b(x))], dim=1)
        return self.out(torch.sigmoid(self.c(x)))


class Inception(nn.Module):
    """A concatenation of filters in front of a flatten and of tabular features."""

    def __init__(self):
        super().__init__()
        self.one, self.three = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 4, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(7 * 9 + 5, 6), nn.Linear(6, 2)

    def forward(self, image, table):
        x = torch.cat([self.one(image).relu(), self.three(image).exp()], 1)
        x = torch.cat([functional.max_pool2d(x, 2).flatten(1), table], 1)
        return self.fc2(self.fc1(x).relu())


class TextBag(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(30, 8, mode="mean")
        self.fc1, self.fc2 = nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, tokens):
        return self.fc2(functional.relu(self.fc1(self.bag(tokens))))


class BagResidual(nn.Module):
    """Dimensions of an embedding that are added to units leave with them."""

    def __init__(self):
        super().__init__()
        self.bag, self.inner = nn.EmbeddingBag(30, 8), nn.Linear(8, 5)
        self.back, self.out = nn.Linear(5, 8), nn.Linear(8, 2)

    def forward(self, tokens):
        h = self.bag(tokens)
        return self.out(torch.cos(h + self.back(torch.sigmoid(self.inner(h)))))


class AttentionPooling(nn.Module):
    """A score that weighs all dimensions of a token is no player."""

    def __init__(self):
        super().__init__()
        self.embedding, self.score = nn.Embedding(30, 8), nn.Linear(8, 1)
        self.hidden, self.out = nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, tokens):
        h = self.embedding(tokens)
        pooled = (torch.softmax(self.score(h), dim=1) * h).sum(dim=1)
        return self.out(torch.tanh(self.hidden(pooled)))


class TextMean(nn.Module):
    """Position-wise layers and a residual sum with the embedding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(30, 8)
        self.inner, self.back = nn.Linear(8, 10), nn.Linear(10, 8, bias=False)
        self.norm, self.out = nn.LayerNorm(8), nn.Linear(8, 2)

    def forward(self, tokens):
        h = self.embedding(tokens)
        h = self.norm(h + self.back(torch.tanh(self.inner(h))))
        return self.out(h.mean(dim=1))


class TextConv(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(30, 8)
        self.two, self.three = nn.Conv1d(8, 4, 2), nn.Conv1d(8, 5, 3)
        self.fc = nn.Linear(9, 2)

    def forward(self, tokens):
        x = self.embedding(tokens).transpose(1, 2)
        pooled = [
            functional.relu(conv(x)).max(dim=2).values
            for conv in (self.two, self.three)
        ]
        return self.fc(torch.cat(pooled, 1))


class SequenceFlatten(nn.Module):
    """A flatten behind a position-wise layer interleaves the units."""

    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.Linear(4, 6), nn.Linear(18, 2)

    def forward(self, x):
        return self.out(torch.cos(self.inner(x)).flatten(1))


class SqueezeExcitation(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(2, 6, 3), nn.Linear(6, 3)
        self.squeeze, self.excite = nn.Linear(6, 4), nn.Linear(4, 6)

    def forward(self, x):
        x = functional.relu(self.conv(x))
        gate = torch.sigmoid(self.excite(functional.relu(self.squeeze(x.mean((2, 3))))))
        return self.fc((x * gate[:, :, None, None]).mean((2, 3)))


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(4, 6), nn.Linear(3, 6)
        self.out = nn.Linear(6, 2)

    def forward(self, left, right):
        return self.out(functional.softplus(self.left(left) + self.right(right)))


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.mean, self.scale = (
            nn.Linear(5, 9),
            nn.Linear(9, 2),
            nn.Linear(9, 1),
        )

    def forward(self, x):
        h = functional.relu(self.body(x))
        return self.mean(h), self.scale(h).exp()


def mlp(activation, norm=None, norm_first=True):
    layers = []
    for n_inputs, n_units in ((7, 11), (11, 9)):
        parts = [activation()] if norm is None else [norm(n_units), activation()]
        layers += [nn.Linear(n_inputs, n_units), *parts[:: 1 if norm_first else -1]]
    return nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(9, 4))


def conv_net(bias, stride):
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, stride=stride, bias=bias),
        nn.BatchNorm2d(5),
        nn.Sigmoid(),
        nn.Conv2d(5, 7, 2, bias=bias),
        nn.BatchNorm2d(7, affine=False),
        nn.PReLU(7),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.BatchNorm1d(7 * (9 if stride == 1 else 1)),
        nn.Linear(7 * (9 if stride == 1 else 1), 6),
        nn.ReLU(inplace=True),
        nn.Linear(6, 3),
    )


def depthwise_net():
    return nn.Sequential(
        nn.Conv2d(2, 6, 1),
        nn.ReLU6(),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.Hardswish(),
        nn.Conv2d(6, 5, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    )


def conv1d_net():
    return nn.Sequential(
        nn.Conv1d(3, 6, 3, stride=2),
        nn.BatchNorm1d(6),
        nn.ELU(),
        nn.MaxPool1d(2),
        nn.Conv1d(6, 5, 2),
        nn.Softplus(),
        nn.Flatten(),
        nn.Linear(10, 4),
    )


@dataclass(frozen=True)
class Pattern:
    name: str
    module: Any
    example: Any
    players: Any
    n_players: int

    def build(self):
        """Build the module with statistics and parameters that are not the defaults."""
        torch.manual_seed(0)
        module = self.module()
        for tensor in module.state_dict().values():
            if tensor.ndim == 1 and tensor.is_floating_point():
                tensor.uniform_(0.3, 1.5)
        return module.eval()

    def input(self, batch=4, seed=1):
        generator = torch.Generator().manual_seed(seed)
        return self.example(batch, generator)


def floats(*shape):
    return lambda batch, generator: torch.randn(batch, *shape, generator=generator)


def tokens(length):
    return lambda batch, generator: torch.randint(
        30, (batch, length), generator=generator
    )


def named(**shapes):
    return lambda batch, generator: {
        name: torch.randn(batch, *shape, generator=generator)
        for name, shape in shapes.items()
    }


def pair(first, second):
    return lambda batch, generator: (first(batch, generator), second(batch, generator))


GTAP = [("inputs", "fc1"), ("neurons", "fc1"), ("neurons", "fc2")]

PATTERNS = [
    Pattern("mlp relu", lambda: mlp(nn.ReLU), floats(7), "neurons", 20),
    Pattern("mlp sigmoid", lambda: mlp(nn.Sigmoid), floats(7), "neurons", 20),
    Pattern("mlp prelu", lambda: mlp(lambda: nn.PReLU()), floats(7), "neurons", 20),
    Pattern("mlp softplus inputs", lambda: mlp(nn.Softplus), floats(7), "inputs", 7),
    Pattern(
        "mlp batch norm",
        lambda: mlp(nn.GELU, nn.BatchNorm1d),
        floats(7),
        [("inputs", "0"), ("neurons", "3")],
        16,
    ),
    Pattern(
        "layer norm first",
        lambda: mlp(nn.Sigmoid, nn.LayerNorm),
        floats(7),
        "neurons",
        20,
    ),
    Pattern(
        "layer norm last",
        lambda: mlp(nn.Sigmoid, nn.LayerNorm, norm_first=False),
        floats(7),
        "neurons",
        20,
    ),
    Pattern(
        "layer norm plain",
        lambda: mlp(nn.ReLU, lambda n: nn.LayerNorm(n, elementwise_affine=False)),
        floats(7),
        "neurons",
        20,
    ),
    Pattern(
        "layer norm without bias",
        lambda: mlp(nn.ReLU, lambda n: nn.LayerNorm(n, bias=False)),
        floats(7),
        "neurons",
        20,
    ),
    Pattern("one layer", lambda: nn.Linear(5, 2), floats(5), "inputs", 5),
    Pattern("lenet5 flatten", lambda: LeNet5(True), floats(1, 28, 28), GTAP, 604),
    Pattern("lenet5 view", lambda: LeNet5(False), floats(1, 28, 28), GTAP, 604),
    Pattern(
        "lenet5 filters",
        lambda: LeNet5(False),
        floats(1, 28, 28),
        [("filters", "conv1"), ("filters", "conv2"), ("neurons", "fc1")],
        142,
    ),
    Pattern("conv net", lambda: conv_net(True, 1), floats(2, 9, 9), "filters", 12),
    Pattern(
        "conv net strided", lambda: conv_net(False, 2), floats(2, 9, 9), "filters", 12
    ),
    Pattern(
        "conv net inputs",
        lambda: conv_net(True, 1),
        floats(2, 9, 9),
        [("inputs", "3"), ("neurons", "9")],
        11,
    ),
    Pattern("depthwise", depthwise_net, floats(2, 6, 6), "filters", 11),
    Pattern("depthwise named", depthwise_net, floats(2, 6, 6), [("filters", "2")], 6),
    Pattern("conv1d", conv1d_net, floats(3, 14), "filters", 11),
    Pattern("residual mlp", ResidualMLP, floats(6), "neurons", 20),
    Pattern("residual norm", lambda: ResidualMLP(True), floats(6), "neurons", 20),
    Pattern("input residual", InputResidual, floats(6), "neurons", 9),
    Pattern("residual conv", ResidualConv, floats(3, 8, 8), "filters", 11),
    Pattern("concatenation", Concatenated, floats(6), "neurons", 16),
    Pattern(
        "inception",
        Inception,
        pair(floats(2, 6, 6), floats(5)),
        [("filters", "one"), ("filters", "three"), ("neurons", "fc1")],
        13,
    ),
    Pattern("embedding bag", TextBag, tokens(5), "neurons", 6),
    Pattern("embedding bag inputs", TextBag, tokens(5), "inputs", 8),
    Pattern("embedding bag residual", BagResidual, tokens(5), "neurons", 13),
    Pattern("attention pooling", AttentionPooling, tokens(5), "neurons", 6),
    Pattern("embedding mean", TextMean, tokens(5), "neurons", 18),
    Pattern("text convolution", TextConv, tokens(7), "filters", 9),
    Pattern("text convolution inputs", TextConv, tokens(7), [("inputs", "three")], 8),
    Pattern("sequence flatten", SequenceFlatten, floats(3, 4), "neurons", 6),
    Pattern("squeeze and excitation", SqueezeExcitation, floats(2, 7, 7), "filters", 6),
    Pattern(
        "squeeze neurons",
        SqueezeExcitation,
        floats(2, 7, 7),
        [("neurons", "squeeze"), ("filters", "conv")],
        10,
    ),
    Pattern("two inputs", TwoInputs, named(left=(4,), right=(3,)), "neurons", 6),
    Pattern("two heads", TwoHeads, floats(5), "neurons", 9),
]


@pytest.fixture
def patterns():
    return {pattern.name: pattern for pattern in PATTERNS}


@pytest.fixture(params=PATTERNS, ids=lambda pattern: pattern.name.replace(" ", "-"))
def case(request):
    pattern = request.param
    module, example = pattern.build(), pattern.input()
    return pattern, module, example, find_players(module, example, pattern.players)
