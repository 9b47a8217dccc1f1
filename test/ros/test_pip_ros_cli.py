"""In: a small node. Out: proof that the `ros2` stand-in asks it, calls it and prints as ros2cli does."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import Spawned
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

PIP_ROS = Path(__file__).resolve().parents[2] / "pip_ros"
pytestmark = pytest.mark.skipif(
    str(PIP_ROS) not in os.environ.get("PYTHONPATH", ""), reason="a genuine ros2 is here"
)

TALKER = f"""#!{sys.executable}
import rclpy
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import SetBool

class Talker(LifecycleNode):
    def on_configure(self, state):
        return TransitionCallbackReturn.SUCCESS

    def toggle(self, request, response):
        response.success, response.message = request.data, "heard"
        return response

rclpy.init()
node = Talker("talker", namespace="/robot")
node.declare_parameter("speed", 1.5)
plain = rclpy.node.Node.create_publisher
chatter = plain(node, String, "/chatter", 10)
latched = plain(node, Float64MultiArray, "/latched",
                QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
latched.publish(Float64MultiArray(data=[float(i) for i in range(200)]))
node.create_subscription(String, "/in", lambda message: print("got", message.data, flush=True), 10)
node.create_service(SetBool, "/toggle", node.toggle)
node.create_timer(0.05, lambda: chatter.publish(String(data="hi")))
print("ready", flush=True)
rclpy.spin(node)
"""


@pytest.fixture(scope="module")
def talker(ros_env: dict[str, str]) -> Iterator[Spawned]:
    """A lifecycle node with a topic of each kind and a service."""
    process = Spawned([sys.executable, "-c", TALKER], ros_env)
    try:
        process.wait_for("ready")
        yield process
    finally:
        process.process.kill()
        process.wait()


Ros2 = Callable[..., Spawned]


@pytest.fixture
def ros2(spawn: Callable[..., Spawned], talker: Spawned) -> Ros2:
    """`ros2(*words)` runs the command line beside the talker."""
    return lambda *words: spawn(["ros2", *words])


def output_of(process: Spawned, code: int = 0) -> str:
    """Return what the command printed, once it ended with `code`."""
    assert process.wait() == code, process.output
    return process.output


def test_lists(ros2: Ros2) -> None:
    lines = ("topic list", "topic list -t", "node list", "service list -t", "action list")
    topics, typed_topics, nodes, services, actions = [ros2(*line.split()) for line in lines]
    assert "/chatter\n/in\n/latched\n" in output_of(topics)
    assert "/chatter [std_msgs/msg/String]\n" in output_of(typed_topics)
    assert output_of(nodes) == "/robot/talker\n"
    assert "/toggle [std_srvs/srv/SetBool]\n" in output_of(services)
    assert output_of(actions) == ""


def test_topic_echo(ros2: Ros2) -> None:
    lines = ("/chatter", "--field data chatter", "/latched", "--no-arr /latched")
    plain, field, latched, no_array = [ros2("topic", "echo", "--once", *line.split()) for line in lines]
    assert output_of(plain) == "data: hi\n---\n"
    assert output_of(field) == "hi\n---\n"
    text = output_of(latched)
    assert text.startswith("layout:\n  dim: []\n  data_offset: 0\ndata:\n- 0.0\n- 1.0\n")
    assert text.endswith("- 127.0\n- '...'\n---\n")
    assert "data: '<sequence<double>, length: 200>'" in output_of(no_array)


def test_topic_hz_runs_until_ctrl_c(ros2: Ros2) -> None:
    process = ros2("topic", "hz", "/chatter")
    process.wait_for(
        r"average rate: \d+\.\d{3}\n\tmin: \d+\.\d{3}s max: \d+\.\d{3}s std dev: .*s window: \d+\n"
    )
    process.signal(signal.SIGINT)
    assert process.wait() == signal.SIGINT
    assert "Traceback" not in process.output


def test_topic_pub(ros2: Ros2, talker: Spawned) -> None:
    text = output_of(ros2("topic", "pub", "--once", "/in", "std_msgs/msg/String", "{data: hello}"))
    assert "publishing #1: std_msgs.msg.String(data='hello')" in text
    talker.wait_for("got hello")


def test_service_call(ros2: Ros2) -> None:
    text = output_of(ros2("service", "call", "/toggle", "std_srvs/srv/SetBool", "{data: true}"))
    assert "requester: making request: std_srvs.srv.SetBool_Request(data=True)" in text
    assert "response:\nstd_srvs.srv.SetBool_Response(success=True, message='heard')\n" in text


def test_lifecycle(ros2: Ros2) -> None:
    assert output_of(ros2("lifecycle", "nodes")) == "/robot/talker\n"
    assert output_of(ros2("lifecycle", "get", "/robot/talker")) == "unconfigured [1]\n"
    assert output_of(ros2("lifecycle", "set", "/robot/talker", "configure")) == "Transitioning successful\n"
    assert output_of(ros2("lifecycle", "get")) == "/robot/talker: inactive [2]\n"
    text = output_of(ros2("lifecycle", "set", "/robot/talker", "configure"), code=1)
    assert text.startswith("Unknown transition requested, available ones are:\n- cleanup [2]\n- activate")


def test_parameters(ros2: Ros2) -> None:
    assert output_of(ros2("param", "get", "/robot/talker", "speed")) == "Double value is: 1.5\n"
    assert output_of(ros2("param", "set", "/robot/talker", "speed", "2.5")) == "Set parameter successful\n"
    assert output_of(ros2("param", "get", "/robot/talker", "speed")) == "Double value is: 2.5\n"
    assert "  speed\n" in output_of(ros2("param", "list", "/robot/talker"))


def test_packages(ros2: Ros2) -> None:
    assert "std_msgs\n" in output_of(ros2("pkg", "list"))
    assert (Path(output_of(ros2("pkg", "prefix", "--share", "std_msgs")).strip()) / "package.xml").is_file()
    assert "No executable found: executable 'x' not found" in output_of(ros2("run", "std_msgs", "x"), code=1)


def test_interface_show(ros2: Ros2) -> None:
    text = output_of(ros2("interface", "show", "--no-comments", "geometry_msgs/msg/PointStamped"))
    assert text == (
        "std_msgs/Header header\n"
        "\tbuiltin_interfaces/Time stamp\n\t\tint32 sec\n\t\tuint32 nanosec\n\tstring frame_id\n"
        "Point point\n\tfloat64 x\n\tfloat64 y\n\tfloat64 z\n"
    )
    assert "# False = locked\n" not in output_of(ros2("interface", "show", "std_srvs/srv/SetBool"))


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    """A bag of two topics: /in "one", "two" a second apart; /other in between."""
    types, folder = get_typestore(Stores.ROS2_KILTED), tmp_path / "bag"
    text = types.types["std_msgs/msg/String"]
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        named = {
            name: writer.add_connection(name, "std_msgs/msg/String", typestore=types) for name in ("/in", "/other")
        }
        for topic, data, at_s in (("/in", "one", 5.0), ("/other", "x", 5.5), ("/in", "two", 6.0)):
            message = types.serialize_cdr(text(data), "std_msgs/msg/String")
            writer.write(named[topic], round(at_s * 1e9), message)
    return folder


def test_bag_info(ros2: Ros2, bag: Path) -> None:
    text = output_of(ros2("bag", "info", bag))
    assert re.search(r"^Storage id: +mcap\nDuration: +1\.0000\d+s\n", text, re.MULTILINE)
    assert "Messages:          3\n" in text
    assert "Topic information: Topic: /in | Type: std_msgs/msg/String | Count: 2 | Serialization Format: cdr\n" in text


def test_bag_play(ros2: Ros2, talker: Spawned, bag: Path) -> None:
    for words, heard in (
        (["--topics", "/other", "--remap", "/other:=/in"], "got x"),
        (["--start-offset", "0.5"], "got two"),
    ):
        process = ros2("bag", "play", bag, "--loop", "--rate", "4", *words)  # until the talker has discovered it
        talker.wait_for(heard)
        process.signal(signal.SIGINT)
        assert process.wait() == signal.SIGINT and "Traceback" not in process.output
    assert "got one" not in talker.output
    assert "got topic '/inn', expected one of the bag's" in output_of(
        ros2("bag", "play", bag, "--topics", "/inn"), code=1
    )


REFUSED = {
    "topic echo --timeout 1 /nothing": "Could not determine the type for the passed topic",
    "topic echo --field x /chatter": "Invalid field 'x': String has data",
    "topic pub --once /in std_msgs/msg/Strng": "got 'std_msgs/msg/Strng', expected something like",
    "topic pub --once /in std_msgs/msg/String {datta: 1}": "Failed to populate field: .*{data: string}",
    "service call /nothing std_srvs/srv/Empty": "service '/nothing' is not available",
    "lifecycle get /nobody": "Node not found",
    "bag info /nowhere": "/nowhere: got no bag that can be read .*, expected a folder with metadata.yaml",
    "interface show std_msgs/msg/Strng": "Could not find the interface 'std_msgs/msg/Strng'",
    "interface show std_msg/msg/String": "Unknown package 'std_msg'",
    "pkg prefix std_msg": r"Package 'std_msg' not found \(did you mean 'std_msgs'\?\)",
}


def test_what_cannot_be_done_says_why(ros2: Ros2) -> None:
    started = [(ros2(*words.split(" ", 5)), message) for words, message in REFUSED.items()]
    for process, message in started:
        process.wait_for(message)
        assert process.wait() == 1
        assert "Traceback" not in process.output


def test_an_unknown_command_names_the_known_ones(ros2: Ros2) -> None:
    text = output_of(ros2("bagg"), code=2)
    assert "invalid choice: 'bagg'" in text and "lifecycle" in text
