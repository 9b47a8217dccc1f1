"""The `adapt` section of a training file in, checked settings out: what is trained, and what is left as it is.

    adapt: {freeze: [vision, embeddings], activation_checkpointing: true}
    adapt: {lora: {rank: 32, targets: [text, vision]}}
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vla_policy.model.backbones.base import Part
from vla_policy.strict import StrictModel


class LoraSettings(StrictModel):
    """Low-rank adapters beside frozen linear layers (https://arxiv.org/abs/2106.09685).

    rank: width of an adapter. alpha: its output counts alpha / rank; by default 2. dropout: of its input.
    targets: parts whose linear layers get one. modules: names of these layers, such as q_proj; auto takes all.
    train: parts of the backbone that are trained whole beside the adapters. four_bit: keep the layers under the
    adapters in 4 bits (https://arxiv.org/abs/2305.14314); needs bitsandbytes and an NVIDIA GPU.
    """

    rank: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[float, Field(gt=0)] = Field(default_factory=lambda chosen: 2.0 * chosen.get("rank", 16))
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Annotated[tuple[Literal["text", "vision", "resampler"], ...], Field(min_length=1)] = ("text",)
    modules: Literal["auto"] | Annotated[tuple[str, ...], Field(min_length=1)] = "auto"
    train: tuple[Part, ...] = ()
    four_bit: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> LoraSettings:
        both = [part for part in self.train if part in self.targets]
        if both:
            raise ValueError(f"got {both} in targets and in train; adapt a part, or train it whole")
        return self


class AdaptConfig(StrictModel):
    """What is trained. The action head, its queries and what embeds the robot's state always are.

    freeze: parts of the backbone that stay as they are. train_last_layers: of a frozen text tower, the number of
    last layers that are trained nevertheless. lora: adapters in place of the backbone's own weights, all of which
    stay as they are. activation_checkpointing: keep no activations inside the towers' layers but compute them again
    on the way back: less memory, about a third more time.
    """

    freeze: tuple[Part, ...] = ()
    train_last_layers: Annotated[int, Field(ge=0)] = 0
    lora: LoraSettings | None = None
    activation_checkpointing: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> AdaptConfig:
        if self.lora and (self.freeze or self.train_last_layers):
            raise ValueError("got lora beside freeze or train_last_layers; with lora the whole backbone is frozen but "
                             "for the adapters: leave those out, and name parts to train whole in lora.train")
        if self.train_last_layers and "text" not in self.freeze:
            raise ValueError(f"train_last_layers is {self.train_last_layers} but text is not frozen; "
                             "add text to freeze, or leave train_last_layers out")
        return self
