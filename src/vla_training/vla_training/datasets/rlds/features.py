"""A features.json of TensorFlow Datasets in, what every step holds out: cameras, columns, sentences.

Source of the format: tensorflow_datasets/core/proto/feature.proto.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

STEPS = "steps/"
_NAMES_OF_SENTENCES = ("language_instruction", "natural_language_instruction", "instruction")


@dataclass(frozen=True, slots=True)
class Feature:
    """One leaf of the tree of features.

    path: as in the Example, `steps/observation/image`. kind: image, tensor, text, or other, which cannot be read.
    shape: of one step, -1 where it was left open. dtype: as numpy names it. encoding: of a tensor: none, bytes or zlib.
    """

    path: str
    kind: Literal["image", "tensor", "text", "other"]
    shape: tuple[int, ...] = ()
    dtype: str = ""
    encoding: str = "none"

    @property
    def in_steps(self) -> bool:
        """Whether every step has one, rather than the episode."""
        return self.path.startswith(STEPS)

    @property
    def name(self) -> str:
        """The path below the steps, which is what users write."""
        return self.path.removeprefix(STEPS)

    @property
    def is_camera(self) -> bool:
        """A colour picture in every step; depth and masks are none."""
        return self.in_steps and self.kind == "image" and self.dtype == "uint8" and self.shape[-1:] == (3,)

    @property
    def is_column(self) -> bool:
        """Numbers of one and the same shape in every step."""
        return self.in_steps and self.kind == "tensor" and min(self.shape, default=0) >= 0

    @property
    def is_sentence(self) -> bool:
        """Text that tells the robot what to do: `language_instruction`, also numbered, and its like."""
        last = self.path.rsplit("/", 1)[-1].rstrip("0123456789").rstrip("_")
        return self.kind == "text" and last in _NAMES_OF_SENTENCES


def parse_features(tree: Mapping[str, Any]) -> dict[str, Feature]:
    """Path -> feature, of the content of features.json. Raises: KeyError, TypeError, ValueError where it is none."""
    found = {feature.path: feature for feature in _leaves("", tree)}
    if not any(feature.in_steps for feature in found.values()):
        raise ValueError("no feature 'steps' with features of its own")
    return found


def _leaves(path: str, node: Mapping[str, Any]) -> Iterator[Feature]:
    if "featuresDict" in node:
        for name, inner in node["featuresDict"]["features"].items():
            yield from _leaves(f"{path}/{name}" if path else name, inner)
    elif path == STEPS[:-1] and "sequence" in node:
        yield from _leaves(path, node["sequence"]["feature"])
    elif "image" in node:
        yield Feature(path, "image", _shape(node["image"]), node["image"].get("dtype") or "uint8")
    elif "tensor" in node:
        tensor = node["tensor"]
        yield _tensor(path, _shape(tensor), tensor["dtype"], tensor.get("encoding") or "none")
    elif "text" in node:
        yield Feature(path, "text")
    elif "classLabel" in node:
        yield Feature(path, "tensor", (), "int64")
    else:
        yield Feature(path, "other")


def _tensor(path: str, shape: tuple[int, ...], dtype: str, encoding: str) -> Feature:
    if dtype == "string":
        return Feature(path, "text" if not shape else "other")
    known = encoding in ("none", "bytes", "zlib") and np.dtype(dtype).kind in "biuf"
    return Feature(path, "tensor" if known else "other", shape, dtype, encoding)


def _shape(node: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(size) for size in node.get("shape", {}).get("dimensions", ()))
