"""A file and the policy node's command line in; out: that node, but it is out of memory while the file exists."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from vla_policy.model.vla import VLAModel
from vla_policy_node.policy_node import main

exhausted = Path(sys.argv.pop(1))
encode_frame = VLAModel.encode_frame


def with_memory(model: VLAModel, *inputs: torch.Tensor) -> Any:
    """The frame's memory, while there is room for it."""
    if exhausted.exists():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return encode_frame(model, *inputs)


VLAModel.encode_frame = with_memory
main()
