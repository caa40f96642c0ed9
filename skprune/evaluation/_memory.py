"""How much memory one pass may take, and how to tell that there was too little."""

from __future__ import annotations

import os

import torch

__all__ = ["default_budget", "free_memory", "is_out_of_memory", "release_memory"]

# Measured on four networks: up to 16 MB a pass gets faster, or stays as fast; larger
# ones leave the processor's cache and cost up to half as much again.
_MOST_ON_CPU = 2**24
_MOST_ON_CUDA = 2**30
_ALLOCATOR_SAYS = ("not enough memory", "can't allocate memory")


def default_budget(device):
    """Bytes that one pass may take: a share of the memory that is free.

    Parameters
    ----------
    device : torch.device
        Where the passes run.

    Returns
    -------
    n_bytes : int
        A quarter of the free memory of a CUDA device, at most 1 GiB; elsewhere an
        eighth of that of the machine, at most 16 MiB.

    Examples
    --------
    >>> import torch
    >>> from skprune.evaluation._memory import default_budget
    >>> 0 < default_budget(torch.device("cpu")) <= 2**24
    True
    """
    if device.type == "cuda":
        return min(_MOST_ON_CUDA, torch.cuda.mem_get_info(device)[0] // 4)
    return min(_MOST_ON_CPU, free_memory() // 8)


def is_out_of_memory(error):
    """Whether an exception says that there was too little memory.

    Parameters
    ----------
    error : BaseException
        What was raised.

    Returns
    -------
    bool
        True for those of NumPy, of a device and of torch's allocator on the CPU.
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # On the CPU torch raises a RuntimeError like any other: only its text tells.
    text = str(error)
    return isinstance(error, RuntimeError) and any(s in text for s in _ALLOCATOR_SAYS)


def release_memory():
    """Give back what torch keeps for itself on a CUDA device."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def free_memory():
    """Bytes of memory that the machine can still give, by what its system tells."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        # Not all of it is free; only a share of this is asked for.
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    except (AttributeError, OSError, ValueError):
        return 8 * _MOST_ON_CPU
