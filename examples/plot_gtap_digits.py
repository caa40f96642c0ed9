"""
A smaller digit classifier, in a pipeline
=========================================

A network of 160 hidden neurons classifies scikit-learn's digits. How many of them does
it take? :class:`~skprune.pruners.GTAPPruner` stands at the end of a pipeline, finds
sub-networks of several sizes in one fit, and says what each neuron is worth.
"""

# %%
# The network is plain torch, wrapped by skorch. The pruner trains it on all but a
# tenth of the training data, takes the moments of its reconstruction games from the
# same samples, and judges splits and repairs on the rest.
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from skorch import NeuralNetClassifier

from skprune import GTAPPruner

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.4, random_state=0)

torch.set_num_threads(1)  # more cost more than they bring on so small a network
torch.manual_seed(0)
net = NeuralNetClassifier(
    torch.nn.Sequential(
        torch.nn.Linear(64, 96),
        torch.nn.ReLU(),
        torch.nn.Linear(96, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 10),
    ),
    criterion=torch.nn.CrossEntropyLoss,
    optimizer=torch.optim.Adam,
    lr=3e-3,
    max_epochs=30,
    train_split=None,
    verbose=0,
)

# %%
# Without repair, removing neurons costs a lot. Refitting the survivors' weights in
# closed form, one linear regression for each layer, wins most of it back.
curves = {}
for repair in ("none", "output", "layers"):
    pipeline = make_pipeline(
        MinMaxScaler(),
        GTAPPruner(
            net,
            n_players_to_keep=0.1,
            path_sizes=[0.05, 0.2, 0.4, 0.7, 1.0],
            repair=repair,
            random_state=0,
        ),
    ).fit(X_train, y_train)
    pruner = pipeline[-1]
    scaled = pipeline[:-1].transform(X_test)
    curves[repair] = [
        pruner.at_size(int(size)).score(scaled, y_test) for size in pruner.path_.sizes
    ]
    print(f"repair={repair!r}: test accuracy {pipeline.score(X_test, y_test):.3f}")

# %%
# Left: accuracy against size. Right: Shapley values of all neurons in the
# reconstruction games of their layers, with standard errors; those who stayed are
# marked. A neuron of high value may leave where others tell the same.
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for repair, accuracies in curves.items():
    left.plot(pruner.path_.sizes, accuracies, "o-", label=f"repair={repair!r}")
left.set(xlabel="neurons kept of 160", ylabel="test accuracy", xscale="log")
left.legend()
left.grid(alpha=0.3)

ranking = pruner.scores_.ranking()
place, kept = np.arange(len(ranking)), pruner.support_[ranking]
values, errors = pruner.scores_.values, pruner.scores_.standard_errors
right.errorbar(place, values[ranking], errors[ranking], fmt="none", ecolor="0.7")
right.plot(place[~kept], values[ranking][~kept], ".", color="0.5", label="left")
right.plot(place[kept], values[ranking][kept], "o", label="stayed")
right.set(xlabel="neurons, most valuable first", ylabel="Shapley value")
right.legend()
plt.show()

# %%
# The pruned network is an ordinary module with smaller layers.
print(pruner.module_)
print(pruner.size_report_)
