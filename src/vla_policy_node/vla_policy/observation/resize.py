"""A colour image of any size in, the square image the model sees out: the one way in training and serving."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def resize_image(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) -> uint8 (size, size, 3), stretched to a square.

    Each output pixel is the mean of the area it covers (exact, rounded half up, where H and W are even
    multiples of `size`); where the image must grow it is interpolated linearly. Raises: ValueError for
    another dtype or shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image: got {image.dtype} {image.shape}, expected uint8 (H, W, 3)")
    if image.shape[:2] == (size, size):
        return np.ascontiguousarray(image)
    grows = min(image.shape[:2]) < size
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR if grows else cv2.INTER_AREA)
