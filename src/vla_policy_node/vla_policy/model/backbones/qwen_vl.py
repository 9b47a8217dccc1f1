"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: images as flat patches, tokens with a time, a row and a column.

Sources: https://arxiv.org/abs/2409.12191, https://arxiv.org/abs/2502.13923, https://arxiv.org/abs/2511.21631.
Shapes: B batch, W window, M images, S image side, N visual tokens, n of one image, T tokens, L text, Q
queries, D width, C visual width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import (
    PreTrainedConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    vision_utils,
)

from vla_policy.model.backbones.base import ImageProcessor
from vla_policy.model.backbones.patch_layout import flat_patches, patch_grid, rope_positions
from vla_policy.model.backbones.pretrained import (
    CLIP_MEAN,
    CLIP_STD,
    TWIN_TEXT,
    PretrainedBackbone,
)

QWEN_TEXT = {"vocab_size": 151936, "max_position_embeddings": 128000, "tie_word_embeddings": True,
             "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}}
TWIN_VISION = {"depth": 2, "hidden_size": 32, "num_heads": 4}
TWIN_ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}


class Qwen25Vl(PretrainedBackbone):
    """Qwen2.5-VL, and what the three have in common."""

    hf_class = Qwen2_5_VLForConditionalGeneration
    weights = "Qwen/Qwen2.5-VL-3B-Instruct"
    published = {
        "text_config": QWEN_TEXT | {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
                                    "num_attention_heads": 16, "num_key_value_heads": 2},
        "vision_config": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420,
                          "out_hidden_size": 2048, "num_heads": 16, "patch_size": 14, "window_size": 112,
                          "fullatt_block_indexes": [7, 15, 23, 31]},
        "tie_word_embeddings": True}
    mean, std = CLIP_MEAN, CLIP_STD
    instruction_prompt = ("<|im_start|>user\n<|vision_start|><|vision_end|>{instruction}<|im_end|>\n"
                          "<|im_start|>assistant\n")
    leading_tokens = 4  # to the start of the images

    def __init__(self, vlm: nn.Module, image_processor: ImageProcessor) -> None:
        super().__init__(vlm, image_processor)
        self._layouts: dict[tuple[int, torch.device], dict[str, Tensor]] = {}

    @classmethod
    def tiny_config(cls, vocabulary_size: int, image_size: int) -> PreTrainedConfig:
        """A twin of the same parts: four tokens an image."""
        vision = TWIN_VISION | {"patch_size": image_size // 4, "intermediate_size": 64, "out_hidden_size": 64,
                                "window_size": image_size, "fullatt_block_indexes": [1]}
        return Qwen2_5_VLConfig(**_twin(vocabulary_size, vision))

    @classmethod
    def side_of_images(cls, hf_config: PreTrainedConfig, image_size: int) -> int:
        """The side [px] nearest to `image_size` that is whole tokens: a token merges several patches."""
        cell = hf_config.vision_config.patch_size * hf_config.vision_config.spatial_merge_size
        return max(1, round(image_size / cell)) * cell

    @property
    def vision_tower(self) -> nn.Module:
        """The vision transformer with its merger of patches."""
        return self.vlm.model.visual

    @property
    def connectors(self) -> tuple[nn.Module, ...]:
        """The merger of patches at the vision transformer's end."""
        return (self.vision_tower.merger,)

    @property
    def image_side(self) -> int:
        """Visual tokens along one side of an image."""
        vision = self.vlm.config.vision_config
        return self.image_processor.size // (vision.patch_size * vision.spatial_merge_size)

    def encode_image(self, pixels_M3SS: Tensor) -> Tensor:
        """Visual tokens of single images, (M, n, D)."""
        return torch.stack(list(self._image_features(pixels_M3SS).pooler_output))

    def hidden_states(self, visual_BT: Tensor, **inputs: Tensor) -> Tensor:
        """Positions that tell where in its image a token is replace those of plain text."""
        places = rope_positions(inputs["attention_mask"].bool(), visual_BT, self.image_side)
        return super().hidden_states(visual_BT, **inputs | {"position_ids": places})

    def _image_features(self, pixels_M3SS: Tensor) -> Any:
        vision = self.vlm.config.vision_config
        patches = flat_patches(pixels_M3SS, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
        images, device = len(pixels_M3SS), pixels_M3SS.device
        if (images, device) not in self._layouts:
            with torch.inference_mode(False):  # training may need them after serving
                self._layouts[images, device] = self._layout(images, device)
        return self.vlm.model.get_image_features(patches, **self._layouts[images, device])

    def _layout(self, images: int, device: torch.device) -> dict[str, Tensor]:
        """Where the patches of so many images are, as the vision tower takes it: it would wait for the GPU to count
        them anew in every step, and could not be captured.
        """
        vision = self.vlm.config.vision_config
        grid_M3 = patch_grid(images, self.image_side * vision.spatial_merge_size)
        layout = {"position_ids": vision_utils.get_vision_position_ids(grid_M3, vision.spatial_merge_size)}
        ends = {"cu_seqlens": vision_utils.get_vision_cu_seqlens(grid_M3)}
        if hasattr(vision, "window_size"):
            layout["window_index"], ends["cu_window_seqlens"] = vision_utils.get_vision_window_index(
                grid_M3, vision.spatial_merge_size, vision.window_size, vision.patch_size)
        if hasattr(vision, "num_position_embeddings"):
            tower = self.vision_tower
            layout["interp_indices"], layout["interp_weights"] = (
                vision_utils.get_vision_interpolation_indices_and_weights(
                    grid_M3, tower.num_grid_per_side, tower.interpolation_mode, tower.interpolation_align_corners,
                    vision.spatial_merge_size))
        # All kinds of attention but flash read the ends of sequences on the host.
        ends_on = device if "flash" in vision._attn_implementation else torch.device("cpu")
        return {"image_grid_thw": grid_M3, **{name: part.to(device) for name, part in layout.items()},
                **{name: part.to(ends_on) for name, part in ends.items()}}


class Qwen2Vl(Qwen25Vl):
    """Qwen2-VL."""

    hf_class = Qwen2VLForConditionalGeneration
    weights = "Qwen/Qwen2-VL-2B-Instruct"
    published = {
        "text_config": QWEN_TEXT | {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
                                    "num_attention_heads": 12, "num_key_value_heads": 2},
        "vision_config": {"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16,
                          "mlp_ratio": 4, "patch_size": 14},
        "tie_word_embeddings": True}

    @classmethod
    def tiny_config(cls, vocabulary_size: int, image_size: int) -> PreTrainedConfig:
        """A twin of the same parts: four tokens an image."""
        vision = TWIN_VISION | {"patch_size": image_size // 4, "embed_dim": 32, "hidden_size": 64,
                                "mlp_ratio": 2}
        return Qwen2VLConfig(**_twin(vocabulary_size, vision))


class Qwen3Vl(Qwen25Vl):
    """Qwen3-VL: the first layers of its text tower also see earlier layers of its vision tower (DeepStack).

    Those features ride behind the visual tokens, which are wider than text for it.
    """

    hf_class = Qwen3VLForConditionalGeneration
    weights = "Qwen/Qwen3-VL-2B-Instruct"
    published = {
        "text_config": QWEN_TEXT | {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28,
                                    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
                                    "rope_parameters": {
                                        "rope_type": "default", "rope_theta": 5e6,
                                        "mrope_section": [24, 20, 20], "mrope_interleaved": True}},
        "vision_config": {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096,
                          "out_hidden_size": 2048, "num_heads": 16, "patch_size": 16,
                          "num_position_embeddings": 2304, "deepstack_visual_indexes": [5, 11, 17]},
        "tie_word_embeddings": True}
    mean = std = (0.5, 0.5, 0.5)

    @classmethod
    def tiny_config(cls, vocabulary_size: int, image_size: int) -> PreTrainedConfig:
        """A twin of the same parts: four tokens an image, one of its layers seen early."""
        vision = TWIN_VISION | {"patch_size": image_size // 4, "intermediate_size": 64, "out_hidden_size": 64,
                                "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
        return Qwen3VLConfig(**_twin(vocabulary_size, vision, head_dim=16, mrope_interleaved=True))

    @property
    def connectors(self) -> tuple[nn.Module, ...]:
        """The mergers at the vision transformer's end and of its earlier layers."""
        return (*super().connectors, self.vision_tower.deepstack_merger_list)

    @property
    def visual_size(self) -> int:
        """C: a visual token and what DeepStack adds to it."""
        return self.hidden_size * (1 + len(self.vlm.config.vision_config.deepstack_visual_indexes))

    def encode_image(self, pixels_M3SS: Tensor) -> Tensor:
        """Visual tokens of single images with their DeepStack features behind them, (M, n, C)."""
        features = self._image_features(pixels_M3SS)
        return torch.cat([torch.stack(list(part)) for part in
                          (features.pooler_output, *features.deepstack_features)], -1)

    def fuse_blocks(self, visual_BWND: Tensor, text_BLD: Tensor, text_mask_BL: Tensor,
                    queries_BWQD: Tensor) -> Tensor:
        """As for every backbone; text is made as wide as the visual tokens."""
        return super().fuse_blocks(visual_BWND, self._widen(text_BLD), text_mask_BL,
                                   self._widen(queries_BWQD))

    def hidden_states(self, visual_BT: Tensor, **inputs: Tensor) -> Tensor:
        """Unpacks the DeepStack features."""
        tokens, *deep = inputs["inputs_embeds"].split(self.hidden_size, -1)
        return super().hidden_states(visual_BT, **inputs | {
            "inputs_embeds": tokens, "visual_pos_masks": visual_BT,
            "deepstack_visual_embeds": [features[visual_BT] for features in deep]})

    def _widen(self, tokens: Tensor) -> Tensor:
        return pad(tokens, (0, self.visual_size - self.hidden_size))


def _twin(vocabulary_size: int, vision: dict[str, Any], head_dim: int | None = None,
          **rope: Any) -> dict[str, Any]:
    """What the twins' configurations share. The image marks are the vocabulary's last ids."""
    text = TWIN_TEXT | {"vocab_size": vocabulary_size, "rope_parameters": TWIN_ROPE | rope}
    marks = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return {"text_config": text | ({"head_dim": head_dim} if head_dim else {}), "vision_config": vision,
            **{mark: vocabulary_size - 1 - index for index, mark in enumerate(marks)}}
