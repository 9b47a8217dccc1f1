"""Layers in, the same layers out, whose activations are computed again on the way back instead of kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_layers(layers: Iterable[nn.Module]) -> None:
    """Let each layer keep only its inputs for the backward pass. Outputs and gradients stay the same.

    Only `forward` is wrapped: hooks on a layer, as FSDP's, run once, and weights keep their names. The switch of
    `transformers` is not used, because it does nothing in frozen layers, which are in evaluation mode.
    """
    for layer in layers:
        layer.forward = partial(_recomputed, layer.forward)


def _recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
