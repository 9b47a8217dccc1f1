"""Images and word embeddings in, one hidden state per query token out: the few faces every backbone shows.

A new backbone is a subclass of about 30 lines: `create` builds or loads the model (pretrained ones inherit it
from `vla_policy.model.backbones.pretrained`), the properties say where its parts are, `encode_image` turns
pixels into visual tokens and `hidden_states` runs the text tower. Where image tokens do not stand in one row
with the text (cross-attention, encoder-decoder) it replaces `fuse`.

Shapes: B batch, V cameras, M images, S image side, N visual tokens of all cameras, C their width, L text
tokens, Q queries, T tokens of a whole sequence, W window, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

import torch
from torch import Tensor, nn

from vla_policy.errors import ConfigError
from vla_policy.model.config import ModelConfig
from vla_policy.model.tokenizer import INSTRUCTION, Tokenizer
from vla_policy.strict import StrictModel

Part = Literal["vision", "resampler", "text", "embeddings"]


_PLANES: dict[tuple[tuple[float, float, float], torch.device], Tensor] = {}  # compilers see through a dict


def _planes(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """(3, 1, 1) on the device, in grey levels; sent there once, for that waits for a GPU."""
    if (values, device) not in _PLANES:
        with torch.inference_mode(False):  # training may need them after serving
            _PLANES[values, device] = 255 * torch.tensor(values, device=device)[:, None, None]
    return _PLANES[values, device]


@dataclass(frozen=True, slots=True)
class ImageProcessor:
    """Scales pixels as the vision tower knows them: (value / 255 - mean) / std. `size`: image side [px]."""

    size: int
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (..., S, S, 3), RGB -> float32 (..., 3, S, S).

        Raises: ValueError for another size or dtype.
        """
        if images.dtype != torch.uint8 or images.shape[-3:] != (self.size, self.size, 3):
            raise ValueError(f"images: got {images.dtype} {tuple(images.shape)}, expected torch.uint8 "
                             f"(..., {self.size}, {self.size}, 3); use "
                             "vla_policy.observation.resize.resize_image")
        mean, std = _planes(self.mean, images.device), _planes(self.std, images.device)
        # Planes first: subtracting from whole planes is several times faster than from interleaved pixels.
        return images.movedim(-1, -3).contiguous().float().sub_(mean).div_(std)


