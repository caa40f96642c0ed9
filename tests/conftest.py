"""What every test shares."""

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
