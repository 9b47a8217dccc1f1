"""An instruction and observations in, action chunks out: what drives a robot, a simulator, an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_policy.action.codec import ActionCodec
from vla_policy.checkpoint import Bundle, check_fits, load_bundle
from vla_policy.contract import RobotContract
from vla_policy.engine import Engine, Goal, choose_device
from vla_policy.engine.options import engine_options
from vla_policy.errors import InstructionError, ObservationError, VlaError
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
                 dtype: str = "float32", engine: str | Engine = "eager", resize: str = "host") -> None:
        """device: auto, cpu or cuda. robot: the contract of the robot at hand, where it is not the bundle's.

        dtype, engine, resize: words of `vla_policy.engine.EngineOptions`; or the engine of another policy of this
        bundle to share, for which device, dtype and resize are settled.
        Raises: ContractError for a robot that the policy was not trained for, ConfigError for another device, dtype,
        engine or resize, EngineError where the model does not fit on the device.
        """
        self.bundle = bundle
        self.config = bundle.config
        self.contract = robot or bundle.contract
        check_fits(bundle.contract, self.contract, self.config)
        self.execute_rows = self.config.execute_rows
        self.period_ns = self.execute_rows * self.contract.action_dt_ns
        self.timings = {"preprocess": 0.0, "model": 0.0, "postprocess": 0.0}
        if isinstance(engine, str):
            engine = Engine(bundle.model, choose_device(device), engine_options(engine, dtype, resize))
        self.engine = engine
        self._session = engine.session()
        self._codec = ActionCodec(self.contract, bundle.action_normalizer, self.config.gripper_hysteresis)
        self._gripper: float | None = None
        self._instruction = ""

    @classmethod
    def load(cls, bundle_dir: Path | str, device: str = "auto", robot: RobotContract | None = None,
             dtype: str = "float32", engine: str = "eager", resize: str = "host") -> Policy:
        """The policy in a bundle folder. Raises: BundleError, and what the constructor raises."""
        return cls(load_bundle(bundle_dir), device, robot, dtype, engine, resize)

    def sibling(self) -> Policy:
        """A policy for another robot of this kind, on the same weights and engine; `step_together` steps them."""
        return Policy(self.bundle, robot=self.contract, engine=self.engine)

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
    def engine_in_words(self) -> str:
        """Device, number type and how the parts of the model run, for a log."""
        parts = ", ".join(f"{part} {mode}" for part, mode in self.engine.modes.items())
        return f"on {self.engine.device} in {self.engine.options.dtype}, {parts}"

    @property
    def history_frames(self) -> int:
        """Frames now in the history, at most `config.history_length`."""
        return self._session.frames

    def reset(self, instruction: str) -> None:
        """Begin a run: forget what was seen, keep `instruction` in mind.

        Raises: InstructionError; then no run has begun.
        """
        self._instruction = ""
        ids, mask = self.bundle.tokenizer.encode(instruction, self.config.text_length)
        self.engine.begin(self._session, ids, mask)
        self._gripper = None
        self._instruction = instruction

    def step(self, observation: Observation, run_id: int = 1, in_flight: InFlight | None = None) -> ActionChunk:
        """The actions to take from this observation on, `execute_rows` of them until the next step.

        The frame is encoded once and joins the last `history_length` ones, on which the head acts. in_flight: rows that
        the chunk goes on from, where it `continues_chunks`; the frozen ones are its first rows.
        Raises: InstructionError before a reset, ObservationError for a wrong observation, ActionError for a
        wrong output, EngineError where the device's memory runs out.
        """
        outcome = step_together([self], [observation], [run_id], [in_flight])[0]
        if isinstance(outcome, VlaError):
            raise outcome
        return outcome

    def warm_up(self, robots: Sequence[int] = (1,)) -> None:
        """Steps on a made-up observation until the window is full, so that no real one is slower.

        robots: how many will step together, every number of them. Ends the run, if there is one.
        Raises: ConfigError for a window longer than the model's positions, EngineError where the device's memory
        does not last.
        """
        under_way = InFlight(np.zeros((1, len(self.contract.action_names))), 1)
        seen, many = self._blank_observation(), [self, *(self.sibling() for _ in range(max(robots) - 1))]
        for count in robots:
            for policy in many[:count]:
                policy._begin_warm_up()
            for _ in range(self.config.history_length + WARM_UP_STEPS):
                step_together(many[:count], [seen] * count)
            if self.continues_chunks:
                step_together(many[:count], [seen] * count, None, [under_way] * count)
        self.engine.forget(self._session)
        self._gripper, self._instruction = None, ""

    def _begin_warm_up(self) -> None:
        self.engine.begin(self._session, np.zeros(1, np.int64), np.ones(1, np.bool_))
        self._instruction = "warm-up"

    def _prepare(self, observation: Observation) -> tuple[list[NDArray[np.uint8]], NDArray[np.float32]]:
        if not self._instruction:
            raise InstructionError("instruction: got none, expected one before the first step; call "
                                   "reset(instruction)")
        return self._images(observation), self._state(observation)

    def _finish(self, arm: NDArray[np.float32], gripper_logits: NDArray[np.float32] | None,
                observation: Observation, run_id: int, in_flight: InFlight | None) -> ActionChunk:
        values = self._values(arm, gripper_logits, in_flight)
        if self._codec.has_gripper:
            self._gripper = float(values[self.execute_rows - 1, -1])
        return ActionChunk(observation.stamp_ns, self.contract.action_dt_ns, values, self.execute_rows, run_id)

    def _goal(self, in_flight: InFlight | None) -> Goal | None:
        return None if in_flight is None else Goal(self._codec.encode(in_flight.values)[0], in_flight.frozen)

    def _values(self, arm: NDArray[np.float32], gripper_logits: NDArray[np.float32] | None,
                in_flight: InFlight | None) -> NDArray[np.float64]:
        """The chunk in contract units, (K, A); frozen rows are those in flight, their gripper too."""
        if in_flight is None:
            return self._codec.decode(arm, gripper_logits, self._gripper)
        frozen = in_flight.values[: min(in_flight.frozen, len(arm))]
        count, gripper = len(frozen), float(frozen[-1, -1]) if self._codec.has_gripper else None
        logits = None if gripper_logits is None else gripper_logits[count:]
        return np.vstack([frozen, self._codec.decode(arm[count:], logits, gripper)])

    def _images(self, observation: Observation) -> list[NDArray[np.uint8]]:
        """uint8 (S, S, 3) of each of the model's cameras, or as they came where the device resizes them."""
        for name in self.config.cameras:
            camera, image = self.contract.cameras[name], observation.images.get(name)
            if image is None or image.shape != (camera.height, camera.width, 3) or image.dtype != np.uint8:
                got = "none" if image is None else f"{image.dtype} {image.shape}"
                raise ObservationError(f"camera '{name}' at {observation.stamp_ns} ns: got {got}, expected "
                                       f"uint8 {(camera.height, camera.width, 3)} RGB; check {camera.topic}")
        images = [observation.images[name] for name in self.config.cameras]
        if self.engine.options.resize == "device":
            return images
        return [resize_image(image, self.config.image_size) for image in images]

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


