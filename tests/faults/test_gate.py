"""Nothing in the code can execute what a file says: no pickle, no eval, no code of others."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [
    path for room in ("wamrl", "benchmarks", "scripts") for path in (ROOT / room).rglob("*.py")
]

CALLS = {"eval", "exec", "compile", "__import__"}
LOADERS = {  # module: what of it executes, or may execute, what it reads
    "pickle": {"load", "loads", "Unpickler"},
    "cPickle": {"load", "loads", "Unpickler"},
    "dill": {"load", "loads", "Unpickler"},
    "cloudpickle": {"load", "loads"},
    "joblib": {"load"},
    "marshal": {"load", "loads"},
    "shelve": {"open", "Shelf", "DbfilenameShelf"},
    "yaml": {"load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all"},
    "torch": {"hub"},  # and `load`, which unpickles: with weights_only=True it keeps to a list
    "pandas": {"read_pickle"},
    "runpy": {"run_path", "run_module"},
    "imp": {"load_source"},
}
# keyword: the only values that are allowed
KEYWORDS = {"weights_only": {True}, "trust_remote_code": {False}, "allow_pickle": {False}}


def faults(source: str, where: str = "x.py") -> list[str]:
    """file:line: what is forbidden there."""
    tree = ast.parse(source)
    names = {}  # what a name of this file stands for: "torch" or "torch.load"
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.asname or a.name.split(".")[0]: a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    found = []
    for node in ast.walk(tree):
        what = ""
        if isinstance(node, ast.Call) and ast.unparse(node.func) in CALLS:
            what = ast.unparse(node.func)
        elif isinstance(node, ast.Call) and _whole(ast.unparse(node.func), names) == "torch.load":
            what = "" if any(k.arg == "weights_only" for k in node.keywords) else "torch.load"
        if isinstance(node, ast.Attribute | ast.Name):
            what = _loader(ast.unparse(node), names)
        if isinstance(node, ast.keyword) and node.arg in KEYWORDS:
            value = getattr(node.value, "value", "not a constant")
            what = "" if value in KEYWORDS[node.arg] else f"{node.arg}={ast.unparse(node.value)}"
        if what:
            line = getattr(node, "lineno", 0) or node.value.lineno
            found.append(f"{where}:{line}: {what}")
    return sorted(set(found))


def _whole(dotted: str, names: dict[str, str]) -> str:
    """With what its first part stands for."""
    first, _, rest = dotted.partition(".")
    return ".".join(filter(None, (names.get(first, ""), rest)))


def _loader(dotted: str, names: dict[str, str]) -> str:
    whole = _whole(dotted, names)
    module, _, name = whole.partition(".")
    return whole if name.split(".")[0] in LOADERS.get(module, ()) else ""


def test_no_file_is_executed():
    assert len(FILES) > 150
    found = [
        fault
        for path in FILES
        for fault in faults(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "ok"),
    [
        ("import torch\ntorch.load('x')", False),
        ("import torch\ntorch.load('x', weights_only=True)", True),
        ("import torch as t\nt.load('x', weights_only=False)", False),
        ("from torch import load\nload('x')", False),
        ("import pickle\npickle.loads(b'')", False),
        ("from pickle import loads as read\nread(b'')", False),
        ("import yaml\nyaml.load(text)", False),
        ("import yaml\nyaml.safe_load(text)", True),
        ("import numpy as np\nnp.load('x', allow_pickle=True)", False),
        ("import numpy as np\nnp.load('x', allow_pickle=False)", True),
        ("eval('1')", False),
        ("model.eval()", True),
        ("exec(code)", False),
        ("re.compile('x')", True),
        ("f(trust_remote_code=True)", False),
        ("f(trust_remote_code=flag)", False),
        ("import json\njson.load(file)", True),
        ("from wamrl.runtime import checkpoint\ncheckpoint.load(path)", True),
        ("torch.hub.load('a/b')", True),  # not imported: another torch
        ("import torch\ntorch.hub.load('a/b')", False),
    ],
)
def test_the_gate_itself(source: str, ok: bool):
    assert (not faults(source)) == ok, faults(source)
