"""Every backbone's step on torch's meta device in; out: nothing in it waits for the host, so a GPU can capture it.

The meta device has no values: whatever reads one, as a GPU would have to be waited for, raises. What is sent from the
host is watched for. This stands in for a capture where there is no GPU; scripts/bench_gpu.sh captures for true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from policies import bundle
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from vla_policy.model.registry import BACKBONES, resolve
from vla_policy.model.vla import VLAModel

SIDE, LENGTH = 32, 8
WAITS = {"qwen3-vl": "DeepStack picks the tokens of images by a mask"}  # these fall back by name
MADE_ON_THE_HOST = (torch.tensor, torch.as_tensor, torch.from_numpy)


class Sent(TorchDispatchMode):
    """Notes operators that mix host and device."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[str] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operator(*args, **kwargs or {})
        results = result if isinstance(result, (tuple, list)) else [result]
        kinds = {part.device.type for part in (*args, *results) if isinstance(part, torch.Tensor)}
        if len(kinds) > 1:
            self.operators.append(str(operator))
        return result


class Made(TorchFunctionMode):
    """Notes tensors that are made of the host's values on another device."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in MADE_ON_THE_HOST and torch.device((kwargs or {}).get("device") or "cpu").type != "cpu":
            self.calls.append(function.__name__)
        return function(*args, **kwargs or {})


@pytest.fixture(autouse=True)
def capturing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """transformers leaves checks of values out while a GPU captures; it must think so here."""
    imports = pytest.importorskip("transformers").utils.import_utils
    monkeypatch.setattr(imports, "is_cuda_stream_capturing", lambda: True)
    yield


def twin(backbone: str, **changes: Any) -> VLAModel:
    options = {"weights": "random-tiny"} if "weights" in resolve(BACKBONES, backbone, "backbone").Options.model_fields \
        else {}
    changes = {"action_head": "lstm", "head_options": {}} | changes
    return bundle(backbone=backbone, image_size=SIDE, text_length=LENGTH, backbone_options=options, **changes).model


@torch.no_grad()
def step_on_meta(model: VLAModel) -> tuple[list[str], list[str]]:
    """What a second step sends: the first may fill what is kept from step to step."""
    model = model.to("meta")
    images = torch.zeros(1, 2, SIDE, SIDE, 3, dtype=torch.uint8, device="meta")
    mask = torch.ones(1, LENGTH, dtype=torch.bool, device="meta")
    text, state = model.embed_text(mask.long()), torch.zeros(1, 10, device="meta")

    def step() -> None:
        memory = model.encode_frame(images, state, text, mask)
        model.act(tuple(torch.stack([part, part], 1) for part in memory), text, mask)

    step()
    with Made() as made, Sent() as sent:
        step()
    return sent.operators, made.calls


@pytest.mark.parametrize("backbone", [name for name in BACKBONES if name not in WAITS])
def test_a_step_neither_reads_from_nor_sends_to_the_device(backbone: str) -> None:
    assert step_on_meta(twin(backbone)) == ([], [])


@pytest.mark.parametrize("changes", [
    {"formulation": "video", "action_head": "fc"}, {"formulation": "interleaved", "action_head": "flow"},
    {"formulation": "interleaved", "action_head": "discrete", "action_space": "discrete"},
    {"formulation": "video", "action_head": "discrete", "action_space": "discrete",
     "head_options": {"decoding": "autoregressive"}},
    {"action_head": "gpt"}, {"action_head": "diffusion"}, {"action_head": "flow"},
], ids=lambda changes: "-".join(str(changes.get(key, "")) for key in ("formulation", "action_head")))
def test_nor_does_any_formulation_or_head(changes: dict[str, Any]) -> None:
    assert step_on_meta(twin("kosmos", **changes)) == ([], [])


@pytest.mark.parametrize("backbone", WAITS)
def test_those_that_wait_are_known(backbone: str) -> None:
    with pytest.raises((NotImplementedError, RuntimeError)):
        step_on_meta(twin(backbone))
