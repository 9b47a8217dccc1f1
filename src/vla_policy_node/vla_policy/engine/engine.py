"""A model and frames of one or more robots in, actions out: fast, and the same numbers as the plain model.

What is kept from step to step, and exact: the embedded instruction, and of each frame what its formulation remembers
(visual tokens, or the features that the head reads). On a CPU one thread is used: with the simulator, cameras and guard
beside it a second one makes the slow steps slower, and a fixed number of threads gives the same bits in every process
of a machine.

Shapes: B robots, V cameras, S image side, P state, L text, D width, W window, K chunk, A arm columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla_policy.engine.options import EngineMode, EngineOptions
from vla_policy.engine.quantised import prepare_weights
from vla_policy.engine.runners import CompiledLayers, Fallback, Runner
from vla_policy.engine.session import Session, join_texts, join_windows
from vla_policy.engine.transfer import Transfer
from vla_policy.errors import EngineError, ObservationError
from vla_policy.model.heads.inpainting import Goal, Inpainting
from vla_policy.model.vla import VLAModel
from vla_policy.observation.device_resize import DeviceResize

CPU_THREADS = 1
GIB = 2**30
Images = Sequence[NDArray[np.uint8]]  # of one robot, camera by camera, each (H, W, 3)


@dataclass(frozen=True, slots=True)
class Actions:
    """For each robot: normalised arm actions (B, K, A), and gripper logits (B, K), None without a gripper; float32."""

    arm: NDArray[np.float32]
    gripper: NDArray[np.float32] | None


class Engine:
    """Runs a VLAModel for any number of robots, each with a `Session`. numpy in and out.

    All calls come from one thread. fallbacks: what did not run as it was asked for, and why.
    """

    def __init__(self, model: VLAModel, device: str = "cpu", options: EngineOptions | None = None) -> None:
        """model: is taken over: moved, and its weights turned into the number type. device: of `choose_device`.

        Raises: ConfigError for a number type that the device lacks, EngineError where the model does not fit on it.
        """
        self.options = options or EngineOptions()
        self.device = torch.device(device)
        self.fallbacks: list[Fallback] = []
        with self._memory("loading the model"):
            self.model = prepare_weights(model, self.device, self.options.dtype).eval()
        config = model.config
        self._window, self._size, self._cameras = config.history_length, config.image_size, len(config.cameras)
        self._text_length = None if self.options.mode == "eager" else config.text_length  # static shapes
        self._autocast = self.options.dtype == "bfloat16" and not model.backbone.casts_inputs
        self._transfer = Transfer(self.device)
        self._resize = DeviceResize(self._size)
        self._make_runners()

    def _make_runners(self) -> None:
        mode, on_gpu = self.options.mode, self.device.type == "cuda"
        pool = torch.cuda.graph_pool_handle() if on_gpu and mode != "eager" else None
        backbone = self.model.backbone
        layers = CompiledLayers([*backbone.vision_layers, *backbone.text_layers]) if mode == "compile" else None

        def runner(part: str, function: Any, kind: EngineMode) -> Runner:
            return Runner(part, function, kind, self.device, self.fallbacks.append, pool, layers)

        self._encode = runner("frame", self._encode_frame, mode)
        self._act = runner("window", self._act_on_window, mode)
        # Each of the first W - 1 windows has a length of its own: too many to compile layers for.
        self._act_early = self._act if mode != "compile" else runner(
            "first windows", self._act_on_window, "graph" if on_gpu else "eager")

    @property
    def modes(self) -> dict[str, EngineMode]:
        """How the parts of the model run now: `frame` (a frame is encoded), `window` (the head acts)."""
        return {runner.part: runner.mode for runner in (self._encode, self._act)}

    def session(self) -> Session:
        """A robot's side. Any number of them share the engine."""
        return Session(self._window)

    def begin(self, session: Session, ids: NDArray[np.int64], mask: NDArray[np.bool_]) -> None:
        """A new instruction, ids and mask (L,), embedded once for all steps that follow; the frames are forgotten."""
        if self._text_length is None:
            ids, mask = ids[mask], mask[mask]
        else:
            short = self._text_length - len(ids)
            ids, mask = np.pad(ids, (0, short)), np.pad(mask, (0, short))
        with self.running("an instruction"):
            text_1LD = self.model.embed_text(torch.from_numpy(ids)[None].to(self.device))
            session.begin(text_1LD, torch.from_numpy(mask)[None].to(self.device))

    def forget(self, session: Session) -> None:
        """Back to a session that follows nothing and has seen nothing."""
        session.text_1LD = session.mask_1L = None
        session.ring.clear()

    def step(self, sessions: Sequence[Session], images: Sequence[Images],
             states: Sequence[NDArray[np.float32]], goals: Sequence[Goal | None] | None = None) -> Actions:
        """Take in a new frame of each robot, and act on their windows.

        images: of each robot, camera by camera, uint8 (S, S, 3), or of any size where `options.resize` is device.
        states: of each robot, normalised (P,). Several robots are encoded in one batch; their windows are in as many
        as there are different numbers of frames in them. The numbers are those of single steps up to rounding.
        goals: what each robot's chunk goes on from, for heads that inpaint; they run as they are written.
        Raises: ObservationError for wrong images, EngineError where memory runs out.
        """
        sessions, goals = list(sessions), goals or [None] * len(sessions)
        assert all(session.text_1LD is not None for session in sessions), "begin comes first"
        with self.running(f"a step of {len(sessions)} robots"):
            memory = self._encode(self._upload(images), self._transfer.upload("state", states), *join_texts(sessions))
            for index, session in enumerate(sessions):
                session.ring.push(tuple(part[index:index + 1] for part in memory))

            def alike(index: int) -> tuple[int, bool]:
                return sessions[index].frames, goals[index] is not None

            order = sorted(range(len(sessions)), key=alike)
            groups = [list(group) for _, group in groupby(order, key=alike)]
            found = [self._act_together([sessions[index] for index in group], [goals[index] for index in group])
                     for group in groups]
        if len(found) == 1:
            return found[0]
        back = np.argsort(order)
        return Actions(*(None if parts[0] is None else np.concatenate(parts)[back]
                         for parts in ([part.arm for part in found], [part.gripper for part in found])))

    def _act_together(self, sessions: list[Session], goals: list[Goal | None]) -> Actions:
        if goals[0] is not None:
            return self._go_on_together(sessions, goals)
        act = self._act if sessions[0].frames == self._window else self._act_early
        arm, *gripper = self._transfer.download(act(*join_texts(sessions), *join_windows(sessions)))
        return Actions(arm, gripper[0] if gripper else None)

    def _go_on_together(self, sessions: list[Session], goals: list[Goal]) -> Actions:
        inpainting = Inpainting.of(goals, self.model.config.action_chunk_size, self.device)
        text_BLD, mask_BL = join_texts(sessions)
        parts = self.model.act(join_windows(sessions), text_BLD, mask_BL, inpainting)
        arm, *gripper = self._transfer.download([part.float() for part in parts if part is not None])
        return Actions(arm, gripper[0] if gripper else None)

    def _encode_frame(self, images_BVSS3: Tensor, state_BP: Tensor, text_BLD: Tensor,
                      mask_BL: Tensor) -> tuple[Tensor, ...]:
        return self.model.encode_frame(images_BVSS3, state_BP, text_BLD, mask_BL)

    def _act_on_window(self, text_BLD: Tensor, mask_BL: Tensor, *memory_BW: Tensor) -> tuple[Tensor, ...]:
        arm_BKA, gripper_BK = self.model.act(memory_BW, text_BLD, mask_BL)
        return (arm_BKA.float(),) if gripper_BK is None else (arm_BKA.float(), gripper_BK.float())

    def _upload(self, images: Sequence[Images]) -> Tensor:
        """uint8 (B, V, S, S, 3) on the device."""
        square = (self._size, self._size, 3)
        for robot in images:
            shapes = [image.shape for image in robot]
            if len(robot) != self._cameras or (self.options.resize == "host" and any(s != square for s in shapes)):
                raise ObservationError(f"images: got {shapes}, expected {self._cameras} of {square}, as the engine was "
                                       "set up for; a changed camera needs the policy to be configured again")
        if self.options.resize == "host":
            return self._transfer.upload("images", images)
        cameras = enumerate(zip(*images, strict=True))
        uploaded = [self._transfer.upload(f"camera {index}", views) for index, views in cameras]
        return torch.stack([self._resize(views_BHW3) for views_BHW3 in uploaded], 1)

    @contextmanager
    def running(self, what: str) -> Iterator[None]:
        """No gradients, the number type, and the number of threads, which whoever trains here gets back."""
        threads = torch.get_num_threads()
        fixed = self.device.type == "cpu" and threads != CPU_THREADS
        if fixed:
            torch.set_num_threads(CPU_THREADS)
        try:
            with (self._memory(what), torch.inference_mode(),
                  torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast)):
                yield
        finally:
            if fixed:
                torch.set_num_threads(threads)

    @contextmanager
    def _memory(self, what: str) -> Iterator[None]:
        """Turns the library's error for exhausted memory into one that says what helps."""
        try:
            yield
        except torch.OutOfMemoryError as problem:
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            raise EngineError(
                f"{self.device}: got out of memory at {what} ({self._room()}{str(problem).splitlines()[0]}), expected "
                "room for the weights and one step; lower history_length, image_size or the number of robots at once, "
                "use dtype bfloat16 or int8, engine eager, or a device with more memory") from problem

    def _room(self) -> str:
        if self.device.type != "cuda":
            return ""
        free, total = torch.cuda.mem_get_info(self.device)
        return f"{free / GIB:.1f} of {total / GIB:.1f} GiB are free; "
