"""A model and frames in, actions out: on which device, in which number type, with how many threads.

On a CPU one thread is used: with the simulator, cameras and guard beside it a second one makes the slow steps
slower, and a fixed number of threads gives the same bits in every process of a machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla_policy.errors import ConfigError, nearest
from vla_policy.model.formulations.base import Memory
from vla_policy.model.heads.inpainting import Inpainting
from vla_policy.model.vla import VLAModel

CPU_THREADS = 1
NumberType = Literal["float32", "bfloat16"]


def choose_device(name: str) -> str:
    """`auto` is the GPU where there is one. Raises: ConfigError for a device that is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as problem:
        raise ConfigError(f"device: got '{name}', which does not work here ({str(problem).splitlines()[0]}); "
                          "use auto, cpu or cuda") from None
    return name


class Engine:
    """Runs a VLAModel for one robot: numpy in and out; only the memory of a frame stays on the device."""

    def __init__(self, model: VLAModel, device: str = "cpu", dtype: NumberType = "float32") -> None:
        """device: as `choose_device` gives it. dtype: bfloat16 by autocast, where a layer bears it.

        Raises: ConfigError for another dtype.
        """
        if dtype not in get_args(NumberType):
            raise ConfigError(f"dtype: got '{dtype}'; {nearest(dtype, get_args(NumberType))}")
        self.model = model.to(device).eval()
        self.device = torch.device(device)
        self.half = dtype == "bfloat16"
        self._text: tuple[Tensor, Tensor] | None = None

    def set_instruction(self, ids: NDArray[np.int64], mask: NDArray[np.bool_]) -> None:
        """Embed an instruction, ids and mask (L,), once for all steps that follow."""
        with self._running():
            text_mask_BL = torch.from_numpy(mask)[None].to(self.device)
            self._text = self.model.embed_text(torch.from_numpy(ids)[None].to(self.device)), text_mask_BL

    def encode(self, images: NDArray[np.uint8], state: NDArray[np.float32]) -> Memory:
        """What the model keeps of one frame: images (V, S, S, 3), normalised state (P,)."""
        assert self._text is not None, "set_instruction comes first"
        with self._running():
            images_BVSS3 = torch.from_numpy(images)[None].to(self.device)
            state_BP = torch.from_numpy(state)[None].to(self.device)
            return self.model.encode_frame(images_BVSS3, state_BP, *self._text)

    def act(self, memories: Sequence[Memory], rows: NDArray[np.float32] | None = None,
            frozen: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Actions for the newest of the kept frames, oldest first: arm (K, A), gripper logits (K,).

        rows: normalised arm rows (R, A) of the chunk before, from the newest frame's instant on, `frozen` of which will
        have been executed; for heads that inpaint, which then go on from there.
        """
        assert self._text is not None, "set_instruction comes first"
        with self._running():
            arm_BKA, gripper_BK = self.model.act(memories, *self._text, self._inpainting(rows, frozen))
            gripper = None if gripper_BK is None else gripper_BK[0].float().cpu().numpy()
            return arm_BKA[0].float().cpu().numpy(), gripper

    def _inpainting(self, rows: NDArray[np.float32] | None, frozen: int) -> Inpainting | None:
        if rows is None or not frozen:
            return None
        with torch.inference_mode(False):  # the guidance differentiates through it
            return Inpainting.of(torch.tensor(rows, device=self.device), frozen, self.model.config.action_chunk_size)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """No gradients, the number type, and the number of threads, which whoever trains here gets back."""
        threads = torch.get_num_threads()
        fixed = self.device.type == "cpu" and threads != CPU_THREADS
        if fixed:
            torch.set_num_threads(CPU_THREADS)
        try:
            with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
                yield
        finally:
            if fixed:
                torch.set_num_threads(threads)
