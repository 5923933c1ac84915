"""A soak of seconds: every kind of fault once, and a leak is noticed."""

from dataclasses import replace
from itertools import islice

from benchmarks import soak


def test_every_fault_once(tmp_path, capsys):
    options = soak.Options(fault_every_s=0.01, timeout_s=0.5)
    looks = list(islice(soak.soak(options, tmp_path), 5))
    kinds = ["worker killed", "worker stopped", "state read back", "tensorboard removed"]
    assert [look.fault for look in looks] == [*kinds, kinds[0]]
    assert [look.iterations for look in looks] == [1, 2, 3, 4, 5] and looks[-1].lost > 0
    flat = [replace(look, resident_mb=100.0, threads=9) for look in looks]
    assert soak.worn(flat) == []
    grown = [replace(look, descriptors=i) for i, look in enumerate(flat)]
    assert soak.worn(grown) == ["descriptors grew from 1 to 4"]
    assert soak.worn([*flat[1:], flat[0]]) == [
        f"{name} went back" for name in ("iterations", "episodes", "lost", "control_steps")
    ]
