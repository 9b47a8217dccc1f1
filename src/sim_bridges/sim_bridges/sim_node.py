"""A simulator as a robot: its topics, /clock and /sim/reset, at realtime or lockstep pace.

lockstep: /clock stands still until a command stamped with the present sim time arrives, so a run gives the same
numbers on a slow machine as on a fast one. realtime: stamps are system time, as on a robot, and the world moves on
whatever arrives. With `publish_state` the simulator's whole state is told on /sim/state, for scripted operators.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from queue import Empty, SimpleQueue

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from vla_msgs.msg import EpisodeEvent
from vla_msgs.srv import ResetSim

from sim_bridges.command_intake import CommandIntake
from sim_bridges.registry import make_sim
from sim_bridges.sim import CHAIN, NEXT_TASK, Episode, Sim
from sim_bridges.sim_publisher import SimPublisher
from vla_policy.contract import RobotContract, load_contract
from vla_policy.errors import VlaError, choose, nearest
from vla_policy.types import NS_PER_S, seconds_to_ns
from vla_policy_node.messages import ns_to_duration, ns_to_stamp
from vla_policy_node.pace import Pace
from vla_policy_node.serving import serve_until_signal

REPEAT_S = 0.5  # lockstep: how often a waiting simulator repeats its observation for late joiners
COMMAND_MAX_AGE_S = 0.25  # realtime: as a robot's driver, hold when commands stop coming
COMMAND_MAX_PERIODS = 2.0  # ... but not before so many control periods, where these are long
FIRST_SCENE_TIMEOUT_S = 120.0  # a large simulator takes its time to load
RESET_TIMEOUT_S = 60.0  # another scene may mean another world to build
MAX_LAG_S = 0.1  # realtime: a longer delay is not caught up
START_TIME_NS = NS_PER_S  # sim time 0 would read as "not set"
EXIT_FAILED = 1


class SimNode(Node):
    """Wires a `Sim` to topics; the thread that `start` begins owns the sim and its renderer."""

    def __init__(self) -> None:
        super().__init__("sim_node")
        self.declare_parameter("sim", "tabletop")
        self.declare_parameter("contract", "")
        self.declare_parameter("pace", Pace.REALTIME.value)
        self.declare_parameter("task", "")
        self.declare_parameter("seed", 0)
        with_state = bool(self.declare_parameter("publish_state", False).value)
        self.contract = load_contract(str(self.get_parameter("contract").value))
        pace = choose(Pace, "pace", str(self.get_parameter("pace").value))
        self._wake = threading.Event()
        intake = CommandIntake(self, self.contract, self._wake)
        publisher = SimPublisher(self, self.contract, with_clock=pace is Pace.LOCKSTEP, with_state=with_state)
        self._loop = SimLoop(self, str(self.get_parameter("sim").value), pace, intake, publisher, self._wake)
        self.create_service(ResetSim, "/sim/reset", self._on_reset)

    def start(self) -> None:
        """Build the sim and its first scene. Raises: VlaError when that fails."""
        self._loop.start(str(self.get_parameter("task").value), int(self.get_parameter("seed").value))

    @property
    def failure(self) -> str:
        """Why the sim stopped by itself; empty while it runs."""
        return self._loop.failure

    def close(self) -> None:
        """Stop the sim's thread and the node."""
        self._loop.close()
        self.destroy_node()

    def _on_reset(self, request: ResetSim.Request, response: ResetSim.Response) -> ResetSim.Response:
        try:
            episode, stamp_ns = self._loop.reset(request.task, request.seed).result(RESET_TIMEOUT_S)
        except (VlaError, TimeoutError) as problem:
            response.success, response.message = False, str(problem) or f"no reset within {RESET_TIMEOUT_S:g} s"
            return response
        response.success, response.instruction, response.stamp = True, episode.instruction, ns_to_stamp(stamp_ns)
        response.time_limit = ns_to_duration(seconds_to_ns(episode.time_limit_s))
        response.more = episode.more
        return response


