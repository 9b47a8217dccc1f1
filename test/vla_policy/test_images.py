"""Images of every encoding in, RGB as rosbags-image decodes it out; refusals in words."""

from __future__ import annotations

from array import array
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from rosbags.image import message_to_cvimage

from vla_policy.contract import ENCODINGS, Camera
from vla_policy.errors import ObservationError
from vla_policy.observation.images import check_camera, decode_compressed, decode_image

HEIGHT, WIDTH = 12, 16
BYTES_A_PIXEL = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "yuv422": 2, "uyvy": 2,
                 "yuv422_yuy2": 2,
                 "yuyv": 2, "bayer_rggb8": 1, "bayer_bggr8": 1, "bayer_gbrg8": 1, "bayer_grbg8": 1}


def random_bytes(encoding: str, padding: int = 0) -> tuple[int, bytes]:
    """A step and the bytes of a random image whose rows end in `padding` bytes of noise."""
    step = WIDTH * BYTES_A_PIXEL[encoding] + padding
    return step, np.random.default_rng(7).integers(0, 256, HEIGHT * step, dtype=np.uint8).tobytes()


def smooth_image(height: int = 48, width: int = 64) -> np.ndarray:
    """An RGB image without sharp edges, so that lossy codecs and interpolation change it little."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    return np.stack([40 + 2 * x, 200 - 2 * y, 90 + x + y], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("padding", [0, 5, 64])
def test_every_encoding_of_a_contract_decodes_as_rosbags_image_does(encoding: str, padding: int) -> None:
    step, data = random_bytes(encoding, padding)
    image = decode_image(encoding, HEIGHT, WIDTH, step, data)
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
    unpadded = np.frombuffer(data, np.uint8).reshape(HEIGHT, step)[:, :WIDTH * BYTES_A_PIXEL[encoding]]
    old_name = {"uyvy": "yuv422", "yuyv": "yuv422_yuy2"}.get(encoding, encoding)
    message = SimpleNamespace(__msgtype__="sensor_msgs/msg/Image", encoding=old_name, height=HEIGHT,
                              width=WIDTH,
                              step=unpadded.shape[1], is_bigendian=False,
                              data=np.ascontiguousarray(unpadded).ravel())
    np.testing.assert_array_equal(image, message_to_cvimage(message, "rgb8"))


@pytest.mark.parametrize(("pattern", "mosaic"),
                         [("rggb", "RGGB"), ("bggr", "BGGR"), ("gbrg", "GBRG"), ("grbg", "GRBG")])
def test_bayer_mosaics_give_their_colours_back(pattern: str, mosaic: str) -> None:
    colour = {"R": 200, "G": 120, "B": 30}
    tile = np.array([[colour[mosaic[0]], colour[mosaic[1]]], [colour[mosaic[2]], colour[mosaic[3]]]],
                    np.uint8)
    data = np.tile(tile, (HEIGHT // 2, WIDTH // 2)).tobytes()
    image = decode_image(f"bayer_{pattern}8", HEIGHT, WIDTH, WIDTH, data)
    assert (image == [200, 120, 30]).all()


@pytest.mark.parametrize(("encoding", "pixels"), [
    ("rgb8", [10, 20, 30]), ("bgr8", [30, 20, 10]), ("rgba8", [10, 20, 30, 99]), ("bgra8", [30, 20, 10, 99])])
def test_channel_order_is_honoured(encoding: str, pixels: list[int]) -> None:
    image = decode_image(encoding, 2, 3, 3 * len(pixels), bytes(pixels * 6))
    assert (image == [10, 20, 30]).all()


@pytest.mark.parametrize(("encoding", "pair"),
                         [("yuv422", [128, 77, 128, 180]), ("yuv422_yuy2", [77, 128, 180, 128])])
def test_yuv_keeps_the_brightness_of_each_pixel(encoding: str, pair: list[int]) -> None:
    image = decode_image(encoding, 2, 4, 8, bytes(pair * 4)).astype(int)
    assert (image[:, 0::2].max(axis=-1) < 80).all() and (image[:, 1::2].min(axis=-1) > 180).all()


def test_rgb8_is_not_copied() -> None:
    _, data = random_bytes("rgb8")
    buffer = array("B", data)
    image = decode_image("rgb8", HEIGHT, WIDTH, WIDTH * 3, buffer)
    assert np.shares_memory(image, np.frombuffer(buffer, np.uint8))


@pytest.mark.parametrize(("encoding", "words"), [
    ("16UC1", "got encoding '16UC1', a depth image where a colour camera is expected"),
    ("32FC1", "got encoding '32FC1', a depth image where a colour camera is expected"),
    ("mono16", "got encoding 'mono16', a depth image"),
    ("rgb88",
     "got encoding 'rgb88', no colour encoding that can be read, did you mean 'rgb8'? known: rgb8, bgr8"),
    ("8UC3", "got encoding '8UC3', no colour encoding"),
    ("", "got encoding '', no colour encoding"),
])
def test_other_encodings_are_refused_in_words(encoding: str, words: str) -> None:
    with pytest.raises(ObservationError) as caught:
        decode_image(encoding, HEIGHT, WIDTH, WIDTH * 3, bytes(HEIGHT * WIDTH * 3))
    assert words in str(caught.value)


@pytest.mark.parametrize(("encoding", "height", "width", "step", "size", "words"), [
    ("rgb8", 4, 5, 14, 56, "got a step of 14 bytes, expected at least 15 for a row of 5 pixels"),
    ("rgb8", 4, 5, 15, 59, "got 59 bytes, expected 60 for 4 rows of 15 bytes"),
    ("rgb8", 4, 5, 15, 61, "got 61 bytes, expected 60"),
    ("rgb8", 0, 5, 15, 0, "got an empty image of 5x0"),
    ("mono8", 4, 0, 0, 0, "got an empty image of 0x4"),
    ("yuv422", 4, 5, 10, 40, "got width 5, expected an even one"),
    ("bayer_rggb8", 2, 2, 2, 4, "got 2x2, expected at least 3x3"),
])
def test_sizes_that_do_not_fit_are_refused(encoding: str, height: int, width: int, step: int, size: int,
                                           words: str) -> None:
    with pytest.raises(ObservationError) as caught:
        decode_image(encoding, height, width, step, bytes(size))
    assert f"encoding {encoding}: " in str(caught.value) and words in str(caught.value)


@pytest.mark.parametrize(("suffix", "channels", "tolerance"), [
    (".png", "rgb", 0), (".png", "rgba", 0), (".png", "grey", 0), (".jpg", "rgb", 12), (".jpg", "grey", 12)])
def test_compressed_images_decode(suffix: str, channels: str, tolerance: int) -> None:
    rgb = smooth_image()
    if channels == "grey":
        rgb = np.repeat(rgb[..., :1], 3, axis=-1)
    stored = {"rgb": rgb[..., ::-1], "rgba": cv2.cvtColor(rgb, cv2.COLOR_RGB2BGRA),
              "grey": rgb[..., 0]}[channels]
    data = array("B", cv2.imencode(suffix, np.ascontiguousarray(stored))[1].tobytes())
    image = decode_compressed(data)
    assert image.shape == rgb.shape and image.dtype == np.uint8 and image.flags.c_contiguous
    assert np.abs(image.astype(int) - rgb).max() <= tolerance


@pytest.mark.parametrize(("data", "words"), [
    (b"", "got 0 bytes that are no complete image"),
    (b"no image at all", "got 15 bytes that are no complete image, expected JPEG or PNG"),
    (cv2.imencode(".png", np.full((4, 4), 1000, np.uint16))[1].tobytes(),
     "1 x uint16 a pixel, a depth image where"),
])
def test_compressed_data_that_is_no_colour_image_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ObservationError) as caught:
        decode_compressed(data)
    assert words in str(caught.value)


CAMERA = Camera(topic="/camera/image", width=64, height=48, encoding="rgb8", max_age_s=0.3)


def test_an_image_as_the_contract_says_passes() -> None:
    check_camera(CAMERA, 64, 48, "rgb8")
    check_camera(CAMERA, 64, 48, None)


@pytest.mark.parametrize(("width", "height", "encoding", "words"), [
    (640, 480, "rgb8",
     "got 640x480, expected 64x48; correct the driver or the contract's camera"),
    (48, 64, None, "got 48x64, expected 64x48"),
    (64, 48, "bgr8", "got encoding 'bgr8', expected rgb8; correct the contract's camera or the driver"),
    (64, 48, "16UC1",
     "got encoding '16UC1', expected rgb8; a depth image where a colour camera is expected; correct"),
])
def test_an_image_unlike_the_contract_is_refused(width: int, height: int, encoding: str | None,
                                                 words: str) -> None:
    with pytest.raises(ObservationError) as caught:
        check_camera(CAMERA, width, height, encoding)
    assert str(caught.value).startswith("/camera/image: ") and words in str(caught.value)
