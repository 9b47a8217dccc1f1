"""Images and text into an encoder, queries into a decoder: what encoder-decoder backbones share.

Shapes: B batch, N visual tokens, L text, Q queries, D width.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from vla_policy.model.backbones.pretrained import PretrainedBackbone


class EncoderDecoder(PretrainedBackbone):
    """The encoder reads [image | text], the decoder turns the queries into what the policy sees."""

    interleaves: ClassVar[bool] = False

    def fuse(self, visual_BND: Tensor, text_BLD: Tensor, text_mask_BL: Tensor, queries_BQD: Tensor) -> Tensor:
        """Hidden states of the queries, (B, Q, D)."""
        tokens = torch.cat([visual_BND, text_BLD], 1).to(self.vlm.dtype)
        self.check_length(tokens.shape[1])
        mask = torch.cat([text_mask_BL.new_ones(visual_BND.shape[:2]), text_mask_BL], 1).long()
        encoded = self.text_tower.encoder(inputs_embeds=tokens, attention_mask=mask).last_hidden_state
        decoded = self.text_tower.decoder(inputs_embeds=queries_BQD.to(self.vlm.dtype), use_cache=False,
                                          encoder_hidden_states=encoded, encoder_attention_mask=mask)
        return decoded.last_hidden_state.float()


def twin_bart(vocabulary_size: int) -> dict[str, Any]:
    """The text part of a twin."""
    sides = {f"{side}_{key}": value for side in ("encoder", "decoder")
             for key, value in (("layers", 2), ("ffn_dim", 128), ("attention_heads", 4))}
    return {"model_type": "bart", "d_model": 64, "dropout": 0.0, "vocab_size": vocabulary_size,
            "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
            "decoder_start_token_id": 2, **sides}
