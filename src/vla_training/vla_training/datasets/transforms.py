"""uint8 windows in, shifted, cropped and recoloured uint8 windows out: one draw per window and camera."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vla_training.datasets.config import CameraAugmentation

Image = NDArray[np.uint8]
CHANCES = 9  # numbers that one change takes
LEVELS = np.arange(256.0)
LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue, ITU-R BT.601
TO_YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to every frame of a window of one camera.

    down, right: px, what is uncovered repeats the edge. part: (top, left, side) that is enlarged to the whole, px, or
    None.
    table: uint8 (256,), of every channel; None: unchanged. colour: float32 (3, 4), from RGB1 to RGB, in place of
    `table`, or None.
    """

    down: int
    right: int
    part: tuple[float, float, float] | None
    table: NDArray[np.uint8] | None
    colour: NDArray[np.float32] | None


def draw_change(config: CameraAugmentation, size: int, chance: NDArray[np.float64]) -> Change:
    """What happens to the frames (size, size, 3) of one window and camera. chance: (CHANCES,), each evenly drawn from
    [0, 1).
    """
    down, right = (math.floor(part * (2 * config.shift_px + 1)) - config.shift_px for part in chance[:2].tolist())
    cut, top, left, gain, contrast, saturation, hue = chance[2:].tolist()
    side = size * (1.0 - config.crop * cut)
    part = ((size - side) * top, (size - side) * left, side) if config.crop else None
    gain, contrast = _factor(config.brightness, gain), _factor(config.contrast, contrast)
    if config.saturation or config.hue:
        turn_rad = 2 * np.pi * config.hue * (2 * hue - 1)
        return Change(
            down, right, part, None, _colour_matrix(gain, contrast, _factor(config.saturation, saturation), turn_rad)
        )
    if not (config.brightness or config.contrast):
        return Change(down, right, part, None, None)
    levels = LEVELS * (gain * contrast) + 127.5 * (1.0 - contrast)
    return Change(down, right, part, levels.clip(0, 255).astype(np.uint8), None)


def change_image(image: Image, change: Change, out: Image) -> None:
    """Write `image` (S, S, 3), changed, to `out`, which must be another array, each frame of it contiguous."""
    if change.part is None:
        shift(image, change.down, change.right, out)
    else:
        _enlarge(image, change, out)
    if change.table is not None:
        cv2.LUT(out, change.table, dst=out)
    elif change.colour is not None:
        cv2.transform(out, change.colour, dst=out)


def shift(image: Image, down: int, right: int, out: Image) -> None:
    """Write `image` (S, S, 3), moved by whole pixels, to `out`; what is uncovered repeats the nearest edge."""
    size = image.shape[0]
    top, left = max(down, 0), max(right, 0)
    bottom, end = size + min(down, 0), size + min(right, 0)
    out[top:bottom, left:end] = image[top - down : bottom - down, left - right : end - right]
    out[:top, left:end], out[bottom:, left:end] = out[top, left:end], out[bottom - 1, left:end]
    out[:, :left], out[:, end:] = out[:, left, None], out[:, end - 1, None]


def _enlarge(image: Image, change: Change, out: Image) -> None:
    """Crop, enlarge and shift in one step; pixel centres lie at whole numbers, hence the halves."""
    top, left, side = change.part
    scale = side / len(image)
    half = (scale - 1) / 2
    matrix = np.array([[scale, 0, left + half - scale * change.right], [0, scale, top + half - scale * change.down]])
    cv2.warpAffine(
        image,
        matrix,
        image.shape[:2],
        dst=out,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _factor(reach: float, chance: float) -> float:
    """Evenly from 1 - reach to 1 + reach."""
    return 1.0 + reach * (2.0 * chance - 1.0)


def _colour_matrix(gain: float, contrast: float, saturation: float, hue_rad: float) -> NDArray[np.float32]:
    """RGB1 -> RGB: gain, then contrast about mid-grey, then saturation and hue as scale and turn of YIQ's colour
    plane.
    """
    turn = saturation * np.array([[np.cos(hue_rad), -np.sin(hue_rad)], [np.sin(hue_rad), np.cos(hue_rad)]])
    plane = np.eye(3)
    plane[1:, 1:] = turn
    colour = np.linalg.inv(TO_YIQ) @ plane @ TO_YIQ * (gain * contrast)
    return np.hstack([colour, np.full((3, 1), 127.5 * (1 - contrast))]).astype(np.float32)
