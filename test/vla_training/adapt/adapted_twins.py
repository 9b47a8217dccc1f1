"""A backbone's name in, a live twin in a whole bundle and a batch's loss out: what the tests beside this share."""

from __future__ import annotations

import policies
import torch
from torch import Tensor

from vla_policy.checkpoint import Bundle
from vla_policy.model.heads.losses import ActionTargets, LossWeights
from vla_policy.model.vla import ModelOutput, VLAModel
from vla_training.adapt import AdaptConfig, prepare_model

LEARNING_RATE = 1e-2
WINDOW, CHUNK, STATE = 2, 2, 10
SMALL = {"formulation": "policy_head", "action_head": "lstm", "history_length": WINDOW, "action_chunk_size": CHUNK,
         "execute_rows": CHUNK}


def twin(backbone: str) -> Bundle:
    """The twin, in evaluation mode; what starts at zero is random, so that gradients reach every part."""
    options = {} if backbone == "tiny" else {"backbone_options": {"weights": "random-tiny"}}
    return policies.bundle(backbone=backbone, **SMALL, **options)


def adapted(backbone: str, **settings: object) -> Bundle:
    """The twin after `prepare_model`, in training mode."""
    bundle = twin(backbone)
    prepare_model(bundle.model, AdaptConfig(**settings)).train()
    return bundle


def inputs(bundle: Bundle) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One window: images, states, token ids and their mask, the same every time."""
    side, cameras = bundle.config.image_size, len(bundle.config.cameras)
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (1, WINDOW, cameras, side, side, 3), dtype=torch.uint8, generator=generator)
    state = torch.rand(1, WINDOW, STATE, generator=generator)
    ids, mask = bundle.tokenizer.encode_batch([policies.SENTENCES[0]], bundle.config.text_length)
    return images, state, torch.from_numpy(ids), torch.from_numpy(mask)


def loss_of(bundle: Bundle) -> Tensor:
    """The loss on that window."""
    targets = ActionTargets(torch.linspace(-1, 1, WINDOW * CHUNK * 6).reshape(1, WINDOW, CHUNK, 6),
                            torch.ones(1, WINDOW, CHUNK), torch.ones(1, WINDOW, CHUNK, dtype=torch.bool))
    weights = LossWeights(gripper_weight=1.0)
    return weights.total(bundle.model.loss(*inputs(bundle), targets, weights))


def train_step(bundle: Bundle) -> None:
    """One step of AdamW over what is trained, gradients left in place."""
    trained = [weight for weight in bundle.model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, LEARNING_RATE, weight_decay=0.1)
    loss_of(bundle).backward()
    optimizer.step()


@torch.inference_mode()
def outputs(model: VLAModel, bundle: Bundle) -> ModelOutput:
    """What `model` says of that window, in evaluation mode."""
    was_training = model.training
    output = model.eval()(*inputs(bundle))
    model.train(was_training)
    return output


def copies(model: VLAModel) -> dict[str, Tensor]:
    """Weights and buffers as they are now."""
    return {name: value.clone() for name, value in model.state_dict().items()}
