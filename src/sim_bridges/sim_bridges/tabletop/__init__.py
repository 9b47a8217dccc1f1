"""The embedded tabletop: a MuJoCo world without downloads, for the sim node, evaluation and training."""

from sim_bridges.tabletop.experts import Expert, expert
from sim_bridges.tabletop.sim import TabletopSim
from sim_bridges.tabletop.tasks import TASKS

__all__ = ["TASKS", "Expert", "TabletopSim", "expert"]
