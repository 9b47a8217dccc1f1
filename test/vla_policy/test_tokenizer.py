"""Sentences in; out: ids of a closed vocabulary, and a refusal that names words never trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tokenizers
from policies import SENTENCES

from vla_policy.errors import BundleError, InstructionError
from vla_policy.model.tokenizer import Tokenizer


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer.build(SENTENCES)


def test_ids_and_mask(tokenizer: Tokenizer) -> None:
    ids, mask = tokenizer.encode("open the drawer", 6)
    assert mask.tolist() == [True] * 3 + [False] * 3
    assert (ids[:3] > 1).all() and (ids[3:] == 0).all()
    assert ids.max() < tokenizer.vocabulary_size


def test_case_and_spaces_do_not_matter_but_order_does(tokenizer: Tokenizer) -> None:
    plain = tokenizer.encode("lift the red block", 8)[0]
    assert np.array_equal(tokenizer.encode("  Lift the  RED block ", 8)[0], plain)
    assert not np.array_equal(tokenizer.encode("lift red the block", 8)[0], plain)


def test_the_vocabulary_does_not_depend_on_the_order_of_sentences(tokenizer: Tokenizer) -> None:
    other = Tokenizer.build(reversed(SENTENCES))
    assert np.array_equal(other.encode(SENTENCES[0], 8)[0], tokenizer.encode(SENTENCES[0], 8)[0])


def test_unknown_words_are_named_with_their_nearest(tokenizer: Tokenizer) -> None:
    with pytest.raises(InstructionError) as error:
        tokenizer.encode("lift the redd bloc!", 8)
    for part in ("'redd': did you mean 'red'?", "'bloc': did you mean 'block'?", "'!'", "never trained"):
        assert part in str(error.value)


@pytest.mark.parametrize(("text", "match"), [("", "expected words"), ("   ", "expected words"),
                                             ("red " * 9, "got 9 tokens .* at most 8")])
def test_empty_and_long_texts_are_refused(tokenizer: Tokenizer, text: str, match: str) -> None:
    with pytest.raises(InstructionError, match=match):
        tokenizer.encode(text, 8)


def test_saved_and_loaded_encodes_alike(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    ids, mask = loaded.encode_batch(SENTENCES, 8)
    expected_ids, expected_mask = tokenizer.encode_batch(SENTENCES, 8)
    assert np.array_equal(ids, expected_ids) and np.array_equal(mask, expected_mask)
    with pytest.raises(InstructionError, match="xyz"):
        loaded.encode("xyz", 8)


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match="not a tokenizer"):
        Tokenizer.load(tmp_path / "tokenizer.json")


def test_further_words_follow_those_it_knows(tokenizer: Tokenizer) -> None:
    extended = tokenizer.extended(["open the hatch", "a zebra", SENTENCES[0]])
    assert extended.vocabulary_size == tokenizer.vocabulary_size + 3
    assert np.array_equal(extended.encode(SENTENCES[0], 8)[0], tokenizer.encode(SENTENCES[0], 8)[0])
    new = extended.encode("a hatch zebra", 3)[0]
    assert new.tolist() == [tokenizer.vocabulary_size + place for place in range(3)]
    with pytest.raises(InstructionError, match="hatch"):
        tokenizer.encode("open the hatch", 8)  # the one it came from stays as it was


def test_known_words_change_nothing(tokenizer: Tokenizer) -> None:
    assert tokenizer.extended(SENTENCES) is tokenizer


def test_a_pretrained_vocabulary_is_not_extended() -> None:
    core = tokenizers.Tokenizer(tokenizers.models.BPE({"<unk>": 0, "a": 1, "b": 2}, [], unk_token="<unk>"))
    pretrained = Tokenizer(core)
    assert pretrained.extended(["ab"]) is pretrained
    with pytest.raises(InstructionError, match="does not know: c"):
        pretrained.extended(["abc"])
