"""In: a command. Out: a process whose lines carry its name and that leaves nothing running behind."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import logging
import os
import pty
import shlex
import signal
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ._refuse import strict_keywords
from .action import Action, Condition, LaunchContext, SomeSubstitutionsType, perform
from .conditions import IfCondition
from .event_handlers import OnProcessExit, OnShutdown
from .events.process import ProcessExited, ProcessStarted

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
_counter = itertools.count(1)


def _end_with_parent() -> None:
    """In the child: get SIGTERM when the launch itself is killed, so that nothing runs on without it."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@strict_keywords
class ExecuteProcess(Action):
    """Run a command; its process group is ended with it.

    `output` is 'screen', 'both' (the same) or 'log' (stdout goes to the log file only). `on_exit` is a list
    of actions or a function (event, context) -> actions. At shutdown: SIGINT, after `sigterm_timeout` seconds
    SIGTERM, after `sigkill_timeout` more SIGKILL.
    """

    def __init__(
        self,
        *,
        cmd: Iterable[SomeSubstitutionsType],
        name: SomeSubstitutionsType | None = None,
        prefix: SomeSubstitutionsType | None = None,
        cwd: SomeSubstitutionsType | None = None,
        env: Mapping[SomeSubstitutionsType, SomeSubstitutionsType] | None = None,
        additional_env: Mapping[SomeSubstitutionsType, SomeSubstitutionsType] | None = None,
        shell: bool = False,
        sigterm_timeout: SomeSubstitutionsType = "5",
        sigkill_timeout: SomeSubstitutionsType = "5",
        emulate_tty: bool = False,
        output: SomeSubstitutionsType = "log",
        on_exit: Any = None,
        respawn: bool | SomeSubstitutionsType = False,
        respawn_delay: float | None = None,
        respawn_max_retries: int = -1,
        condition: Condition | None = None,
    ) -> None:
        super().__init__(condition=condition)
        self.cmd = list(cmd)
        self.name = name
        self.prefix = prefix
        self.cwd = cwd
        self.env = env
        self.additional_env = additional_env
        self.shell = shell
        self.sigterm_timeout = sigterm_timeout
        self.sigkill_timeout = sigkill_timeout
        self.emulate_tty = emulate_tty
        self.output = output
        self.on_exit = on_exit
        self.respawn = respawn
        self.respawn_delay = respawn_delay
        self.respawn_max_retries = respawn_max_retries
        self._stop_asked = asyncio.Event()

    def sub_actions(self) -> list[Any]:
        """Return the actions of `on_exit`; none where it is a function, known only when the process has ended."""
        return list(self.on_exit) if isinstance(self.on_exit, (list, tuple)) else []

    def command(self, context: LaunchContext) -> list[str]:
        """Return the words of the command."""
        return [perform(context, word) for word in self.cmd]

    def execute(self, context: LaunchContext) -> None:
        """Start the process in the background, unless the launch is ending, and stop it when the launch ends."""
        if context.is_shutdown:
            return
        if self.on_exit is not None:
            context.register_event_handler(OnProcessExit(target_action=self, on_exit=self.on_exit))
        context.register_event_handler(OnShutdown(on_shutdown=lambda event, context: self._stop_asked.set()))
        command = self.command(context)
        if self.prefix is not None:
            command = shlex.split(perform(context, self.prefix)) + command
        base = perform(context, self.name) if self.name is not None else Path(shlex.split(command[0])[0]).name
        respawn = (
            self.respawn if isinstance(self.respawn, bool) else IfCondition(self.respawn).evaluate(context)
        )
        context.start(
            self._run(
                context,
                _Launched(
                    name=f"{base}-{next(_counter)}",
                    command=command,
                    env=self._environment(context),
                    cwd=None if self.cwd is None else perform(context, self.cwd),
                    respawn=respawn,
                    to_screen=self._to_screen(context),
                    sigterm_s=float(perform(context, self.sigterm_timeout)),
                    sigkill_s=float(perform(context, self.sigkill_timeout)),
                ),
            )
        )

    def _environment(self, context: LaunchContext) -> dict[str, str]:
        env = (
            dict(context.environment)
            if self.env is None
            else {perform(context, name): perform(context, value) for name, value in self.env.items()}
        )
        for name, value in (self.additional_env or {}).items():
            env[perform(context, name)] = perform(context, value)
        return env

    def _to_screen(self, context: LaunchContext) -> bool:
        output = os.environ.get("OVERRIDE_LAUNCH_PROCESS_OUTPUT") or perform(context, self.output)
        if output not in ("screen", "both", "log"):
            raise RuntimeError(f"launch stand-in: got output={output!r}, expected 'screen', 'both' or 'log'")
        return output != "log"

    async def _run(self, context: LaunchContext, launched: _Launched) -> None:
        """Run the process, again where it respawns, and tell the launch how it ended."""
        for attempt in itertools.count():
            await self._run_once(context, launched)
            may_respawn = self.respawn_max_retries < 0 or attempt < self.respawn_max_retries
            if not (launched.respawn and may_respawn) or context.is_shutdown:
                return
            try:
                await asyncio.wait_for(self._stop_asked.wait(), self.respawn_delay or 0.0)
                return
            except TimeoutError:
                continue

    async def _run_once(self, context: LaunchContext, launched: _Launched) -> None:
        log = logging.getLogger(launched.name)
        try:
            process, readers = await self._spawn(launched)
        except OSError as error:
            log.error("could not be started: %s", error)
            return
        log.info("process started with pid [%d]", process.pid)
        details: dict[str, Any] = {
            "action": self,
            "name": launched.name,
            "cmd": launched.command,
            "pid": process.pid,
        }
        context.emit_event_sync(ProcessStarted(**details))
        code = await self._wait(process, launched, log)
        _signal_group(process.pid, signal.SIGKILL)  # whatever it has left running
        await asyncio.wait(readers, timeout=1.0)
        if code == 0:
            log.info("process has finished cleanly [pid %d]", process.pid)
        else:
            log.error(
                "process has died [pid %d, exit code %d, cmd '%s'].",
                process.pid,
                code,
                " ".join(launched.command),
            )
        context.emit_event_sync(ProcessExited(**details, returncode=code))

    async def _spawn(self, launched: _Launched) -> tuple[subprocess.Popen[bytes], list[asyncio.Task[None]]]:
        """Start the process in its own session, and a task per output stream that prints its lines."""
        master, slave = pty.openpty() if self.emulate_tty else (-1, -1)
        pipe = slave if self.emulate_tty else subprocess.PIPE
        try:
            process = subprocess.Popen(
                " ".join(launched.command) if self.shell else launched.command,
                shell=self.shell,
                stdin=subprocess.DEVNULL,
                stdout=pipe,
                stderr=pipe,
                bufsize=0,
                cwd=launched.cwd,
                env=launched.env,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        finally:
            if self.emulate_tty:
                os.close(slave)
        streams = [(process.stdout, launched.to_screen), (process.stderr, True)]
        if self.emulate_tty:
            streams = [(os.fdopen(master, "rb", 0), launched.to_screen)]
        return process, [
            asyncio.create_task(_print_lines(stream, launched.name, screen)) for stream, screen in streams
        ]

    async def _wait(self, process: subprocess.Popen[bytes], launched: _Launched, log: logging.Logger) -> int:
        """Wait for the end; once a stop is asked for, raise the tone in steps."""
        ended = asyncio.create_task(_exit_code(process))
        asked = asyncio.create_task(self._stop_asked.wait())
        await asyncio.wait([ended, asked], return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        sigint, sigterm, sigkill = signal.SIGINT, signal.SIGTERM, signal.SIGKILL
        for number, patience_s, louder in (
            (sigint, launched.sigterm_s, sigterm),
            (sigterm, launched.sigkill_s, sigkill),
            (sigkill, None, None),
        ):
            if ended.done():
                break
            log.info("sending signal '%s' to process[%s]", number.name, launched.name)
            _signal_group(process.pid, number)
            await asyncio.wait([ended], timeout=patience_s)
            if louder is not None and not ended.done():
                log.error(
                    "process[%s] failed to terminate '%s' seconds after receiving '%s', escalating to '%s'",
                    launched.name,
                    patience_s,
                    number.name,
                    louder.name,
                )
        return await ended


@dataclass(frozen=True)
class _Launched:
    """What a process is started with, all substitutions performed; patience in seconds."""

    name: str
    command: list[str]
    env: dict[str, str]
    cwd: str | None
    respawn: bool
    to_screen: bool
    sigterm_s: float
    sigkill_s: float


def _signal_group(pid: int, number: signal.Signals) -> None:
    """Signal the whole process group; it may be gone already."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


async def _exit_code(process: subprocess.Popen[bytes]) -> int:
    """Wait for the process alone: asyncio's own wait may go on while a grandchild holds the output open."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    descriptor = os.pidfd_open(process.pid)
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()


async def _print_lines(pipe: IO[bytes] | None, name: str, screen: bool) -> None:
    """Log each line as '[name] line'; a last line without an end is printed too."""
    stream = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
    log = logging.getLogger("launch.output.screen" if screen else "launch.output.log")
    rest = b""
    while True:
        try:
            chunk = await stream.read(65536)
        except OSError:  # a pseudo-terminal ends with an error where a pipe ends with nothing
            chunk = b""
        *lines, rest = (rest + chunk).split(b"\n")
        if not chunk and rest:
            lines, rest = [rest], b""
        for line in lines:
            log.info("[%s] %s", name, line.decode(errors="replace").rstrip("\r"))
        if not chunk:
            return
