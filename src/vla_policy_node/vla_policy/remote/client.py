"""A policy server's address in, a policy out that a run, a rollout or an evaluation steps like any other.

Every question has a deadline. After a late or lost answer the connection is closed, so that no answer to an old
question is ever taken for one to a new one; the next `reset` connects again.
"""

from __future__ import annotations

import math
import os
import ssl
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, get_args
from urllib.parse import parse_qsl

import numpy as np
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI, WebSocketException
from websockets.protocol import State
from websockets.sync import client

from vla_policy.contract import RobotContract
from vla_policy.errors import ActionError, InstructionError, ObservationError, RemoteError, VlaError, nearest
from vla_policy.remote.convention import Convention
from vla_policy.remote.wire import MAX_MESSAGE_BYTES, PROTOCOL_VERSION, ImageFormat, Message, MessageType, pack, unpack
from vla_policy.types import ActionChunk, InFlight, Observation

ANSWER_S = 2.0
TOKEN_VARIABLE = "VLA_POLICY_TOKEN"
ADDRESS_OPTIONS = ("images", "answer_s")
KINDS: dict[str, type[VlaError]] = {kind.__name__: kind for kind in (InstructionError, ObservationError, ActionError)}


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """answer_s: how long an answer may take. connect_s: how long connecting and greeting may take.

    images: raw, png (both exact) or jpeg (smaller, not exact).
    """

    answer_s: float = ANSWER_S
    connect_s: float = 30.0
    token: str | None = None
    tls: ssl.SSLContext | None = None
    images: ImageFormat = "raw"


