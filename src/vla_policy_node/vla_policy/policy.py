"""An instruction and observations in, action chunks out: what drives a robot, a simulator, an evaluation."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from vla_policy.action.codec import ActionCodec
from vla_policy.checkpoint import Bundle, check_fits, load_bundle
from vla_policy.contract import RobotContract
from vla_policy.engine import Engine, NumberType, choose_device
from vla_policy.errors import InstructionError, ObservationError
from vla_policy.model.formulations.base import Memory
from vla_policy.observation.proprioception import proprioception
from vla_policy.observation.resize import resize_image
from vla_policy.types import ActionChunk, InFlight, Observation, Pose

WARM_UP_STEPS = 3


class Policy:
    """One policy for one robot. `reset` begins a run; `step` wants a new observation every `period_ns`.

    The same instruction and observations give the same bits in every process of a machine (see
    `vla_policy.engine`).
    timings: duration of the parts of the last step [ms].
    """

    def __init__(self, bundle: Bundle, device: str = "cpu", robot: RobotContract | None = None,
                 dtype: NumberType = "float32") -> None:
        """device: auto, cpu or cuda. robot: the contract of the robot at hand, where it is not the bundle's.

        Raises: ContractError for a robot that the policy was not trained for, ConfigError for another device
        or dtype.
        """
        self.bundle = bundle
        self.config = bundle.config
        self.contract = robot or bundle.contract
        check_fits(bundle.contract, self.contract, self.config)
        self.execute_rows = self.config.execute_rows
        self.period_ns = self.execute_rows * self.contract.action_dt_ns
        self.timings = {"preprocess": 0.0, "model": 0.0, "postprocess": 0.0}
        self._engine = Engine(bundle.model, choose_device(device), dtype)
        self._codec = ActionCodec(self.contract, bundle.action_normalizer, self.config.gripper_hysteresis)
        self._history: deque[Memory] = deque(maxlen=self.config.history_length)
        self._gripper: float | None = None
        self._instruction = ""

    @classmethod
    def load(cls, bundle_dir: Path | str, device: str = "auto", robot: RobotContract | None = None,
             dtype: NumberType = "float32") -> Policy:
        """The policy in a bundle folder. Raises: BundleError, and what the constructor raises."""
        return cls(load_bundle(bundle_dir), device, robot, dtype)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras that it looks through."""
        return self.config.cameras

    @property
    def action_head(self) -> str:
        """Name of the action head."""
        return self.config.action_head

    @property
    def continues_chunks(self) -> bool:
        """Whether `step` can go on from a chunk in flight."""
        return self.bundle.model.head.inpaints

    @property
    def history_frames(self) -> int:
        """Frames now in the history, at most `config.history_length`."""
        return len(self._history)

    def reset(self, instruction: str) -> None:
        """Begin a run: forget what was seen, keep `instruction` in mind.

        Raises: InstructionError; then no run has begun.
        """
        self._instruction = ""
        ids, mask = self.bundle.tokenizer.encode(instruction, self.config.text_length)
        self._engine.set_instruction(ids[mask], mask[mask])
        self._history.clear()
        self._gripper = None
        self._instruction = instruction

    def step(self, observation: Observation, run_id: int = 1, in_flight: InFlight | None = None) -> ActionChunk:
        """The actions to take from this observation on, `execute_rows` of them until the next step.

        The frame is encoded once and joins the last `history_length` ones, on which the head acts. in_flight: rows that
        the chunk goes on from, where it `continues_chunks`; the frozen ones are its first rows.
        Raises: InstructionError before a reset, ObservationError for a wrong observation, ActionError for a
        wrong output.
        """
        if not self._instruction:
            raise InstructionError("instruction: got none, expected one before the first step; call "
                                   "reset(instruction)")
        started = perf_counter()
        images, state = self._images(observation), self._state(observation)
        prepared = perf_counter()
        self._history.append(self._engine.encode(images, state))
        if in_flight is None:
            arm, gripper_logits = self._engine.act(self._history)
        else:
            arm, gripper_logits = self._engine.act(self._history, self._codec.encode(in_flight.values)[0],
                                                   in_flight.frozen)
        computed = perf_counter()
        values = self._values(arm, gripper_logits, in_flight)
        if self._codec.has_gripper:
            self._gripper = float(values[self.execute_rows - 1, -1])
        self._time(started, prepared, computed, perf_counter())
        dt_ns = self.contract.action_dt_ns
        return ActionChunk(observation.stamp_ns, dt_ns, values, self.execute_rows, run_id)

    def _values(self, arm: NDArray[np.float32], gripper_logits: NDArray[np.float32] | None,
                in_flight: InFlight | None) -> NDArray[np.float64]:
        """The chunk in contract units, (K, A); frozen rows are those in flight, their gripper too."""
        if in_flight is None:
            return self._codec.decode(arm, gripper_logits, self._gripper)
        frozen = in_flight.values[: min(in_flight.frozen, len(arm))]
        count, gripper = len(frozen), float(frozen[-1, -1]) if self._codec.has_gripper else None
        logits = None if gripper_logits is None else gripper_logits[count:]
        return np.vstack([frozen, self._codec.decode(arm[count:], logits, gripper)])

    def warm_up(self) -> None:
        """Steps on a made-up observation until the window is full, so that no real one is slower.

        Ends the run, if there is one. Raises: ConfigError for a window longer than the model's positions.
        """
        self._engine.set_instruction(np.zeros(1, np.int64), np.ones(1, np.bool_))
        self._instruction = "warm-up"
        for _ in range(max(WARM_UP_STEPS, self.config.history_length)):
            chunk = self.step(self._blank_observation())
        if self.continues_chunks:
            self.step(self._blank_observation(), in_flight=InFlight(chunk.values, 1))
        self._history.clear()
        self._gripper, self._instruction = None, ""

    def _images(self, observation: Observation) -> NDArray[np.uint8]:
        """uint8 (V, S, S, 3): the model's cameras at the model's size."""
        for name in self.config.cameras:
            camera, image = self.contract.cameras[name], observation.images.get(name)
            if image is None or image.shape != (camera.height, camera.width, 3) or image.dtype != np.uint8:
                got = "none" if image is None else f"{image.dtype} {image.shape}"
                raise ObservationError(f"camera '{name}' at {observation.stamp_ns} ns: got {got}, expected "
                                       f"uint8 {(camera.height, camera.width, 3)} RGB; check {camera.topic}")
        size = self.config.image_size
        return np.stack([resize_image(observation.images[name], size) for name in self.config.cameras])

    def _state(self, observation: Observation) -> NDArray[np.float32]:
        """float32 (P,): normalised proprioception."""
        if self.bundle.state_normalizer is None:
            return np.zeros(0, np.float32)
        felt = proprioception(self.contract, observation, self.config.proprioception_joints)
        return self.bundle.state_normalizer.apply(felt)

    def _blank_observation(self) -> Observation:
        cameras = ((name, self.contract.cameras[name]) for name in self.config.cameras)
        images = {name: np.zeros((camera.height, camera.width, 3), np.uint8) for name, camera in cameras}
        pose = Pose(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0])) if self.contract.pose else None
        return Observation(0, images, np.zeros(len(self.contract.joints.names)), pose)

    def _time(self, started: float, prepared: float, computed: float, done: float) -> None:
        self.timings = {"preprocess": 1e3 * (prepared - started), "model": 1e3 * (computed - prepared),
                        "postprocess": 1e3 * (done - computed)}
