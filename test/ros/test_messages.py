"""Library types to ROS messages and back, bit for bit; messages unlike the contract to refusals in words."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.image import message_to_cvimage
from sensor_msgs.msg import CompressedImage, Image, JointState
from vla_msgs.msg import ActionChunk as ActionChunkMsg

from vla_policy import messages as received
from vla_policy.contract import Camera, RobotContract, load_contract
from vla_policy.errors import ContractError, ObservationError
from vla_policy.types import ActionChunk, Command, Pose
from vla_policy_node import messages

TABLETOP = Path(__file__).resolve().parents[2] / "config" / "robots" / "tabletop.yaml"
CAMERA = Camera(topic="/camera/image", width=6, height=4, encoding="rgb8", max_age_s=0.3)
CONTRACT = load_contract(TABLETOP)
STAMP_NS = 1_700_000_000_123_456_789
finite = st.floats(allow_nan=False, allow_infinity=False, width=64)


def over_the_wire(msg: Any) -> Any:
    """The message as the other process gets it."""
    return deserialize_message(serialize_message(msg), type(msg))


def bits(values: np.ndarray) -> bytes:
    return np.ascontiguousarray(values).tobytes()


def refusal(error: type[Exception], function: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(error) as caught:
        function(*arguments)
    return str(caught.value)


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_stamps_are_exact(stamp_ns: int) -> None:
    assert received.stamp_to_ns(messages.ns_to_stamp(stamp_ns)) == stamp_ns


@given(st.integers(-(2**31) * 10**9, 2**31 * 10**9 - 1))
def test_durations_are_exact(duration_ns: int) -> None:
    assert received.stamp_to_ns(messages.ns_to_duration(duration_ns)) == duration_ns


def random_image(height: int = 4, width: int = 6) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("view",
                         [lambda image: image, lambda image: image[:, ::-1], lambda image: image[::-1]])
def test_an_image_survives_the_wire(view: Callable[[np.ndarray], np.ndarray]) -> None:
    image = view(random_image())
    msg = over_the_wire(messages.array_to_image(image, STAMP_NS, "camera_link"))
    assert (msg.header.frame_id, received.stamp_to_ns(msg.header.stamp)) == ("camera_link", STAMP_NS)
    assert (msg.width, msg.height, msg.step, msg.encoding) == (6, 4, 18, "rgb8")
    np.testing.assert_array_equal(received.image_to_array(msg, CAMERA), image)
    np.testing.assert_array_equal(message_to_cvimage(msg), image)


def test_a_compressed_image_decodes() -> None:
    image = random_image()
    png = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    msg = over_the_wire(CompressedImage(format="rgb8; png compressed bgr8", data=array("B", png.tobytes())))
    np.testing.assert_array_equal(received.image_to_array(msg, CAMERA), image)


@pytest.mark.parametrize(("change", "words"), [
    ({"encoding": "16UC1"},
     "got encoding '16UC1', expected rgb8; a depth image where a colour camera is expected"),
    ({"encoding": "bgr8"}, "got encoding 'bgr8', expected rgb8"),
    ({"width": 5}, "got 5x4, expected 6x4"),
    ({"step": 17}, "got a step of 17 bytes, expected at least 18"),
    ({"data": array("B", bytes(71))}, "got 71 bytes, expected 72"),
])
def test_an_image_that_does_not_fit_is_refused(change: dict[str, Any], words: str) -> None:
    msg = messages.array_to_image(random_image(), STAMP_NS, "")
    for field, value in change.items():
        setattr(msg, field, value)
    text = refusal(ObservationError, received.image_to_array, msg, CAMERA)
    assert text.startswith("/camera/image: ") and text.count("/camera/image") == 1 and words in text


@pytest.mark.parametrize(("data", "words"), [
    (b"junk", "got 4 bytes that are no complete image"),
    (cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes(), "got 2x2, expected 6x4"),
])
def test_a_compressed_image_that_does_not_fit_is_refused(data: bytes, words: str) -> None:
    text = refusal(ObservationError, received.image_to_array, CompressedImage(data=array("B", data)), CAMERA)
    assert text.startswith("/camera/image: ") and words in text


@given(arrays(np.float64, 3, elements=finite), st.permutations(range(3)))
def test_joints_come_back_in_the_contracts_order(joints: np.ndarray, order: list[int]) -> None:
    names = ["a", "b", "c"]
    sent = messages.array_to_joint_state(joints[list(order)], [names[i] for i in order], STAMP_NS)
    back = received.joint_state_to_array(over_the_wire(sent), names, "/joint_states")
    assert bits(back) == bits(joints)


def test_joints_that_nobody_asked_for_are_left_out() -> None:
    msg = JointState(name=["wheel", "b", "a"], position=[float("nan"), 2.0, 1.0])
    assert received.joint_state_to_array(msg, ["a", "b"], "/joint_states").tolist() == [1.0, 2.0]


@pytest.mark.parametrize(("names", "positions", "words"), [
    (["a"], [1.0], "joints b are missing; got a; correct joints.names or the driver"),
    ([], [], "joints a, b are missing; got none"),
    (["a", "b"], [1.0, float("nan")], "got b = nan, expected finite positions"),
    (["a", "b"], [float("inf"), float("nan")], "got a = inf, b = nan"),
    (["a", "b"], [], "got 0 positions for 2 joint names"),
])
def test_joints_that_do_not_fit_are_refused(names: list[str], positions: list[float], words: str) -> None:
    msg = JointState(name=names, position=positions)
    text = refusal(ObservationError, received.joint_state_to_array, msg, ["a", "b"], "/joint_states")
    assert text.startswith("/joint_states: ") and words in text


@given(arrays(np.float64, 3, elements=finite), arrays(np.float64, 4, elements=st.floats(0.1, 1.0)))
def test_a_pose_survives_the_wire(position: np.ndarray, direction: np.ndarray) -> None:
    pose = Pose(position, direction / np.linalg.norm(direction))
    back = received.pose_to_pose(over_the_wire(messages.pose_to_msg(pose, STAMP_NS, "base")), "base",
                                 "/tcp_pose")
    assert bits(back.position) == bits(pose.position) and bits(back.quaternion) == bits(pose.quaternion)


@pytest.mark.parametrize(("frame", "x", "w", "words"), [
    ("world", 0.0, 1.0, "got a pose in frame 'world', expected 'base'"),
    ("", 0.0, 1.0, "got a pose in frame '', expected 'base'"),
    ("base", float("nan"), 1.0, "got position [nan, 0.0, 0.0]"),
    ("base", 0.0, 0.0, "of length 0; expected finite values, length 1"),
    ("base", 0.0, 1.1, "of length 1.1"),
    ("base", 0.0, float("nan"), "of length nan"),
])
def test_a_pose_that_does_not_fit_is_refused(frame: str, x: float, w: float, words: str) -> None:
    msg = PoseStamped()
    msg.header.frame_id, msg.pose.position.x, msg.pose.orientation.w = frame, x, w
    text = refusal(ObservationError, received.pose_to_pose, msg, "base", "/tcp_pose")
    assert text.startswith("/tcp_pose: ") and words in text


def make_chunk(values: np.ndarray) -> ActionChunk:
    return ActionChunk(STAMP_NS, CONTRACT.action_dt_ns, values, execute_rows=1, run_id=7)


@given(st.integers(1, 10).flatmap(lambda rows: arrays(np.float64, (rows, 7), elements=st.floats(width=64))))
def test_a_chunk_survives_the_wire_bit_for_bit(values: np.ndarray) -> None:
    chunk = make_chunk(values)
    back = received.chunk_from_msg(over_the_wire(messages.chunk_to_msg(chunk, CONTRACT)), CONTRACT)
    assert bits(back.values) == bits(values) and back.values.shape == values.shape
    assert (back.stamp_ns, back.dt_ns, back.execute_rows, back.run_id) == (STAMP_NS, chunk.dt_ns, 1, 7)


def test_a_chunk_bears_names_units_and_frame() -> None:
    msg = messages.chunk_to_msg(make_chunk(np.zeros((8, 7))), CONTRACT)
    assert tuple(msg.names) == CONTRACT.action_names and tuple(msg.units) == CONTRACT.action_units
    assert msg.header.frame_id == "base_link" and not msg.end_of_run


def test_the_end_of_a_run_is_an_empty_chunk() -> None:
    msg = over_the_wire(messages.end_of_run_msg(7, STAMP_NS, CONTRACT))
    assert msg.end_of_run and msg.run_id == 7 and not msg.values
    assert received.stamp_to_ns(msg.header.stamp) == STAMP_NS


@pytest.mark.parametrize(("change", "words"), [
    (lambda msg: setattr(msg, "names", ["x"] * 7), "names: got ['x', 'x'"),
    (lambda msg: setattr(msg, "names", msg.names[::-1]), "names: got ['gripper', 'rz'"),
    (lambda msg: setattr(msg, "units", ["mm"] + msg.units[1:]), "units: got ['mm', 'm'"),
    (lambda msg: setattr(msg.header, "frame_id", "world"),
     "header.frame_id: got 'world', expected 'base_link'"),
    (lambda msg: setattr(msg.dt, "nanosec", 1), "dt [ns]: got 1, expected 50000000"),
    (lambda msg: msg.values.pop(), "values: got 13, expected whole rows of 7"),
    (lambda msg: setattr(msg, "values", []), "values: got 0, expected whole rows of 7, at least one"),
    (lambda msg: setattr(msg, "execute_rows", 0), "execute_rows: got 0, expected 1 to 2"),
    (lambda msg: setattr(msg, "execute_rows", 3), "execute_rows: got 3, expected 1 to 2"),
    (lambda msg: setattr(msg, "run_id", 0), "run_id: got 0, expected 1 or more"),
])
def test_a_chunk_unlike_the_contract_is_refused(change: Callable[[ActionChunkMsg], Any], words: str) -> None:
    msg = messages.chunk_to_msg(make_chunk(np.zeros((2, 7))), CONTRACT)
    change(msg)
    text = refusal(ContractError, received.chunk_from_msg, msg, CONTRACT)
    assert text.startswith("action chunk: ") and words in text


def without_gripper() -> RobotContract:
    return CONTRACT.model_copy(update={"action": CONTRACT.action.model_copy(update={"gripper": None})})


@given(arrays(np.float64, 6, elements=finite), st.one_of(st.none(), st.floats(0, 1)))
def test_a_command_survives_the_wire(arm: np.ndarray, gripper: float | None) -> None:
    contract = CONTRACT if gripper is not None else without_gripper()
    msg = over_the_wire(messages.command_to_msg(Command(STAMP_NS, arm, gripper), contract, 7, STAMP_NS - 5,
                                                3))
    assert (msg.run_id, msg.row, received.stamp_to_ns(msg.observation_stamp)) == (7, 3, STAMP_NS - 5)
    assert tuple(msg.names) == contract.command_names and msg.header.frame_id == "base_link"
    back = received.command_from_msg(msg, contract)
    assert bits(back.arm) == bits(arm) and back.gripper == gripper and back.stamp_ns == STAMP_NS


def test_a_command_may_leave_the_gripper_as_it_is() -> None:
    msg = over_the_wire(messages.command_to_msg(Command(STAMP_NS, np.ones(6), None), CONTRACT, 1, 0, 0))
    assert "gripper" not in msg.names and len(msg.units) == len(msg.values) == 6
    assert received.command_from_msg(msg, CONTRACT).gripper is None


def test_a_command_unlike_the_contract_is_refused() -> None:
    msg = messages.command_to_msg(Command(STAMP_NS, np.zeros(6), 1.0), CONTRACT, 1, 0, 0)
    text = refusal(ContractError, received.command_from_msg, msg, without_gripper())
    assert text.startswith("robot command: names: got ['vx'")
    msg.values = array("d", [0.0])
    assert "count of values: got 1, expected 7" in refusal(ContractError, received.command_from_msg, msg,
                                                           CONTRACT)


def test_messages_are_used_as_they_arrive() -> None:
    msg = Image(width=6, height=4, step=18, encoding="rgb8", data=array("B", bytes(72)))
    image = received.image_to_array(msg, CAMERA)
    assert np.shares_memory(image, np.frombuffer(msg.data, np.uint8))
