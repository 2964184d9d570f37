"""Settings for the whole suite, and what more than one room's tests need."""

import functools
import importlib.util
import os
import signal
import sys

import pytest
import sklearn.datasets
from hypothesis import HealthCheck, settings

# Before torch is imported. Tests are small computations: threads that wait for one another cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every run that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What a launcher starts, in several processes; and files of fixtures, which share a name and hold no doctests.
collect_ignore = ["helpers/launched_worker.py", "helpers/other_loops_worker.py"]
collect_ignore_glob = ["conftest.py", "*/conftest.py"]

# A busy machine is not a fault of the code.
settings.register_profile("distail", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("distail")


# Hundreds of runs learn from them, and to read the file takes a twentieth of such a run. Nobody changes them in place.
sklearn.datasets.load_digits = functools.cache(sklearn.datasets.load_digits)


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")


@pytest.fixture(scope="session")
def timm():
    """timm itself; where torchvision's operators do not fit this torch, stand-ins that are never called."""
    if importlib.util.find_spec("timm") is None or importlib.util.find_spec("torchvision") is None:
        pytest.skip("timm or torchvision is not installed")
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] in ("timm", "torchvision")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    import timm

    return timm
