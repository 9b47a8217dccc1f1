"""Arrays and the objects that numpy saves are read; a pickle that asks for anything else is refused unrun."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vla_policy.errors import DataError
from vla_training.datasets.calvin.arrays import load_npy, load_npz


@pytest.mark.parametrize(
    "value",
    [
        {
            "language": {"ann": ["lift"], "emb": np.ones((1, 2), np.float32)},
            "info": {"indx": [(np.int64(0), np.int64(3))]},
        },
        {"scene": [0, 3], "nothing": None, "flag": True, "half": 0.5, "raw": b"x", "set": {1, 2}},
        np.array(["a", ["b"], 3], dtype=object),
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    ],
)
def test_what_numpy_saves_is_read(tmp_path: Path, value: Any) -> None:
    np.save(tmp_path / "a.npy", value)
    found = load_npy(tmp_path / "a.npy")
    expected = np.load(tmp_path / "a.npy", allow_pickle=True)
    expected = expected.item() if expected.shape == () else expected
    assert pickle.dumps(found) == pickle.dumps(expected)


def test_the_names_of_numpy_1_are_known(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", {"a": np.ones(2), "b": np.float64(1)})
    data = (tmp_path / "a.npy").read_bytes()
    assert b"numpy._core.multiarray" in data
    old = data.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
    length = len(data) - len(old)  # of each name that became shorter; the frame's length counts it
    frame = old.index(b"\x80\x04\x95") + 3
    size = int.from_bytes(old[frame : frame + 8], "little") - length
    (tmp_path / "a.npy").write_bytes(old[:frame] + size.to_bytes(8, "little") + old[frame + 8 :])
    found = load_npy(tmp_path / "a.npy")
    assert np.array_equal(found["a"], np.ones(2)) and found["b"] == 1


class Malicious:
    """Its pickle creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def wrapped(value: Any) -> list[Any]:
    return [value, {"language": {"ann": [value]}}, np.array([value, 1], dtype=object)]


@pytest.mark.parametrize("place", range(3))
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path, place: int) -> None:
    trap = tmp_path / "trap"
    np.save(tmp_path / "a.npy", np.array(wrapped(Malicious(trap))[place], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"a\.npy: refused, its pickle asks for posix\.mkdir, which no array needs"):
        load_npy(tmp_path / "a.npy")
    assert not trap.exists()
    np.load(tmp_path / "a.npy", allow_pickle=True)
    assert trap.exists()  # the trap would have worked


@pytest.mark.parametrize(
    "call", [b"cbuiltins\neval\n", b"cnumpy\nload\n", b"cnumpy.f2py\nmain\n", b"cbuiltins\ngetattr\n", b"cos\nsystem\n"]
)
def test_nothing_but_what_arrays_need_can_be_named(tmp_path: Path, call: bytes) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
    (tmp_path / "a.npy").write_bytes(header.getvalue() + b"\x80\x02" + call + b"U\x011\x85R.")
    with pytest.raises(DataError, match="refused, its pickle asks for"):
        load_npy(tmp_path / "a.npy")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_cut_file_is_named(tmp_path: Path, share: float) -> None:
    np.save(tmp_path / "a.npy", {"language": {"ann": ["lift the block"] * 50}})
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=r"a\.npy: not a readable \.npy file"):
        load_npy(tmp_path / "a.npy")


def test_arrays_of_every_order_and_type_come_back_from_an_archive(tmp_path: Path) -> None:
    arrays = {
        "plain": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "number": np.float32(3.5),
        "empty": np.empty((0, 4)),
    }
    np.savez(tmp_path / "a.npz", **arrays)
    for name, array in load_npz(tmp_path / "a.npz", list(arrays)).items():
        assert np.array_equal(array, arrays[name]) and array.dtype == arrays[name].dtype
