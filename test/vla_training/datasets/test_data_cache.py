"""Arrays made once: whole or not at all, anew when the data changes, refused where the disk is too full."""

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from test_window_set import memory_set

from vla_policy.errors import DataError
from vla_training.datasets.cache import FOLDER, array_files, decoded_images

CAMERAS = ("static", "wrist")


def test_images_are_decoded_once(tmp_path: Path) -> None:
    data = memory_set(tmp_path)
    images = decoded_images(data, [0, 2], CAMERAS, 8).array
    assert images.shape == (14, 2, 8, 8, 3)
    assert images[:, 0, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, *range(9)]
    assert images[:, 1, 0, 0, 1].tolist() == [0] * 5 + [20] * 9
    data.asked.clear()
    assert np.array_equal(decoded_images(data, [0, 2], CAMERAS, 8).array, images)
    assert not data.asked
    decoded_images(memory_set(tmp_path, "ffff"), [0, 2], CAMERAS, 8)
    assert len(list((tmp_path / FOLDER).glob("images-*"))) == 2


def test_what_fails_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    data = memory_set(tmp_path)

    def cut_off(arrays: dict[str, np.ndarray]) -> None:
        arrays["rows"][:2] = 1
        raise DataError("file.parquet, episode 1: cut off")

    with pytest.raises(DataError, match="episode 1: cut off"):
        array_files(data, "columns", "key", {"rows": ((4, 2), "float32")}, cut_off)
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")(10**6, 10**6 - 100, 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"images need 0.01 GB, 0.00 GB are free; make room, or train with cache: none"):
        decoded_images(memory_set(tmp_path), [0, 1, 2, 3], CAMERAS, 224)
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_data_in_a_folder_that_cannot_be_written_is_kept_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    data = memory_set(tmp_path / "data")
    (tmp_path / "data" / FOLDER).touch()  # no folder can be made there
    images = decoded_images(data, [0], CAMERAS, 8)
    assert images.path.is_relative_to(tmp_path / "home" / "vla_training")


def test_a_disk_that_fills_up_on_the_way_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        assert (offset, length) == (0, os.fstat(descriptor).st_size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"\.cache: images \[5, 2, 8, 8, 3\] found no room: No space .*cache: none"):
        decoded_images(memory_set(tmp_path), [0], CAMERAS, 8)
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_what_a_killed_run_left_is_removed_unless_another_fills(tmp_path: Path) -> None:
    data, left = memory_set(tmp_path), tmp_path / FOLDER / ".columns-killed"
    left.mkdir(parents=True)

    def fill(arrays: dict[str, np.ndarray]) -> None:
        assert not left.exists()
        left.mkdir()
        array_files(data, "columns", "other", {"rows": ((1,), "float32")}, lambda _: None)
        assert left.exists()  # for all that the second can know it belongs to the first

    array_files(data, "columns", "key", {"rows": ((4, 2), "float32")}, fill)


def test_images_decoded_earlier_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decoded_images(memory_set(tmp_path), [0], CAMERAS, 8)
    assert "decoded earlier" not in capsys.readouterr().out
    decoded_images(memory_set(tmp_path), [0], CAMERAS, 16)
    assert f"{tmp_path / FOLDER}: 0.00 GB of images decoded earlier" in capsys.readouterr().out
