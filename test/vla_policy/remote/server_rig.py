"""A policy that counts and a policy server in a thread, for the tests of this folder."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from vla_policy.contract import load_contract
from vla_policy.errors import InstructionError
from vla_policy.remote.answering import Batching
from vla_policy.remote.server import PolicyServer, ServerOptions
from vla_policy.remote.session import Session
from vla_policy.resources import find_contract
from vla_policy.types import ActionChunk, Observation

CONTRACT = load_contract(find_contract("tabletop"))


class CountingPolicy:
    """A policy whose rows count up: row k of step n of an episode holds n + k / 100."""

    period_ns = 2 * CONTRACT.action_dt_ns
    cameras = tuple(CONTRACT.cameras)
    history_frames = 3

    def __init__(self) -> None:
        self.timings = {"model": 0.5}
        self.steps = 0

    def reset(self, instruction: str) -> None:
        if "unknown" in instruction:
            raise InstructionError(f"instruction: '{instruction}' has words that the policy was never trained on")
        self.steps = 0

    def step(self, observation: Observation, run_id: int = 1) -> ActionChunk:
        self.steps += 1
        values = np.tile(self.steps + np.arange(4)[:, None] / 100, (1, 7))
        values[:, 6] = 1.0
        return ActionChunk(observation.stamp_ns, CONTRACT.action_dt_ns, values, 2, run_id)


@contextmanager
def serving(make_session: Callable[[], Session], options: ServerOptions,
            batching: Batching | None = None) -> Iterator[str]:
    server, ready = PolicyServer(make_session, options, batching), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(server.run(ready.set)), daemon=True)
    thread.start()
    assert ready.wait(10.0)
    try:
        yield f"{'wss' if options.tls else 'ws'}://localhost:{server.port}"
    finally:
        server.stop()
        thread.join(10.0)
