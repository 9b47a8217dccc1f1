"""Messages of one client in, the policy's answers out: an episode's instruction, history and chunk.

A client that understands chunks (our own) gets whole ones with stamps; any other gets one row an observation, as a
benchmark expects that steps its simulator once an observation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vla_policy.contract import RobotContract
from vla_policy.errors import InstructionError, ObservationError
from vla_policy.remote.convention import Convention
from vla_policy.remote.wire import PROTOCOL_VERSION, Message, MessageType
from vla_policy.run import SteppedPolicy
from vla_policy.types import ActionChunk, Observation, Pose

STATE_KEYS = ("states", "state")  # vla-eval's benchmarks use both


class ServedPolicy(SteppedPolicy, Protocol):
    """The part of vla_policy.policy.Policy that a session needs."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras that it looks through."""

    @property
    def history_frames(self) -> int:
        """Frames now in the history."""


class Session:
    """One client's side of a server. `answer` is called in the thread that owns torch."""

    def __init__(self, policy: ServedPolicy, contract: RobotContract, convention: Convention, feels: bool) -> None:
        """feels: whether the policy has proprioception. convention: of clients that ask for single rows."""
        self._policy = policy
        self._contract = contract
        self._convention = convention
        self._feels = feels
        self._wants_chunks = False
        self._instruction: str | None = None
        self._rows: deque[NDArray[np.float64]] = deque()
        self._observations = 0

    def answer(self, message: Message) -> Message | None:
        """The answer to a message, None where it wants none. Raises: VlaError for what is wrong with it."""
        answers: dict[MessageType, Callable[[Message], Mapping[str, Any] | None]] = {
            MessageType.HELLO: self._hello,
            MessageType.EPISODE_START: self._start,
            MessageType.OBSERVATION: self._act,
            MessageType.EPISODE_END: self._end,
        }
        if message.type not in answers:
            raise ObservationError(f"message: got '{message.type}', which a client does not send")
        payload = answers[message.type](message)
        kind = MessageType.ACTION if message.type is MessageType.OBSERVATION else message.type
        return None if payload is None else Message(kind, payload, message.seq)

    def _hello(self, message: Message) -> Mapping[str, Any]:
        version = message.payload.get("protocol_version", PROTOCOL_VERSION)
        if version != PROTOCOL_VERSION:
            raise ObservationError(f"hello: got protocol_version {version}, expected {PROTOCOL_VERSION}")
        self._wants_chunks = bool(message.payload.get("chunks", False))
        return {
            "protocol_version": PROTOCOL_VERSION,
            "harness_version": "vla_policy",
            "model_server": "vla_policy",
            "capabilities": {"chunks": True},
            "contract": self._contract.name,
            "period_ns": self._policy.period_ns,
            "cameras": list(self._policy.cameras),
            "action_names": list(self._contract.action_names),
            "action_spec": self._convention.spec(self._contract),
            "observation_spec": self._observation_spec(),
        }

    def _start(self, message: Message) -> Mapping[str, Any] | None:
        self._forget()
        instruction = message.payload.get("instruction")
        if instruction is not None:
            self._begin(str(instruction))
        return {"instruction": instruction} if self._wants_chunks else None

    def _end(self, message: Message) -> None:
        self._forget()

    def _act(self, message: Message) -> Mapping[str, Any]:
        observation = self._observation(message.payload)
        instruction = message.payload.get("task_description", self._instruction)
        if not isinstance(instruction, str):
            raise InstructionError("observation: got no task_description, expected the instruction as text")
        if instruction != self._instruction:
            self._begin(instruction)
        if self._wants_chunks:
            return self._whole(self._policy.step(observation, int(message.payload.get("run_id", 1))))
        if not self._rows:
            chunk = self._policy.step(observation)
            self._rows.extend(self._convention.from_contract(chunk.values[: chunk.execute_rows], self._contract))
        self._observations += 1
        return {"actions": self._rows.popleft().astype(np.float32)}

    def _begin(self, instruction: str) -> None:
        self._policy.reset(instruction)
        self._instruction = instruction
        self._rows.clear()

    def _forget(self) -> None:
        self._instruction, self._observations = None, 0
        self._rows.clear()

    def _whole(self, chunk: ActionChunk) -> Mapping[str, Any]:
        return {
            "actions": chunk.values,
            "stamp_ns": chunk.stamp_ns,
            "dt_ns": chunk.dt_ns,
            "execute_rows": chunk.execute_rows,
            "run_id": chunk.run_id,
            "timings": dict(self._policy.timings),
            "history_frames": self._policy.history_frames,
        }

    def _observation(self, payload: Mapping[str, Any]) -> Observation:
        images = payload.get("images")
        if not isinstance(images, Mapping):
            raise ObservationError(
                f"observation: got no images, expected a map of {', '.join(self._policy.cameras)} to arrays"
            )
        stamp_ns = int(payload.get("stamp_ns", self._observations * self._contract.action_dt_ns))
        joints, pose = self._body(payload)
        return Observation(stamp_ns, {str(name): np.asarray(image) for name, image in images.items()}, joints, pose)

    def _body(self, payload: Mapping[str, Any]) -> tuple[NDArray[np.float64], Pose | None]:
        """Joints and pose as `joints` (J,) and `pose` (7,); a policy that feels nothing does without."""
        count = len(self._contract.joints.names)
        if "joints" not in payload:
            if self._feels:
                sent = ", ".join(key for key in STATE_KEYS if key in payload) or "nothing"
                raise ObservationError(
                    f"observation: got {sent} of the robot's body, expected joints ({count},) and pose (7,) in "
                    f"{self._contract.base_frame}: the policy has proprioception"
                )
            return np.zeros(count), Pose(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0])) if self._contract.pose else None
        joints, pose = np.asarray(payload["joints"], np.float64), payload.get("pose")
        if joints.shape != (count,):
            raise ObservationError(
                f"observation: got joints {joints.shape}, expected ({count},): {', '.join(self._contract.joints.names)}"
            )
        if pose is None:
            return joints, None
        pose = np.asarray(pose, np.float64)
        if pose.shape != (7,):
            raise ObservationError(f"observation: got pose {pose.shape}, expected (7,): x y z [m], quaternion xyzw")
        return joints, Pose(pose[:3], pose[3:])

    def _observation_spec(self) -> dict[str, dict[str, Any]]:
        spec = {
            name: {
                "name": "image",
                "dims": 0,
                "format": "rgb_hwc_uint8",
                "description": f"{camera.height} x {camera.width} pixels",
            }
            for name, camera in ((name, self._contract.cameras[name]) for name in self._policy.cameras)
        }
        spec["language"] = {"name": "language", "dims": 0, "format": "language"}
        if self._feels:
            spec["joints"] = {"name": "state", "dims": len(self._contract.joints.names), "format": "joint_positions"}
        return spec
