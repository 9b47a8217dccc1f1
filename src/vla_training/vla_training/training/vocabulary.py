"""A trained model and sentences in; out: a tokenizer with their words, and room for these in the model."""

from __future__ import annotations

from collections.abc import Iterable

from vla_policy.model.tokenizer import Tokenizer
from vla_policy.model.vla import VLAModel


def learn_words(model: VLAModel, tokenizer: Tokenizer, sentences: Iterable[str]) -> Tokenizer:
    """The tokenizer that also knows the words of `sentences`; `model` grows by those that are new, untrained.

    So a policy made from scratch can be trained on for tasks that need further words. Raises: InstructionError,
    ConfigError where tokenizer, backbone or head are of a pretrained model and cannot grow.
    """
    extended = tokenizer.extended(sentences)
    added = extended.vocabulary_size - tokenizer.vocabulary_size
    if added:
        model.add_words(added)
    return extended
