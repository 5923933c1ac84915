"""`wamrl ARGS` in this process: what it says, what it leaves, what it refuses."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from wamrl.cli import main

SMALL = (
    "--pool.n-workers",
    "1",
    "--threads",
    "1",
    "--sft.save-every",
    "8",
    "--sft.log-every",
    "4",
)
POINT = ("point", "--smoke", *SMALL, "--eval.every", "1")


def wamrl(*args) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `wamrl ARGS`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(a) for a in args])
            code = 0
        except SystemExit as stop:
            code = stop.code
    return code, out.getvalue(), err.getvalue()


def run_of(root: Path, *args) -> Path:
    """The run folder that a verb has made under `root`; it must succeed in silence on stderr."""
    code, out, err = wamrl(*args, "--out", root)
    assert code == 0, out + err
    (run,) = root.iterdir()
    return run


def refused(*args, code: int = 1) -> str:
    """The one sentence of a refused command. code: 2 where the command line itself is wrong."""
    found, _, err = wamrl(*args)
    lines = [line for line in err.splitlines() if line.strip()]
    assert found == code and len(lines) == 1 and lines[0].startswith("wamrl: error: "), (found, err)
    return lines[0].removeprefix("wamrl: error: ")
