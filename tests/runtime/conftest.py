"""Where a process of several ranks believes to be."""

import pytest


@pytest.fixture
def second_of_two(monkeypatch):
    """What torchrun sets for the second of two ranks on one machine."""
    place = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}
    for name, value in (place | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}).items():
        monkeypatch.setenv(name, value)
