"""Messages: there and back, and what is refused before it can do harm."""

from __future__ import annotations

import io

import msgpack
import numpy as np
import pytest
from PIL import Image

from vla_policy.errors import RemoteError
from vla_policy.remote.wire import FIELDS, MAX_IMAGE_PIXELS, Message, MessageType, pack, unpack


def message(**payload: object) -> Message:
    return Message(MessageType.OBSERVATION, payload, 7)


@pytest.mark.parametrize("image_format", ["raw", "png"])
def test_arrays_and_images_come_back_exactly(image_format: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    sent = message(images={"static": image}, joints=np.arange(3.0), flag=np.bool_(True), text="lift", none=None)
    got = unpack(pack(sent, image_format))
    assert (got.type, got.seq) == (sent.type, sent.seq)
    np.testing.assert_array_equal(got.payload["images"]["static"], image)
    np.testing.assert_array_equal(got.payload["joints"], np.arange(3.0))
    assert got.payload["flag"] is True and got.payload["text"] == "lift" and got.payload["none"] is None


def test_jpeg_is_smaller_and_close() -> None:
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    image = np.stack([np.tile(ramp, (64, 1)), np.tile(ramp[:, None], (1, 64)), np.full((64, 64), 80, np.uint8)], -1)
    data = pack(message(image=image), "jpeg")
    assert len(data) < image.nbytes / 2
    assert np.abs(unpack(data).payload["image"].astype(int) - image).mean() < 3


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("text", "text"),
        (b"\xc1", "no msgpack"),
        (b"", "no msgpack"),
        (msgpack.packb([1, 2]), "list"),
        (msgpack.packb({"type": "hello"}), "payload, seq, timestamp"),
        (msgpack.packb(dict.fromkeys(FIELDS, 1)), "type 1"),
        (msgpack.packb({"type": "hello", "payload": [], "seq": 0, "timestamp": 0}), "a map as payload"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes | str, says: str) -> None:
    with pytest.raises(RemoteError, match=says):
        unpack(data)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        ({"__ndarray__": True, "dtype": "|O", "shape": [1], "data": b"12345678"}, "expected bools"),
        ({"__ndarray__": True, "dtype": "<f8", "shape": [1 << 40], "data": b""}, "0 bytes for an array"),
        ({"__ndarray__": True, "dtype": "<f8", "shape": [-1], "data": b""}, "expected bools"),
        ({"__ndarray__": True, "dtype": "nonsense", "shape": [1], "data": b""}, "usable dtype"),
        ({"__image__": True, "format": "png", "shape": [1, 1, 3], "data": b"\x89PNG nothing"}, "no png"),
        ({"__image__": True, "format": "jpeg", "shape": [1, 1, 3]}, "no jpeg"),
    ],
)
def test_harmful_arrays_are_refused(array: dict[str, object], says: str) -> None:
    raw = {"type": "observation", "payload": {"x": array}, "seq": 1, "timestamp": 0.0}
    with pytest.raises(RemoteError, match=says):
        unpack(msgpack.packb(raw))


def test_an_image_that_unfolds_to_gigabytes_is_refused_unopened() -> None:
    side = int(MAX_IMAGE_PIXELS**0.5) + 1
    data = io.BytesIO()
    Image.new("RGB", (side, side)).save(data, "png")
    image = {"__image__": True, "format": "png", "shape": [side, side, 3], "data": data.getvalue()}
    raw = {"type": "observation", "payload": {"x": image}, "seq": 1, "timestamp": 0.0}
    with pytest.raises(RemoteError, match="expected at most"):
        unpack(msgpack.packb(raw))


def test_what_cannot_travel_is_named() -> None:
    with pytest.raises(RemoteError, match="object"):
        pack(message(x=np.array([object()])))
    with pytest.raises(RemoteError, match="set"):
        pack(message(x={1, 2}))
