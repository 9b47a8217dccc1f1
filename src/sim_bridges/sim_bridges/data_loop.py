"""A task that a policy cannot do in, a policy that can, and how long each step took, out: docs/data-loop.md in one go.

    ros2 run sim_bridges data_loop --output outputs/data_loop

Every step is a command that a person could type. A scripted operator at a gamepad takes the person's place; all else is
real: ROS topics, teleoperation, guard, recorder, conversion, training, and the policy's own nodes in the end.
OUTPUT/loop.json holds commands, seconds and successes, OUTPUT/loop.md a table of them, OUTPUT/logs what each command
said.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from sim_bridges.results import wilson_interval
from vla_policy.errors import ConfigError, VlaError

ENDING_S = 60.0  # that a launch is given to end
STEP_S = 3 * 3600.0  # that any step may take
UNSEEN_SEED = 1_000_000  # first scene of evaluations; recordings and rehearsals count from 0 on
REHEARSAL_SEED = 20_000


@dataclass(frozen=True, slots=True)
class Step:
    """One command. seconds: wall time. facts: what it gave."""

    name: str
    command: str
    seconds: float
    facts: dict[str, Any] = field(default_factory=dict)


class Loop:
    """Runs the steps one after the other, each into a log of its own."""

    def __init__(self, output: Path, console: Console) -> None:
        """Raises: ConfigError where the folder is there already."""
        if output.exists():
            raise ConfigError(f"{output}: already there; expected a new folder; delete it or choose another --output")
        self.output, self._console, self.steps = output.resolve(), console, list[Step]()
        (self.output / "logs").mkdir(parents=True)

    def run(self, name: str, command: Sequence[str], facts: Any = dict) -> Step:
        """Run a command to its end. facts: called then, gives what to keep. Raises: VlaError with its last words."""
        began_s = time.monotonic()
        with self._log(name).open("w") as log:
            ended = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=STEP_S, check=False)
        if ended.returncode:
            raise VlaError(f"{name}: '{' '.join(command)}' ended with {ended.returncode}: {self._last_words(name)}")
        step = Step(name, " ".join(command), round(time.monotonic() - began_s, 1), facts())
        self.steps.append(step)
        self._console.print(f"{name}: {step.seconds:.0f} s {_words(step.facts)}", markup=False, soft_wrap=True)
        self._write()
        return step

    @contextmanager
    def beside(self, name: str, command: Sequence[str]) -> Iterator[None]:
        """Have a command run beside the body; afterwards it is told to end, as by Ctrl-C.

        A shell's background job ignores that signal and its children inherit so: they are told to hear it again.
        """
        with self._log(name).open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                                       preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL))
            try:
                yield
            finally:
                _end(process)

    def _log(self, name: str) -> Path:
        return self.output / "logs" / f"{name.replace(' ', '_')}.log"

    def _last_words(self, name: str) -> str:
        lines = [line for line in self._log(name).read_text(errors="replace").splitlines() if line.strip()]
        return " | ".join(lines[-3:]) or "it said nothing"

    def _write(self) -> None:
        (self.output / "loop.json").write_text(json.dumps([asdict(step) for step in self.steps], indent=1) + "\n",
                                               encoding="utf-8")
        lines = ["| step | time | result |", "| --- | ---: | --- |"]
        lines += [f"| {step.name} | {step.seconds:.0f} s | {_words(step.facts)} |" for step in self.steps]
        (self.output / "loop.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def play(options: argparse.Namespace, console: Console) -> list[Step]:
    """The loop. Raises: VlaError for a step that fails."""
    loop, task = Loop(options.output, console), options.task
    bags, data, tuned = (loop.output / name for name in ("recorded", "dataset", "finetuned"))
    rehearsal, bundle = loop.output / "rehearsal", str(tuned / "bundle")
    _measure(loop, "the task before", options, options.policy)
    _remember(loop, "the other tasks before", options, options.policy)
    if options.rehearse:
        loop.run("demonstrations of the other tasks", _python(
            "vla_training.tabletop.collect", "--output", rehearsal, "--episodes", options.rehearse, "--first-seed",
            REHEARSAL_SEED, "--workers", options.workers), lambda: _held(rehearsal))
    _record(loop, options, bags)
    loop.run("conversion", _python("vla_training.convert", bags, data, "--robot", options.robot, "--outcome", "success",
                                   "--workers", options.workers),
             lambda: _converted(data))
    more = [f"with:={rehearsal}"] if options.rehearse else []
    more += [f"steps:={options.steps}"] if options.steps else []
    loop.run("fine-tuning", _python("vla_training.finetune", f"data:={data}", f"from:={options.policy}",
                                    f"output:={tuned}", *more), lambda: _tuned(Path(bundle)))
    _measure(loop, "the task after", options, bundle)
    _remember(loop, "the other tasks after", options, bundle)
    console.print(f"written to {loop.output}/loop.json and loop.md; the policy is {bundle}, {task} is what it learnt",
                  markup=False, soft_wrap=True)
    return loop.steps


def _record(loop: Loop, options: argparse.Namespace, bags: Path) -> None:
    """The launch that a person would start, and the operator in the person's place."""
    told = loop.output / "operator.json"
    launch = ["ros2", "launch", "vla_policy", "record.launch.py", f"robot:={options.robot}", f"task:={options.task}",
              f"output:={bags}", "operator:=script", "publish_state:=true", "headless:=true"]
    with loop.beside("recording launch", launch):
        loop.run("recording", _python(
            "sim_bridges.operator.node", "--task", options.task, "--robot", options.robot, "--episodes",
            options.episodes, "--seed", options.seed, "--json", told), lambda: _recorded(told))


