"""What the choices behind GTAPPruner's defaults are worth, one by one.

LeNet5 on MNIST, test accuracy after the same closed-form repair, for a twentieth, a
tenth and .225 of the players:

- how the players are split over the layers: as their games say, or clearly better by
  the validation payoff (the default); as their games say; by the validation payoff
  alone; by square roots; in proportion;
- how they are found in a layer's reconstruction game: greedily, with swaps after it, by
  Shapley values once or step by step;
- what a layer has to explain: the next layer, the outputs, or both;
- whether swaps by the accuracy of the masked network help before the repair;
- the same with the filters of the convolutions as players, beside random filters and
  neurons and those of largest weight norm.

    SKPRUNE_DATA=DIR python examples/papers/reconstruction_choices.py [--seeds 0 1 2]
"""

import argparse
import time

import numpy as np
import torch
from _baselines import MaskBench
from _mnist import load_mnist
from gtap_lenet5 import LeNet5, train

from skprune import CoalitionEvaluator
from skprune.evaluation import LayerGames, Repairer, clear_gain, played_payoffs
from skprune.scorers import ShapleyScorer
from skprune.strategies import (
    IteratedBuilding,
    IteratedPruning,
    SwapRefinement,
    TopN,
    scaled_split,
    search_allocation,
)

FRACTIONS = [0.05, 0.1, 0.225]
FILTERS = [
    ("filters", "conv1"),
    ("filters", "conv2"),
    ("neurons", "fc1"),
    ("neurons", "fc2"),
]


class Choices(MaskBench):
    """A trained net, and the masks that one choice after the other gives."""

    def __init__(self, net, data, players, n_train=50000):
        X, y, X_val, y_val, X_test, y_test = data
        X, y = X[:n_train], y[:n_train]
        parts = (X, y), (X_val, y_val), (X_test, y_test)
        super().__init__(net, *parts, FRACTIONS, players)
        self.quick = Repairer(
            self.split, self.train.subset(4096), self.task, n_rectified=2, max_iter=12
        )
        self.capacities = np.bincount(self.players.group_of)
        self.games = self.layer_games(1.0)

    def layer_games(self, output_weight):
        """The layers' games, with more or less weight on the outputs."""
        return LayerGames(
            self.split,
            self.players,
            self.train,
            self.task,
            output_weight=output_weight,
        )

    def searched(self, pick, games=None):
        """A mask for each size; other splits than the games' where clearly better."""
        games = games or self.games
        for size in self.sizes:
            start = games.allocate(size)
            before = self.earned(games.select(start, pick))

            def gain(counts, before=before):
                return clear_gain(self.earned(games.select(counts, pick)), before)

            yield games.select(self.searched_split(gain, size, [start]), pick)

    def by_payoff(self, pick):
        """A mask for each size, the split of the highest validation payoff."""

        def payoff(counts):
            return self.earned(self.games.select(counts, pick)).mean()

        for size in self.sizes:
            yield self.games.select(self.searched_split(payoff, size), pick)

    def searched_split(self, payoff, size, starts=()):
        """The best of twenty splits of a size."""
        return search_allocation(
            payoff, size, self.capacities, starts=starts, max_evaluations=20
        )

    def earned(self, mask):
        """What the repaired network earns by each validation sample."""
        repaired = self.quick.repaired(mask)
        return played_payoffs(repaired, self.valid, self.task, self.judge)

    def fixed(self, weights):
        """A greedy mask for each size, the split in proportion to weights."""
        for size in self.sizes:
            counts = scaled_split(weights, size, 1, self.capacities)
            yield self.games.select(counts, greedy)


def greedy(game, count):
    """The player that explains most, again and again."""
    return IteratedBuilding().search(game, None, [count]).masks[0]


def swapped(game, count):
    """Greedy building, then exchanges in the same game."""
    return SwapRefinement(max_rounds=20).refine(game, greedy(game, count))[0]


def by_shapley(search):
    """Players of high Shapley value in the reconstruction game."""
    scorer = ShapleyScorer(random_state=0)

    def pick(game, count):
        few = scorer.set_params(n_evaluations=32 * game.n_players + 2)
        return search.search(game, few, [count]).masks[0]

    return pick


def choices(bench, net, data):
    """Yield (choice, masks)."""
    yield "greedy (default)", list(bench.searched(greedy))
    splits = [bench.games.allocate(size) for size in bench.sizes]
    yield "the games' split", [bench.games.select(split, greedy) for split in splits]
    yield "split by payoff alone", list(bench.by_payoff(greedy))
    yield "split by square roots", list(bench.fixed(np.sqrt(bench.capacities)))
    yield "split in proportion", list(bench.fixed(bench.capacities * 1.0))
    yield "greedy, then swaps in the game", list(bench.searched(swapped))
    yield "Top-n by Shapley value", list(bench.searched(by_shapley(TopN())))
    pruning = by_shapley(IteratedPruning(step=0.2))
    yield "Iterated Pruning by Shapley value", list(bench.searched(pruning))
    for weight in (0.0, 4.0):
        masks = list(bench.searched(greedy, bench.layer_games(weight)))
        yield f"weight of the outputs {weight:g} (default 1)", masks
    _, _, X_val, y_val, _, _ = data
    smooth = CoalitionEvaluator(
        net,
        X_val[:4000],
        y_val[:4000],
        players=bench.players,
        payoff="smoothed_accuracy",
    )
    refinement = SwapRefinement(max_rounds=10)
    yield (
        "greedy, then swaps by accuracy",
        [
            refinement.refine(smooth, m, **bench.floors)[0]
            for m in bench.searched(greedy)
        ],
    )


def main(seeds):
    torch.set_num_threads(1)
    X, y, X_test, y_test = load_mnist()
    table, seconds = {}, {}
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(X))
        fit, held = order[:50000], order[50000:]
        data = (X[fit], y[fit], X[held], y[held], X_test, y_test)
        net = train(LeNet5, X[fit], y[fit], seed, epochs=8)
        bench = Choices(net, data, list(LeNet5.players))
        start = time.perf_counter()
        for name, masks in choices(bench, net, data):
            seconds.setdefault(name, []).append(time.perf_counter() - start)
            table.setdefault(name, []).append(bench.scores(masks, "layers"))
            print(seed, name, table[name][-1], flush=True)
            start = time.perf_counter()
        bench = Choices(net, data, FILTERS, n_train=10000)
        name = "filters: greedy (default)"
        table.setdefault(name, []).append(
            bench.scores(bench.searched(greedy), "layers")
        )
        for baseline, masks in bench.baselines(seed):
            if baseline in ("random", "weight norm"):
                name = f"filters: {baseline}"
                table.setdefault(name, []).append(bench.scores(masks, "layers"))
    print(f"\ntest accuracy after repair, mean over seeds {seeds}")
    print(
        f"{'':44}" + "".join(f"{fraction:>9}" for fraction in FRACTIONS) + "  seconds"
    )
    for name, rows in table.items():
        cells = "".join(f"{mean:9.4f}" for mean in np.mean(rows, axis=0))
        took = f"{np.median(seconds[name]):9.1f}" if name in seconds else ""
        print(f"{name:44}{cells}{took}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    main(parser.parse_args().seeds)
