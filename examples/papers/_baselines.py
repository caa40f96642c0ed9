"""Masks of a trained net, what they score, and the baselines that need no game."""

import torch

from skprune.evaluation import (
    Repairer,
    Samples,
    first_rows,
    played_payoff,
    random_scores,
    resolve_payoff,
    split_module,
    task_of,
    taylor_scores,
    weight_gradient_scores,
    weight_norm_scores,
)
from skprune.networks import evaluating, find_players
from skprune.strategies import keep_best


class MaskBench:
    """One trained net; the test scores of its sub-networks, with or without repair."""

    def __init__(self, net, train, valid, test, fractions, players="neurons"):
        self.net, self.spec, self.task = net, players, task_of(net)
        with evaluating(net.module_), torch.no_grad():
            example = first_rows(net, train[0])
            self.players = find_players(net.module_, example, players)
            self.split = split_module(net.module_, self.players, example)
        self.train = Samples.of(net, self.split, self.task, *train)
        self.valid = Samples.of(net, self.split, self.task, *valid)
        self.test = Samples.of(net, self.split, self.task, *test)
        self.repairer = Repairer(self.split, self.train, self.task)
        self.payoff = resolve_payoff(
            self.task.default_payoff, self.task, self.test.targets
        )
        self.judge = resolve_payoff(
            self.task.smooth_payoff, self.task, self.valid.targets
        )
        self.floors = {"groups": self.players.group_of}
        n, least = self.players.n_players, len(self.players.groups)
        self.sizes = [max(least, round(fraction * n)) for fraction in fractions]

    def scores(self, masks, repair="none"):
        """Test accuracy, or R², of each mask; repaired as validation data like best."""
        ways = (False, True) if repair == "layers" else (False,)
        scores = []
        for mask in masks:
            repaired = [
                self.repairer.repaired(mask, repair, opened, self.worth)
                for opened in ways
            ]
            best = max(repaired, key=self.worth)
            scores.append(played_payoff(best, self.test, self.task, self.payoff))
        return scores

    def worth(self, split):
        """Validation payoff of a module."""
        return played_payoff(split, self.valid, self.task, self.judge)

    def baselines(self, seed):
        """Yield (method, masks) for scores that need no game."""
        graded = (self.train.subset(10000), self.split, self.players, self.task)
        for name, scores in [
            ("random", random_scores(self.players, seed)),
            ("weight norm", weight_norm_scores(self.net.module_, self.players)),
            ("weight x gradient", weight_gradient_scores(*graded)),
            ("Taylor", taylor_scores(*graded)),
        ]:
            yield name, [keep_best(scores, k, **self.floors) for k in self.sizes]
