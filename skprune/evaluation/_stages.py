"""What the coming or going of one player changes, as parts of a module to run again.

A player is read by some layers. What lies before them stays as it was when the player
comes or goes, so it is kept, and only what lies behind them is run again.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from skprune.networks import call

__all__ = ["Entry", "Stage", "StagedModule"]


@dataclass
class Entry:
    """A Linear layer whose outputs are updated where a player comes.

    What one player adds to them is a product of few columns, so they are not computed
    anew.

    Parameters
    ----------
    slot : int
        The slot of the layer's outputs.
    source : int or str
        Where its input is: the key of a feature, or the number of a slot.
    from_features : bool
        Whether that is a feature.
    columns : tensor of int of shape (n_players, n_columns)
        The columns of each player that the stage is for.
    weights : tensor of shape (n_players, n_columns, n_outputs)
        Their weights.
    """

    slot: int
    source: int | str
    from_features: bool
    columns: torch.Tensor
    weights: torch.Tensor

    def update(self, outputs, inputs, samples, players):
        """Add what the player that comes adds, in each play.

        Parameters
        ----------
        outputs : tensor of shape (n_plays * n_lanes, ..., n_outputs)
            Without it; changed in place.
        inputs : tensor of shape (n_samples, ..., n_inputs)
            What the layer reads, without masks.
        samples : tensor of int of shape (n_plays, n_lanes)
            The inputs that belong to the outputs.
        players : tensor of int of shape (n_plays,)
            Who comes in each play.
        """
        columns, weights = self.columns[players], self.weights[players]
        inputs = inputs.reshape(len(inputs), -1, inputs.shape[-1])
        places = torch.arange(inputs.shape[1], device=inputs.device)
        places, columns = places[:, None], columns[:, None, None, :]
        read = inputs[samples[:, :, None, None], places, columns].flatten(1, 2)
        rows = outputs.view(len(players), -1, outputs.shape[-1])
        if weights.shape[1] == 1:
            rows.addcmul_(read, weights)
        else:
            rows.baddbmm_(read, weights)


@dataclass
class Stage:
    """The layers that the absence of some players can change.

    Parameters
    ----------
    module : torch.nn.Module
        Gives the outputs, or a list of these and of tensors for slots.
    features : list of int or str, or None
        Keys of the features that it reads; None where it takes all of them.
    reads, writes : list of int
        Slots that it reads behind the features, and those that it fills anew.
    entries : list of Entry
        Layers before it, whose slots it reads, that are updated first.
    without_entries : Stage or None
        The same with these layers run again, for players that leave.
    bytes_per_sample : int
        What one sample needs, roughly.
    """

    module: nn.Module
    features: list[int | str] | None
    reads: list[int]
    writes: list[int]
    entries: list[Entry] = field(default_factory=list)
    without_entries: Stage | None = None
    bytes_per_sample: int = 1

    @property
    def for_leavers(self):
        """The stage that players leave by.

        What a sum of floating point numbers got, it does not give back to the bit:
        outputs that were equal, such as those of silent units, would differ.
        """
        return self.without_entries or self

    def features_in(self, features):
        """The features that this stage reads."""
        if self.features is None:
            return features
        return [features[i] for i in self.features]

    def run(self, features, slots):
        """Outputs as a matrix, and a tensor for each slot of `writes`."""
        if self.features is None:
            result = call(self.module, features)
        else:
            result = self.module(*features, *slots)
        outputs, *written = [result] if isinstance(result, torch.Tensor) else result
        return outputs.reshape(len(outputs), -1), written


@dataclass
class StagedModule:
    """A copy of the rest of a module that masks may be put on, and its stages.

    Parameters
    ----------
    rest : torch.nn.Module
        What every coalition runs through; its weights are those of the original.
    players : Players
        Players of `rest`.
    whole : Stage
        All of `rest`; fills all slots.
    stages : list of Stage
        Parts of it, which share its layers.
    stage_of : ndarray of int of shape (n_players,)
        The stage that each player's coming or going changes.
    slot_bytes : int
        What all slots hold for one sample.
    """

    rest: nn.Module
    players: Any
    whole: Stage
    stages: list[Stage]
    stage_of: np.ndarray
    slot_bytes: int = 0

    def replica(self):
        """The same with hooks of its own, in evaluation mode; tensors are shared."""
        entries = [entry for stage in self.stages for entry in stage.entries]
        shared = [*chain(self.rest.parameters(), self.rest.buffers()), self.players]
        twin = copy.deepcopy(self, {id(x): x for x in shared + entries})
        for stage in (twin.whole, *twin.stages):
            stage.module.eval()
        twin.rest.eval()
        return twin
