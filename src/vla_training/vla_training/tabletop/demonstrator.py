"""A task or a chain and a seed in, recorded demonstrations out: a scripted expert drives, disturbed by noise.

What is executed is noisy, what is recorded as action is what the expert wanted there (DART, Laskey et al.
2017, https://arxiv.org/abs/1703.09327): so the policy learns the way back from its own mistakes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from sim_bridges.sim import Episode
from sim_bridges.tabletop.arm import FINGER_OPEN_M, rotation_matrix
from sim_bridges.tabletop.experts import Expert
from sim_bridges.tabletop.motion import Hand
from sim_bridges.tabletop.sim import TOOL_DOWN, TabletopSim
from sim_bridges.tabletop.tasks import Family
from vla_policy.action.guard import Guard
from vla_policy.contract import RobotContract
from vla_policy.observation.resize import resize_image
from vla_policy.policy import Policy
from vla_policy.types import ActionChunk, Observation
from vla_training.datasets.lerobot import Feature
from vla_training.tabletop.sentences import Sentence

ROWS_AFTER_SUCCESS = 8  # at most; they show what the end looks like, but the end of a push looks like its beginning
START_LOW_M, START_HIGH_M = np.array([0.33, -0.24, 0.13]), np.array([0.64, 0.22, 0.30])  # clear of everything
MAX_STEP_M, MAX_TURN_RAD = 0.0225, 0.06  # per row; the contract's velocity limits at 20 rows/s


@dataclass(frozen=True, slots=True)
class Noise:
    """Disturbances come in bursts. share: of the episodes that are disturbed at all. burst_probability: per
    row.

    rows: shortest and longest burst. move_m, turn_rad: standard deviation of a burst's offset per row.
    gripper_probability: per burst, that the fingers do the opposite meanwhile. start_share: of the episodes
    that begin with the arm somewhere over the table instead of where the task begins, so that no place is new
    to the policy.
    """

    share: float = 0.8
    burst_probability: float = 0.12
    rows: tuple[int, int] = (1, 6)
    move_m: float = 0.010
    turn_rad: float = 0.020
    gripper_probability: float = 0.03
    start_share: float = 0.25


class Disturbance:
    """Draws the noise of one episode, row by row."""

    def __init__(self, noise: Noise, rng: np.random.Generator) -> None:
        self._noise, self._rng = noise, rng
        self._active = rng.random() < noise.share
        self._rows_left = 0
        self._offset = np.zeros(6)
        self._flip = False

    def apply(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """The row as it is executed, within the limits of one row."""
        if self._rows_left == 0 and self._active and self._rng.random() < self._noise.burst_probability:
            self._begin_burst()
        if self._rows_left == 0:
            return row
        self._rows_left -= 1
        disturbed = row.copy()
        disturbed[:3] = _within(row[:3] + self._offset[:3], MAX_STEP_M)
        disturbed[3:6] = _within(row[3:6] + self._offset[3:], MAX_TURN_RAD)
        if self._flip:
            disturbed[6] = 1.0 - row[6]
        return disturbed

    def _begin_burst(self) -> None:
        noise, rng = self._noise, self._rng
        self._rows_left = int(rng.integers(noise.rows[0], noise.rows[1] + 1))
        self._offset = np.concatenate(
            [rng.normal(0.0, noise.move_m, 3), [0.0, 0.0, rng.normal(0.0, noise.turn_rad)]]
        )
        self._flip = bool(rng.random() < noise.gripper_probability)


@dataclass(frozen=True, slots=True)
class Demonstration:
    """columns: as `features`, arrays (T, …). rows: of control that the expert drove. success: of the expert,
    by the sim.
    """

    columns: dict[str, NDArray[Any]]
    episode: Episode
    rows: int
    success: bool


def features(contract: RobotContract, image_size: int, rows_per_frame: int) -> dict[str, Feature]:
    """The columns of a tabletop dataset: a frame every `rows_per_frame` control rows, with the rows that
    followed it.
    """
    video = {
        f"observation.images.{name}": Feature(
            "video", (image_size, image_size, 3), ("height", "width", "channels")
        )
        for name in contract.cameras
    }
    names = contract.action_names
    shape = (rows_per_frame, len(names)) if rows_per_frame > 1 else (len(names),)
    return video | {
        "observation.state": Feature("float32", (len(contract.joints.names),), contract.joints.names),
        "observation.pose": Feature("float32", (7,), ("x", "y", "z", "qx", "qy", "qz", "qw")),
        "observation.target_position": Feature("float32", (3,), ("x", "y", "z")),
        "action": Feature("float32", shape, names),
    }


@dataclass(frozen=True, slots=True)
class Recording:
    """How episodes are recorded. image_size: side of the stored images [px]. rows_per_frame: control rows
    between frames.

    max_rows: control rows before giving up. lead_ticks: most steps that a policy drives before the expert
    takes over.
    """

    image_size: int = 112
    rows_per_frame: int = 4
    max_rows: int = 140
    lead_ticks: int = 12
    noise: Noise = field(default_factory=Noise)


def demonstrate(
    sim: TabletopSim,
    contract: RobotContract,
    task: str,
    seed: int,
    recording: Recording,
    policy: Policy | None = None,
) -> Demonstration:
    """Run one episode and record the expert. The same arguments give the same demonstration.

    policy: drives for a random while before the expert takes over, unrecorded. So the expert shows the way
    out of where the policy itself leads (the idea of DAgger, Ross et al. 2011,
    https://arxiv.org/abs/1011.0686).
    """
    episode = sim.reset(task, seed)
    rng = np.random.default_rng([crc32(task.encode()), seed, 1])
    recorder = _Recorder(sim, contract, recording, rng)
    if policy is not None:
        recorder.let_lead(policy, episode.instruction)
    elif rng.random() < recording.noise.start_share:
        _start_anywhere(sim, rng)
    return recorder.record(episode)


def demonstrate_chain(
    sim: TabletopSim,
    contract: RobotContract,
    seed: int,
    recording: Recording,
    policy: Policy | None = None,
) -> list[Demonstration]:
    """Run the chain of a seed and record each of its tasks, as `demonstrate` does, up to the first that fails.

    Each begins in the state that the one before left, with a little more of its movement or none.
    """
    episode = sim.begin_chain(sim.draw_chain(seed))
    rng = np.random.default_rng([crc32(b"chain"), seed, 1])
    recorder = _Recorder(sim, contract, recording, rng)
    shown: list[Demonstration] = []
    while True:
        if policy is not None and rng.random() < 0.5:
            recorder.let_lead(policy, episode.instruction)
        shown.append(recorder.record(episode))
        if not sim.success() or not sim.tasks_left:
            return shown
        episode = sim.next_task()


class _Recorder:
    """Drives a sim through one task after the other with an expert and keeps what it shows."""

    def __init__(
        self, sim: TabletopSim, contract: RobotContract, recording: Recording, rng: np.random.Generator
    ) -> None:
        self._sim, self._contract, self._recording, self._rng = sim, contract, recording, rng
        self._guard = Guard(contract, silence_s=math.inf)
        self._hand = Hand(sim)
        self._disturbance = Disturbance(recording.noise, rng)

    def let_lead(self, policy: Policy, instruction: str) -> None:
        """Let a policy drive for a random while, unrecorded."""
        ticks = int(self._rng.integers(self._recording.lead_ticks + 1))
        _let_policy_lead(self._sim, self._guard, self._contract, policy, instruction, ticks)

    def record(self, episode: Episode) -> Demonstration:
        """Let the expert do the sim's present task."""
        sim, per_frame = self._sim, self._recording.rows_per_frame
        expert, about = Expert(sim), Sentence(sim.goal)
        after = 0 if sim.goal.family is Family.PUSH else int(self._rng.integers(ROWS_AFTER_SUCCESS + 1))
        rows_left = 0 if sim.success() else self._recording.max_rows
        frames: list[dict[str, NDArray[Any]]] = []
        actions: list[NDArray[np.float64]] = []
        while rows_left > 0:
            if len(actions) % per_frame == 0:
                place = about.place(sim.positions(), self._hand.held())
                frames.append(_frame(sim.observe(), place, self._recording.image_size))
            wanted = expert.act()
            actions.append(wanted)
            execute_row(sim, self._guard, self._contract, self._disturbance.apply(wanted))
            rows_left = min(rows_left - 1, after) if sim.success() else rows_left - 1
        return _demonstration(frames, actions, episode, sim.success(), per_frame)


def _demonstration(
    frames: list[dict[str, NDArray[Any]]],
    actions: list[NDArray[np.float64]],
    episode: Episode,
    success: bool,
    per_frame: int,
) -> Demonstration:
    whole = len(actions) // per_frame
    if whole == 0:
        return Demonstration({}, episode, 0, False)
    shape = (whole, per_frame, -1) if per_frame > 1 else (whole, -1)
    columns = {key: np.stack([frame[key] for frame in frames[:whole]]) for key in frames[0]}
    columns["action"] = np.stack(actions[: whole * per_frame]).reshape(shape).astype(np.float32)
    return Demonstration(columns, episode, len(actions), success)


def execute_row(sim: TabletopSim, guard: Guard, contract: RobotContract, row: NDArray[np.float64]) -> None:
    """Send one action row through the guard to the sim, as a policy's chunk of one row would go."""
    now = sim.time_ns
    guard.accept(ActionChunk(now, contract.action_dt_ns, row[None], 1, 1), now)
    decision = guard.command(now, sim.observe(images=False), now)
    sim.advance(decision.sent, contract.control_dt_ns)


def _let_policy_lead(
    sim: TabletopSim, guard: Guard, contract: RobotContract, policy: Policy, instruction: str, ticks: int
) -> None:
    policy.reset(instruction)
    for _ in range(ticks):
        guard.accept(policy.step(sim.observe()), sim.time_ns)
        for _ in range(policy.execute_rows):
            if sim.success():
                return
            decision = guard.command(sim.time_ns, sim.observe(images=False), sim.time_ns)
            sim.advance(decision.sent, contract.control_dt_ns)


def _start_anywhere(sim: TabletopSim, rng: np.random.Generator) -> None:
    turned = rotation_matrix(np.array([0.0, 0.0, rng.uniform(-0.4, 0.4)])) @ TOOL_DOWN
    sim.arm.teleport(rng.uniform(START_LOW_M, START_HIGH_M), turned, float(rng.choice([0.0, FINGER_OPEN_M])))


def _frame(observation: Observation, place: NDArray[np.float64], image_size: int) -> dict[str, NDArray[Any]]:
    images = {
        f"observation.images.{name}": resize_image(image, image_size)
        for name, image in observation.images.items()
    }
    return images | {
        "observation.state": observation.joints.astype(np.float32),
        "observation.pose": np.concatenate([observation.pose.position, observation.pose.quaternion]).astype(
            np.float32
        ),
        "observation.target_position": place.astype(np.float32),
    }


def _within(vector: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    length = float(np.linalg.norm(vector))
    return vector if length <= limit else vector * (limit / length)
