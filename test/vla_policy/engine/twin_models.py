"""A backbone's name in, its tiny twin in a whole policy model and made-up frames out, for the tests beside this."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from policies import bundle

from vla_policy.checkpoint import Bundle
from vla_policy.engine import Actions, Engine, EngineOptions
from vla_policy.model.registry import BACKBONES, resolve

SIDE, LENGTH, WINDOW, STATE = 32, 8, 3, 10
SENTENCES = ("pick up the red block", "open the drawer", "lift the green cube")
TOLERANCE = {"atol": 2e-4, "rtol": 1e-3}  # normalised actions and logits: another order of sums, nothing more


def twin(backbone: str = "tiny", **changes: Any) -> Bundle:
    """A bundle with random weights around the twin of `backbone`."""
    small: dict[str, Any] = {}
    if "weights" in resolve(BACKBONES, backbone, "backbone").Options.model_fields:
        small = {"backbone_options": {"weights": "random-tiny"}}
    return bundle(**{"backbone": backbone, "image_size": SIDE, "text_length": LENGTH, "history_length": WINDOW}
                  | small | changes)


def frames(robots: int, steps: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Images (steps, robots, 2, S, S, 3) and states (steps, robots, P), always the same."""
    rng = np.random.default_rng(robots)
    images = rng.integers(0, 256, (steps, robots, 2, SIDE, SIDE, 3), dtype=np.uint8)
    return images, rng.normal(size=(steps, robots, STATE)).clip(-1, 1).astype(np.float32)


def run_engine(made: Bundle, options: EngineOptions, steps: int, sentence: str = SENTENCES[0],
               robot: int = 0, robots: int = 1) -> tuple[Engine, list[Actions]]:
    """What an engine says of one robot's frames, step by step."""
    engine = Engine(made.model, "cpu", options)
    session = engine.session()
    engine.begin(session, *made.tokenizer.encode(sentence, LENGTH))
    images, states = frames(robots, steps)
    return engine, [engine.step([session], [list(images[step, robot])], [states[step, robot]])
                    for step in range(steps)]


@torch.inference_mode()
def plain(made: Bundle, steps: int, sentence: str = SENTENCES[0]) -> tuple[NDArray[Any], NDArray[Any]]:
    """What the model says of the last window of `frames(1, steps)` at once: arm (K, A), gripper logits (K,)."""
    images, states = (torch.from_numpy(part[steps - WINDOW:, 0])[None] for part in frames(1, steps))
    text = (torch.from_numpy(part) for part in made.tokenizer.encode_batch([sentence], LENGTH))
    output = made.model(images, states, *text)
    return output.arm_BWKA[0, -1].numpy(), output.gripper_BWK[0, -1].numpy()
