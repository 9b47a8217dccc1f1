"""The newest frame in, the hidden states of its action queries out: no history at all.

The "one-step" formulation of RoboVLMs (https://arxiv.org/abs/2412.14058).
"""

from __future__ import annotations

from vla_policy.model.formulations.video import Video


class OneStep(Video):
    """A video of a single frame; `vla_policy.model.combinations` refuses longer windows."""
