"""What holds for all tests; and what takes long to make and several files look at: made once."""

import os
from pathlib import Path

import pytest

# Before NumPy is imported. Two test files run at a time: threads of OpenBLAS that wait for a core
# spin meanwhile, and a product of small matrices then takes 200 times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


# Begun first. One forks some hundred times, which takes longer the larger its process has grown;
# the others take long, and the last worker should not be left alone with one.
FIRST = (
    "faults/test_killed_saves.py",
    "benchmarks/test_gpu_day.py",
    "study/test_study.py",
    "runtime/test_dist.py",
    "test_scripts.py",
    "benchmarks/test_benchmarks.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring those files to the front; with `--no-loadscope-reorder` xdist keeps the order."""
    here = Path(__file__).parent
    first = {here / name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: first.get(item.path, len(FIRST)))


@pytest.fixture(scope="session")
def point_run(tmp_path_factory) -> Path:
    """The run folder of `wamrl quickstart` on the point mass. Copy it before you change it."""
    from tests.support.command_line import POINT, run_of  # torch: not for those who need no run

    return run_of(tmp_path_factory.mktemp("quick"), "quickstart", *POINT)
