"""Training on for further words: the model grows by them, what it knew stays, what cannot grow is refused."""

from __future__ import annotations

import pytest
import torch
from fabricated import tabletop
from policies import SENTENCES

from vla_policy.errors import ConfigError
from vla_policy.model.config import ModelConfig
from vla_policy.model.tokenizer import Tokenizer
from vla_policy.model.vla import VLAModel, build_model
from vla_training.training.vocabulary import learn_words


def small(head: str = "lstm", formulation: str = "policy_head") -> tuple[VLAModel, Tokenizer]:
    tokenizer = Tokenizer.build(SENTENCES)
    config = ModelConfig(action_head=head, formulation=formulation, image_size=32, action_chunk_size=4,
                         execute_rows=4, backbone_options={"width": 16, "visual_width": 8, "layers": 1, "heads": 2})
    return build_model(config, tabletop(), tokenizer.vocabulary_size), tokenizer


def test_known_sentences_are_read_as_before_and_new_words_differ() -> None:
    model, tokenizer = small()
    ids = torch.from_numpy(tokenizer.encode(SENTENCES[0], 8)[0])[None]
    before = model.embed_text(ids)
    extended = learn_words(model, tokenizer, ["open the hatch", "a zebra"])
    assert torch.equal(model.embed_text(ids), before)
    new = model.embed_text(torch.from_numpy(extended.encode("a hatch zebra", 3)[0]))
    assert len(torch.unique(new, dim=0)) == 3 and new.requires_grad


def test_without_new_words_the_model_stays() -> None:
    model, tokenizer = small()
    words = model.backbone.word_embedding
    assert learn_words(model, tokenizer, SENTENCES) is tokenizer
    assert model.backbone.word_embedding is words


def test_a_head_whose_actions_are_words_is_refused() -> None:
    model, tokenizer = small("discrete", "one_step")
    with pytest.raises(ConfigError, match="actions\\s+are words"):
        learn_words(model, tokenizer, ["a zebra"])