def step_together(policies: Sequence[Policy], observations: Sequence[Observation],
                  run_ids: Sequence[int] | None = None,
                  in_flight: Sequence[InFlight | None] | None = None) -> list[ActionChunk | VlaError]:
    """Steps of several robots in one batch; `policies` are siblings, each with its own observation, run, and rows that
    its chunk goes on from.

    The chunks are those of single steps up to the rounding of another order of sums. A robot whose observation or
    output is wrong gets the error in its chunk's place, and the others go on. `timings` are those of the batch.
    Raises: EngineError where the device's memory runs out.
    """
    engine = policies[0].engine
    assert all(policy.engine is engine for policy in policies), "only siblings step together"
    started = perf_counter()
    run_ids, in_flight = run_ids or [1] * len(policies), in_flight or [None] * len(policies)
    outcomes: list[Any] = [_or_error(policy._prepare, seen)
                           for policy, seen in zip(policies, observations, strict=True)]
    going = [index for index, outcome in enumerate(outcomes) if not isinstance(outcome, VlaError)]
    if not going:
        return outcomes
    prepared = perf_counter()
    actions = engine.step([policies[index]._session for index in going], [outcomes[index][0] for index in going],
                          [outcomes[index][1] for index in going],
                          [policies[index]._goal(in_flight[index]) for index in going])
    computed = perf_counter()
    for row, index in enumerate(going):
        gripper = None if actions.gripper is None else actions.gripper[row]
        outcomes[index] = _or_error(policies[index]._finish, actions.arm[row], gripper, observations[index],
                                    run_ids[index], in_flight[index])
    done = perf_counter()
    for index in going:
        policies[index].timings = {"preprocess": 1e3 * (prepared - started), "model": 1e3 * (computed - prepared),
                                   "postprocess": 1e3 * (done - computed)}
    return outcomes


def _or_error(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except VlaError as problem:
        return problem
