"""Serialised tf.train.Examples, packed by hand, read without protobuf."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_rlds import feature, field, varint

from vla_training.datasets.rlds.example import ExampleError, Kind, byte_strings, floats, integers, locate


def example(name: str, kind: Kind, values: bytes) -> bytes:
    return field(1, feature(name, kind, values))


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30))
def test_integers_of_any_size(numbers: list[int]) -> None:
    packed = example("n", Kind.INTEGERS, field(1, b"".join(map(varint, numbers))))
    assert integers(packed, locate(packed)["n"]).tolist() == numbers
    loose = example("n", Kind.INTEGERS, b"".join(varint(1 << 3) + varint(number) for number in numbers))
    assert integers(loose, locate(loose)["n"]).tolist() == numbers


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=30))
def test_floats_packed_and_loose(numbers: list[float]) -> None:
    raw = np.array(numbers, "<f4")
    packed = example("x", Kind.FLOATS, field(1, raw.tobytes()))
    assert floats(packed, locate(packed)["x"]).tolist() == numbers
    loose = example("x", Kind.FLOATS, b"".join(varint(1 << 3 | 5) + value.tobytes() for value in raw))
    assert floats(loose, locate(loose)["x"]).tolist() == numbers


def test_byte_strings_and_unknown_fields() -> None:
    data = example("s", Kind.BYTES, field(1, b"one") + field(9, b"?") + field(1, b""))
    assert byte_strings(data, locate(data)["s"]) == [b"one", b""]
    with pytest.raises(ExampleError, match="got bytes, expected floats"):
        floats(data, locate(data)["s"])


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        for values in locate(data).values():
            {Kind.BYTES: byte_strings, Kind.FLOATS: floats, Kind.INTEGERS: integers}[values.kind](data, values)
    except ExampleError:
        pass


def test_what_is_cut_off_is_refused() -> None:
    data = example("state", Kind.FLOATS, field(1, bytes(40)))
    for size in range(1, len(data)):
        with pytest.raises(ExampleError):
            locate(data[:size])
