"""An instruction in, token ids out.

A policy made from scratch has a closed vocabulary: a word that training never saw is refused, not guessed at.
A pretrained model brings its own tokenizer.json and wants the instruction inside its prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import normalizers, pre_tokenizers
from tokenizers.models import WordLevel

from vla_policy.errors import BundleError, InstructionError, nearest

PAD, UNKNOWN = "[PAD]", "[UNK]"
UNKNOWN_OF_PRETRAINED = "<unk>"  # those of byte-level tokenizers have none
INSTRUCTION = "{instruction}"  # where an instruction stands in a prompt


class Tokenizer:
    """The text of an instruction -> ids; 0 fills up to the length, outside the mask."""

    def __init__(self, core: tokenizers.Tokenizer, prompt: str = INSTRUCTION) -> None:
        """prompt: what is encoded, with `{instruction}` where the instruction goes."""
        self._core = core
        self._prompt = prompt
        self._closed = isinstance(core.model, WordLevel)
        ids = (core.token_to_id(name) for name in (UNKNOWN, UNKNOWN_OF_PRETRAINED))
        self._unknown_id = next((index for index in ids if index is not None), None)

    @classmethod
    def build(cls, sentences: Iterable[str]) -> Tokenizer:
        """A tokenizer that knows the words of `sentences`, in alphabetical order."""
        core = tokenizers.Tokenizer(WordLevel({PAD: 0, UNKNOWN: 1}, unk_token=UNKNOWN))
        core.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        core.pre_tokenizer = pre_tokenizers.Whitespace()
        words = sorted({word for sentence in sentences for word in cls._split(core, sentence)})
        vocabulary = {word: index for index, word in enumerate([PAD, UNKNOWN, *words])}
        core.model = WordLevel(vocabulary, unk_token=UNKNOWN)
        return cls(core)

    def extended(self, sentences: Iterable[str]) -> Tokenizer:
        """One that also knows the words of `sentences`; the words it knows keep their ids, new ones follow in
        alphabetical order. It is this one where there are none.

        Raises: InstructionError where a pretrained tokenizer lacks a word: its vocabulary is not ours to change.
        """
        sentences = list(sentences)
        if not self._closed:
            for sentence in sentences:
                self._refuse_unknown(sentence, sentence, self._core.encode(sentence, add_special_tokens=False))
            return self
        vocabulary, new = self._core.get_vocab(), self.new_words(sentences)
        if not new:
            return self
        core = tokenizers.Tokenizer.from_str(self._core.to_str())
        added = {word: len(vocabulary) + place for place, word in enumerate(new)}
        core.model = WordLevel(vocabulary | added, unk_token=UNKNOWN)
        return Tokenizer(core, self._prompt)

    def new_words(self, sentences: Iterable[str]) -> list[str]:
        """Words that a closed vocabulary lacks, in alphabetical order; a pretrained tokenizer splits any word."""
        if not self._closed:
            return []
        said = {word for sentence in sentences for word in self._split(self._core, sentence)}
        return sorted(said - set(self._core.get_vocab()))

    @classmethod
    def load(cls, path: Path | str, prompt: str = INSTRUCTION) -> Tokenizer:
        """Read a tokenizer.json. Raises: BundleError."""
        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)), prompt)
        except Exception as problem:  # the library raises bare Exception
            raise BundleError(f"{path}: not a tokenizer: {problem}; take the file from a whole "
                              "bundle") from None

    def save(self, path: Path | str) -> None:
        """Write a tokenizer.json."""
        self._core.save(str(path))

    @property
    def vocabulary_size(self) -> int:
        """Number of ids."""
        return self._core.get_vocab_size()

    def encode(self, text: str, length: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Ids (length,), padded at the end, and the mask (length,), True where text is.

        Raises: InstructionError for an empty text, unknown words or more than `length` tokens.
        """
        if not text.strip():
            raise InstructionError(f"instruction: got '{text}', expected words; say what to do")
        prompt = self._prompt.replace(INSTRUCTION, text.strip())
        encoding = self._core.encode(prompt, add_special_tokens=False)  # the prompt has them
        self._refuse_unknown(text, prompt, encoding)
        if len(encoding.ids) > length:
            raise InstructionError(f"instruction: got {len(encoding.ids)} tokens in '{text}', expected at "
                                   f"most {length}; say it shorter")
        ids, mask = np.zeros(length, np.int64), np.zeros(length, np.bool_)
        ids[: len(encoding.ids)], mask[: len(encoding.ids)] = encoding.ids, True
        return ids, mask

    def encode_batch(self, texts: Sequence[str], length: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """`encode` for several texts: ids and mask, (B, length)."""
        pairs = [self.encode(text, length) for text in texts]
        return np.stack([ids for ids, _ in pairs]), np.stack([mask for _, mask in pairs])

    def _refuse_unknown(self, text: str, prompt: str, encoding: tokenizers.Encoding) -> None:
        if self._unknown_id is None or self._unknown_id not in encoding.ids:
            return
        places = zip(encoding.ids, encoding.offsets, strict=True)
        unknown = [prompt[start:end].lower() for index, (start, end) in places if index == self._unknown_id]
        if not self._closed:
            raise InstructionError(f"instruction: '{text}' has parts that the policy's tokenizer does not "
                                   f"know: {', '.join(dict.fromkeys(unknown))}; write it without them")
        known = sorted(set(self._core.get_vocab()) - {PAD, UNKNOWN})
        hints = "; ".join(f"'{word}': {nearest(word, known)}" for word in dict.fromkeys(unknown))
        raise InstructionError(f"instruction: '{text}' has words that the policy was never trained on: "
                               f"{hints}")

    @staticmethod
    def _split(core: tokenizers.Tokenizer, sentence: str) -> list[str]:
        normal = core.normalizer.normalize_str(sentence)
        return [word for word, _ in core.pre_tokenizer.pre_tokenize_str(normal)]
