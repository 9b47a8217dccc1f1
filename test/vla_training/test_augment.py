"""Augmentation: one draw per window, whole pixels, edges repeat, the input stays as it was."""

import numpy as np
import pytest

from vla_training.augment import augment, shift
from vla_training.config import Augmentation


def images(frames: int = 3) -> np.ndarray:
    one = np.random.default_rng(0).integers(0, 200, (2, 1, 2, 16, 16, 3), dtype=np.uint8)
    return np.repeat(one, frames, 1)


def test_equal_frames_of_a_window_stay_equal_and_windows_differ() -> None:
    out = augment(images(), Augmentation(shift_px=4, brightness=0.3), np.random.default_rng(1))
    assert np.array_equal(out[:, 0], out[:, 1]) and np.array_equal(out[:, 0], out[:, 2])
    assert not np.array_equal(out[0], images()[0])


def test_the_input_is_not_changed() -> None:
    before = images()
    augment(before, Augmentation(), np.random.default_rng(1))
    assert np.array_equal(before, images())


def test_no_shift_and_no_brightness_change_nothing() -> None:
    assert np.array_equal(
        augment(images(), Augmentation(shift_px=0, brightness=0.0), np.random.default_rng(1)), images()
    )


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, -3), (-1, 4), (3, 3), (-4, -4)])
def test_shift_repeats_the_edges(down: int, right: int) -> None:
    image = images()[0, 0, 0]
    out = np.empty_like(image)
    shift(image, down, right, out)
    rows, columns = (np.clip(np.arange(16) - by, 0, 15) for by in (down, right))
    assert np.array_equal(out, image[rows[:, None], columns[None]])
