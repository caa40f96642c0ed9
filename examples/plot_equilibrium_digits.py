"""
Neurons that leave while the network trains
===========================================

``EquilibriumPrunedMLP`` prunes while it trains. With a number to keep, the price of
staying rises until so many neurons are left; without one, each neuron chooses how far
it takes part at a fixed price, and those who contribute next to nothing leave.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skprune import EquilibriumPrunedMLP

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X / 16, y, test_size=0.3, stratify=y, random_state=0
)

# %%
# A tenth of the neurons, as accurate as all of them
# --------------------------------------------------

fits = {
    "everybody stays": EquilibriumPrunedMLP(n_players_to_keep=1.0, random_state=0),
    "a tenth stays": EquilibriumPrunedMLP(n_players_to_keep=0.1, random_state=0),
    "who wants to stays": EquilibriumPrunedMLP(random_state=0),
}
for name, mlp in fits.items():
    mlp.fit(X_train, y_train, X_val=X_test, y_val=y_test)
    after = mlp.size_report_["after"]
    print(
        f"{name:20s} test accuracy {mlp.score(X_test, y_test):.3f}, "
        f"{after.n_players} neurons, {after.n_parameters} parameters"
    )

# %%
# Prices and participations
# -------------------------
#
# The price at which the market clears rises as players leave: the last ones to stay are
# worth the most. Participations end near 0 or stay well above.

market, free = fits["a tenth stays"], fits["who wants to stays"]
figure, (prices, shares) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
for layer in market.active_players_:
    steps, paid = market.price_history_["step"], market.price_history_[layer]
    prices.semilogy(steps[paid > 0], paid[paid > 0], ".-", label=layer)
prices.set(xlabel="step", ylabel="price of staying")
prices.legend()
epochs = np.arange(1, 1 + len(free.participation_history_))
shares.plot(epochs, free.participation_history_[:, ::16], color="tab:blue", alpha=0.4)
shares.set(xlabel="epoch", ylabel="participation")
plt.show()

# %%
# Why the others stayed
# ---------------------
#
# What the training loss would gain without one of the survivors, exactly:

order = np.argsort(market.leave_one_out_)[::-1]
for player in order[:5]:
    print(market.players_.names[player], f"{market.leave_one_out_[player]:.3f}")
