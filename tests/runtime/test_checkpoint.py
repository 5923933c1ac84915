import json
import math
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from wamrl.runtime import checkpoint
from wamrl.runtime.checkpoint import latest, load, save, save_named, save_step
from wamrl.runtime.files import MANIFEST, sha256

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.float8_e4m3fn,
    torch.complex64,
]


def assert_same(a, b, where="state"):
    """Equal in type, nesting, order and bits."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert list(a) == list(b) and [type(k) for k in a] == [type(k) for k in b], where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (left, right) in enumerate(zip(a, b, strict=True)):
            assert_same(left, right, f"{where}.{i}")
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and a.shape == b.shape, where
        assert _bits(a) == _bits(b), where
    elif isinstance(a, np.ndarray | np.generic):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes(), where
    else:
        assert repr(a) == repr(b), where


def _bits(tensor) -> bytes:
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist())


def random_tensor(dtype, shape):
    count = math.prod(shape) * torch.tensor([], dtype=dtype).element_size()
    data = torch.randint(256, (count,), dtype=torch.uint8)
    if dtype == torch.bool:
        return data.view(torch.bool).reshape(shape) if not count else (data > 127).reshape(shape)
    return data.view(dtype).reshape(shape)  # any bit pattern, NaNs with payload included


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_shape_comes_back_bitwise(dtype, tmp_path):
    state = {
        str(shape): random_tensor(dtype, shape)
        for shape in [(), (1,), (0,), (3, 0), (7,), (2, 3, 5)]
    }
    save(tmp_path / "c", state)
    assert_same(state, load(tmp_path / "c"))


def test_nesting_and_scalars_come_back(tmp_path):
    state = {
        "empty": [{}, [], (), "", b"", None],
        "keys": {0: "a", "0": "b", -3: 1, 2.5: 2, True: 3, None: 4, 'ä\n"': 5},
        "numbers": [0, -1, 2**80, 0.1, -0.0, math.inf, -math.inf, math.nan, 5e-324, True, False],
        "a.b": torch.ones(2),
        "a": {"b": torch.zeros(2)},
        "state.a": (torch.ones(1), [(1, (2,))]),
        "numpy": [
            np.arange(6, dtype=np.uint32)[None],
            np.array(3.0),
            np.float32(1.5),
            np.float64(2),
            np.bool_(1),
        ],
        "bytes": bytes(range(256)),
    }
    save(tmp_path / "c", state)
    assert_same(state, load(tmp_path / "c"))


def test_views_and_shared_memory(tmp_path):
    base = torch.arange(12.0)
    state = {
        "whole": base,
        "again": base,
        "part": base[3:5],
        "turned": base.view(3, 4).T,
        "wide": base[:1].expand(5),
    }
    state["leaf"] = torch.nn.Parameter(torch.ones(2))
    save(tmp_path / "c", state)
    back = load(tmp_path / "c")
    assert all(torch.equal(state[k].detach(), back[k]) for k in state)
    assert (
        back["whole"].data_ptr() != back["again"].data_ptr() and type(back["leaf"]) is torch.Tensor
    )


def _train(model, optimizer, steps):
    for _ in range(steps):
        x = torch.randn(8, 4) + random.random() + float(np.random.rand())
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def test_training_resumes_bitwise(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5)
    )
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    _train(model, optimizer, 3)
    rng = {
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(legacy=False),
        "python": random.getstate(),
    }
    save(tmp_path / "c", {"m": model.state_dict(), "o": optimizer.state_dict(), "rng": rng})
    _train(model, optimizer, 3)
    torch.manual_seed(9)
    random.seed(9)
    other = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5)
    )
    resumed = torch.optim.AdamW(other.parameters(), 1e-2)
    state = load(tmp_path / "c")
    other.load_state_dict(state["m"])
    resumed.load_state_dict(state["o"])
    torch.set_rng_state(state["rng"]["torch"])
    np.random.set_state(state["rng"]["numpy"])
    random.setstate(state["rng"]["python"])
    _train(other, resumed, 3)
    assert_same(dict(model.state_dict()), dict(other.state_dict()))
    assert_same(optimizer.state_dict(), resumed.state_dict())


def test_the_last_few_and_named_ones_are_kept(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint"):
        latest(tmp_path)
    for step in (1, 2, 30, 4, 100_000_000):
        save_step(tmp_path, step, {"step": step}, keep=2)
    save_named(tmp_path, "best", {"step": 2})
    save_named(tmp_path, "best", {"step": 3})
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["best", "step-00000030", "step-100000000"]
    assert (
        load(latest(tmp_path))["step"] == 100_000_000
        and load(tmp_path / "checkpoints" / "best")["step"] == 3
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    save(tmp_path / "c", {"w": torch.arange(100.0), "step": 3})
    return tmp_path / "c"


def _sign(folder: Path) -> None:
    files = [f for f in folder.iterdir() if f.name != MANIFEST]
    (folder / MANIFEST).write_text(json.dumps({f.name: sha256(f) for f in files}))


def _tree(folder: Path, text: str) -> None:
    (folder / "state.json").write_text(text)
    _sign(folder)


def _flip(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[-5] ^= 1
    (folder / name).write_bytes(data)


def _cut(folder: Path) -> None:
    os.truncate(folder / "tensors.safetensors", 60)
    _sign(folder)


HEAD = '{"format": "wamrl-checkpoint", "version": 1, "state": '
DAMAGE = {
    "flipped tensor bit": (lambda f: _flip(f, "tensors.safetensors"), "corrupt"),
    "flipped structure bit": (lambda f: _flip(f, "state.json"), "corrupt"),
    "truncated": (lambda f: os.truncate(f / "tensors.safetensors", 60), "corrupt"),
    "truncated and signed": (_cut, "not readable"),
    "missing file": (lambda f: (f / "tensors.safetensors").unlink(), "is missing"),
    "missing manifest": (lambda f: (f / MANIFEST).unlink(), "is missing"),
    "empty structure": (lambda f: _tree(f, ""), "not readable"),
    "foreign": (lambda f: _tree(f, "[]"), "not a checkpoint"),
    "too new": (lambda f: _tree(f, '{"format": "wamrl-checkpoint", "version": 2}'), "version 2"),
    "unknown tensor": (
        lambda f: _tree(f, HEAD + '{"dict": [["w", {"tensor": "v"}]]}}'),
        "not readable",
    ),
    "unknown tag": (lambda f: _tree(f, HEAD + '{"os.system": "true"}}'), "unknown tag"),
    "odd node": (lambda f: _tree(f, HEAD + "1.5}"), "not readable"),
    "list as key": (lambda f: _tree(f, HEAD + '{"dict": [[{"list": []}, 1]]}}'), "not readable"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_one_sentence(folder, kind):
    damage, text = DAMAGE[kind]
    damage(folder)
    with pytest.raises(ValueError, match=text) as caught:
        load(folder)
    assert "\n" not in str(caught.value) and "resume from another checkpoint" in str(caught.value)


def test_missing_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="there is no checkpoint at"):
        load(tmp_path / "nowhere")


def test_what_cannot_be_saved_is_named_and_nothing_is_lost(folder, monkeypatch):
    for bad, text in (
        (object(), r"state\.a\.1: object"),
        (np.array(["x"]), r"state\.a\.1"),
        ({(1, 2): 3}, "its key"),
    ):
        with pytest.raises(ValueError, match=text):
            save(folder, {"a": [0, bad]})
    monkeypatch.setattr(
        checkpoint,
        "save_file",
        lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    with pytest.raises(ValueError, match="No space left"):
        save(folder, {"step": 4})
    assert load(folder)["step"] == 3 and [p.name for p in folder.parent.iterdir()] == ["c"]
