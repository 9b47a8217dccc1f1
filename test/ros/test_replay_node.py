"""A recorded episode goes through the guard once more, in lockstep: the same scene and success; else a refusal."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rclpy
from guard_rig import ROBOTS, guard_command
from make_bags import record_of, write_bag
from processes import Spawn, Spawned
from vla_msgs.msg import ActionChunk

from sim_bridges.tabletop.demonstration import demonstrate
from sim_bridges.tabletop.sim import TabletopSim
from vla_policy.action.guard import Decision
from vla_policy.contract import load_contract
from vla_policy.types import ActionChunk as Chunk
from vla_policy.types import Observation
from vla_policy_node.messages import chunk_to_msg
from vla_policy_node.pace import RELIABLE
from vla_training.datasets.recorded.frames import EpisodeFrames, command_messages, state_messages, stop_ns

TASK, SEED = "press_button", 3
CONTRACT = load_contract(ROBOTS / "tabletop.yaml")
PATIENCE_S = 90.0
ROS_ARGS = ("-m", "sim_bridges.sim_node", "--ros-args")


@pytest.fixture(scope="module")
def episode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a recorder would have heard of joints, pose and commands while an expert drove."""
    sim, seen, rows = TabletopSim(8), list[Observation](), list[np.ndarray]()

    def watch(observation: Observation, decision: Decision) -> None:
        seen.append(observation)
        rows.append(np.append(decision.sent.arm * 0.05, decision.sent.gripper))

    assert demonstrate(sim, CONTRACT, TASK, SEED, watch=watch).success
    sim.close()
    nothing = np.zeros(len(rows), bool)
    frames = EpisodeFrames(np.array(rows), seen, nothing, nothing)
    sent = [(received_ns, topic, msg) for frame in range(len(rows)) for part in (state_messages, command_messages)
            for received_ns, topic, _, msg in part(frames, CONTRACT, frame)]
    folder = tmp_path_factory.mktemp("recorded") / "episode"
    record = record_of(CONTRACT).model_copy(update={"task": TASK, "seed": SEED, "start_ns": 1_000_000_000,
                                                    "stop_ns": stop_ns(frames, CONTRACT)})
    write_bag(folder, sent, record)
    return folder


@pytest.fixture(scope="module")
def robot(spawn_shared: Spawn) -> None:
    """Simulator and guard in lockstep."""
    settings = (f"contract:={ROBOTS / 'tabletop.yaml'}", "pace:=lockstep", f"task:={TASK}", "seed:=11")
    options = [word for setting in settings for word in ("-p", setting)]
    spawn_shared([sys.executable, *ROS_ARGS, *options])
    spawn_shared([*guard_command(ROBOTS / "tabletop.yaml", "pace:=lockstep"), "-p", "use_sim_time:=true"])


def replay(spawn: Spawn, episode: Path, *options: str) -> Spawned:
    """The command, to its end."""
    process = spawn([sys.executable, "-m", "vla_policy_node.replay_node", episode, "--pace", "lockstep", *options])
    process.wait(PATIENCE_S)
    return process


@pytest.mark.usefixtures("robot")
def test_the_same_scene_gives_the_same_success(spawn: Spawn, episode: Path) -> None:
    first = replay(spawn, episode, "--reset-scene")
    assert first.process.returncode == 0, first.output
    assert "the simulator says that the task is done" in first.output and "rows" in first.output
    elsewhere = replay(spawn, episode, "--tolerance", "0.001")  # the arm is where the replay left it
    assert elsewhere.process.returncode == 1
    assert "does not stand where the episode began" in elsewhere.output and "joint2" in elsewhere.output


@pytest.mark.usefixtures("robot")
def test_nothing_is_replayed_while_another_drives(spawn: Spawn, episode: Path) -> None:
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("others", context=context)
    chunks = node.create_publisher(ActionChunk, "/vla/action_chunk", RELIABLE)
    end_s = time.monotonic() + PATIENCE_S
    while not chunks.get_subscription_count() and time.monotonic() < end_s:
        time.sleep(0.05)
    still = Chunk(1_000, CONTRACT.action_dt_ns, np.array([[0.0] * 6 + [1.0]]), 1, 5)
    chunks.publish(chunk_to_msg(still, CONTRACT))
    refused = replay(spawn, episode, "--reset-scene")
    assert refused.process.returncode == 1 and "run 5 drives the robot" in refused.output
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_what_cannot_be_replayed_is_said_in_a_line(spawn: Spawn, episode: Path, tmp_path: Path) -> None:
    fast = replay(spawn, episode, "--speed", "2")
    assert fast.process.returncode == 1 and "never faster than the recording" in fast.output
    missing = replay(spawn, tmp_path)
    assert missing.process.returncode == 1 and "got no episode.json" in missing.output
    assert "Traceback" not in fast.output + missing.output
