"""Frames in, actions out, as one runs a plain model: what the engine is measured against.

Both run the same weights layer after layer, in the same number type. The window loop is what RoboVLMs' users run: it
keeps the images of the window and passes all of them through the model in every step. The frame loop keeps each frame's
features and encodes the new one alone.
"""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack

import numpy as np
import torch
from numpy.typing import NDArray

from vla_policy.bench.cases import Frame, instruction
from vla_policy.model.formulations.base import Memory
from vla_policy.model.vla import VLAModel


class WindowLoop:
    """Encodes the whole window in every step."""

    def __init__(self, model: VLAModel, dtype: str, threads: int | None = None) -> None:
        """threads: of the CPU; None for as many as torch takes by itself."""
        self._model = model
        self._device = next(model.parameters()).device
        self._autocast = dtype == "bfloat16" and not model.backbone.casts_inputs
        self._threads = threads
        self._frames: deque[Frame] = deque(maxlen=model.config.history_length)
        self._ids, self._mask = instruction()

    def remember(self, frame: Frame) -> None:
        """Take a frame in without acting on it."""
        self._frames.append(frame)

    def step(self, frame: Frame) -> NDArray[np.float32]:
        """Normalised arm actions (K, A) of the newest frame."""
        self.remember(frame)
        with self._running():
            images, states = (torch.from_numpy(np.asarray(parts))[None].to(self._device)
                              for parts in zip(*self._frames, strict=True))
            text = (torch.from_numpy(part)[None].to(self._device) for part in (self._ids, self._mask))
            return self._model(images, states, *text).arm_BWKA[0, -1].float().cpu().numpy()

    def _running(self) -> ExitStack:
        stack = ExitStack()
        if self._threads is not None:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(self._threads)
        stack.enter_context(torch.inference_mode())
        stack.enter_context(torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast))
        return stack


class FrameLoop(WindowLoop):
    """Encodes each frame once and keeps what the head reads of it."""

    def __init__(self, model: VLAModel, dtype: str, threads: int | None = None) -> None:
        super().__init__(model, dtype, threads)
        self._memories: deque[Memory] = deque(maxlen=model.config.history_length)

    def step(self, frame: Frame) -> NDArray[np.float32]:
        """Normalised arm actions (K, A) of the newest frame."""
        with self._running():
            images, state = (torch.from_numpy(np.asarray(part))[None].to(self._device) for part in frame)
            mask = torch.from_numpy(self._mask)[None].to(self._device)
            text = self._model.embed_text(torch.from_numpy(self._ids)[None].to(self._device))
            self._memories.append(self._model.encode_frame(images, state, text, mask))
            window = tuple(torch.stack(parts, 1) for parts in zip(*self._memories, strict=True))
            return self._model.act(window, text, mask)[0][0].float().cpu().numpy()
