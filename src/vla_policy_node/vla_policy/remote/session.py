"""Messages of one client in, what the policy is asked and then its answers out: an episode's instruction and history.

A client that understands chunks (our own) gets whole ones with stamps; any other gets one row an observation, as a
benchmark expects that steps its simulator once an observation.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vla_policy.contract import RobotContract
from vla_policy.errors import InstructionError, ObservationError
from vla_policy.execution import Execution, check_execution
from vla_policy.remote.convention import Convention
from vla_policy.remote.wire import PROTOCOL_VERSION, Message, MessageType
from vla_policy.run import SteppedPolicy
from vla_policy.types import ActionChunk, InFlight, Observation, Pose

STATE_KEYS = ("states", "state")  # vla-eval's benchmarks use both


class ServedPolicy(SteppedPolicy, Protocol):
    """The part of vla_policy.policy.Policy that a session needs."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras that it looks through."""

    @property
    def history_frames(self) -> int:
        """Frames now in the history."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An observation that wants a chunk. sequence: of its message. answer_s: how soon, counted from its arrival.

    in_flight: what the chunk goes on from, where the client runs in real-time chunking.
    """

    sequence: int
    observation: Observation
    run_id: int
    answer_s: float
    in_flight: InFlight | None = None


class Session:
    """One client's side of a server.

    A message is heard; where that says that a chunk is asked for, the policy is stepped (`step`, or together with
    others) and `reply` makes the answer of its chunk. All of it in the thread that owns torch, but for hearing a
    message that begins nothing.
    """

    def __init__(self, policy: ServedPolicy, contract: RobotContract, convention: Convention, feels: bool) -> None:
        """feels: whether the policy has proprioception. convention: of clients that ask for single rows."""
        self.policy = policy
        self._contract = contract
        self._convention = convention
        self._feels = feels
        self._wants_chunks = False
        self._instruction: str | None = None
        self._rows: deque[NDArray[np.float64]] = deque()
        self._observations = 0

    def begins(self, message: Message) -> bool:
        """Whether hearing this message may reset the policy."""
        return message.type is not MessageType.OBSERVATION or (
            message.payload.get("task_description", self._instruction) != self._instruction)

    def hear(self, message: Message) -> Asked | Message | None:
        """What a message asks the policy, or the answer to it, None where it wants none. Raises: VlaError."""
        heard: dict[MessageType, Callable[[Message], Mapping[str, Any] | None]] = {
            MessageType.HELLO: self._hello,
            MessageType.EPISODE_START: self._start,
            MessageType.EPISODE_END: self._end,
        }
        if message.type is MessageType.OBSERVATION:
            return self._observe(message)
        if message.type not in heard:
            raise ObservationError(f"message: got '{message.type}', which a client does not send")
        payload = heard[message.type](message)
        return None if payload is None else Message(message.type, payload, message.seq)

    def step(self, asked: Asked) -> ActionChunk:
        """The policy's chunk. Raises: VlaError."""
        if asked.in_flight is None:
            return self.policy.step(asked.observation, asked.run_id)
        return self.policy.step(asked.observation, asked.run_id, asked.in_flight)

    def reply(self, asked: Asked, chunk: ActionChunk) -> Message:
        """The answer to what was asked."""
        if self._wants_chunks:
            return Message(MessageType.ACTION, self._whole(chunk), asked.sequence)
        self._rows.extend(self._convention.from_contract(chunk.values[: chunk.execute_rows], self._contract))
        return self._next_row(asked.sequence)

    def _hello(self, message: Message) -> Mapping[str, Any]:
        version = message.payload.get("protocol_version", PROTOCOL_VERSION)
        if version != PROTOCOL_VERSION:
            raise ObservationError(f"hello: got protocol_version {version}, expected {PROTOCOL_VERSION}")
        self._wants_chunks = bool(message.payload.get("chunks", False))
        return {
            "protocol_version": PROTOCOL_VERSION,
            "harness_version": "vla_policy",
            "model_server": "vla_policy",
            "capabilities": {"chunks": True, "continues_chunks": getattr(self.policy, "continues_chunks", False)},
            "action_head": getattr(self.policy, "action_head", ""),
            "contract": self._contract.name,
            "period_ns": self.policy.period_ns,
            "cameras": list(self.policy.cameras),
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

    def _observe(self, message: Message) -> Asked | Message:
        payload = message.payload
        observation = self._observation(payload)
        instruction = payload.get("task_description", self._instruction)
        if not isinstance(instruction, str):
            raise InstructionError("observation: got no task_description, expected the instruction as text")
        if instruction != self._instruction:
            self._begin(instruction)
        if self._rows and not self._wants_chunks:
            return self._next_row(message.seq)
        return Asked(message.seq, observation, int(_number(payload, "run_id", 1)),
                     _number(payload, "answer_s", math.inf), self._in_flight(payload))

    def _next_row(self, sequence: int) -> Message:
        self._observations += 1
        return Message(MessageType.ACTION, {"actions": self._rows.popleft().astype(np.float32)}, sequence)

    def _in_flight(self, payload: Mapping[str, Any]) -> InFlight | None:
        """The rows that a client goes on with meanwhile, as `in_flight_rows` (R, A) and `in_flight_frozen`."""
        if "in_flight_rows" not in payload:
            return None
        check_execution(self.policy, Execution.RTC)
        rows, frozen = np.asarray(payload["in_flight_rows"], np.float64), int(_number(payload, "in_flight_frozen", 1))
        columns = len(self._contract.action_names)
        if rows.ndim != 2 or rows.shape[1] != columns or not 1 <= frozen <= len(rows) or not np.isfinite(rows).all():
            raise ObservationError(f"observation: got in_flight_rows {rows.shape} and in_flight_frozen {frozen}, "
                                   f"expected finite rows (R, {columns}) and 1 to R of them frozen")
        return InFlight(rows, frozen)

    def _begin(self, instruction: str) -> None:
        self.policy.reset(instruction)
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
            "timings": dict(self.policy.timings),
            "history_frames": self.policy.history_frames,
        }

    def _observation(self, payload: Mapping[str, Any]) -> Observation:
        images = payload.get("images")
        if not isinstance(images, Mapping):
            raise ObservationError(
                f"observation: got no images, expected a map of {', '.join(self.policy.cameras)} to arrays"
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
            for name, camera in ((name, self._contract.cameras[name]) for name in self.policy.cameras)
        }
        spec["language"] = {"name": "language", "dims": 0, "format": "language"}
        if self._feels:
            spec["joints"] = {"name": "state", "dims": len(self._contract.joints.names), "format": "joint_positions"}
        return spec


def _number(payload: Mapping[str, Any], name: str, default: float) -> float:
    value = payload.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ObservationError(f"observation: got {name} {value!r}, expected a number")
    return value
