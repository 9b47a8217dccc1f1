"""Windows of frames in; out: each formulation looks back only, uses the whole window, and encodes each frame
once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from policies import SENTENCES, live_model, tabletop
from torch import Tensor

from vla_policy.engine import Engine
from vla_policy.errors import ConfigError
from vla_policy.model.config import ModelFile
from vla_policy.model.tokenizer import Tokenizer
from vla_policy.model.vla import VLAModel
from vla_policy.strict import parse

FRAMES, SIDE, LENGTH = 3, 32, 8
TOLERANCE = {"atol": 1e-4, "rtol": 1e-3}
TOKENIZER = Tokenizer.build(SENTENCES)
# A backbone that looks back only, one whose words see those after them, one with images beside the sequence.
CELLS = [("kosmos", "interleaved", "fc"), ("paligemma", "interleaved", "fc"), ("kosmos", "video", "fc"),
         ("tiny", "video", "fc"), ("tiny", "policy_head", "gpt"), ("tiny", "policy_head", "flow"),
         ("tiny", "policy_head", "diffusion")]
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def make(backbone: str, formulation: str, head: str) -> VLAModel:
    tiny = {"width": 32, "visual_width": 16, "layers": 1}
    options = tiny if backbone == "tiny" else {"weights": "random-tiny"}
    file = parse(ModelFile, {"model": {
        "backbone": backbone, "formulation": formulation, "action_head": head, "history_length": FRAMES,
        "action_chunk_size": 2, "execute_rows": 1, "image_size": SIDE, "text_length": LENGTH,
        "backbone_options": options, "proprioception_joints": ["finger_joint"]}}, "test", ConfigError)
    return live_model(file, tabletop(), TOKENIZER.vocabulary_size)


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (1, FRAMES, 2, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)
    ids, mask = TOKENIZER.encode_batch([SENTENCES[0]], LENGTH)
    state = torch.randn(1, FRAMES, 10, generator=generator)
    return images, state, torch.from_numpy(ids), torch.from_numpy(mask)


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
@torch.inference_mode()
def test_every_frame_sees_those_before_it_and_none_after(cell: tuple[str, str, str], inputs: Inputs) -> None:
    model = make(*cell)
    expected = model(*inputs).arm_BWKA
    for changed in range(FRAMES):
        images = inputs[0].clone()
        images[:, changed] = 255 - images[:, changed]
        arm = model(images, *inputs[1:]).arm_BWKA
        torch.testing.assert_close(arm[:, :changed], expected[:, :changed], **TOLERANCE)
        for frame in range(changed, FRAMES):
            assert not torch.allclose(arm[:, frame], expected[:, frame], atol=1e-6, rtol=0), (changed, frame)


@pytest.mark.parametrize("cell", CELLS[:4], ids="-".join)
@torch.inference_mode()
def test_the_order_of_frames_counts(cell: tuple[str, str, str], inputs: Inputs) -> None:
    model = make(*cell)
    order = torch.tensor([1, 0, 2])
    swapped = model(inputs[0][:, order], inputs[1][:, order], *inputs[2:]).arm_BWKA[:, -1]
    assert not torch.allclose(swapped, model(*inputs).arm_BWKA[:, -1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("cell", CELLS[:5], ids="-".join)
@torch.inference_mode()
def test_padding_in_the_middle_changes_nothing(cell: tuple[str, str, str], inputs: Inputs) -> None:
    model, (images, state, ids, mask) = make(*cell), inputs
    expected = model(images, state, ids[:, mask[0]], mask[:, mask[0]])
    garbage = torch.where(mask, ids, torch.full_like(ids, 3))
    for words in (ids, garbage):
        padded = model(images, state, words, mask)
        torch.testing.assert_close(padded.arm_BWKA, expected.arm_BWKA, **TOLERANCE)


@torch.inference_mode()
def test_a_window_longer_than_the_positions_is_refused(inputs: Inputs,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    for formulation, head in (("interleaved", "fc"), ("video", "fc"), ("policy_head", "lstm")):
        model = make("kosmos", formulation, head)
        monkeypatch.setattr(type(model.backbone), "max_positions", 30)  # one block fits, three do not
        if formulation == "policy_head":
            assert model(*inputs).arm_BWKA.isfinite().all()
            continue
        with pytest.raises(ConfigError, match="expected at most.*30 positions; lower history_length"):
            model(*inputs)


@pytest.mark.parametrize("cell", CELLS[:5], ids="-".join)
def test_serving_encodes_each_frame_once(cell: tuple[str, str, str], inputs: Inputs,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(*cell)
    encode, seen = model.backbone.encode_images, []
    monkeypatch.setattr(model.backbone, "encode_images", lambda pixels: seen.append(1) or encode(pixels))
    engine = Engine(model)
    session = engine.session()
    engine.begin(session, inputs[2][0].numpy(), inputs[3][0].numpy())
    for frame in range(FRAMES):
        arm = engine.step([session], [list(inputs[0][0, frame].numpy())], [inputs[1][0, frame].numpy()]).arm[0]
    assert len(seen) == FRAMES
    with torch.inference_mode():
        np.testing.assert_allclose(arm, model(*inputs).arm_BWKA[0, -1], **TOLERANCE)
