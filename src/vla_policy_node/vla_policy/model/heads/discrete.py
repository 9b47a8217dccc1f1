"""Hidden states in, action words out: every number of a chunk is one of 256 tokens from the vocabulary's end.

Decoding is constrained to those tokens. `parallel` reads all numbers of a chunk at once, each at an action
query of its own; `autoregressive` writes one after another, each seen by the next (RT-2,
https://arxiv.org/abs/2307.15818; RoboVLMs).

Shapes: B batch, W window, Q action queries, T action tokens = K * columns, D width, K chunk, A arm
columns, n 256 bins.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vla_policy.action.bins import BINS, bin_centres, from_bins, to_bins, token_ids
from vla_policy.model.config import ModelConfig
from vla_policy.model.heads.base import ActionHead, ActionShape, Reading
from vla_policy.model.heads.losses import ActionTargets, LossPart, LossWeights, part_of, without_padding
from vla_policy.strict import StrictModel


class DiscreteHead(ActionHead):
    """Classifies action tokens against the word embeddings of their ids, as a language model with tied
    embeddings does.
    """

    action_space = "discrete"

    class Options(StrictModel):
        """decoding: parallel or autoregressive. reserved: ids at the vocabulary's very end that are left
        alone.
        """

        decoding: Literal["parallel", "autoregressive"] = "parallel"
        reserved: Annotated[int, Field(ge=0)] = 0

    def __init__(self, config: ModelConfig, hidden_size: int, shape: ActionShape) -> None:
        super().__init__(config, hidden_size, shape)
        options = self.Options(**config.head_options)
        self.autoregressive = options.decoding == "autoregressive"
        self.reserved = options.reserved
        self.tokens = shape.chunk_size * shape.columns
        self.norm = nn.LayerNorm(hidden_size)

    @classmethod
    def queries(cls, config: ModelConfig, shape: ActionShape) -> int:
        """One for every number of the chunk, or one that the tokens follow."""
        autoregressive = cls.Options(**config.head_options).decoding == "autoregressive"
        return 1 if autoregressive else shape.chunk_size * shape.columns

    @classmethod
    def new_words(cls, config: ModelConfig) -> int:
        """The bins', and as many as are left alone behind them."""
        return BINS + cls.Options(**config.head_options).reserved

    def forward(self, logits_BWTn: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits -> actions: the likeliest bin of every number, and the odds that the gripper is open."""
        logits = logits_BWTn.float().unflatten(-2, (self.shape.chunk_size, self.shape.columns))
        arm = from_bins(logits[..., : self.shape.arm_size, :].argmax(-1))
        if not self.shape.has_gripper:
            return arm, None
        gripper, opens = logits[..., -1, :], bin_centres(logits.device) > 0
        return arm, _logsumexp(gripper, opens) - _logsumexp(gripper, ~opens)

    def decode(self, reading: Reading) -> tuple[Tensor, Tensor | None]:
        """All tokens at once, or one after the other, the likeliest each time."""
        if not self.autoregressive:
            return self(self._logits(reading, None))
        logits, tokens = self._logits(reading, None), None
        while logits.shape[-2] < self.tokens:
            tokens = self._embed(reading, logits.argmax(-1))
            logits = self._logits(reading, tokens)
        return self(logits)

    def loss(self, reading: Reading, targets: ActionTargets, weights: LossWeights) -> dict[str, LossPart]:
        """`bins`: cross entropy over the tokens of the rows that count; written tokens are the true ones."""
        columns = [targets.arm_BWKA]
        if targets.gripper_BWK is not None:
            columns.append(2 * targets.gripper_BWK[..., None] - 1)
        bins_BWT = to_bins(without_padding(torch.cat(columns, -1), targets.rows_BWK)).flatten(-2)
        tokens = self._embed(reading, bins_BWT[..., :-1]) if self.autoregressive else None
        logits = self._logits(reading, tokens).float()
        entropy = F.cross_entropy(logits.movedim(-1, 1), bins_BWT, reduction="none")
        return {"bins": part_of(entropy.unflatten(-1, (-1, self.shape.columns)), targets.rows_BWK)}

    def _logits(self, reading: Reading, tokens_BWTD: Tensor | None) -> Tensor:
        """(B, W, Q + T, n), over the action tokens only."""
        words_nD = self._words(reading)
        hidden = self.norm(reading.queries if tokens_BWTD is None else reading.hidden(tokens_BWTD))
        # Words of length one, hidden states of length sqrt(D): logits of order one at any backbone's scale.
        return hidden @ F.normalize(words_nD.to(hidden.dtype), dim=-1).T

    def _words(self, reading: Reading) -> Tensor:
        weight = reading.word_embedding.weight
        return weight[token_ids(len(weight), self.reserved, weight.device)]

    def _embed(self, reading: Reading, bins: Tensor) -> Tensor:
        """Bin indices (...) -> embedded tokens (..., D), as the backbone embeds words."""
        size = len(reading.word_embedding.weight)
        return reading.word_embedding(token_ids(size, self.reserved, bins.device)[bins])


def _logsumexp(logits: Tensor, counts: Tensor) -> Tensor:
    """Over the last dimension's members that count; picking them out would wait for a GPU."""
    return logits.masked_fill(~counts, float("-inf")).logsumexp(-1)
