"""What a simulator must offer: task and seed in, observations out, commands in. Every bridge implements `Sim`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sim_bridges.chains import Chain
from vla_policy.types import Command, Observation

# Names that the reset of a simulator's node understands besides tasks, for a `ChainSim`: the chain of the seed, and its
# next task without a reset.
CHAIN, NEXT_TASK = "chain", "chain/next"


@dataclass(frozen=True, slots=True)
class Episode:
    """A start scene and an instruction. The same task and seed give the same of both.

    time_limit_s: sim time that the instruction gets where nobody says otherwise.
    more: when that time is over `next_task` gives the next instruction, whatever became of this one; the last one's
        success is the episode's.
    """

    task: str
    seed: int
    instruction: str
    time_limit_s: float
    more: bool = False


class Sim(Protocol):
    """A robot and its world. Sim time starts at 0 ns when built, only grows, and does not go back on reset."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""

    @property
    def time_ns(self) -> int:
        """Sim time [ns]."""

    @property
    def period_ns(self) -> int:
        """The shortest time that `advance` can let pass; it takes multiples of it [ns]."""

    def reset(self, task: str, seed: int) -> Episode:
        """Make a start scene. Raises: VlaError for an unknown task, naming the nearest, or a negative seed."""

    def observe(self, images: bool = True) -> Observation:
        """The present state, stamped with `time_ns`; `images=False` leaves out the costly rendering."""

    def advance(self, command: Command | None, duration_ns: int) -> None:
        """Hold `command` (None: stay where you are) and let `duration_ns` pass."""

    def success(self) -> bool:
        """Whether the task's success condition has held since the last reset (it latches)."""

    def close(self) -> None:
        """Free the renderer. The sim cannot be used afterwards."""


class ChainSim(Sim, Protocol):
    """A sim that can be given one instruction after another without a reset."""

    def draw_chain(self, seed: int) -> Chain:
        """The chain of instructions that belongs to a seed. Raises: VlaError for a negative seed."""

    def begin_chain(self, chain: Chain) -> Episode:
        """Make the chain's start scene and ask for its first task."""

    def next_task(self) -> Episode:
        """Ask for the chain's next task: world, arm and sim time stay, `success` starts anew from the present state.

        Raises: VlaError where no chain was begun or its last task was asked for already.
        """
