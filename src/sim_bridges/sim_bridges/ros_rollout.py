"""Task and seed in, one EpisodeResult out, played by the nodes: resets the sim, sends the goal, listens."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Image
from vla_msgs.action import RunPolicy
from vla_msgs.msg import EpisodeEvent
from vla_msgs.srv import ResetSim

from sim_bridges.chains import Chain, ChainResult
from sim_bridges.results import EpisodeResult, joined
from sim_bridges.rollout import goes_on
from sim_bridges.run_client import Ready, RunClient
from sim_bridges.sim import CHAIN, NEXT_TASK
from vla_policy.contract import RobotContract
from vla_policy.errors import VlaError
from vla_policy.messages import image_to_array, stamp_to_ns
from vla_policy.run import EndReason, RunEnd
from vla_policy.types import NS_PER_S, seconds_to_ns
from vla_policy_node.messages import ns_to_duration
from vla_policy_node.pace import LATCHED, Pace

Frames = Callable[[int, str, np.ndarray], None]  # (stamp_ns, camera, image)


class RosRollout(RunClient):
    """A client of /sim/reset and /vla/run. `watch_images`: called with each camera image of a running episode."""

    def __init__(self, contract: RobotContract, pace: Pace, watch_images: Frames | None = None) -> None:
        node = Node("evaluate")
        self._reset = node.create_client(ResetSim, "/sim/reset")
        self._success_ns = 0
        node.create_subscription(EpisodeEvent, "/vla/episode", self._on_episode, LATCHED)
        super().__init__(contract, pace, node)
        if watch_images is not None:
            self._watch_cameras(watch_images)

    def play_chain(self, chain: Chain, time_limit_s: float | None = None) -> ChainResult:
        """A chain until an instruction fails; the sim draws it from its seed.

        time_limit_s: of each instruction; None: what the sim says. Raises: VlaError as `play`.
        """
        episodes = [self._play(CHAIN, chain.steps[0].task, chain.seed, time_limit_s)[0]]
        while episodes[-1].success and len(episodes) < len(chain.steps):
            episodes.append(self._play(NEXT_TASK, chain.steps[len(episodes)].task, chain.seed, time_limit_s)[0])
        return ChainResult(chain, tuple(episodes))

    def play(self, task: str, seed: int, time_limit_s: float | None = None) -> EpisodeResult:
        """One episode, with all instructions that it has; time_limit_s as in `play_chain`.

        Raises: VlaError when the sim refuses the task or a node does not answer.
        """
        part, more = self._play(task, task, seed, time_limit_s)
        parts = [part]
        while goes_on(parts[-1], more):
            part, more = self._play(NEXT_TASK, task, seed, time_limit_s)
            parts.append(part)
        return joined(parts)

    def _servers(self) -> Ready:
        return {"/sim/reset": self._reset.service_is_ready, **super()._servers()}

    def _nodes(self) -> str:
        return f"sim_node, {super()._nodes()}"

    def _play(self, request: str, task: str, seed: int, time_limit_s: float | None) -> tuple[EpisodeResult, bool]:
        """An instruction that begins with a reset to `request`: the task, or the words of a chain.

        Returns what became of it, and whether the episode has more of them.
        """
        begun_s = time.perf_counter()
        scene = self._call(self._reset, ResetSim.Request(task=request, seed=seed))
        if not scene.success:
            raise VlaError(f"/sim/reset refused task '{request}': {scene.message}")
        limit = scene.time_limit if time_limit_s is None else ns_to_duration(seconds_to_ns(time_limit_s))
        handle = self._begin(RunPolicy.Goal(instruction=scene.instruction, not_before=scene.stamp, time_limit=limit))
        # Simulated seconds may take longer than real ones: a generous end, so that a hang is not waited for for ever.
        patience_s = 60.0 + 20 * stamp_to_ns(limit) / NS_PER_S
        result = self._wait(handle.get_result_async(), patience_s, "the run to end").result
        first_ns = stamp_to_ns(scene.stamp)
        end = self._end(result, first_ns)
        if end.reason is EndReason.SAFETY_STOP:
            self._release_guard()
        # In lockstep the number of a run's commands is known, so the last ones are waited for.
        complete = self._pace is Pace.LOCKSTEP and result.reason in (EndReason.SUCCEEDED, EndReason.TIME_LIMIT)
        expected = (lambda: self._periods(result, first_ns)) if complete else None
        return self._episode(result, end, task, seed, scene.instruction, begun_s, first_ns, expected), scene.more

    def _end(self, result: RunPolicy.Result, first_ns: int) -> RunEnd:
        """Why it ended. A success with the very last command counts, though the run may have ended before the news."""
        end_ns = first_ns + stamp_to_ns(result.duration)
        if result.reason == EndReason.TIME_LIMIT and first_ns < self._success_ns <= end_ns:
            return RunEnd(EndReason.SUCCEEDED, "the success condition holds")
        return RunEnd(EndReason(result.reason), result.message)

    def _periods(self, result: RunPolicy.Result, first_ns: int) -> int | None:
        """Control periods from the first observation to the end; None while the news of a success is on its way."""
        if result.reason == EndReason.TIME_LIMIT:
            return stamp_to_ns(result.duration) // self._contract.control_dt_ns
        if self._success_ns <= first_ns:
            return None
        return (self._success_ns - first_ns) // self._contract.control_dt_ns

    def _on_episode(self, event: EpisodeEvent) -> None:
        if event.event == EpisodeEvent.SUCCESS:
            self._success_ns = stamp_to_ns(event.header.stamp)

    def _watch_cameras(self, watch: Frames) -> None:
        for name, camera in self._contract.cameras.items():
            def forward(msg: Image, name: str = name, camera: Any = camera) -> None:
                """Hand one image message on as stamp [ns], camera name and RGB array (H, W, 3)."""
                watch(stamp_to_ns(msg.header.stamp), name, image_to_array(msg, camera))

            self._node.create_subscription(Image, camera.topic, forward, self._pace.sensor_qos)
