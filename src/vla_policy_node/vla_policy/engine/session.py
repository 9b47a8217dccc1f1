"""Memories of frames in, the window of the last W out, without copying: one robot's side of an engine.

Shapes: B batch, W window, L text, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vla_policy.model.formulations.base import Memory


class FrameRing:
    """The memories of the last `window` frames, in buffers that are allocated once.

    Every memory is written twice, `window` slots apart, so the last frames always lie in one piece.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self.frames = 0
        self._newest = -1
        self._buffers: Memory = ()

    def clear(self) -> None:
        """Forget the frames; the buffers stay."""
        self.frames, self._newest = 0, -1

    def push(self, memory: Memory) -> None:
        """Add the newest frame's memory, tensors (1, ...), in place of the oldest's where the window is full."""
        if len(self._buffers) != len(memory) or any(
                kept.shape[2:] != part.shape[1:] or kept.dtype != part.dtype
                for kept, part in zip(self._buffers, memory, strict=True)):
            self._buffers = tuple(part.new_empty(1, 2 * self.window, *part.shape[1:]) for part in memory)
            self.clear()
        self._newest = (self._newest + 1) % self.window
        self.frames = min(self.frames + 1, self.window)
        for kept, part in zip(self._buffers, memory, strict=True):
            kept[:, self._newest] = part
            kept[:, self._newest + self.window] = part

    def read(self) -> Memory:
        """Views (1, frames, ...) of the kept memories, oldest first."""
        end = self._newest + self.window + 1
        return tuple(kept[:, end - self.frames:end] for kept in self._buffers)


class Session:
    """One robot: the instruction it follows and the frames it has seen."""

    def __init__(self, window: int) -> None:
        """window: W, frames that the model looks back on."""
        self.ring = FrameRing(window)
        self.text_1LD: Tensor | None = None
        self.mask_1L: Tensor | None = None

    def begin(self, text_1LD: Tensor, mask_1L: Tensor) -> None:
        """Follow an embedded instruction from here on, and forget what was seen."""
        self.text_1LD, self.mask_1L = text_1LD, mask_1L
        self.ring.clear()

    @property
    def frames(self) -> int:
        """Frames in the window, at most W."""
        return self.ring.frames


def join_texts(sessions: list[Session]) -> tuple[Tensor, Tensor]:
    """The embedded instructions (B, L, D) of several robots and their mask (B, L), shorter ones padded."""
    if len(sessions) == 1:
        return sessions[0].text_1LD, sessions[0].mask_1L
    longest = max(session.mask_1L.shape[1] for session in sessions)
    texts = [torch.nn.functional.pad(s.text_1LD, (0, 0, 0, longest - s.text_1LD.shape[1])) for s in sessions]
    masks = [torch.nn.functional.pad(s.mask_1L, (0, longest - s.mask_1L.shape[1])) for s in sessions]
    return torch.cat(texts), torch.cat(masks)


def join_windows(sessions: list[Session]) -> Memory:
    """The windows (B, frames, ...) of robots that have seen as many frames."""
    windows = [session.ring.read() for session in sessions]
    return windows[0] if len(windows) == 1 else tuple(torch.cat(parts) for parts in zip(*windows, strict=True))
