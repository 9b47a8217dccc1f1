"""How a model is run fast: for `vla_policy.policy`, for serving, evaluation and the bench.

One `Engine` holds the weights and runs them for any number of robots; a `Session` is one robot's instruction and the
frames it has seen.
"""

from vla_policy.engine.engine import Actions, Engine
from vla_policy.engine.options import EngineMode, EngineOptions, NumberType, Resize, choose_device
from vla_policy.engine.runners import Fallback
from vla_policy.engine.session import Session
from vla_policy.model.heads.inpainting import Goal

__all__ = ["Actions", "Engine", "EngineMode", "EngineOptions", "Fallback", "Goal", "NumberType", "Resize", "Session",
           "choose_device"]
