"""What every test shares."""

import os

# Before NumPy and torch are loaded: their threads only wait for each other on networks
# as small as these, which on a busy machine takes a hundred times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


def pytest_collection_modifyitems(items):
    """Skip what is marked `cuda` where torch sees no CUDA device."""
    on_gpu = [item for item in items if item.get_closest_marker("cuda")]
    if not on_gpu:
        return
    import torch  # only where a test needs it: the NumPy layers are tested without

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
