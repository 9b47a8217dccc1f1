"""Images, proprioception and an instruction in, action chunks out: backbone, formulation and head joined.

Shapes: B batch, W window (oldest frame first), V cameras, S image side, P state, L text, D width, K chunk,
A arm dimensions. A window shorter than W is padded at its end: everything looks back only, so padding there
changes no real frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from vla_policy.contract import RobotContract
from vla_policy.errors import ConfigError, ContractError, nearest
from vla_policy.model.config import ModelConfig
from vla_policy.model.formulations.base import Memory
from vla_policy.model.heads.base import ActionShape, Reading
from vla_policy.model.heads.inpainting import Inpainting
from vla_policy.model.heads.losses import ActionTargets, LossPart, LossWeights, place_loss
from vla_policy.model.registry import BACKBONES, FORMULATIONS, HEADS, resolve
from vla_policy.observation.proprioception import proprioception_names

GROUNDING_SIZE = 3


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """What a window gives, for every frame of it.

    arm_BWKA: normalised arm actions. gripper_BWK: logits, positive is open; None without a gripper.
    grounding_BW3: where the thing that the sentence names is, in the units it was trained on.
    """

    arm_BWKA: Tensor
    gripper_BWK: Tensor | None
    grounding_BW3: Tensor


class VLAModel(nn.Module):
    """A backbone with a formulation and an action head."""

    def __init__(self, config: ModelConfig, shape: ActionShape, state_size: int,
                 vocabulary_size: int) -> None:
        super().__init__()
        self.config = config
        head = resolve(HEADS, config.action_head, "action_head")
        self._head_words = head.new_words(config)
        self.backbone = resolve(BACKBONES, config.backbone, "backbone").create(
            config, vocabulary_size + self._head_words)
        width = self.backbone.hidden_size
        self.formulation = resolve(FORMULATIONS, config.formulation, "formulation")(
            config, self.backbone, state_size, head.queries(config, shape))
        self.head = head(config, width, shape)
        self.grounding = nn.Linear(width, GROUNDING_SIZE)

    def add_words(self, count: int) -> None:
        """Make room for `count` more words of the tokenizer. Raises: ConfigError where backbone or head cannot."""
        if self._head_words:
            raise ConfigError(f"action_head {self.config.action_head}: got {count} new words, expected none: its "
                              "actions are words behind those of the tokenizer; train a new policy")
        self.backbone.add_words(count)

    def forward(self, images_BWVSS3: Tensor, state_BWP: Tensor, text_ids_BL: Tensor,
                text_mask_BL: Tensor) -> ModelOutput:
        """Actions for every frame. images: uint8; state: normalised; text_mask: True where text is."""
        reading = self._read(images_BWVSS3, state_BWP, text_ids_BL, text_mask_BL)
        arm_BWKA, gripper_BWK = self.head.decode(reading)
        return ModelOutput(arm_BWKA, gripper_BWK, self.grounding(reading.feature).float())

    def loss(self, images_BWVSS3: Tensor, state_BWP: Tensor, text_ids_BL: Tensor, text_mask_BL: Tensor,
             targets: ActionTargets, weights: LossWeights) -> dict[str, LossPart]:
        """The parts of what training lowers, not weighed: `weights.total` joins them. The inputs are as in `forward`.

        For all heads, also those whose loss needs more than their output (discrete, diffusion, flow). The part
        `place` comes from the same reading; it is there where `targets` has places and `weights` counts them.
        """
        reading = self._read(images_BWVSS3, state_BWP, text_ids_BL, text_mask_BL)
        parts = self.head.loss(reading, targets, weights)
        if targets.place_BW3 is not None and weights.grounding_weight:
            guess_BW3 = self.grounding(reading.feature)
            parts["place"] = place_loss(guess_BW3, targets.place_BW3, targets.rows_BWK.any(-1))
        return parts

    def ground(self, images_BVSS3: Tensor, state_BP: Tensor, text_ids_BL: Tensor,
               text_mask_BL: Tensor) -> Tensor:
        """Where the thing that each sentence names is, (B, 3), from single frames."""
        reading = self._read(images_BVSS3[:, None], state_BP[:, None], text_ids_BL, text_mask_BL)
        return self.grounding(reading.feature)[:, 0].float()

    def embed_text(self, text_ids_BL: Tensor) -> Tensor:
        """Word embeddings, (B, L, D); the same for a whole run."""
        return self.backbone.word_embedding(text_ids_BL)

    def encode_frame(self, images_BVSS3: Tensor, state_BP: Tensor, text_BLD: Tensor,
                     text_mask_BL: Tensor) -> Memory:
        """What the formulation keeps of each frame; the policy encodes a frame once and keeps the last W."""
        pixels_BV3SS = self.backbone.image_processor(images_BVSS3)
        return self.formulation.encode_frame(self.backbone, pixels_BV3SS, state_BP, text_BLD, text_mask_BL)

    def act(self, memory_BW: Memory, text_BLD: Tensor, text_mask_BL: Tensor,
            inpainting: Inpainting | None = None) -> tuple[Tensor, Tensor | None]:
        """Actions for the newest of the kept frames: arm (B, K, A), gripper logits (B, K).

        memory_BW: what `encode_frame` gave for each frame, oldest first, as tensors (B, W, ...). inpainting: what the
        chunks go on from, where the head `inpaints`.
        """
        hidden = partial(self.formulation.newest, self.backbone, memory_BW, text_BLD, text_mask_BL)
        reading = Reading(hidden, self.backbone.word_embedding)
        return self.head.newest(reading) if inpainting is None else self.head.inpaint(reading, inpainting)

    def _read(self, images_BWVSS3: Tensor, state_BWP: Tensor, text_ids_BL: Tensor,
              text_mask_BL: Tensor) -> Reading:
        """Encode all frames of the windows, for the head to read."""
        batch, window = images_BWVSS3.shape[:2]
        text_BLD = self.embed_text(text_ids_BL)
        text = (part.repeat_interleave(window, 0) for part in (text_BLD, text_mask_BL))
        memory = self.encode_frame(images_BWVSS3.flatten(0, 1), state_BWP.flatten(0, 1), *text)
        memory_BW = tuple(part.unflatten(0, (batch, window)) for part in memory)
        hidden = partial(self.formulation.features, self.backbone, memory_BW, text_BLD, text_mask_BL)
        return Reading(hidden, self.backbone.word_embedding)


def build_model(config: ModelConfig, contract: RobotContract, vocabulary_size: int) -> VLAModel:
    """The model that `config` describes, sized for the robot of `contract`, with fresh weights.

    Raises: ContractError where the contract lacks a camera or joint that the model looks at.
    """
    for name in config.cameras:
        if name not in contract.cameras:
            raise ContractError(f"cameras: the model looks at '{name}', which contract '{contract.name}' "
                                f"lacks; {nearest(name, contract.cameras)}")
    has_gripper = contract.action.gripper is not None
    shape = ActionShape(len(contract.action_names) - has_gripper, config.action_chunk_size, has_gripper)
    names = proprioception_names(contract, config.proprioception_joints) if config.proprioception else ()
    return VLAModel(config, shape, len(names), vocabulary_size)
