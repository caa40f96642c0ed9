"""The last word on players: masked and removed networks must agree.

No tracer knows every operation. One that it misunderstood is found here, by numbers.
"""

import numpy as np
import torch

from skprune.exceptions import UnsupportedNetworkError
from skprune.networks._inputs import call, map_tensors, tensors_in
from skprune.networks._masking import masked
from skprune.networks._surgery import copy_of, remove_in_place

__all__ = ["agree", "check_keystone"]


def check_keystone(module, scratch, players, example_input):
    """Compare a masked with a removed network on a coalition or two.

    Parameters
    ----------
    module : torch.nn.Module
        The user's network; it is copied where the comparison fails.
    scratch : torch.nn.Module
        A copy of it in evaluation mode, from which players are then removed.
    players : Players
        What was found in it.
    example_input : tensor, tuple of tensors or dict of tensors
        What both are run on.

    Raises
    ------
    UnsupportedNetworkError
        If they differ, or samples depend on each other; the text names the groups or
        whole layers that differ alone.
    """

    def holds(drop, copy=None):
        copy = copy_of(module).eval() if copy is None else copy
        return _keystone_holds(copy, players, drop, example_input)

    _check_rows(scratch, example_input)
    units, layers = _some_of(players), list(players.layers.values())
    # Every layer is left out once, and there once with some of the units inside it.
    drop, other = (units | _only(players, layers[start::2]) for start in (0, 1))
    if holds(drop, scratch) and (not layers or holds(other)):
        return
    for name, number in players.layers.items():
        if not holds(_only(players, [number])):
            raise UnsupportedNetworkError(
                f"Layer {name!r} cannot be left out: bypassing it gives another output "
                "than putting an nn.Identity in its place. Something else in the "
                "network depends on it: it may change in place what others read, or "
                "keep a tensor that they use. Leave this layer out of players."
            )
    blamed = [
        label
        for group, label in enumerate(players.groups)
        if not holds(units & (players.group_of == group))
    ]
    raise UnsupportedNetworkError(
        f"The players of layer {', '.join(map(repr, blamed or players.groups))} cannot "
        "be removed: masking them gives another output than removing them. On their "
        "way is an operation that mixes units or fixes their number, such as a softmax "
        "over them or a view of a fixed size. Leave this layer out of players."
    )


def _check_rows(scratch, example_input):
    """Refuse a network whose outputs for a sample depend on the others beside it."""
    inputs = tensors_in(example_input)
    n_rows = len(inputs[0])
    half = -(-n_rows // 2)
    if n_rows < 2 or any(len(x) != n_rows for x in inputs):
        return
    rows = torch.arange(n_rows, device=inputs[0].device)
    # As many as before, for sums of other sizes are rounded in another way.
    others = map_tensors(lambda x: x[torch.where(rows < half, rows, 0)], example_input)
    with torch.no_grad():
        outputs, again = (_outputs(scratch, example_input) for _ in range(2))
        beside = _outputs(scratch, others)
    for one, other, same in zip(outputs, beside, again, strict=False):
        has_rows = one.ndim and len(one) == len(other) == n_rows
        if has_rows and agree(one, same) and not agree(one[:half], other[:half]):
            raise UnsupportedNetworkError(
                "The outputs for a sample depend on the samples beside it, as with "
                "batch statistics in evaluation (track_running_stats=False): a "
                "coalition would earn another payoff in another batch. Let each sample "
                "stand alone."
            )


def _some_of(players):
    """Draw about half of each group of units, never all; always the same players."""
    rng = np.random.default_rng(0)
    drop = np.zeros(players.n_players, dtype=bool)
    for group in range(len(players.groups)):
        members = rng.permutation(np.flatnonzero(players.group_of == group))
        drop[members[: len(members) // 2]] = True
    drop[list(players.layers.values())] = False
    return drop


def _only(players, numbers):
    """Mask of some players."""
    return np.isin(np.arange(players.n_players), numbers)


def _keystone_holds(scratch, players, drop, example_input):
    """Whether masked and removed outputs agree to rounding."""
    with torch.no_grad():
        with masked(scratch, players, ~drop):
            expected = tensors_in(
                call(scratch, map_tensors(torch.clone, example_input))
            )
        try:
            pruned = remove_in_place(scratch, players, drop)
            outputs = _outputs(pruned, example_input)
        except (RuntimeError, ValueError, IndexError):
            # A hard-coded size: the answer to the question, not a failure to hide.
            return False
    return all(map(agree, outputs, expected))


def agree(output, expected):
    """Tell whether two outputs of a network are equal to rounding.

    Parameters
    ----------
    output, expected : tensor
        What is compared.

    Returns
    -------
    bool
        Whether shapes agree, and floating point numbers up to half of the digits of the
        largest one: small ones may be what is left of large ones. Other numbers, such
        as the index of the largest, are not compared.
    """
    if output.shape != expected.shape or not output.is_floating_point():
        return output.shape == expected.shape
    finite = expected[expected.isfinite()]
    scale = finite.abs().max().item() if finite.numel() else 1.0
    tolerance = torch.finfo(output.dtype).eps ** 0.5 * max(scale, 1e-12)
    return torch.allclose(output, expected, rtol=0, atol=tolerance, equal_nan=True)


def _outputs(module, example_input):
    """All output tensors of a module, for a copy of the input."""
    return tensors_in(call(module, map_tensors(torch.clone, example_input)))