def _measure(loop: Loop, name: str, options: argparse.Namespace, policy: str) -> None:
    """The success of a policy in the task, driven by its nodes."""
    summary = loop.output / f"{name.replace(' ', '_')}.json"
    loop.run(name, ["ros2", "launch", "vla_policy", "bringup.launch.py", f"robot:={options.robot}", f"policy:={policy}",
                    f"tasks:={options.task}", f"episodes:={options.per_task}", f"seed:={UNSEEN_SEED}",
                    f"summary:={summary}", "headless:=true"], lambda: _successes(summary))


def _remember(loop: Loop, name: str, options: argparse.Namespace, policy: str) -> None:
    """The success of a policy in what it could do before, in process, which gives the same numbers and is quicker."""
    if not options.old_per_task:
        return
    summary = loop.output / f"{name.replace(' ', '_')}.json"
    loop.run(name, _python("sim_bridges.evaluate", "--policy", policy, "--per-task", options.old_per_task, "--seed",
                           UNSEEN_SEED, "--workers", options.workers, "--json", summary), lambda: _successes(summary))


def _successes(summary: Path) -> dict[str, Any]:
    rows = json.loads(summary.read_text(encoding="utf-8"))["rows"]
    won = sum(row["success"] for row in rows)
    low, high = wilson_interval(won, len(rows))
    reasons = sorted({row["reason"] for row in rows if not row["success"]})
    interval = [round(low, 3), round(high, 3)]
    return {"successes": won, "episodes": len(rows), "interval_95": interval, "failures": reasons}


def _recorded(told: Path) -> dict[str, Any]:
    scenes = json.loads(told.read_text(encoding="utf-8"))
    kept = [scene for scene in scenes if scene["success"]]
    return {"episodes": len(kept), "scenes": len(scenes),
            "seconds_per_episode": round(sum(scene["seconds"] for scene in scenes) / max(1, len(kept)), 2)}


def _held(data: Path) -> dict[str, Any]:
    info = json.loads((data / "meta/info.json").read_text(encoding="utf-8"))
    return {"episodes": info["total_episodes"], "frames": info["total_frames"]}


def _converted(data: Path) -> dict[str, Any]:
    skipped = json.loads((data / "meta/conversion.json").read_text(encoding="utf-8"))["skipped"]
    return _held(data) | {"left_out": len(skipped)}


def _tuned(bundle: Path) -> dict[str, Any]:
    made = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["provenance"]
    return {"steps": made["steps"], "minutes": made["minutes"]}


def _words(facts: dict[str, Any]) -> str:
    if "successes" in facts:
        low, high = facts["interval_95"]
        return f"{facts['successes']} of {facts['episodes']} ({100 * low:.0f} to {100 * high:.0f} %)"
    return ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in facts.items())


def _python(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", module, *map(str, arguments)]


def _end(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C does; what does not hear it in time is killed, with all it started."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(ENDING_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="data_loop", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/data_loop"), help="a new folder")
    parser.add_argument("--task", default="bring_to_lamp", help="of the embedded tabletop")
    parser.add_argument("--robot", default="tabletop", help="robot contract: a name or a path")
    parser.add_argument("--policy", default="tabletop", help="what is gone on from: a bundle, or a shipped policy")
    parser.add_argument("--episodes", type=int, default=40, help="to record")
    parser.add_argument("--seed", type=int, default=0, help="of the first scene that is recorded")
    parser.add_argument("--per-task", type=int, default=25, help="scenes that the new task is measured on")
    parser.add_argument("--old-per-task", type=int, default=4, help="scenes of each other task, 0: none")
    parser.add_argument("--rehearse", type=int, default=12, help="demonstrations of each other task, 0: none")
    parser.add_argument("--steps", type=int, help="of training, in place of the rule's")
    parser.add_argument("--workers", type=int, default=2, help="processes, where more than one can work")
    return parser


def main() -> None:
    """The command; exit code 1 and one line for a step that fails."""
    try:
        play(_parser().parse_args(), Console(highlight=False))
    except VlaError as problem:
        sys.exit(f"data_loop: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
