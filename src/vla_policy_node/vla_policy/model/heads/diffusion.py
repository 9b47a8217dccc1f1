"""Features in, chunks denoised step by step out: a diffusion policy (https://arxiv.org/abs/2303.04137) over
chunks.

The cosine schedule (https://arxiv.org/abs/2102.09672) over 100 times in training; deterministic DDIM steps
(https://arxiv.org/abs/2010.02502, eta 0) in sampling. The denoiser predicts the clean chunk, which is
stable in few steps.

Shapes: B batch, W window, D width, E = K * A, a flat chunk.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vla_policy.model.config import ModelConfig
from vla_policy.model.heads.base import ActionShape
from vla_policy.model.heads.generative import GenerativeHead
from vla_policy.model.heads.inpainting import Inpainting
from vla_policy.model.heads.losses import LossPart, LossWeights, pose_loss

TIMES = 100
OFFSET = 0.008


class DiffusionHead(GenerativeHead):
    """Denoising diffusion with DDIM sampling."""

    def __init__(self, config: ModelConfig, hidden_size: int, shape: ActionShape) -> None:
        super().__init__(config, hidden_size, shape)
        share = (torch.linspace(0, 1, TIMES + 1) + OFFSET) / (1 + OFFSET) * math.pi / 2
        kept = share.cos().square() / share[0].cos().square()
        # kept[t]: the share of the signal's power after t of 100 times, from 1 down to almost nothing.
        self.register_buffer("kept", kept.clamp(1e-5, 1.0), persistent=False)

    def denoising_loss(self, features_BWD: Tensor, chunk_BWE: Tensor, rows_BWK: Tensor,
                       weights: LossWeights) -> LossPart:
        """Error of the clean chunk, guessed at random times."""
        times_BW = torch.randint(1, TIMES + 1, features_BWD.shape[:2], device=features_BWD.device)
        kept = self.kept[times_BW][..., None]
        noisy = kept.sqrt() * chunk_BWE + (1 - kept).sqrt() * torch.randn_like(chunk_BWE)
        clean = self.denoiser(noisy, times_BW / TIMES, features_BWD)
        return pose_loss(self.rows(clean), self.rows(chunk_BWE), rows_BWK, weights.pose)

    def sample(self, features_BWD: Tensor, inpainting: Inpainting | None = None) -> Tensor:
        """Flat chunks (B, W, E) by `steps` DDIM steps."""
        frames = features_BWD.shape[:2]
        noisy = self.first_noise.expand(*frames, -1)
        times = torch.linspace(TIMES, 0, self.steps + 1).round().long().tolist()
        for now, later in zip(times[:-1], times[1:], strict=True):
            kept, kept_later = self.kept[now], self.kept[later]
            time = torch.full(frames, now / TIMES, device=noisy.device)
            if inpainting is None:
                clean = self.denoiser(noisy, time, features_BWD)
            else:
                clean = self._guided_clean(noisy, time, features_BWD, kept, inpainting)
            clean = clean.clamp(-1, 1)
            noise = (noisy - kept.sqrt() * clean) / (1 - kept).sqrt()
            noisy = kept_later.sqrt() * clean + (1 - kept_later).sqrt() * noise
        return noisy

    def _guided_clean(self, noisy: Tensor, time_BW: Tensor, features_BWD: Tensor, kept: Tensor,
                      inpainting: Inpainting) -> Tensor:
        """Its noisy chunks are points of the straight path too, but for their scale."""
        scale = kept.sqrt() + (1 - kept).sqrt()
        return inpainting.guided(lambda at: self.denoiser(at * scale, time_BW, features_BWD), noisy / scale,
                                 float(kept.sqrt() / scale))
