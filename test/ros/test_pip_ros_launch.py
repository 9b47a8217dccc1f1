"""In: tiny launch files. Out: proof that the launch stand-in runs them as the genuine one does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import Spawned, processes_with_env

PIP_ROS = Path(__file__).resolve().parents[2] / "pip_ros"
pytestmark = pytest.mark.skipif(
    str(PIP_ROS) not in os.environ.get("PYTHONPATH", ""), reason="a genuine ros2 launch is here"
)

HEAD = """
from launch import LaunchDescription
from launch.actions import *
from launch.conditions import IfCondition, UnlessCondition
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import *
from launch_ros.actions import Node

def say(*words, **options):
    return ExecuteProcess(cmd=["echo", *words], output="screen", **options)

def generate_launch_description():
    return LaunchDescription([
"""

Launch = Callable[..., Spawned]


@pytest.fixture
def launch(spawn: Callable[..., Spawned], tmp_path: Path) -> Launch:
    """`launch(entities, *arguments)` writes the launch file tmp_path/test.launch.py and runs it."""

    def start(entities: str, *arguments: str) -> Spawned:
        path = tmp_path / "test.launch.py"
        path.write_text(f"{HEAD}{entities}\n])\n")
        return spawn(["ros2", "launch", path, *arguments], env={"ROS_LOG_DIR": str(tmp_path / "log")})

    return start


def test_arguments_have_defaults_and_the_last_one_wins(launch: Launch) -> None:
    entities = """
        DeclareLaunchArgument("who", default_value="world"),
        DeclareLaunchArgument("path", default_value=PathJoinSubstitution([ThisLaunchFileDir(), "x"])),
        say("hello", LaunchConfiguration("who"), [LaunchConfiguration("path"), "/y"]),"""
    process = launch(entities, "who:=a", "who:=b")
    process.wait_for(r"\[echo-1\] hello b /.*/x/y\n")
    assert process.wait() == 0
    assert "[INFO] [echo-1]: process has finished cleanly" in process.output


def test_show_args_prints_what_the_genuine_one_prints(launch: Launch) -> None:
    entities = """
        DeclareLaunchArgument("who", default_value="world", description="whom to greet"),
        DeclareLaunchArgument("mode", choices=["a", "b"]),"""
    process = launch(entities, "--show-args")
    assert process.wait() == 0
    assert process.output == (
        "Arguments (pass arguments as '<name>:=<value>'):\n\n    'who':\n        whom to greet\n"
        "        (default: 'world')\n\n    'mode':\n        One of: ['a', 'b']\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["whoo:=x"], r"unknown launch argument 'whoo' \(did you mean 'who'\?\).*takes: who, mode"),
        (
            ["mode:=c"],
            r'Argument "mode" provided value "c" is not valid. Valid options are: \[\'a\', \'b\'\]',
        ),
        (["who=x"], r"malformed launch argument 'who=x', expected format '<name>:=<value>'"),
        ([], r'Required launch argument "mode" was not provided'),
    ],
)
def test_a_wrong_argument_starts_nothing(launch: Launch, arguments: list[str], message: str) -> None:
    entities = """
        DeclareLaunchArgument("who", default_value="world"),
        DeclareLaunchArgument("mode", choices=["a", "b"]),
        say("started"),"""
    process = launch(entities, *arguments)
    process.wait_for(message)
    assert process.wait() == 1
    assert "started" not in process.output


def test_include_conditions_groups_and_environment(launch: Launch, tmp_path: Path) -> None:
    inner = HEAD + 'DeclareLaunchArgument("who"), say("inner", LaunchConfiguration("who"))])\n'
    (tmp_path / "inner.launch.py").write_text(inner)
    entities = """
        DeclareLaunchArgument("on", default_value="true"),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource([ThisLaunchFileDir(), "/inner.launch.py"]),
            launch_arguments={"who": "me"}.items()),
        say("if", condition=IfCondition(LaunchConfiguration("on"))),
        say("unless", condition=UnlessCondition(LaunchConfiguration("on"))),
        GroupAction([SetEnvironmentVariable("COLOUR", "red"), SetLaunchConfiguration("who", "group"),
                     ExecuteProcess(cmd=["sh", "-c", "echo in $COLOUR"], output="screen")]),
        ExecuteProcess(cmd=["sh", "-c", "echo out $COLOUR."], additional_env={"X": "1"}, output="screen"),
        say("who", LaunchConfiguration("who")),
        OpaqueFunction(function=lambda context: [say("opaque", LaunchConfiguration("on").perform(context))]),
        TimerAction(period=0.1, actions=[say("later")]),"""
    process = launch(entities)
    assert process.wait() == 0
    for line in ("inner me", "if", "in red", "out .", "who me", "opaque true", "later"):
        assert f"] {line}\n" in process.output
    assert "unless" not in process.output


def test_the_exit_of_a_required_process_ends_the_launch(launch: Launch) -> None:
    entities = """
        ExecuteProcess(cmd=["sh", "-c", "echo bad >&2; exit 3"], name="needed", on_exit=Shutdown()),
        ExecuteProcess(cmd=["sleep", "1000"]),"""
    process = launch(entities)
    assert process.wait() == 0  # as of the genuine one: a launch that was told to end has not failed
    assert "[needed-1] bad" in process.output
    assert "process has died [pid " in process.output
    assert "process[needed-1] was required: shutting down launched system" in process.output
    assert "sending signal 'SIGINT' to process[sleep-2]" in process.output


def test_an_exit_handler_that_raises_fails_the_launch(launch: Launch) -> None:
    entities = """
        RegisterEventHandler(OnProcessExit(on_exit=lambda event, context: 1 / event.returncode)),
        ExecuteProcess(cmd=["true"]),
        ExecuteProcess(cmd=["sleep", "1000"]),"""
    process = launch(entities)
    assert process.wait() == 1
    assert "[ERROR] [launch]: Caught exception in launch" in process.output


def test_stdout_goes_to_the_log_file_unless_output_is_screen(launch: Launch, tmp_path: Path) -> None:
    process = launch('ExecuteProcess(cmd=["sh", "-c", "echo quiet; echo loud >&2"]),')
    assert process.wait() == 0
    assert "loud" in process.output and "] quiet" not in process.output
    (log,) = (tmp_path / "log").glob("*/launch.log")
    assert "[sh-1] quiet" in log.read_text()


def test_respawn_starts_the_process_again(launch: Launch) -> None:
    process = launch('say("again", respawn=True, respawn_delay=0.01, respawn_max_retries=2),')
    assert process.wait() == 0
    assert process.output.count("[echo-1] again") == 3


def test_emulate_tty_gives_the_process_a_terminal(launch: Launch) -> None:
    process = launch(
        'ExecuteProcess(cmd=["sh", "-c", "test -t 1 && echo tty"], emulate_tty=True, output="screen"),'
    )
    assert process.wait() == 0
    assert "[sh-1] tty\n" in process.output


# A process that ignores SIGINT, with a child that would outlive it and holds its output open.
STUBBORN = """
    ExecuteProcess(cmd=["sh", "-c", "trap '' INT; sleep 1000 & echo ready; while true; do sleep 1000; done"],
                   output="screen", sigterm_timeout="0.2", sigkill_timeout="0.2"),
    ExecuteProcess(cmd=["sh", "-c", "sleep 1000 & wait"]),"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 1)])
def test_a_signal_ends_children_and_grandchildren(launch: Launch, number: signal.Signals, code: int) -> None:
    process = launch(STUBBORN)
    process.wait_for("ready")
    process.signal(number)
    assert process.wait() == code
    assert "escalating to 'SIGTERM'" in process.output
    mark = process.env["VLA_TEST_MARK"]
    assert not processes_with_env("VLA_TEST_MARK", mark), process.output


def test_a_killed_launch_leaves_no_child(launch: Launch) -> None:
    process = launch('ExecuteProcess(cmd=["sh", "-c", "echo ready; exec sleep 1000"], output="screen"),')
    process.wait_for("ready")
    process.signal(signal.SIGKILL)
    process.wait()
    end_s = time.monotonic() + 20.0
    while processes_with_env("VLA_TEST_MARK", process.env["VLA_TEST_MARK"]):
        assert time.monotonic() < end_s, "the child runs on"
        time.sleep(0.05)


def test_a_leader_that_ends_takes_its_children_along(launch: Launch) -> None:
    process = launch('ExecuteProcess(cmd=["sh", "-c", "sleep 1000 & echo done"], output="screen"),')
    assert process.wait(20.0) == 0
    assert not processes_with_env("VLA_TEST_MARK", process.env["VLA_TEST_MARK"])


@pytest.mark.parametrize(
    ("entities", "message"),
    [
        ('ExecuteProcess(cmd=["true"], log_cmd=True),', r"ExecuteProcess\(log_cmd=…\) is not supported"),
        (
            'Node(executable="x", parametres=[]),',
            r"parametres.*did you mean 'parameters'\?.*supported: executable",
        ),
        (
            "__import__('launch').actions.ResetEnvironment(),",
            "launch.actions.ResetEnvironment is not supported",
        ),
        ("__import__('launch').LaunchContexts(),", r"launch.LaunchContexts .*did you mean 'LaunchContext'\?"),
        ('Node(package="nix", executable="x"),', "package 'nix' not found"),
        ('Node(package="rclpy", executable="x"),', "executable 'x' not found on the libexec directory"),
        (
            'ExecuteProcess(cmd=["true"], output="full"),',
            "got output='full', expected 'screen', 'both' or 'log'",
        ),
        ('LaunchConfiguration("who"),', "in a launch description, expected an action"),
        ('LogInfo(msg=LaunchConfiguration("who")),', "launch configuration 'who' does not exist"),
    ],
)
def test_what_is_not_supported_fails_by_name(launch: Launch, entities: str, message: str) -> None:
    process = launch(entities)
    process.wait_for(message)
    assert process.wait() == 1


def test_a_node_gets_name_namespace_parameters_and_remappings(launch: Launch, tmp_path: Path) -> None:
    """The command line is what rclpy parses: checked with a real node that prints what it got."""
    node = tmp_path / "node.py"
    node.write_text(f"""#!{sys.executable}
import rclpy, sys
rclpy.init()
node = rclpy.create_node("unnamed", automatically_declare_parameters_from_overrides=True)
topic = node.resolve_topic_name("in")
print(node.get_fully_qualified_name(), topic, sys.argv[1], flush=True)
for name in ("number", "text", "flag", "list", "sub.deep", "from_file"):
    print(name, repr(node.get_parameter_or(name).value), flush=True)
""")
    node.chmod(0o755)
    (tmp_path / "parameters.yaml").write_text("/**:\n  ros__parameters:\n    from_file: 7\n    number: 1\n")
    entities = f"""
        __import__("launch_ros").actions.PushRosNamespace("robot"),
        DeclareLaunchArgument("flag", default_value="true"),
        Node(executable="{node}", name="arm", namespace="left", output="screen", arguments=["word"],
             remappings=[("in", "/out")],
             parameters=["{tmp_path}/parameters.yaml",
                         {{"number": 5, "text": "6", "flag": LaunchConfiguration("flag"), "list": [1, 2.5],
                           "sub": {{"deep": "x"}}}}]),"""
    process = launch(entities)
    assert process.wait() == 0
    lines = [
        line.partition("] ")[2] for line in process.output.splitlines() if line.startswith("[node.py-1]")
    ]
    assert lines == [
        "/robot/left/arm /out word",
        "number 5",
        "text '6'",
        "flag True",
        "list [1.0, 2.5]",
        "sub.deep 'x'",
        "from_file 7",
    ], process.output


def test_it_refuses_to_stand_beside_a_genuine_launch(tmp_path: Path) -> None:
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "__init__.py").touch()
    path = f"{PIP_ROS}:{os.environ['PYTHONPATH']}:{tmp_path}"
    result = subprocess.run(
        [sys.executable, "-c", "import launch"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert f"ImportError: got two packages named 'launch': the genuine one at {tmp_path}" in result.stderr
