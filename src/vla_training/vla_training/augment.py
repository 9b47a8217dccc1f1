"""uint8 windows in, shifted and brightened uint8 windows out: one draw per window and camera."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from vla_training.config import Augmentation


def augment(images: NDArray[np.uint8], config: Augmentation, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Shift (edge pixels repeat) and scale the brightness of images (B, W, V, S, S, 3)."""
    out = np.empty_like(images)
    for window in range(images.shape[0]):
        for view in range(images.shape[2]):
            down, right = rng.integers(-config.shift_px, config.shift_px + 1, 2)
            gain = 1.0 + rng.uniform(-config.brightness, config.brightness)
            table = np.clip(np.arange(256) * gain, 0, 255).astype(np.uint8)
            for frame in range(images.shape[1]):
                shift(images[window, frame, view], down, right, out[window, frame, view])
                cv2.LUT(out[window, frame, view], table, dst=out[window, frame, view])
    return out


def shift(image: NDArray[np.uint8], down: int, right: int, out: NDArray[np.uint8]) -> None:
    """Write `image` (S, S, 3), moved by whole pixels, to `out`; what is uncovered repeats the nearest
    edge.
    """
    size = image.shape[0]
    top, left = max(down, 0), max(right, 0)
    bottom, end = size + min(down, 0), size + min(right, 0)
    out[top:bottom, left:end] = image[top - down : bottom - down, left - right : end - right]
    out[:top, left:end], out[bottom:, left:end] = out[top, left:end], out[bottom - 1, left:end]
    out[:, :left], out[:, end:] = out[:, left, None], out[:, end - 1, None]
