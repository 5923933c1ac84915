"""What holds for all tests; and what takes long to make and several files look at: made once."""

import os
from pathlib import Path

import pytest

# Before NumPy is imported. Two test files run at a time: threads of OpenBLAS that wait for a core
# spin meanwhile, and a product of small matrices then takes 200 times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def point_run(tmp_path_factory) -> Path:
    """The run folder of `wamrl quickstart` on the point mass. Copy it before you change it."""
    from tests.support.command_line import POINT, run_of  # torch: not for those who need no run

    return run_of(tmp_path_factory.mktemp("quick"), "quickstart", *POINT)
