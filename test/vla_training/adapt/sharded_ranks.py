"""Run by torchrun in several processes; a line for each backbone whose sharded model is not as the whole one.

Shards each twin by its wrap units, and compares gradients and the share of the weights in this process.
"""

from __future__ import annotations

import os
import sys
import warnings
from itertools import cycle

import torch
import torch.distributed as dist
from adapted_twins import adapted, loss_of
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from vla_policy.model.registry import BACKBONES
from vla_training.adapt import LoraSettings, wrap_units

SETTINGS = ({}, {"freeze": ("vision",)}, {"lora": LoraSettings(rank=2)})
GRADIENTS = {"atol": 1e-5, "rtol": 1e-3}
SHARE_SLACK = 0.02  # first dimensions of an odd size


def differences(backbone: str, settings: dict[str, object]) -> list[str]:
    """What is not as it should be, in words."""
    torch.manual_seed(0)
    whole, sharded = (adapted(backbone, activation_checkpointing=True, **settings) for _ in range(2))
    state = whole.model.state_dict()
    sharded.model.load_state_dict(state)
    weights = sum(weight.numel() for weight in whole.model.parameters())
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for unit in wrap_units(sharded.model):
        fully_shard(unit, mesh=mesh)
    fully_shard(sharded.model, mesh=mesh)
    register_fsdp_forward_method(sharded.model, "loss")
    share = sum(weight.to_local().numel() for weight in sharded.model.parameters()) / weights
    found = [] if abs(share * dist.get_world_size() - 1) < SHARE_SLACK else [f"holds {share:.1%} of the weights"]
    for bundle in (whole, sharded):
        loss_of(bundle).backward()
    expected = dict(whole.model.named_parameters())
    for name, weight in sharded.model.named_parameters():
        gradient, alone = weight.grad, expected[name].grad
        if (gradient is None) != (alone is None):
            found.append(f"{name}: only one of the two has a gradient")
        elif gradient is not None and not torch.allclose(gradient.full_tensor(), alone, **GRADIENTS):
            found.append(f"{name}: another gradient")
    return found


def main() -> int:
    """The exit status: 1 where anything differs."""
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
    dist.init_process_group("gloo")
    lines = [f"{backbone} {list(settings)}: {problem}" for backbone, settings in zip(BACKBONES, cycle(SETTINGS))
             for problem in differences(backbone, settings)]
    sys.stderr.write("".join(f"rank {os.environ['RANK']}: {line}\n" for line in lines))
    dist.destroy_process_group()
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
