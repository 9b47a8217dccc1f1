"""Features in, chunks carried from noise to action by a learned velocity out: flow matching.

Straight paths and uniform times (https://arxiv.org/abs/2210.02747), Euler steps, as in pi0
(https://arxiv.org/abs/2410.24164).

Shapes: B batch, W window, D width, E = K * A, a flat chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vla_policy.model.heads.generative import GenerativeHead
from vla_policy.model.heads.inpainting import Inpainting
from vla_policy.model.heads.losses import LossPart, LossWeights, pose_loss


class FlowHead(GenerativeHead):
    """Flow matching: time 0 is noise, time 1 the action."""

    def denoising_loss(self, features_BWD: Tensor, chunk_BWE: Tensor, rows_BWK: Tensor,
                       weights: LossWeights) -> LossPart:
        """Error of the velocity, guessed at random times."""
        times_BW = torch.rand(features_BWD.shape[:2], device=features_BWD.device)
        noise = torch.randn_like(chunk_BWE)
        noisy = torch.lerp(noise, chunk_BWE, times_BW[..., None])
        velocity = self.denoiser(noisy, times_BW, features_BWD)
        return pose_loss(self.rows(velocity), self.rows(chunk_BWE - noise), rows_BWK, weights.pose)

    def sample(self, features_BWD: Tensor, inpainting: Inpainting | None = None) -> Tensor:
        """Flat chunks (B, W, E) by `steps` Euler steps."""
        frames = features_BWD.shape[:2]
        chunk = self.first_noise.expand(*frames, -1)
        for step in range(self.steps):
            time = torch.full(frames, step / self.steps, device=chunk.device)
            if inpainting is None:
                velocity = self.denoiser(chunk, time, features_BWD)
            else:
                velocity = self._guided_velocity(chunk, time, features_BWD, step / self.steps, inpainting)
            chunk = chunk + velocity / self.steps
        return chunk

    def _guided_velocity(self, chunk: Tensor, time_BW: Tensor, features_BWD: Tensor, time: float,
                         inpainting: Inpainting) -> Tensor:
        left = 1 - time
        clean = inpainting.guided(lambda at: at + left * self.denoiser(at, time_BW, features_BWD), chunk, time)
        return (clean - chunk) / left
