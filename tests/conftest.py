"""What takes long to make and several files look at: made once, and never changed."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def point_run(tmp_path_factory) -> Path:
    """The run folder of `wamrl quickstart` on the point mass. Copy it before you change it."""
    from tests.support.command_line import POINT, run_of  # torch: not for those who need no run

    return run_of(tmp_path_factory.mktemp("quick"), "quickstart", *POINT)
