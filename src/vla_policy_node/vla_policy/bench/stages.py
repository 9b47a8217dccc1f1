"""Section `stages`: where a step's time goes, from the bytes of a camera's message to numbers for a robot."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from vla_policy.action.codec import ActionCodec
from vla_policy.bench.cases import ARM, Settings, build, frames, full_session, instruction, make_engine
from vla_policy.bench.timing import measure
from vla_policy.engine.session import join_texts, join_windows
from vla_policy.engine.transfer import Transfer
from vla_policy.model.vla import VLAModel
from vla_policy.observation.device_resize import DeviceResize

CAMERA_HEIGHT, CAMERA_WIDTH = 480, 640  # px, of a usual camera
SHARE = 0.3  # of the time that a whole loop is measured, for each stage


def run(settings: Settings) -> dict[str, Any]:
    """Milliseconds of each stage by itself, of all cameras; those of the model run eagerly, each waited for."""
    model = build(settings.case, settings.device, settings.dtype)
    stages = {**_image_stages(settings, model), **_model_stages(settings, model)}
    measured, missing = {}, {}
    for name, stage in stages.items():
        try:
            measured[name] = measure(stage, settings.device, SHARE * settings.seconds).as_dict()
        except ImportError as problem:  # a bare GPU machine has no image library
            missing[name] = str(problem)
    frame, vision = measured.get("frame"), measured.get("vision")
    if frame and vision:
        measured["language"] = {"p50_ms": max(0.0, frame["p50_ms"] - vision["p50_ms"])}  # what is left of a frame
    lines = [f"{name:28}{row['p50_ms']:9.3f} ms" + (f"   p95 {row['p95_ms']:.3f} ms" if "p95_ms" in row else
                                                    "   (frame less vision)") for name, row in measured.items()]
    return {"rows": measured, "missing": missing,
            "lines": lines + [f"{name:28}  not measured: {why}" for name, why in missing.items()]}


def _image_stages(settings: Settings, model: VLAModel) -> dict[str, Callable[[], object]]:
    """On the CPU: from bytes to squares; then to the device."""
    side, cameras, device = model.config.image_size, settings.case.cameras, torch.device(settings.device)
    raw = np.random.default_rng(0).integers(0, 256, (CAMERA_HEIGHT, CAMERA_WIDTH, 3), dtype=np.uint8)
    transfer, resize = Transfer(device), DeviceResize(side)
    images, state = next(frames(settings.case, side))
    uploaded = transfer.upload("camera", [raw] * cameras)

    def decode() -> None:
        from vla_policy.observation.images import decode_image

        for _ in range(cameras):
            decode_image("bgr8", CAMERA_HEIGHT, CAMERA_WIDTH, 3 * CAMERA_WIDTH, raw.data.cast("B"))

    def resize_on_host() -> None:
        from vla_policy.observation.resize import resize_image

        for _ in range(cameras):
            resize_image(raw, side)

    def upload() -> None:
        transfer.upload("images", [images])
        transfer.upload("state", [state])

    return {"decode (bgr8 640x480)": decode, "resize (host)": resize_on_host,
            "resize (device)": partial(resize, uploaded), "upload": upload}


def _model_stages(settings: Settings, model: VLAModel) -> dict[str, Callable[[], object]]:
    """The model in parts, then its numbers in the robot's units."""
    engine = make_engine(model, settings, "eager")
    session, source = full_session(engine, settings.case)
    backbone, (images, state) = model.backbone, next(source)
    images_BVSS3 = torch.from_numpy(np.stack(images))[None].to(settings.device)
    state_BP = torch.from_numpy(state)[None].to(settings.device)
    text, window = join_texts([session]), join_windows([session])
    codec, logits = _codec(), np.zeros(settings.case.chunk, np.float32)
    rows = np.zeros((settings.case.chunk, ARM), np.float32)
    ids, mask = instruction()

    def within(function: Callable[[], object]) -> Callable[[], object]:
        def stage() -> None:
            with engine.running("a stage"):
                function()
        return stage

    return {"instruction (once a run)": within(lambda: engine.begin(engine.session(), ids, mask)),
            "vision": within(lambda: backbone.encode_images(backbone.image_processor(images_BVSS3))),
            "frame": within(lambda: model.encode_frame(images_BVSS3, state_BP, *text)),
            "head": within(lambda: model.act(window, *text)),
            "decode (actions)": lambda: codec.decode(rows, logits, None)}


def _codec() -> ActionCodec:
    from vla_policy.contract import load_contract
    from vla_policy.normalizer import Normalizer
    from vla_policy.resources import find_contract

    contract = load_contract(find_contract("tabletop"))
    names = contract.action_names[:ARM]
    return ActionCodec(contract, Normalizer.fit(np.random.default_rng(0).normal(size=(50, ARM)), names))
