"""`Tokenizer`: the vocabulary of a GGUF file, text to token ids and back."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from operator import index
from typing import Any, Protocol

from kquant.errors import OptionError
from kquant.gguf import Metadata, read
from kquant.tokenizers.bpe import BYTE_OF_LETTER, BytePairs
from kquant.tokenizers.facts import SPM, WORDPIECE, Facts
from kquant.tokenizers.special import SpecialTokens
from kquant.tokenizers.spm import ScoredPairs
from kquant.tokenizers.unigram import Unigrams
from kquant.tokenizers.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Vocabulary
from kquant.tokenizers.wordpiece import WordPieces

__all__ = ["Tokenizer"]


class _Encoder(Protocol):
    def encode(self, text: str) -> list[int]: ...


class _Opened(Protocol):
    """What `kquant.open` returns, as far as it matters here."""

    @property
    def metadata(self) -> Metadata: ...


class Tokenizer:
    """The vocabulary of a GGUF file: text to token ids, and ids to text, as llama.cpp has them.

    `model` is the path of a file, which may hold a vocabulary and no tensors, or a model that
    `kquant.open` has opened.  Opening reads a few keys; the vocabulary is built when it is first needed.
    Files with the models `llama` (SentencePiece), `gpt2` (byte pairs, with every pre-tokenizer that
    llama.cpp names), `bert` (WordPiece) and `t5` (unigrams) are known.

    Raises `GGUFError` if the file is malformed, has no vocabulary or one that does not hold together,
    `UnsupportedTypeError` for other kinds of vocabularies, `MissingDependencyError` when byte pairs are
    needed and the library `tokenizers` is not installed, and `OSError` if the file cannot be opened.

    >>> import kquant, tempfile, pathlib
    >>> from kquant.gguf import GGUFValueType, Metadata, Writer, layout
    >>> md = Metadata()
    >>> md.set("tokenizer.ggml.model", "llama", GGUFValueType.STRING)
    >>> md.set("tokenizer.ggml.tokens", ["<unk>", "<s>", "</s>", "▁", "h", "i", "hi", "▁hi"],
    ...        GGUFValueType.ARRAY, element_type=GGUFValueType.STRING)
    >>> md.set("tokenizer.ggml.token_type", [2, 3, 3, 1, 1, 1, 1, 1],
    ...        GGUFValueType.ARRAY, element_type=GGUFValueType.INT32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "tiny.gguf")
    ...     with Writer(path, layout(md, [])) as writer:
    ...         writer.commit()
    ...     tokenizer = kquant.Tokenizer(path)
    ...     tokenizer.tokenize("hi hi"), tokenizer.detokenize([1, 7, 7, 2]), len(tokenizer)
    ([1, 7, 7], 'hi hi', 8)
    """

    def __init__(self, model: str | os.PathLike[str] | _Opened) -> None:
        if isinstance(model, str | os.PathLike):
            metadata = read(model, header_only=True).metadata
        else:
            metadata = model.metadata
        self._metadata = metadata
        self._facts = Facts(metadata)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self._metadata, self._facts)

    @cached_property
    def _special(self) -> SpecialTokens:
        return SpecialTokens(self._vocabulary, self._metadata)

    @cached_property
    def _encoder(self) -> _Encoder:
        vocabulary = self._vocabulary
        if self._facts.pre_tokenizer is not None:
            return BytePairs(vocabulary, self._facts.pre_tokenizer)
        if self._facts.algorithm == SPM:
            return ScoredPairs(vocabulary)
        return WordPieces(vocabulary) if self._facts.algorithm == WORDPIECE else Unigrams(vocabulary)

    @property
    def model(self) -> str:
        """The algorithm as the file names it: `llama`, `gpt2`, `bert`, `t5`, ..."""
        return self._facts.model

    @property
    def pre(self) -> str | None:
        """The name of the pre-tokenizer; None if the file names none."""
        return self._facts.pre

    @property
    def chat_template(self) -> str | None:
        """The Jinja template that turns messages into a prompt; None if the file has none."""
        return self._facts.chat_template

    @property
    def add_bos(self) -> bool:
        """Whether `tokenize` begins with the token `bos_id`."""
        return self._facts.add_bos

    @property
    def add_eos(self) -> bool:
        """Whether `tokenize` ends with the token `eos_id`."""
        return self._facts.add_eos

    @property
    def bos_id(self) -> int | None:
        """The token that begins a text."""
        return self._facts.ids["bos"]

    @property
    def eos_id(self) -> int | None:
        """The token that ends a text."""
        return self._facts.ids["eos"]

    @property
    def eot_id(self) -> int | None:
        """The token that ends a turn of a conversation."""
        return self._vocabulary.ids["eot"]

    @property
    def eom_id(self) -> int | None:
        """The token that ends a message which others follow."""
        return self._vocabulary.ids["eom"]

    @property
    def unk_id(self) -> int | None:
        """The token for what is not in the vocabulary."""
        return self._facts.ids["unk"]

    @property
    def pad_id(self) -> int | None:
        """The token that fills up a batch."""
        return self._facts.ids["pad"]

    @property
    def sep_id(self) -> int | None:
        """The token between two texts, and after the last one (`bert`)."""
        return self._facts.ids["sep"]

    @property
    def cls_id(self) -> int | None:
        """The token that begins a text that is to be classified or embedded."""
        found = self._facts.ids["cls"]
        return self.bos_id if found is None and self._facts.algorithm == WORDPIECE else found

    @property
    def mask_id(self) -> int | None:
        """The token that hides another one."""
        return self._facts.ids["mask"]

    @property
    def fim_ids(self) -> dict[str, int | None]:
        """The tokens for filling in the middle: `pre`, `suf`, `mid`, `pad`, `rep`, `sep`."""
        ids = self._vocabulary.ids
        return {name: ids[f"fim_{name}"] for name in ("pre", "suf", "mid", "pad", "rep", "sep")}

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """All tokens that end a generation: those that the file names, and those whose text says so."""
        return self._vocabulary.end_ids

    def __len__(self) -> int:
        """The number of tokens."""
        return self._facts.n_vocab

    def __repr__(self) -> str:
        pre = f", pre={self.pre!r}" if self.pre else ""
        return f"Tokenizer(model={self.model!r}{pre}, {len(self)} tokens)"

    def tokenize(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """The token ids of a text.

        `add_special` adds the tokens that the model expects around a text: `bos_id` if `add_bos`, `eos_id`
        if `add_eos`, for `bert` its first and its last token.  `parse_special` finds control tokens such as
        `<|im_start|>` in the text; without it they are text like any other, which is what a text needs that
        others have written.  Half a surrogate pair becomes U+FFFD.

        Raises `OptionError` if `text` is not a string, and what `Tokenizer` raises.
        """
        if not isinstance(text, str):
            raise OptionError(f"text: expected a string, got {type(text).__name__}")
        facts, encoder = self._facts, self._encoder
        ids: list[int] = []
        is_bert = facts.algorithm == WORDPIECE
        if add_special and (facts.add_bos or is_bert):
            ids += [each for each in (self.bos_id,) if each is not None]
        add_space = facts.add_space_prefix and facts.algorithm == SPM
        after_special = True
        for fragment in self._special.fragments(_whole(text), parse_special):
            if isinstance(fragment, int):
                ids.append(fragment)
            else:
                ids += encoder.encode(f" {fragment}" if add_space and after_special else fragment)
            after_special = isinstance(fragment, int)
        if add_special:
            last = self.sep_id if is_bert else self.eos_id if facts.add_eos else None
            ids += [each for each in (last,) if each is not None]
        return ids

    def detokenize(self, ids: Iterable[int], special: bool = False) -> str:
        """The text of token ids; bytes that are not UTF-8 become U+FFFD.

        `special` shows control tokens.  The space that `tokenize` puts before the first word (where the
        file says so) is taken away again, so that the text of `tokenize(text)` is `text`; only `bert` and
        `t5` normalize it.

        Raises `OptionError` for an id that is not in the vocabulary.
        """
        pieces = list(self._bytes_of(ids, special))
        facts = self._facts
        if facts.add_space_prefix or facts.algorithm == WORDPIECE:
            for at, (id, piece) in enumerate(pieces):
                if piece and id != self.bos_id:
                    pieces[at] = (id, piece.removeprefix(b" "))
                    break
        text = b"".join(piece for _, piece in pieces).decode("utf-8", "replace")
        if facts.algorithm == WORDPIECE:  # as words and marks are written
            text = re.sub(r" (?=[?!.,])", "", text).replace(" ' ", "'")
            text = re.sub(r" (?='[sm]|'re|'ve)", "", text)
        return text

    def token_bytes(self, id: int, special: bool = True) -> bytes:
        """The bytes that a token stands for, a leading space among them; joined, they are the text.

        A token may end within a character: a stream is decoded with
        `codecs.getincrementaldecoder("utf-8")("replace")`.  Control tokens are their own text, or nothing
        without `special`.

        Raises `OptionError` for an id that is not in the vocabulary.
        """
        id = self._checked(id)
        vocabulary = self._vocabulary
        text, kind = vocabulary.tokens[id], vocabulary.kinds[id]
        if kind in (CONTROL, UNKNOWN):
            return text.encode() if special else b""
        if kind == USER_DEFINED:
            return text.encode()
        if kind == BYTE:
            return bytes([int(text[3:5], 16)])
        if kind != NORMAL:
            return b""
        pre = self._facts.pre_tokenizer
        if pre is None or pre.escape_spaces:
            return text.replace("▁", " ").encode()
        if not pre.byte_level:
            return text.encode()
        return b"".join(
            letter.encode() if (byte := BYTE_OF_LETTER.get(letter)) is None else bytes([byte])
            for letter in text
        )

    def token_text(self, id: int) -> str:
        """The text of a token as the file has it: `Ġhello`, `▁hello`, `<0x0A>`.

        Raises `OptionError` for an id that is not in the vocabulary.
        """
        return self._vocabulary.tokens[self._checked(id)]

    def token_type(self, id: int) -> int:
        """The type of a token as the file has it.

        1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.

        Raises `OptionError` for an id that is not in the vocabulary.
        """
        return int(self._vocabulary.types[self._checked(id)])

    def _bytes_of(self, ids: Iterable[int], special: bool) -> Iterator[tuple[int, bytes]]:
        for id in ids:
            yield id, self.token_bytes(id, special)

    def _checked(self, id: Any) -> int:
        try:
            number = index(id)
        except TypeError:
            raise OptionError(f"token id: expected an integer, got {id!r}") from None
        if not 0 <= number < len(self):
            raise OptionError(f"token id: expected 0 to {len(self) - 1}, got {number}")
        return number


def _whole(text: str) -> str:
    """The text without lone surrogates, which are no characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
