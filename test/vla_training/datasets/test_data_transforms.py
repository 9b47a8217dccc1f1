"""Images moved, cut and recoloured: as drawn, within bounds, unchanged where nothing is asked for."""

import cv2
import numpy as np
import pytest

from vla_training.datasets.config import Augmentation, CameraAugmentation
from vla_training.datasets.transforms import CHANCES, change_image, draw_change, shift

NOTHING = {"shift_px": 0, "brightness": 0.0}
MIDDLE = np.full(CHANCES, 0.5)


def picture(size: int = 24) -> np.ndarray:
    """Smooth, in the middle of the range, so that nothing saturates."""
    y, x = np.mgrid[0:size, 0:size]
    return np.stack([80 + 2 * x, 90 + 2 * y, 100 + x + y], -1).astype(np.uint8)


def changed(config: CameraAugmentation, chance: np.ndarray = MIDDLE, image: np.ndarray | None = None) -> np.ndarray:
    image = picture() if image is None else image
    out = np.empty_like(image)
    change_image(image, draw_change(config, len(image), chance), out)
    return out


def chances(**places: float) -> np.ndarray:
    names = ("down", "right", "cut", "top", "left", "gain", "contrast", "saturation", "hue")
    return np.array([places.get(name, 0.5) for name in names])


def test_a_shift_moves_whole_pixels_and_repeats_the_edge() -> None:
    image, out = picture(), np.empty_like(picture())
    shift(image, 2, -3, out)
    assert np.array_equal(out[2:, :-3], image[:-2, 3:])
    assert (out[:2] == out[2]).all()
    assert (out[:, -3:] == out[:, -4:-3]).all()


def test_nothing_asked_for_changes_nothing() -> None:
    assert np.array_equal(changed(CameraAugmentation(**NOTHING)), picture())
    everything = CameraAugmentation(shift_px=3, crop=0.2, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.2)
    assert np.abs(changed(everything, chances(cut=0.0)).astype(int) - picture()).max() <= 1


@pytest.mark.parametrize("part", ["shift_px", "brightness"])
def test_the_ends_of_the_range_are_reached_and_not_passed(part: str) -> None:
    config = CameraAugmentation(**NOTHING | {part: {"shift_px": 2, "brightness": 0.1}[part]})
    low, high = (draw_change(config, 24, np.full(CHANCES, chance)) for chance in (0.0, np.nextafter(1, 0)))
    if part == "shift_px":
        assert (low.down, low.right, high.down, high.right) == (-2, -2, 2, 2)
    else:
        assert (low.table[100], high.table[100]) == (90, 110)


def test_a_crop_is_what_opencv_makes_of_it() -> None:
    out = changed(CameraAugmentation(**NOTHING, crop=0.5 - 1e-9), chances(cut=1.0, top=1.0, left=0.0))
    expected = cv2.resize(picture()[12:, :12], (24, 24), interpolation=cv2.INTER_LINEAR)
    assert np.abs(out[1:-1, 1:-1].astype(int) - expected[1:-1, 1:-1]).max() <= 1


def test_a_crop_and_a_shift_go_together() -> None:
    config = CameraAugmentation(**NOTHING | {"shift_px": 2}, crop=0.25)
    both = changed(config, chances(cut=1.0, down=0.99, right=0.0))
    cut = changed(CameraAugmentation(**NOTHING, crop=0.25), chances(cut=1.0))
    moved = np.empty_like(cut)
    shift(cut, 2, -2, moved)
    assert np.abs(both[4:-4, 4:-4].astype(int) - moved[4:-4, 4:-4]).max() <= 1


def test_colours() -> None:
    grey = changed(CameraAugmentation(**NOTHING, saturation=1.0), chances(saturation=0.0))
    assert (np.ptp(grey.astype(int), axis=-1) <= 1).all()
    luma = picture() @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey[..., 0] - luma).max() <= 1
    turned = changed(CameraAugmentation(**NOTHING, hue=0.5), chances(hue=0.0))
    assert np.abs(turned @ np.array([0.299, 0.587, 0.114]) - luma).max() <= 1.5
    assert np.abs(turned.astype(int) - picture()).max() > 5
    flat = changed(CameraAugmentation(**NOTHING, contrast=1.0), chances(contrast=0.0))
    assert (flat == 127).all()


def test_cameras_may_have_their_own() -> None:
    own = Augmentation(shift_px=4, cameras={"wrist": CameraAugmentation(shift_px=1)})
    assert (own.of("static").shift_px, own.of("wrist").shift_px) == (4, 1)
