"""The benchmark on a real robot, played over the nodes with the tabletop in the robot's place, and at a terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from guard_rig import ROBOTS, guard_command
from policy_rig import policy_command
from processes import Spawn
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import SetBool
from test_sim_node import sim_command
from vla_msgs.srv import MarkRecording, ResetSim, StartRecording, StopRecording

from sim_bridges.real.benchmark import Benchmark, RealTrial
from sim_bridges.real.session import Choice, Ending, Judgement, Progress, Verdict
from sim_bridges.real_eval import evaluate_real, parse_arguments
from sim_bridges.results import EpisodeResult
from vla_policy.errors import ConfigError, VlaError
from vla_policy.resources import find_policy
from vla_policy.strict import parse

CONTRACT = ROBOTS / "tabletop.yaml"
DEADLINE_S = 60.0
SAID = {  # task -> what is told the robot; the scene is always that of the button
    "press": "press the button",
    "succeed": "open the drawer",
    "fail": "open the drawer",
    "stop": "open the drawer",
    "estop": "open the drawer",
}
PLANS: dict[str, Ending] = {"succeed": Ending.SUCCESS, "fail": Ending.FAILURE, "stop": Ending.STOP}
BENCHMARK = parse(
    Benchmark,
    {
        "name": "at the tabletop",
        "time_limit_s": 60,
        "order": "tasks",
        "settings": {"simple": {"change": "Nothing."}, "novel_words": {"change": "Nothing.", "own_instruction": True}},
        "tasks": {
            task: {
                "instruction": said,
                "setup": "The button's scene.",
                "success": "As planned.",
                "settings": {"novel_words": {"instruction": "zap the zeppelin"} if task == "press" else None},
            }
            for task, said in SAID.items()
        },
    },
    "test",
    ConfigError,
)


class Room:
    """The operator, who sets up the simulator's scene and follows PLANS; and, where it is open, a recorder."""

    def __init__(self, recorder: bool) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("room", context=self.context)
        self._reset = self.node.create_client(ResetSim, "/sim/reset")
        self._estop = self.node.create_client(SetBool, "/vla/set_estop")
        self.heard: list[str] = []
        self.suggested: dict[str, Verdict] = {}
        self.quit_before = ""
        self.bags: list[str] = []
        if recorder:
            self.node.create_service(StartRecording, "/vla/record/start", self._on_start)
            self.node.create_service(StopRecording, "/vla/record/stop", self._on_stop)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._executor.shutdown()
        self._thread.join(DEADLINE_S)
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    # ---- the operator -------------------------------------------------------------------------------------------

    def prepare(self, trial: RealTrial, number: int, total: int) -> Choice:
        if trial.trial.name == self.quit_before:
            return Choice.QUIT
        assert self._call(self._reset, ResetSim.Request(task="press_button", seed=number)).success
        self._trial = trial
        return Choice.START

    def follow(self, states: Iterator[Progress], end: Callable[[Ending], None]) -> Ending | None:
        ending, asked = PLANS.get(self._trial.task), False
        for state in states:
            if state.elapsed_s == 0.0 or asked:
                continue
            asked = True
            if ending is not None:
                end(ending)
            elif self._trial.task == "estop":
                self.press(True)
        return ending

    def judge(self, trial: RealTrial, episode: EpisodeResult, suggested: Verdict) -> Judgement:
        self.suggested[trial.trial.name] = suggested
        if trial.task == "estop":
            return Judgement(Verdict.FAILURE, "pressed the emergency stop")
        return Judgement(suggested)

    def reset(self, why: str) -> bool:
        self.heard.append(why)
        if len(self.heard) > 1:  # the first time the button is forgotten
            self.press(False)
        return True

    def tell(self, words: str) -> None:
        self.heard.append(words)

    def press(self, pressed: bool) -> None:
        assert self._call(self._estop, SetBool.Request(data=pressed)).success

    # ---- the recorder -------------------------------------------------------------------------------------------

    def _on_start(self, request: StartRecording.Request, response: StartRecording.Response) -> Any:
        self.bags.append(f"{request.task}: {request.instruction}, by {request.operator_name}")
        response.success, response.path = True, f"/bags/{len(self.bags)}"
        return response

    def _on_stop(self, request: StopRecording.Request, response: StopRecording.Response) -> Any:
        words = "deleted" if request.discard else {MarkRecording.Request.SUCCESS: "success"}.get(
            request.outcome, "failure")
        self.bags[-1] += f", {words} {request.note}".rstrip()
        response.success, response.path = True, f"/bags/{len(self.bags)}"
        return response

    def _call(self, client: Any, request: Any) -> Any:
        assert client.wait_for_service(timeout_sec=DEADLINE_S)
        answer, done = client.call_async(request), threading.Event()
        answer.add_done_callback(lambda _: done.set())
        assert done.wait(DEADLINE_S)
        return answer.result()