class Backbone(nn.Module, ABC):
    """A vision-language model as the policy sees it. `vlm` is the wrapped model and holds all weights.

    image_size, text_length: what a model file that names neither gets, [px] and tokens.
    interleaves: image tokens stand in the row of text tokens, so frames can follow each other in it.
    causal: no token sees a later one.
    leading_tokens: how many text tokens (the beginning of the sentence) stand before the images.
    first_position: position of the first token.
    casts_inputs: its weights may be of any number type, since what comes in is cast to it.
    """

    image_size: ClassVar[int] = 112
    text_length: ClassVar[int] = 16
    interleaves: ClassVar[bool] = True
    causal: ClassVar[bool] = True
    leading_tokens: ClassVar[int] = 0
    first_position: ClassVar[int] = 0
    casts_inputs: ClassVar[bool] = False

    class Options(StrictModel):
        """Keys of `backbone_options`; a backbone without any inherits this."""

    def __init__(self, vlm: nn.Module, image_processor: ImageProcessor) -> None:
        super().__init__()
        self.vlm = vlm
        self.image_processor = image_processor

    @classmethod
    @abstractmethod
    def create(cls, config: ModelConfig, vocabulary_size: int) -> Backbone:
        """Build the backbone that `config` describes; `vocabulary_size` is that of the policy's tokenizer."""

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        """Refuse what this backbone cannot do. Raises: ConfigError with the reason and what works."""

    @classmethod
    def tokenizer(cls, config: ModelConfig, sentences: Iterable[str]) -> Tokenizer:
        """The tokenizer of a new policy: here one that knows the words of `sentences` alone."""
        return Tokenizer.build(sentences)

    @classmethod
    def prompt(cls, config: ModelConfig) -> str:
        """The text in which an instruction reaches the model, with `{instruction}` in its place."""
        return INSTRUCTION

    def add_words(self, count: int) -> None:
        """Make room for `count` further words behind those it knows. Raises: ConfigError where that cannot be."""
        raise ConfigError(f"{type(self).__name__}: got {count} new words, expected none: this backbone's vocabulary is "
                          "fixed; say it in words that it knows, or train a new policy")

    def stored_options(self) -> dict[str, Any]:
        """What a bundle adds to `backbone_options`, so that `create` needs nothing but the bundle."""
        return {}

    @property
    def model(self) -> nn.Module:
        """The whole vision-language model."""
        return self.vlm

    @property
    @abstractmethod
    def hidden_size(self) -> int:
        """D, the width of the text tower."""

    @property
    def visual_size(self) -> int:
        """C, the width of visual tokens: D unless they are wider or narrower than words."""
        return self.hidden_size

    @property
    @abstractmethod
    def word_embedding(self) -> nn.Module:
        """Token ids (B, L) -> (B, L, D)."""

    @property
    def output_embedding(self) -> nn.Module | None:
        """Hidden states (..., D) -> logits over the vocabulary; None where the model has no such layer."""
        return None

    @property
    @abstractmethod
    def text_tower(self) -> nn.Module:
        """The transformer over embedded tokens."""

    @property
    @abstractmethod
    def vision_tower(self) -> nn.Module:
        """The image encoder."""

    @property
    def connectors(self) -> Sequence[nn.Module]:
        """What lies inside a tower, but only brings images from the one to the other: a resampler, a merger.

        What stands beside both towers is known without being named here.
        """
        return ()

    def parts(self) -> dict[Part, list[nn.Parameter]]:
        """All weights by part, each weight in one of them.

        vision: the image encoder. resampler: what turns its features into image tokens. text: the transformer over
        tokens. embeddings: of words, in and out.
        """
        modules: dict[Part, Sequence[nn.Module | None]] = {
            "embeddings": (self.word_embedding, self.output_embedding), "resampler": self.connectors,
            "vision": (self.vision_tower,), "text": (self.text_tower,)}
        part_of = {weight: part for part, inside in reversed(modules.items())
                   for module in inside if module is not None for weight in module.parameters()}
        parts: dict[Part, list[nn.Parameter]] = {part: [] for part in get_args(Part)}
        for weight in self.vlm.parameters():
            parts[part_of.get(weight, "resampler")].append(weight)
        return parts

    @property
    def vision_layers(self) -> list[nn.Module]:
        """The layers of the vision tower."""
        return self._layers(self.vision_tower, "vision")

    @property
    def text_layers(self) -> list[nn.Module]:
        """The layers of the text tower, in the order in which they run."""
        return self._layers(self.text_tower, "text")

    def _layers(self, tower: nn.Module, part: Part) -> list[nn.Module]:
        own = set(self.parts()[part])
        return [layer for layer in layers_of(tower) if own.issuperset(layer.parameters())]

    def train(self, mode: bool = True) -> Self:
        """As of every module, but what is frozen stays in evaluation mode: its dropout and batch norms rest."""
        super().train(mode)
        for module in self.modules() if mode else ():
            weights = list(module.parameters())
            if weights and not any(weight.requires_grad for weight in weights):
                module.eval()
        return self

    @property
    def query_scale(self) -> float:
        """Standard deviation that fresh action queries should have beside the words."""
        return 0.02

    @property
    def max_positions(self) -> int | None:
        """Tokens that fit into one sequence; None for no limit."""
        return None

    def encode_image(self, pixels_M3SS: Tensor) -> Tensor:
        """Visual tokens of single images, (M, n, C)."""
        raise NotImplementedError(f"{type(self).__name__} needs encode_image, or its own encode_images")

    def encode_images(self, pixels_BV3SS: Tensor) -> Tensor:
        """Visual tokens of all cameras in a row, (B, N, C)."""
        tokens_MnC = self.encode_image(pixels_BV3SS.flatten(0, 1))
        return tokens_MnC.reshape(len(pixels_BV3SS), -1, tokens_MnC.shape[-1])

    def fuse(self, visual_BND: Tensor, text_BLD: Tensor, text_mask_BL: Tensor, queries_BQD: Tensor) -> Tensor:
        """Hidden states of the queries in the sequence [image | text | queries], (B, Q, D).

        Positions count real tokens only, so padding of the text changes nothing.
        """
        return self.fuse_blocks(visual_BND[:, None], text_BLD, text_mask_BL, queries_BQD[:, None])[:, 0]

    def fuse_blocks(self, visual_BWND: Tensor, text_BLD: Tensor, text_mask_BL: Tensor,
                    queries_BWQD: Tensor) -> Tensor:
        """Hidden states (B, W, Q, D) of the queries in one sequence of a block [image | text | queries] per
        frame, oldest first.
        """
        batch, window, queries = queries_BWQD.shape[:3]
        lead = self.leading_tokens
        text_BWLD = text_BLD[:, None].expand(-1, window, -1, -1)
        tokens_BWtD = torch.cat([text_BWLD[:, :, :lead], visual_BWND, text_BWLD[:, :, lead:], queries_BWQD],
                                2)
        real = text_mask_BL.new_ones(batch, visual_BWND.shape[2] + queries)
        images = visual_BWND.shape[2]
        mask_Bt = torch.cat([text_mask_BL[:, :lead], real[:, :images], text_mask_BL[:, lead:],
                             real[:, images:]], 1)
        visual_Bt = torch.zeros_like(mask_Bt)
        visual_Bt[:, lead:lead + images] = True
        hidden_BTD = self.run(tokens_BWtD.flatten(1, 2), mask_Bt.repeat(1, window),
                              visual_Bt.repeat(1, window))
        return hidden_BTD.unflatten(1, (window, -1))[:, :, -queries:]

    def run(self, tokens_BTD: Tensor, mask_BT: Tensor, visual_BT: Tensor) -> Tensor:
        """Hidden states of any sequence, (B, T, D). mask: True where a token is real; visual: where it is an
        image's.

        Raises: ConfigError for a sequence longer than the model's positions.
        """
        self.check_length(tokens_BTD.shape[1])
        mask_BT = mask_BT.long()
        positions_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0) + self.first_position
        return self.hidden_states(visual_BT, inputs_embeds=tokens_BTD, attention_mask=mask_BT,
                                  position_ids=positions_BT)

    def check_length(self, tokens: int) -> None:
        """Raises: ConfigError for a sequence of more `tokens` than the model has positions."""
        if self.max_positions is not None and tokens > self.max_positions:
            raise ConfigError(f"model: got a sequence of {tokens} tokens, expected at most the backbone's "
                              f"{self.max_positions} positions; lower history_length, text_length or the "
                              "number of cameras, or take formulation policy_head, where every frame is a "
                              "sequence of its own")

    def hidden_states(self, visual_BT: Tensor, **inputs: Tensor) -> Tensor:
        """The text tower's last hidden states (B, T, D) of `inputs_embeds`, `attention_mask` (1 where a token
        is real) and `position_ids`.
        """
        return self.text_tower(use_cache=False, **inputs).last_hidden_state


def layers_of(tower: nn.Module) -> Iterator[nn.Module]:
    """The members of a tower's lists, in the order in which they stand there; lists inside members are not entered."""
    for child in tower.children():
        if isinstance(tower, nn.ModuleList) and not isinstance(child, nn.ModuleList):
            yield child
        else:
            yield from layers_of(child)
