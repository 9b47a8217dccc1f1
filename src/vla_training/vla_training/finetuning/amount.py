"""A data set and the policy that shall learn from it in, how much there is to learn from out."""

from __future__ import annotations

from dataclasses import dataclass

from vla_policy.contract import RobotContract
from vla_policy.model.config import ModelConfig
from vla_policy.types import NS_PER_S
from vla_training.datasets.config import Source
from vla_training.datasets.conversion import left_out_by
from vla_training.datasets.prepared import choose_episodes, task_of
from vla_training.datasets.recorded.reader import check_contract
from vla_training.datasets.registry import open_source
from vla_training.datasets.resolve import rate_of


@dataclass(frozen=True, slots=True)
class Amount:
    """What a data set holds. looks: frames a policy period apart, which is how often a policy would have looked.

    left_out: what the reader found and does not offer, in words.
    """

    path: str
    episodes: int
    frames: int
    looks: int
    tasks: tuple[str, ...]
    sentences: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def words(self) -> str:
        """One line."""
        tasks = ", ".join(self.tasks[:4]) + (f", … {len(self.tasks)} in all" if len(self.tasks) > 4 else "")
        return f"{self.path}: {self.episodes} episodes, {self.frames} frames ({tasks})"


def amount_of(source: Source, contract: RobotContract, model: ModelConfig) -> Amount:
    """Count what a source offers. Raises: DataError where it cannot be read, is of another robot, or has no words."""
    data = open_source(source.path, source.format)
    check_contract(data, contract)
    chosen, sentences = choose_episodes(source, data.episodes)
    frames = sum(data.episodes[number].length for number in chosen)
    period_s = model.execute_rows * contract.action_dt_ns / NS_PER_S
    looks = round(frames / rate_of(source, data) / period_s)
    return Amount(source.path, len(chosen), frames, max(1, looks),
                  tuple(dict.fromkeys(task_of(data.episodes[number]) for number in chosen)),
                  tuple(dict.fromkeys(text for texts in sentences for text in texts)),
                  tuple(one.reason for one in left_out_by(data)))
