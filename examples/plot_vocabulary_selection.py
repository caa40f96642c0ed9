"""
The words that a text classifier lives on
=========================================

Of a vocabulary of thousands of words a classifier needs few: which? Patel et al. [1]_
let words play a coalitional game, in which a set of words earns the accuracy that a
classifier has with them alone, and keep the words of the highest power index.
:class:`~skprune.pruners.PowerIndexSelector` does this in a pipeline, on sparse
matrices.

.. [1] R. Patel et al., "Game-theoretic vocabulary selection via the Shapley value and
   Banzhaf index", NAACL 2021.
"""

# %%
# The texts: messages of six emotions where the environment variable ``SKPRUNE_DATA``
# names the folder that holds them; else docstrings of four packages, and which of these
# they come from.
import os

import matplotlib.pyplot as plt
import numpy as np
from _texts import load_texts
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.feature_selection import SelectKBest, chi2
from sklearn.linear_model import LogisticRegression

from skprune import PowerIndexSelector, mlp_classifier

name = "emotion" if "SKPRUNE_DATA" in os.environ else "docstrings"
texts_train, texts_test, y_train, y_test = load_texts(name)

vectorizer = CountVectorizer(min_df=2, token_pattern=r"(?u)\b[a-z][a-z]+\b")
X_train, X_test = (
    vectorizer.fit_transform(texts_train),
    vectorizer.transform(texts_test),
)
words = vectorizer.get_feature_names_out()
print(f"{X_train.shape[0]} texts, {len(words)} words, classes {np.unique(y_train)}")

# %%
# The selector trains a network on four fifths of the texts, and scores every word by
# its Shapley value: what it adds to the accuracy when the words join one after the
# other, in random orders. In each text only the words that it holds can change the
# answer, so that an order of the whole vocabulary costs one row of the network for each
# word of each text.
sizes = [25, 50, 100, 200, 400, 800, 1600]
net = mlp_classifier((64,), max_epochs=6, device="cpu")
selector = PowerIndexSelector(net, random_state=0).fit(X_train, y_train)
ranking = selector.scores_.ranking()

for word in ranking[:15]:
    value, error = selector.scores_.values[word], selector.scores_.standard_errors[word]
    print(
        f"{words[word]:15s} {100 * value:6.2f} ± {100 * error:.2f} points of accuracy"
    )

# %%
# Others rank words by a test of independence from the classes (chi²), by the number of
# texts that they are in, or at random. A logistic regression is trained anew on the
# best words of each ranking.
counts = np.asarray((X_train > 0).sum(axis=0)).ravel()
rankings = {
    "Shapley value": ranking,
    "chi²": np.argsort(-SelectKBest(chi2).fit(X_train, y_train).scores_),
    "frequency": np.argsort(-counts, kind="stable"),
    "random": np.random.default_rng(0).permutation(len(words)),
}
sizes = [size for size in sizes if size < len(words)]
accuracies = {name: [] for name in rankings}
for name, order in rankings.items():
    for size in sizes:
        kept = np.sort(order[:size])
        model = LogisticRegression(C=3, max_iter=300).fit(X_train[:, kept], y_train)
        accuracies[name].append(model.score(X_test[:, kept], y_test))
    print(f"{name:15s}", " ".join(f"{accuracy:.3f}" for accuracy in accuracies[name]))

# %%
# Left to itself the selector takes the fewest words with which the network's own
# accuracy, on the fifth of the texts that was held out, is within one standard error of
# the best.
figure, axes = plt.subplots(layout="constrained")
for name, curve in accuracies.items():
    axes.plot(sizes, curve, "o-", label=name)
n_selected = selector.support_.sum()
axes.axvline(n_selected, color="0.7", linestyle="--", label=f"auto: {n_selected} words")
axes.set(xlabel=f"words of {len(words)}", ylabel="test accuracy", xscale="log")
axes.legend()
axes.grid(alpha=0.3)
plt.show()
