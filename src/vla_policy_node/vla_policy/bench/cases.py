"""What to measure in, a model with random weights and made-up frames for it out.

Shapes: V cameras, S image side, L text, P state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vla_policy.engine import Engine, EngineOptions, Session
from vla_policy.errors import ConfigError
from vla_policy.model.config import ModelConfig
from vla_policy.model.heads.base import ActionShape
from vla_policy.model.published import model_sizes
from vla_policy.model.registry import BACKBONES, resolve
from vla_policy.model.vla import VLAModel
from vla_policy.strict import parse

ARM, STATE, VOCABULARY = 6, 10, 64
WORDS = 12  # of the instruction
TEXT_LENGTH = 16
TWIN_SIDE = 32
Frame = tuple[list[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Case:
    """A policy of RoboVLMs' best kind: every frame passes the backbone, an LSTM reads the window.

    size: published, twin, or another of the backbone's. side: of the square images [px], or the nearest that the
    backbone takes.
    """

    backbone: str = ModelConfig.model_fields["backbone"].default
    size: str = "published"
    window: int = 16
    cameras: int = 2
    chunk: int = 10
    side: int = 224

    def config(self, dtype: str) -> ModelConfig:
        """The model's configuration, its weights in `dtype`. Raises: ConfigError for what does not exist."""
        kind, sizes = resolve(BACKBONES, self.backbone, "backbone"), model_sizes(self.backbone, self.size)
        options = dict(sizes.get("backbone_options", {}))
        side = TWIN_SIDE if self.size == "twin" and options else self.side
        if hasattr(kind, "hf_class"):
            options["dtype"] = "float32" if dtype == "float32" else "bfloat16"
        if "architecture" in options:
            side = kind.side_of_images(kind.hf_class.config_class.from_dict(options["architecture"]), side)
        keys: dict[str, Any] = {
            "backbone": self.backbone, "formulation": "policy_head", "action_head": "lstm",
            "history_length": self.window, "action_chunk_size": self.chunk, "execute_rows": 1, "image_size": side,
            "text_length": TEXT_LENGTH, "cameras": [f"camera{index}" for index in range(self.cameras)],
            "backbone_options": options, "head_options": sizes.get("head_options", {})}
        return parse(ModelConfig, keys, "case", ConfigError)

    def words(self) -> str:
        """The case in one line."""
        size = f" ({self.size})" if model_sizes(self.backbone, self.size) else ""
        side = self.config("float32").image_size
        return f"{self.backbone}{size}, {self.cameras} cameras of {side} px, window {self.window}, chunk {self.chunk}"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a section gets. modes: kinds of engine, the first is the one that single figures are of.

    quick: coarse figures in little time. seconds: how long each thing is measured.
    """

    case: Case = field(default_factory=Case)
    device: str = "cpu"
    dtype: str = "float32"
    modes: tuple[str, ...] = ("eager",)
    quick: bool = False
    seconds: float = 3.0

    def changed(self, **changes: Any) -> Settings:
        """The same with another case."""
        return replace(self, case=replace(self.case, **changes))


def build(case: Case, device: str, dtype: str) -> VLAModel:
    """The same random weights each time. What starts at zero, so that it would not matter, gets some too."""
    torch.manual_seed(0)
    with torch.device(device):
        model = VLAModel(case.config(dtype), ActionShape(ARM, case.chunk, True), STATE, VOCABULARY).eval()
    model.requires_grad_(False)
    with torch.no_grad():
        for weight in model.parameters():
            if not weight.any():
                weight.normal_(std=0.05)
    return model


def frames(case: Case, side: int) -> Iterator[Frame]:
    """Endlessly: images of every camera, (S, S, 3) uint8, and a state (P,)."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, case.cameras, side, side, 3), dtype=np.uint8)
    while True:
        for views in images:
            yield list(views), rng.uniform(-1, 1, STATE).astype(np.float32)


def instruction() -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Ids and mask (L,)."""
    ids = np.random.default_rng(1).integers(3, VOCABULARY, TEXT_LENGTH)
    return ids, np.arange(TEXT_LENGTH) < WORDS


def make_engine(model: VLAModel, settings: Settings, mode: str) -> Engine:
    """An engine of the given kind on a model, which it takes over."""
    return Engine(model, settings.device, EngineOptions(mode=mode, dtype=settings.dtype))


def full_session(engine: Engine, case: Case, extra: int = 3) -> tuple[Session, Iterator[Frame]]:
    """A session whose window is full, warmed up by `extra` steps more, and the frames that follow."""
    session, source = engine.session(), frames(case, engine.model.config.image_size)
    engine.begin(session, *instruction())
    for _ in range(case.window + extra):
        images, state = next(source)
        engine.step([session], [images], [state])
    return session, source
