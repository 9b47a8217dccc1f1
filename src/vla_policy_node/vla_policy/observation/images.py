"""Image bytes of any colour encoding in, uint8 (H, W, 3) RGB arrays out; depth images are refused."""

from __future__ import annotations

from array import array

import cv2
import numpy as np
from numpy.typing import NDArray

from vla_policy.contract import Camera
from vla_policy.errors import ObservationError, nearest

Image = NDArray[np.uint8]
Bytes = bytes | bytearray | memoryview | array  # what ROS messages and files hold

# Encoding -> (bytes a pixel, OpenCV's conversion to RGB). OpenCV's own Bayer names start at the second row;
# those with four letters, used here, mean the same as ROS's.
_CONVERSIONS: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (2, cv2.COLOR_YUV2RGB_YUY2),
    "bayer_rggb8": (1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr8": (1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg8": (1, cv2.COLOR_BayerGRBG2RGB),
}
_DEPTH = ("16UC1", "32FC1", "mono16", "16SC1", "64FC1")
_CHANNELS_TO_RGB = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}


def decode_image(encoding: str, height: int, width: int, step: int, data: Bytes) -> Image:
    """An uncompressed image as RGB.

    step: bytes from one row to the next, row padding included. data: height * step bytes.
    Returns: uint8 (height, width, 3), C-contiguous; rgb8 without padding is a view of `data`, not a copy.
    Raises: ObservationError for another encoding, an empty image, a step or data too short for the size.
    """
    if encoding not in _CONVERSIONS:
        raise ObservationError(f"got encoding '{encoding}', {_why_refused(encoding)}")
    pixel_bytes, conversion = _CONVERSIONS[encoding]
    pixels = _rows(encoding, height, width, step, pixel_bytes, np.frombuffer(data, np.uint8))
    if conversion is None:
        return np.ascontiguousarray(pixels)
    if pixel_bytes == 2 and width % 2:
        raise ObservationError(f"encoding {encoding}: got width {width}, expected an even one; "
                               "two pixels share a colour")
    if encoding.startswith("bayer") and min(height, width) < 3:
        raise ObservationError(f"encoding {encoding}: got {width}x{height}, expected at least 3x3 "
                               "to interpolate colour")
    return cv2.cvtColor(pixels[..., 0] if pixel_bytes == 1 else pixels, conversion)


def decode_compressed(data: Bytes) -> Image:
    """A JPEG, PNG or other image file in memory as RGB, uint8 (H, W, 3). Raises: ObservationError."""
    raw = np.frombuffer(data, np.uint8)
    # IMREAD_UNCHANGED lets 16-bit depth be seen and refused; the colour modes would scale it down in silence.
    pixels = cv2.imdecode(raw, cv2.IMREAD_UNCHANGED) if raw.size else None
    if pixels is None:
        raise ObservationError(f"compressed image: got {raw.size} bytes that are no complete image, "
                               "expected JPEG or PNG")
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if pixels.dtype != np.uint8 or channels not in _CHANNELS_TO_RGB:
        raise ObservationError(f"compressed image: got {channels} x {pixels.dtype} a pixel, a depth image "
                               "where a colour camera is expected; point the contract's camera at one")
    return cv2.cvtColor(pixels, _CHANNELS_TO_RGB[channels])


def check_camera(camera: Camera, width: int, height: int, encoding: str | None) -> None:
    """Hold an image's size and encoding (None: compressed) against the contract. Raises: ObservationError."""
    if encoding is not None and encoding != camera.encoding:
        why = "" if encoding in _CONVERSIONS else f" {_why_refused(encoding)};"
        raise ObservationError(f"{camera.topic}: got encoding '{encoding}', expected {camera.encoding};{why} "
                               "correct the contract's camera or the driver")
    if (width, height) != (camera.width, camera.height):
        raise ObservationError(f"{camera.topic}: got {width}x{height}, expected {camera.width}x"
                               f"{camera.height}; correct the driver or the contract's camera")


def _rows(encoding: str, height: int, width: int, step: int, pixel_bytes: int, raw: Image) -> Image:
    """The pixels without padding, as a view (height, width, pixel_bytes)."""
    row_bytes = width * pixel_bytes
    if height < 1 or width < 1:
        raise ObservationError(f"encoding {encoding}: got an empty image of {width}x{height}")
    if step < row_bytes:
        raise ObservationError(f"encoding {encoding}: got a step of {step} bytes, expected at least "
                               f"{row_bytes} for a row of {width} pixels; correct the driver")
    if raw.size != height * step:
        raise ObservationError(f"encoding {encoding}: got {raw.size} bytes, expected {height * step} for "
                               f"{height} rows of {step} bytes; correct the driver")
    return raw.reshape(height, step)[:, :row_bytes].reshape(height, width, pixel_bytes)


def _why_refused(encoding: str) -> str:
    if encoding in _DEPTH:
        return "a depth image where a colour camera is expected"
    return f"no colour encoding that can be read, {nearest(encoding, _CONVERSIONS)}"