@pytest.fixture(scope="module")
def nodes(spawn_shared: Spawn) -> None:
    lockstep = ("pace:=lockstep", "use_sim_time:=true")
    spawn_shared(sim_command("pace:=lockstep"))
    spawn_shared(guard_command(CONTRACT, *lockstep))
    spawn_shared(policy_command(CONTRACT, find_policy("tabletop"), *lockstep)).wait_for("is ready for tabletop")


@pytest.fixture
def room(request: pytest.FixtureRequest, ros_env: dict[str, str]) -> Iterator[Room]:
    room = Room(recorder=getattr(request, "param", True))
    yield room
    room.close()


def options(output: Path, *more: str) -> Any:
    return parse_arguments(["--robot", str(CONTRACT), "--output", str(output), "--operator", "Ada", *more])


def test_a_session_is_judged_recorded_interrupted_and_gone_on_with(nodes: None, room: Room, tmp_path: Path) -> None:
    output = tmp_path / "real"
    room.quit_before = "stop/simple/0"
    assert not evaluate_real(options(output), BENCHMARK, room)
    assert json.loads((output / "results.json").read_text())["episodes"] == 4
    room.quit_before = ""
    assert evaluate_real(options(output), BENCHMARK, room)
    found = json.loads((output / "results.json").read_text())
    rows = [(row["task"], row["setting"], row["reason"], row["success"], row["recording"]) for row in found["rows"]]
    assert rows == [
        ("press", "simple", "SUCCEEDED", True, "/bags/1"),
        ("press", "novel_words", "INSTRUCTION_REFUSED", False, "/bags/2"),
        ("succeed", "simple", "SUCCEEDED", True, "/bags/3"),
        ("fail", "simple", "FAILED", False, "/bags/4"),
        ("stop", "simple", "CANCELED", False, "/bags/5"),
        ("estop", "simple", "SAFETY_STOP", False, "/bags/6"),
    ]
    assert [(row["setting"], row["successes"], row["episodes"]) for row in found["settings"]] == [
        ("simple", 2, 5), ("novel_words", 0, 1)
    ]  # fmt: skip
    assert found["rows"][2]["message"] == "the operator says success"
    assert found["rows"][0]["steps"] > 10 and found["rows"][0]["commands_sha256"] != found["rows"][2]["commands_sha256"]
    assert found["run"]["policy"] == str(find_policy("tabletop")) and len(found["run"]["bundle"]) == 8
    assert room.bags[0] == "press/simple: press the button, by Ada, success"
    assert room.bags[5] == "estop/simple: open the drawer, by Ada, failure pressed the emergency stop"
    # The guard's stop was explained; a reset with the button pressed is refused in words, and then works.
    assert "emergency stop" in room.heard[0] and "not reset" in room.heard[1] and len(room.heard) == 3
    assert room.suggested["estop/simple/0"] is Verdict.REPEAT
    assert room.suggested["press/simple/0"] is Verdict.SUCCESS
    text = (output / "report.md").read_text()
    for words in ("| simple | 2/5 | 40.0 % |", "| press | 1/1 | 0/1 |", "| estop, simple | 0 | failure | /bags/6 |"):
        assert words in text


