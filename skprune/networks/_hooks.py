"""Hooks on layers that read players, held once and taken away together."""

from torch import nn

__all__ = ["LayerHooks", "channel_axis", "layer_input", "run_with_weight"]


class LayerHooks:
    """A module some of whose layers are hooked, until `close` or the context ends.

    Parameters
    ----------
    module : torch.nn.Module
        The network. Nothing of it but its forward hooks changes.
    """

    def __init__(self, module):
        self.module = module
        self._handles = []

    def close(self):
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __call__(self, *args, **kwargs):
        """Run the module under the hooks.

        Parameters
        ----------
        *args, **kwargs : tensors
            What the module takes.

        Returns
        -------
        tensor
            What the module gives.
        """
        return self.module(*args, **kwargs)

    def __enter__(self):
        """Return self; leaving the context closes it."""
        return self

    def __exit__(self, *exception):
        """Take the hooks away, whatever happened."""
        self.close()

    def _before(self, layer, function, *, first=False):
        """Let a layer read ``function(x)`` for x, or x itself if that is None.

        The first one is asked before all hooks that are there, and sees what they do
        not change yet.
        """

        def change_input(_, args, kwargs):
            x = function(layer_input(args, kwargs))
            if x is None:
                return None
            return ((x, *args[1:]), kwargs) if args else (args, kwargs | {"input": x})

        change_input.is_mask = True
        handle = layer.register_forward_pre_hook(
            change_input, with_kwargs=True, prepend=first
        )
        self._handles.append(handle)

    def _after(self, layer, function):
        """Let a layer give ``function(x, output)``, or its output if that is None."""

        def change_output(_, args, kwargs, output):
            return function(layer_input(args, kwargs), output)

        change_output.is_mask = True
        handle = layer.register_forward_hook(change_output, with_kwargs=True)
        self._handles.append(handle)


def layer_input(args, kwargs):
    """What a layer was called on."""
    return args[0] if args else kwargs["input"]


def channel_axis(layer):
    """Axis of a layer's input, and of its output, that holds the units."""
    return -1 if isinstance(layer, nn.Linear) else -1 - len(layer.kernel_size)


def run_with_weight(layer, x, weight):
    """What a Linear layer or a convolution would give with another weight tensor."""
    if isinstance(layer, nn.Linear):
        return nn.functional.linear(x, weight, layer.bias)
    return layer._conv_forward(x, weight, layer.bias)
