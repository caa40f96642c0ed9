"""
The smallest network that still reaches a score
===============================================

How many hidden neurons does it take to read 95 % of scikit-learn's digits? Instead of
training one network for each width, :class:`~skprune.pruners.ShapleyBucketPruner`
trains a wide one and goes down from there: the neurons of least Shapley value leave,
the others are repaired and retrained, until the score no longer holds.
"""

# %%
# The score has to hold on a third of the training data that is held out; the test data
# only report. A validation accuracy of 95 % on some 400 digits has a standard error of
# 1 %, and the smallest network that holds is one that was lucky: the test score is
# lower. Where that matters, ask for a little more, or give more validation samples.
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch import NeuralNetClassifier

from skprune import ShapleyBucketPruner, mlp_classifier

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X / 16, y, test_size=0.3, random_state=0
)

torch.set_num_threads(1)  # more cost more than they bring on so small a network
pruner = ShapleyBucketPruner(
    mlp_classifier((64,), lr=5e-3, max_epochs=20),
    min_score=0.95,
    validation_fraction=1 / 3,
    random_state=0,
    verbose=1,
)
pruner.fit(X_train, y_train)
print(f"{pruner.players_.n_players} neurons, {pruner.n_epochs_} epochs in all")
print(f"test accuracy {pruner.score(X_test, y_test):.3f}")

# %%
# Steps are large where many neurons are worth little and small towards the end; what
# did not hold is marked. Dotted: the share of the total Shapley value that left in the
# steps of the bucket, which holds at most a fifth of it.
steps = pruner.steps_
held, refining = steps["held"], steps["refining"]
figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
axis.plot(
    steps["n_players"][~refining], steps["score"][~refining], "o-", label="bucket"
)
axis.plot(
    steps["n_players"][refining], steps["score"][refining], "s", label="finer end"
)
axis.plot(steps["n_players"][~held], steps["score"][~held], "kx", label="does not hold")
axis.axhline(pruner.min_score_, color="gray", linewidth=0.5)
axis.set(xlabel="neurons", ylabel="validation accuracy")
axis.invert_xaxis()
axis.legend(loc="lower left")
removed = axis.twinx()
removed.plot(steps["n_players"][~refining], steps["removed_value"][~refining], ":")
removed.set(ylabel="removed share of the Shapley value", ylim=(0, 0.5))
plt.show()


# %%
# Whole layers can be players too. A residual block that leaves hands on what it reads,
# and is taken out of the module.
class Block(torch.nn.Module):
    """A residual block."""

    def __init__(self, width):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Linear(width, width),
            torch.nn.ReLU(),
            torch.nn.Linear(width, width),
        )

    def forward(self, x):
        return x + self.body(x)


torch.manual_seed(0)
net = NeuralNetClassifier(
    torch.nn.Sequential(
        torch.nn.Linear(64, 32),
        *(Block(32) for _ in range(6)),
        torch.nn.ReLU(),
        torch.nn.Linear(32, 10),
    ),
    criterion=torch.nn.CrossEntropyLoss,
    optimizer=torch.optim.Adam,
    lr=2e-3,
    max_epochs=10,
    train_split=None,
    verbose=0,
)
pruner = ShapleyBucketPruner(net, players="layers", validation_fraction=1 / 3)
pruner.set_params(random_state=0).fit(X_train.astype("float32"), y_train)
for name, value in zip(pruner.names_, pruner.scores_.values, strict=True):
    print(f"block {name}: {value:.3f}")
print(pruner.module_)
print(f"test accuracy {pruner.score(X_test.astype('float32'), y_test):.3f}")
print(pruner.size_report_)
