"""Messages in, bytes out, and back: msgpack over a websocket, in the format of vla-eval 0.8 (protocol version 1).

A message is a map of type, payload, seq and timestamp. Arrays are `{__ndarray__, data, dtype, shape}`, images
`{__image__, format, data, shape}` with format raw, jpeg or png. Nothing that comes in is executed or trusted: kinds,
types, sizes and shapes are checked before memory is taken, and there is no pickle.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import cv2
import msgpack
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vla_policy.errors import RemoteError

PROTOCOL_VERSION = 1
MAX_MESSAGE_BYTES = 32 * 1024 * 1024
MAX_IMAGE_PIXELS = 4096 * 4096
JPEG_QUALITY = 95
ALLOWED_KINDS = "biuf"  # bool, int, unsigned, float
FIELDS = ("type", "payload", "seq", "timestamp")

ImageFormat = Literal["raw", "jpeg", "png"]


class MessageType(StrEnum):
    """What a message is about."""

    HELLO = "hello"
    OBSERVATION = "observation"
    ACTION = "action"
    EPISODE_START = "episode_start"
    EPISODE_END = "episode_end"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Message:
    """seq: counted by who asks; an answer carries the seq of its question. timestamp: seconds since 1970."""

    type: MessageType
    payload: Mapping[str, Any]
    seq: int = 0
    timestamp: float = field(default_factory=time.time)


def pack(message: Message, image_format: ImageFormat = "png") -> bytes:
    """Bytes of a message. image_format: of uint8 arrays (H, W, 3); jpeg loses detail.

    Raises: RemoteError for what cannot travel.
    """
    raw = {
        "type": message.type.value,
        "payload": dict(message.payload),
        "seq": message.seq,
        "timestamp": message.timestamp,
    }
    try:
        return msgpack.packb(raw, default=lambda value: _encode(value, image_format), use_bin_type=True)
    except (TypeError, ValueError, OverflowError) as problem:
        raise RemoteError(
            f"message '{message.type}': {problem}; expected numbers, text, arrays, lists and maps"
        ) from None


def unpack(data: bytes | str) -> Message:
    """The message in `data`. Raises: RemoteError for anything that is no whole, well-formed message."""
    if isinstance(data, str):
        raise RemoteError("message: got text, expected binary msgpack; is this another protocol?")
    if len(data) > MAX_MESSAGE_BYTES:
        raise RemoteError(f"message: got {len(data)} bytes, expected at most {MAX_MESSAGE_BYTES}; send smaller images")
    try:
        raw = msgpack.unpackb(data, object_hook=_decode, raw=False)
    except RemoteError:
        raise
    except Exception as problem:  # msgpack raises many kinds, bare ValueError and UnicodeDecodeError among them
        raise RemoteError(f"message: {len(data)} bytes are no msgpack: {type(problem).__name__}: {problem}") from None
    missing = [name for name in FIELDS if name not in raw] if isinstance(raw, dict) else list(FIELDS)
    if missing:
        raise RemoteError(
            f"message: got {type(raw).__name__} without {', '.join(missing)}; expected a map of {', '.join(FIELDS)}"
        )
    if raw["type"] not in MessageType.__members__.values():
        raise RemoteError(f"message: got type {raw['type']!r}, expected one of {', '.join(MessageType)}")
    if not isinstance(raw["payload"], dict) or not isinstance(raw["seq"], int):
        raise RemoteError(f"message '{raw['type']}': expected a map as payload and a whole number as seq")
    return Message(MessageType(raw["type"]), raw["payload"], raw["seq"], float(raw["timestamp"]))


def _encode(value: Any, image_format: ImageFormat) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in ALLOWED_KINDS:
            raise TypeError(f"array of {value.dtype}")
        if image_format != "raw" and value.ndim == 3 and value.dtype == np.uint8 and value.shape[2] == 3:
            return _encode_image(value, image_format)
        return {"__ndarray__": True, "data": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, np.generic) and value.dtype.kind in ALLOWED_KINDS:
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot travel")


def _encode_image(image: NDArray[np.uint8], image_format: ImageFormat) -> dict[str, Any]:
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if image_format == "jpeg" else []
    suffix = ".jpg" if image_format == "jpeg" else ".png"
    _, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    return {"__image__": True, "format": image_format, "data": data.tobytes(), "shape": list(image.shape)}


def _decode(value: dict[Any, Any]) -> Any:
    if "__image__" in value and value.get("format") in ("jpeg", "png"):
        return _decode_image(value)
    if "__image__" in value or "__ndarray__" in value:
        return _decode_array(value)
    return value


def _decode_array(value: dict[Any, Any]) -> NDArray[Any]:
    try:
        dtype, shape, data = np.dtype(value["dtype"]), tuple(int(n) for n in value["shape"]), value["data"]
    except (KeyError, TypeError, ValueError) as problem:
        raise RemoteError(f"message: an array without a usable dtype, shape and data: {problem!r}") from None
    if dtype.kind not in ALLOWED_KINDS or any(n < 0 for n in shape):
        raise RemoteError(f"message: got an array of {dtype} {shape}, expected bools, integers or floats")
    if not isinstance(data, bytes) or math.prod(shape) * dtype.itemsize != len(data):
        raise RemoteError(f"message: got {len(data)} bytes for an array of {dtype} {shape}")
    return np.frombuffer(data, dtype).reshape(shape)


def _decode_image(value: dict[Any, Any]) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(value["data"]), formats=[value["format"]]) as picture:
            if picture.width * picture.height > MAX_IMAGE_PIXELS:
                raise RemoteError(
                    f"message: got an image of {picture.size} pixels, expected at most {MAX_IMAGE_PIXELS}"
                )
            return np.asarray(picture.convert("RGB"))
    except (KeyError, TypeError, OSError, SyntaxError, ValueError) as problem:
        if isinstance(problem, RemoteError):
            raise
        raise RemoteError(f"message: an image that is no {value['format']}: {problem}") from None