class RemotePolicy:
    """Implements `vla_policy.run.SteppedPolicy` over a websocket.

    A server of ours answers with whole chunks; any other vla-eval server with rows, of which the first `execute_rows`
    (one where it is None) are used. Raises: RemoteError naming the address for a server that is away, late, or means
    other actions than the contract.
    """

    def __init__(
        self,
        url: str,
        contract: RobotContract,
        options: ClientOptions | None = None,
        convention: Convention | None = None,
        execute_rows: int | None = None,
    ) -> None:
        self.url = url
        self.contract = contract
        self.options = options or ClientOptions()
        self.timings = {"model": 0.0, "transport": 0.0}
        self.history_frames = 0  # of the server, where it tells them
        self._asked_convention = convention or Convention()
        self._execute_rows = execute_rows
        self._connection: client.ClientConnection | None = None
        self._leave = ExitStack()
        self._sequence = 0
        self._instruction = ""
        self._server: dict[str, Any] = {}
        self._connect()
        self.continues_chunks = self._speaks("continues_chunks")
        self.action_head = str(self._server.get("action_head") or "")
        self.cameras = tuple(self._server.get("cameras") or contract.cameras)
        self.period_ns = int(self._server.get("period_ns") or (execute_rows or 1) * contract.action_dt_ns)

    def reset(self, instruction: str) -> None:
        """Begin an episode; connects again where the connection was lost. Raises: InstructionError, RemoteError."""
        if self._connection is not None and self._connection.state is not State.OPEN:
            self.close()  # the server gave up a process that was silent for long, as while a simulator is built
        if self._connection is None:
            self._connect()
        self._instruction = instruction
        self._send(MessageType.EPISODE_START, {"instruction": instruction, "task": {"name": instruction}})
        if self._speaks_chunks:
            self._receive(MessageType.EPISODE_START)

    def step(self, observation: Observation, run_id: int = 1, in_flight: InFlight | None = None) -> ActionChunk:
        """One inference on the server. Raises: ObservationError, InstructionError, RemoteError.

        in_flight: what the chunk goes on from, where the server's policy `continues_chunks`.
        """
        started = time.perf_counter()
        payload = self._payload(observation, run_id)
        if in_flight is not None:
            payload |= {"in_flight_rows": in_flight.values, "in_flight_frozen": in_flight.frozen}
        self._send(MessageType.OBSERVATION, payload)
        reply = self._receive(MessageType.ACTION).payload
        self.history_frames = int(reply.get("history_frames", 0))
        timings = dict(reply.get("timings") or {"model": 0.0})
        spent_ms = 1e3 * (time.perf_counter() - started)
        self.timings = {**timings, "transport": max(0.0, spent_ms - sum(timings.values()))}
        return self._chunk(reply, observation.stamp_ns, run_id)

    def warm_up(self) -> None:
        """Nothing: the server warms itself up."""

    def close(self) -> None:
        """Leave the server."""
        self._leave.close()
        self._connection = None

    @property
    def _speaks_chunks(self) -> bool:
        return self._speaks("chunks")

    def _speaks(self, capability: str) -> bool:
        return bool((self._server.get("capabilities") or {}).get(capability))

    def _connect(self) -> None:
        options = self.options
        headers = {"Authorization": f"Bearer {options.token}"} if options.token else None
        try:
            self._connection = self._leave.enter_context(
                client.connect(
                    self.url,
                    open_timeout=options.connect_s,
                    additional_headers=headers,
                    ssl=options.tls,
                    max_size=MAX_MESSAGE_BYTES,
                    compression=None,
                )
            )
        except InvalidStatus as problem:
            text = (problem.response.body or b"").decode(errors="replace").strip()
            raise RemoteError(f"{self.url}: refused with status {problem.response.status_code}: {text}") from None
        except (OSError, InvalidHandshake, InvalidURI, WebSocketException) as problem:
            raise RemoteError(
                f"{self.url}: no policy server answered ({problem}); start one with "
                "`python -m vla_policy.remote.serve BUNDLE`"
            ) from None
        self._send(
            MessageType.HELLO, {"protocol_version": PROTOCOL_VERSION, "harness_version": "vla_policy", "chunks": True}
        )
        self._server = dict(self._receive(MessageType.HELLO, self.options.connect_s).payload)
        self._check()

    def _check(self) -> None:
        """Whether the server means the same robot."""
        names = self._server.get("action_names")
        if self._speaks_chunks and names is not None and tuple(names) != self.contract.action_names:
            raise RemoteError(
                f"{self.url}: its actions are {', '.join(names)} (contract {self._server.get('contract')}), expected "
                f"{', '.join(self.contract.action_names)} (contract {self.contract.name})"
            )
        self._convention = self._asked_convention.with_spec(self._server.get("action_spec") or {}, self.contract)

    def _payload(self, observation: Observation, run_id: int) -> dict[str, Any]:
        payload: dict[str, Any] = {
            "images": {name: observation.images[name] for name in self.cameras},
            "task_description": self._instruction,
            "joints": np.asarray(observation.joints, np.float64),
            "stamp_ns": observation.stamp_ns,
            "run_id": run_id,
            "answer_s": self.options.answer_s,  # later the server need not compute it
        }
        pose = observation.pose
        if pose is not None:
            payload["pose"] = np.concatenate([pose.position, pose.quaternion])
        if not self._speaks_chunks:
            payload["state"] = payload["states"] = np.concatenate([payload.get("pose", []), payload["joints"]]).astype(
                np.float32
            )
        return payload

    def _chunk(self, reply: dict[str, Any], stamp_ns: int, run_id: int) -> ActionChunk:
        values = np.atleast_2d(np.asarray(reply.get("actions"), np.float64))
        if self._speaks_chunks:
            return ActionChunk(int(reply["stamp_ns"]), int(reply["dt_ns"]), values, int(reply["execute_rows"]), run_id)
        values = self._convention.to_contract(values, self.contract)
        if not np.isfinite(values).all():
            raise ActionError(f"{self.url}: its actions hold NaN or infinity")
        rows = min(self._execute_rows or 1, len(values))
        return ActionChunk(stamp_ns, self.contract.action_dt_ns, values, rows, run_id)

    def _send(self, kind: MessageType, payload: dict[str, Any]) -> None:
        if self._connection is None:
            raise RemoteError(f"{self.url}: the connection was lost; begin a new run, which connects again")
        self._sequence += 1
        data = pack(Message(kind, payload, self._sequence), self.options.images)
        if len(data) > MAX_MESSAGE_BYTES:
            raise RemoteError(f"{self.url}: message '{kind}': got {len(data)} bytes, expected at most "
                              f"{MAX_MESSAGE_BYTES}; send smaller images, or {self.url}?images=jpeg")
        try:
            self._connection.send(data)
        except (OSError, WebSocketException) as problem:
            self._drop(f"it went away while '{kind}' was sent ({problem})")

    def _receive(self, expected: MessageType, timeout_s: float | None = None) -> Message:
        timeout_s = timeout_s or self.options.answer_s
        try:
            message = unpack(self._connection.recv(timeout=timeout_s))
        except TimeoutError:
            self._drop(f"no answer within {timeout_s:g} s")
        except (OSError, WebSocketException) as problem:
            self._drop(f"it went away before it answered ({problem})")
        if message.type is MessageType.ERROR:
            kind = KINDS.get(str(message.payload.get("kind")), RemoteError)
            raise kind(f"{self.url}: {message.payload.get('error', message.payload)}")
        if message.type is not expected or message.seq != self._sequence:
            self._drop(f"got '{message.type}' number {message.seq}, expected '{expected}' number {self._sequence}")
        return message

    def _drop(self, why: str) -> None:
        """Close the connection, so that no late answer is taken for another's. Raises: RemoteError, always."""
        self.close()
        raise RemoteError(f"{self.url}: {why}; is the policy server running, and is it fast enough?")


def connect(address: str, contract: RobotContract, answer_s: float = ANSWER_S) -> RemotePolicy:
    """The policy at an address; the environment variable VLA_POLICY_TOKEN holds the token, where one is needed.

    `ws://HOST:PORT?images=jpeg&answer_s=0.5` sets options of this client. Raises: RemoteError.
    """
    url, asked = _split(address)
    images = asked.get("images", "raw")
    if images not in get_args(ImageFormat):
        raise RemoteError(f"{address}: images: got '{images}'; {nearest(images, get_args(ImageFormat))}")
    try:
        answer_s = float(asked.get("answer_s", answer_s))
    except ValueError:
        answer_s = 0.0
    if not 0.0 < answer_s < math.inf:
        raise RemoteError(f"{address}: answer_s: got '{asked['answer_s']}', expected seconds above 0")
    token = os.environ.get(TOKEN_VARIABLE) or None
    return RemotePolicy(url, contract, ClientOptions(answer_s=answer_s, token=token, images=images))


def _split(address: str) -> tuple[str, dict[str, str]]:
    """Address without its query, and the options in that. Raises: RemoteError for an unknown option."""
    url, _, query = address.partition("?")
    asked = dict(parse_qsl(query, keep_blank_values=True))
    for name in asked:
        if name not in ADDRESS_OPTIONS:
            raise RemoteError(f"{address}: unknown option '{name}'; {nearest(name, ADDRESS_OPTIONS)}")
    return url, asked
