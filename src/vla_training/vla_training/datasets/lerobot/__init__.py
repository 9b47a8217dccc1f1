"""LeRobot data sets on disk in and out; for whoever records, converts or trains."""

from vla_training.datasets.lerobot.metadata import Feature
from vla_training.datasets.lerobot.reader import LeRobotSource
from vla_training.datasets.lerobot.writer import Shard, ShardWriter, finalize

__all__ = ["Feature", "LeRobotSource", "Shard", "ShardWriter", "finalize"]
