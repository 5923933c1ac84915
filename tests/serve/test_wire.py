"""What goes over the wire is what openpi's client writes, and nothing else is read."""

from __future__ import annotations

import pickle

import msgpack
import numpy as np
import pytest

from wamrl.serve.wire import pack, unpack

VALUES = {
    "image": np.arange(48, dtype=np.uint8).reshape(4, 4, 3),
    "state": np.array([1.5, -2.0], np.float32),
    "number": np.float32(0.5),
    "flag": np.bool_(True),
    "none": np.zeros((0, 3), np.int16),
    "nested": {"text": "push", "list": [1, 2.5, None, False]},
}


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
    return type(a) is type(b) and a == b


def test_values_come_back():
    assert same(unpack(pack(VALUES)), VALUES)


def test_openpi_reads_and_writes_the_same():
    theirs = pytest.importorskip("openpi_client.msgpack_numpy")
    assert same(unpack(theirs.packb(VALUES)), VALUES)
    assert same(theirs.unpackb(pack(VALUES)), VALUES)


def array(dtype="<f4", shape=(1,), data=b"1234", **more) -> bytes:
    fields = {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape}
    return msgpack.packb({"x": fields | more})


DEEP = b"\x91" * 100_000 + b"\x01"
HOSTILE = {
    "objects": array("|O", (1,), b"12345678"),
    "a pickle as objects": array("O", (1,), pickle.dumps([1])[:8]),
    "records": array([["a", "<i4"]]),
    "records by name": array("i4,i4", (1,), b"12345678"),
    "texts": array("<U1"),
    "bytes": array("S4"),
    "void": array("V4"),
    "complex": array("<c8", (1,), b"12345678"),
    "time": array("<M8[s]", (1,), b"12345678"),
    "no such type": array("<f3", (1,), b"123"),
    "a huge shape": array(shape=(1 << 40, 1 << 40)),
    "a shape that overflows": array(shape=(1 << 62, 4), data=b""),
    "a huge empty shape": array(shape=(0, 1 << 63), data=b""),
    "a negative shape": array(shape=(-1,)),
    "a shape of floats": array(shape=(1.0,)),
    "many dimensions": array(shape=(1,) * 9),
    "too few bytes": array(shape=(2,)),
    "a text as bytes": array(data="1234"),
    "no bytes": array(data=None),
    "a number that is none": msgpack.packb(
        {b"__npgeneric__": True, b"data": b"1", b"dtype": "<f4"}
    ),
    "a number of objects": msgpack.packb({b"__npgeneric__": True, b"data": 1, b"dtype": "O"}),
    "an extension": msgpack.packb(msgpack.ExtType(5, b"x")),
    "a pickle": pickle.dumps({"x": 1}),
    "an endless list": b"\xdd\xff\xff\xff\xff",
    "an endless dict": b"\xdf\xff\xff\xff\xff",
    "endless bytes": b"\xc6\xff\xff\xff\xff",
    "deep": DEEP,
    "a key that cannot be one": msgpack.packb({1: 2}),
    "broken utf-8": b"\xa2\xff\xfe",
    "nothing": b"",
    "two messages": b"\x01\x01",
    "a number too large": msgpack.packb(
        {b"__npgeneric__": True, b"data": 1 << 40, b"dtype": "<i4"}
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_messages_are_one_sentence(kind):
    with pytest.raises(ValueError, match="^the message is not msgpack of numbers"):
        unpack(HOSTILE[kind])


def test_what_cannot_be_sent_is_refused():
    for value in (np.array([None]), np.array(["a"]), object()):
        with pytest.raises(ValueError, match="cannot send"):
            pack(value)
