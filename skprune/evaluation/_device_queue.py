"""A queue for each GPU: one fit at a time has the memory of a device to itself."""

from __future__ import annotations

import gc
import getpass
import os
import re
import stat
import tempfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock

from skprune.evaluation._memory import release_memory

__all__ = ["queued_for"]

# Seconds between two looks at whether it is our turn.
_PATIENCE = 0.05
# The queues in whose turn a thread is, with its process: a fork copies what it finds.
_mine = threading.local()


@contextmanager
def queued_for(device):
    """Wait until no other fit of this user runs on a CUDA device; others then wait.

    Workers of a parallel search so share one GPU without exhausting its memory: what
    they do on the CPU goes on side by side, their fits come one after the other. When a
    fit ends, what torch's allocator keeps on the device is handed back to it.

    Parameters
    ----------
    device : str, torch.device or None
        Where a net lives. Nobody waits for anything but a CUDA device.

    Raises
    ------
    PermissionError
        If the folder of the queues belongs to somebody else.

    Notes
    -----
    Threads wait as processes do; what a thread does within its own turn belongs to
    that turn. A turn ends with an exception too, and with its process, however that
    ends. Ctrl-C ends the waiting. Programs of other users, or such as do not use this
    package, know nothing of the queue.

    Examples
    --------
    >>> from skprune.evaluation import queued_for
    >>> with queued_for("cpu"):
    ...     print("nobody waits")
    nobody waits
    """
    path = _path_of(device)
    turns = vars(_mine).setdefault("turns", set())
    turn = os.getpid(), path
    if path is None or turn in turns:
        yield
        return
    with FileLock(path, poll_interval=_PATIENCE):
        turns.add(turn)
        try:
            yield
        finally:
            turns.remove(turn)
            # Nets and their callbacks refer to each other.
            gc.collect()
            release_memory()


def _path_of(device):
    """The file of a device's queue, or None where nobody waits."""
    try:
        device = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError):
        # The net, which is given the same, says what is wrong with it.
        return None
    if device.type != "cuda":
        return None
    return str(_folder() / f"{_name_of(device.index)}.lock")


def _name_of(index):
    """What tells a GPU from others, however processes number those they see."""
    if index is None:
        # Asking for the current device would open it, and take memory on it.
        index = torch.cuda.current_device() if torch.cuda.is_initialized() else 0
    try:
        name = str(torch.cuda.get_device_properties(index).uuid)
    except (AssertionError, AttributeError, RuntimeError):
        # There is no such GPU, which the net will say, or this torch cannot tell.
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
        name = f"visible-{visible}-{index}"
    return re.sub(r"[^\w-]", "_", f"cuda-{name}")[:200]


def _folder():
    """The folder of this user in the temporary one, refused where another has it."""
    folder = Path(tempfile.gettempdir()) / f"skprune-{_user()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    is_mine = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    if not (is_mine and stat.S_ISDIR(found.st_mode)):
        raise PermissionError(
            f"{folder} holds the queues for this machine's GPUs, and is not a folder "
            "of yours; remove it, or set the environment variable TMPDIR to a folder "
            "that is."
        )
    return folder


def _user():
    """A name for the user that no other has."""
    return os.getuid() if hasattr(os, "getuid") else getpass.getuser()
