"""A feature in, arm actions and gripper logits out: the decoder of RoboVLMs, so that its checkpoints fit.

Source: https://arxiv.org/abs/2412.14058 and its published weights.
Shapes: D width, K chunk, A arm dimensions.
"""

from __future__ import annotations

from torch import Tensor, nn

from vla_policy.model.heads.base import ActionShape

SIZES = (1024, 512, 256)  # hidden widths, the same for every model of RoboVLMs


class RoboVlmsDecoder(nn.Module):
    """Two perceptrons: the arm's ends in a tanh, the gripper's gives logits."""

    def __init__(self, hidden_size: int, shape: ActionShape) -> None:
        super().__init__()
        self.shape = shape
        self.arm = _perceptron(hidden_size, shape.chunk_size * shape.arm_size)
        self.gripper = _perceptron(hidden_size, shape.chunk_size) if shape.has_gripper else None

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """(..., D) -> arm (..., K, A) in [-1, 1] and gripper logits (..., K), or None without a gripper."""
        arm = self.arm(features).tanh().unflatten(-1, (self.shape.chunk_size, -1)).float()
        return arm, None if self.gripper is None else self.gripper(features).float()


def _perceptron(in_size: int, out_size: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in SIZES:
        layers += [nn.Linear(in_size, size), nn.ReLU()]
        in_size = size
    return nn.Sequential(*layers, nn.Linear(in_size, out_size))