class SimLoop:
    """The thread that owns the sim: resets when asked, lets time pass by the pace, publishes what is seen."""

    def __init__(self, node: SimNode, sim_name: str, pace: Pace, intake: CommandIntake, publisher: SimPublisher,
                 wake: threading.Event) -> None:
        self._node = node
        self._sim_name = sim_name
        self._contract: RobotContract = node.contract
        self._pace = pace
        self._intake = intake
        self._publisher = publisher
        self._wake = wake
        self._requests: SimpleQueue[tuple[str, int, Future[tuple[Episode, int]]]] = SimpleQueue()
        self._closing = False
        self.failure = ""
        self._command_max_age_s = max(COMMAND_MAX_AGE_S, COMMAND_MAX_PERIODS * self._contract.control_dt_ns / NS_PER_S)
        self._offset_ns = START_TIME_NS
        self._succeeded = False
        self._in_chain = False
        self._sim: Sim
        self._episode: Episode

    def start(self, task: str, seed: int) -> None:
        """Begin the thread and wait for the first scene. Raises: VlaError when that fails."""
        first = self.reset(task, seed)
        self._thread = threading.Thread(target=self._run, name="sim", daemon=True)
        self._thread.start()
        try:
            first.result(FIRST_SCENE_TIMEOUT_S)
        except TimeoutError:
            raise VlaError(f"sim '{self._sim_name}': no first scene within {FIRST_SCENE_TIMEOUT_S:g} s") from None

    def reset(self, task: str, seed: int) -> Future[tuple[Episode, int]]:
        """Ask for a new scene; the future holds the episode and the stamp of its first observation [ns]."""
        future: Future[tuple[Episode, int]] = Future()
        self._requests.put((task, seed, future))
        self._wake.set()
        return future

    def close(self) -> None:
        """End the thread."""
        self._closing = True
        self._wake.set()
        if hasattr(self, "_thread"):
            self._thread.join(5.0)

    def _run(self) -> None:
        # Whatever goes wrong in a simulator must end the node in words; a robot that stands still explains nothing.
        try:
            self._live()
        except Exception as problem:  # noqa: BLE001
            self.failure = str(problem) if isinstance(problem, VlaError) else f"{type(problem).__name__}: {problem}"
            if not isinstance(problem, VlaError):
                logging.getLogger(__name__).exception("sim '%s'", self._sim_name)
            while not self._requests.empty():
                self._requests.get()[2].set_exception(VlaError(self.failure))

    def _live(self) -> None:
        self._sim = make_sim(self._sim_name, self._contract)
        if self._publisher.tells_state and not hasattr(self._sim, "state"):
            raise VlaError(f"sim '{self._sim_name}': got publish_state true, but it does not tell its state; set it "
                           "false")
        self._episode = Episode(self._sim.tasks[0], 0, "", 0.0)
        self._serve_requests()
        advance = self._advance_lockstep if self._pace is Pace.LOCKSTEP else self._advance_realtime
        self._due_s = time.monotonic()
        while not self._closing:
            advance()
            self._serve_requests()
        self._sim.close()

    def _serve_requests(self) -> None:
        while True:
            try:
                task, seed, future = self._requests.get_nowait()
            except Empty:
                return
            try:
                future.set_result(self._begin_episode(task or self._episode.task, seed))
            except VlaError as problem:
                future.set_exception(problem)

    def _begin_episode(self, task: str, seed: int) -> tuple[Episode, int]:
        self._episode = self._next_episode(task, seed)
        self._succeeded = False
        self._intake.clear()
        self._offset_ns += self._contract.control_dt_ns  # a new scene is seen later than the last of the old one
        stamp_ns = self._now_ns()
        self._publisher.publish_event(EpisodeEvent.START, self._episode, stamp_ns, "")
        self._publish(stamp_ns)
        return self._episode, stamp_ns

    def _next_episode(self, task: str, seed: int) -> Episode:
        self._in_chain = task in (CHAIN, NEXT_TASK)
        if not self._in_chain:
            return self._sim.reset(task, seed)
        if not hasattr(self._sim, "begin_chain" if task == CHAIN else "next_task"):
            raise VlaError(f"sim '{self._sim_name}' plays no chains of tasks; {nearest(task, self._sim.tasks)}")
        if task == NEXT_TASK:
            return self._sim.next_task()
        return self._sim.begin_chain(self._sim.draw_chain(seed))

    def _now_ns(self) -> int:
        if self._pace is Pace.REALTIME:
            return self._node.get_clock().now().nanoseconds
        return self._sim.time_ns + self._offset_ns

    def _publish(self, stamp_ns: int) -> None:
        self._tell_state()
        if self._sim.success() and not self._succeeded:  # before the observation that may end the run at its limit
            self._succeeded = True
            words = f"{self._episode.task}: success"
            self._publisher.publish_event(EpisodeEvent.SUCCESS, self._episode, stamp_ns, words)
        self._publisher.publish(replace(self._sim.observe(), stamp_ns=stamp_ns))

    def _tell_state(self) -> None:
        if self._publisher.tells_state:
            self._publisher.publish_state(self._sim.state(), self._episode)

    def _advance_lockstep(self) -> None:
        """Wait for the command of this instant, let one control period pass, publish.

        In a chain a task's success waits for the next task: commands that were under way must not alter its start.
        """
        command = self._intake.at(self._now_ns())
        if command is not None and not (self._in_chain and self._succeeded):
            self._sim.advance(command, self._contract.control_dt_ns)
            self._publish(self._now_ns())
        elif self._wake.wait(REPEAT_S):
            self._wake.clear()
        else:
            self._publish(self._now_ns())

    def _advance_realtime(self) -> None:
        """Let one control period pass, as finely as the sim can with the newest command each time, then publish."""
        slice_ns = self._sim.period_ns
        for _ in range(self._contract.control_dt_ns // slice_ns):
            command = self._intake.newest(self._now_ns(), self._command_max_age_s)
            self._sim.advance(command, slice_ns)
            self._tell_state()
            self._due_s = max(self._due_s + slice_ns / NS_PER_S, time.monotonic() - MAX_LAG_S)
            time.sleep(max(0.0, self._due_s - time.monotonic()))
        self._publish(self._now_ns())


def main() -> None:
    """Run the node until it is shut down; leave with code 1 and one line if it cannot start or go on."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as SIGINT does, it ends the building of a scene
    executor = SingleThreadedExecutor()
    node: SimNode | None = None
    failure = ""
    try:
        node = SimNode()
        executor.add_node(node)
        node.start()
        serve_until_signal(executor, lambda: bool(node.failure))
        failure = node.failure
    except (VlaError, ParameterException) as problem:
        failure = str(problem)
    except KeyboardInterrupt:
        rclpy.logging.get_logger("sim_node").info("interrupted before the first scene")
    finally:
        if node is not None:
            node.close()
        rclpy.try_shutdown()
    if failure:
        rclpy.logging.get_logger("sim_node").error(failure)
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()
