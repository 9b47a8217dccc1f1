"""Features in, chunks made out of noise: what the diffusion and the flow matching head share.

The noise that sampling starts from is drawn once from a seed, so the same features always give the same
actions. The gripper is a channel of its own and is classified, not sampled.

Shapes: B batch, W window, D width, K chunk, A arm columns.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from vla_policy.model.config import ModelConfig
from vla_policy.model.heads.base import ActionHead, ActionShape, Reading
from vla_policy.model.heads.history import CausalHistory, HistoryOptions
from vla_policy.model.heads.inpainting import Inpainting
from vla_policy.model.heads.losses import ActionTargets, LossPart, LossWeights, gripper_loss, without_padding
from vla_policy.model.registry import FORMULATIONS, resolve

TIME_FEATURES = 32


class GenerativeHead(ActionHead):
    """A denoiser on every frame's feature; the past is fused first where the formulation has not done so."""

    history = "optional"
    inpaints = True

    class Options(HistoryOptions):
        """denoiser_size: its width. steps: of sampling. seed: of the noise that sampling starts from."""

        denoiser_size: Annotated[int, Field(ge=1)] = 256
        steps: Annotated[int, Field(ge=1)] = 10
        seed: int = 0

    def __init__(self, config: ModelConfig, hidden_size: int, shape: ActionShape) -> None:
        super().__init__(config, hidden_size, shape)
        options = self.Options(**config.head_options)
        formulation = resolve(FORMULATIONS, config.formulation, "formulation")
        fused = config.history_length == 1 or formulation.fuses_history
        self.past = nn.Identity() if fused else CausalHistory(hidden_size, options, config.history_length)
        width = hidden_size if fused else options.width
        self.denoiser = Denoiser(width, shape.chunk_size * shape.arm_size, options.denoiser_size)
        self.gripper = nn.Linear(width, shape.chunk_size) if shape.has_gripper else None
        self.steps = options.steps
        generator = torch.Generator().manual_seed(options.seed)
        noise = torch.randn(shape.chunk_size * shape.arm_size, generator=generator)
        self.register_buffer("first_noise", noise)

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        """Refuse a width that does not fall into whole heads."""
        cls.Options(**config.head_options).check()

    @abstractmethod
    def sample(self, features_BWD: Tensor, inpainting: Inpainting | None = None) -> Tensor:
        """Flat chunks (B, W, K * A) out of `first_noise`, guided by `inpainting`, where there is one."""

    @abstractmethod
    def denoising_loss(self, features_BWD: Tensor, chunk_BWE: Tensor, rows_BWK: Tensor,
                       weights: LossWeights) -> LossPart:
        """How badly noise is told from the flat chunks (B, W, K * A), over the rows that count."""

    def forward(self, features_BWD: Tensor) -> tuple[Tensor, Tensor | None]:
        """(B, W, D) -> sampled arm (B, W, K, A) and gripper logits (B, W, K) or None."""
        return self._act(self.past(features_BWD))

    def newest(self, reading: Reading) -> tuple[Tensor, Tensor | None]:
        """Arm (B, K, A) and gripper logits (B, K) of the newest frame: noise is turned into no other one's actions."""
        arm_B1KA, gripper_B1K = self._act(self.past(reading.feature)[:, -1:])
        return arm_B1KA[:, 0], None if gripper_B1K is None else gripper_B1K[:, 0]

    def _act(self, features_BWD: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same from features that know the past."""
        arm_BWKA = self.rows(self.sample(features_BWD))
        return arm_BWKA, None if self.gripper is None else self.gripper(features_BWD).float()

    def inpaint(self, reading: Reading, inpainting: Inpainting) -> tuple[Tensor, Tensor | None]:
        """Sampled arm (B, K, A) whose frozen rows are those given, and gripper logits (B, K) or None."""
        features_B1D = self.past(reading.feature)[:, -1:]
        # The guidance differentiates, which nothing that is made in inference mode bears.
        with torch.inference_mode(False), torch.no_grad():
            flat_B1E = inpainting.keep(self.sample(features_B1D.clone(), inpainting))
        return self.rows(flat_B1E)[:, 0], None if self.gripper is None else self.gripper(features_B1D)[:, 0].float()

    def loss(self, reading: Reading, targets: ActionTargets, weights: LossWeights) -> dict[str, LossPart]:
        """`pose`: of denoising. `gripper`: cross entropy."""
        features_BWD = self.past(reading.feature)
        # Rows that do not count are noised with the others.
        arm_BWKA = without_padding(targets.arm_BWKA, targets.rows_BWK)
        parts = {"pose": self.denoising_loss(features_BWD, arm_BWKA.flatten(-2), targets.rows_BWK, weights)}
        if self.gripper is not None:
            parts["gripper"] = gripper_loss(self.gripper(features_BWD), targets.gripper_BWK, targets.rows_BWK)
        return parts

    def rows(self, flat_BWE: Tensor) -> Tensor:
        """(B, W, K * A) -> (B, W, K, A)."""
        return flat_BWE.unflatten(-1, (self.shape.chunk_size, self.shape.arm_size))


class Denoiser(nn.Module):
    """Noisy chunks (..., E), times (...) in 0..1 and features (..., D) -> (..., E): a perceptron with a
    residual block.
    """

    def __init__(self, feature_size: int, chunk_size: int, width: int) -> None:
        super().__init__()
        self.enter = nn.Linear(chunk_size + 2 * TIME_FEATURES + feature_size, width)
        self.block = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(),
                                   nn.Linear(2 * width, width))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, chunk_size))
        octaves = torch.logspace(0, math.log10(1000), TIME_FEATURES)
        self.register_buffer("octaves", octaves, persistent=False)

    def forward(self, noisy: Tensor, time: Tensor, features: Tensor) -> Tensor:
        """Noisy chunks (..., E), their times (...) and features (..., D) -> (..., E), float32."""
        angles = time[..., None] * self.octaves
        hidden = self.enter(torch.cat([noisy, angles.sin(), angles.cos(), features.float()], -1))
        return self.leave(hidden + self.block(hidden)).float()