def test_another_run_s_results_are_refused(nodes: None, room: Room, tmp_path: Path) -> None:
    room.quit_before = "succeed/simple/0"
    evaluate_real(options(tmp_path, "--settings", "simple"), BENCHMARK, room)
    other = BENCHMARK.model_copy(update={"time_limit_s": 30.0})
    with pytest.raises(ConfigError, match="another run .trials: there .*, now .*choose another --output"):
        evaluate_real(options(tmp_path), other, room)


@pytest.mark.parametrize("room", [False], indirect=True)
def test_without_a_recorder_recording_is_refused_and_playing_is_not(
    nodes: None, room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sim_bridges.real_eval.RECORDER_S", 0.5)
    with pytest.raises(VlaError, match="waited 0.5 s for /vla/record/start: no recorder runs.*--no-record"):
        evaluate_real(options(tmp_path / "a"), BENCHMARK, room)
    assert not (tmp_path / "a").exists()
    room.quit_before = "press/novel_words/0"
    assert not evaluate_real(options(tmp_path / "b", "--no-record"), BENCHMARK, room)
    row = json.loads((tmp_path / "b" / "results.json").read_text())["rows"][0]
    assert row["success"] and "recording" not in row


def test_ctrl_c_at_the_terminal_ends_the_run_and_keeps_what_was_judged(
    nodes: None, room: Room, tmp_path: Path
) -> None:
    room.prepare(RealTrial("open", "simple", 0, "", (), "", 1.0), 1, 1)  # a scene, for there is no person to make it
    (tmp_path / "two.yaml").write_text("""
        {name: two, time_limit_s: 60, settings: {simple: {change: Nothing.}}, tasks: {
         open: {instruction: open the drawer, setup: As it is., success: It is open.},
         shut: {instruction: close the drawer, setup: As it is., success: It is shut.}}}""")
    fingers, keys = os.openpty()
    command = [sys.executable, "-m", "sim_bridges.real_eval", str(tmp_path / "two.yaml"), "--robot", str(CONTRACT)]
    process = subprocess.Popen(
        [*command, "--output", str(tmp_path / "out"), "--no-record"],
        stdin=keys, stdout=keys, stderr=keys, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    os.close(keys)
    screen = Screen(fingers)
    try:
        screen.until("1 of 2: open, simple", "Enter: start")
        os.write(fingers, b"\n")
        screen.until("s: success  f: failure")
        os.write(fingers, b"f")
        screen.until("2 of 2: shut, simple")
        os.write(fingers, b"\n")
        screen.until("s: success  f: failure")
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 130, screen.text
    finally:
        process.kill()
        os.close(fingers)
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert [(row["task"], row["success"], row["reason"]) for row in rows] == [("open", False, "FAILED")]
    # Nothing is left that runs: another session can begin at once.
    room.quit_before = "press/novel_words/0"
    assert not evaluate_real(options(tmp_path / "next", "--no-record"), BENCHMARK, room)


def test_no_active_policy_is_said(ros_env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(int(ros_env["ROS_DOMAIN_ID"]) + 101))
    with pytest.raises(VlaError, match="waited 0.2 s for /vla/safety/reset, /vla/run, /vla/status; are guard_node"):
        evaluate_real(options(tmp_path, "--wait", "0.2"), BENCHMARK, operator=None)


class Screen:
    """What a terminal shows, read as it comes."""

    def __init__(self, fingers: int) -> None:
        self.text, self._seen = "", 0
        os.set_blocking(fingers, False)
        self._fingers = fingers

    def until(self, *words: str) -> None:
        """Wait for words that come after those that were waited for before."""
        end_s = time.monotonic() + DEADLINE_S
        for text in words:
            while (place := self.text.find(text, self._seen)) < 0:
                assert time.monotonic() < end_s, f"no '{text}' in {self.text[self._seen:]}"
                time.sleep(0.05)
                try:
                    self.text += os.read(self._fingers, 65536).decode(errors="replace")
                except (BlockingIOError, OSError):
                    continue
            self._seen = place + len(text)
