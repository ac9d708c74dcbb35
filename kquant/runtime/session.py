"""A sequence of tokens with its cache: what a model has read so far."""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from kquant.errors import OptionError
from kquant.gguf.part_file import PartFile
from kquant.runtime.cache import Cache
from kquant.runtime.interpreter import Interpreter

__all__ = ["Session"]

BATCH = 512
"""Tokens of a prompt that are read at a time: results do not depend on it."""


class Session:
    """What a model has read so far.  Made by `LanguageModel.session`.

    `copy` gives a sequence that goes on from the same prefix, `truncate` goes back to one, `save` and `load`
    keep it in a file.
    """

    def __init__(self, interpreter: Interpreter, cache: Cache, n_vocab: int, model: str) -> None:
        self._interpreter, self._n_vocab, self._model = interpreter, n_vocab, model
        self.cache = cache
        """Keys and values of the tokens."""
        self.tokens: list[int] = []
        """What has been read."""

    def __len__(self) -> int:
        return len(self.tokens)

    def read(
        self, ids: npt.ArrayLike | Sequence[int], *, every: bool = False, embeddings: bool = False
    ) -> npt.NDArray[np.float32]:
        """Read tokens after those that are there.

        Args:
            ids: Integers from 0, shape (n,), at least one.
            every: Give the logits of every token, not only of the last.
            embeddings: Give what the last layer makes of tokens, not logits.

        Returns:
            float32 (n_vocab,), the logits of the token that follows; with `every` (n, n_vocab), of those that
            follow each token.

        Raises:
            OptionError: A token is none of the vocabulary, there is none, or the context is full.
        """
        tokens = checked_ids(ids, self._n_vocab)
        room = self.cache.capacity - len(self.tokens)
        if len(tokens) > room:
            raise OptionError(
                f"expected at most {self.cache.capacity} tokens in the context, got "
                f"{len(self.tokens) + len(tokens)}: give the model a larger one with context="
            )
        found = []
        batch = BATCH if self._interpreter.program.is_causal else len(tokens)
        for first in range(0, len(tokens), batch):
            some = tokens[first : first + batch]
            is_last = first + batch >= len(tokens)
            wanted: Any = slice(None) if every else slice(len(some) - 1, None) if is_last else slice(0)
            found.append(self._interpreter.run(some, self.cache, wanted, embeddings=embeddings))
            self.tokens += some.tolist()
        return np.concatenate(found) if every else found[-1][-1]

    def truncate(self, length: int) -> None:
        """Forget all but the first tokens.  Raises `OptionError` for more than there are."""
        if not 0 <= length <= len(self.tokens):
            raise OptionError(f"length: expected 0 to {len(self.tokens)} tokens, got {length}")
        del self.tokens[length:]
        self.cache.truncate(length)

    def keep_prefix_of(self, ids: Sequence[int]) -> int:
        """Forget what is not a prefix of these tokens, or all of them; returns how many stay."""
        n = 0
        while n < min(len(self.tokens), len(ids) - 1) and self.tokens[n] == ids[n]:
            n += 1
        self.truncate(n)
        return n

    def copy(self) -> Session:
        """Another sequence with the same tokens, that goes on by itself."""
        other = Session(self._interpreter, self.cache.copy(), self._n_vocab, self._model)
        other.tokens = list(self.tokens)
        return other

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write tokens, keys and values to a file, which `load` reads.

        The file is a NumPy archive (.npz) and appears when it is whole.  Raises `OutputError`.
        """
        archive = BytesIO()
        np.savez(
            archive,
            kquant_session=np.array([self._model, *(t.name for t in self.cache.types)]),
            tokens=np.array(self.tokens, np.int64),
            **self.cache.state(),  # type: ignore[arg-type]
        )
        part = PartFile(path, archive.getbuffer().nbytes)
        try:
            part.write(0, archive.getbuffer())
            part.commit()
        finally:
            part.abort()

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on from what `save` has written, with the same model and the same types of cache.

        Raises `OptionError` if the file is of another model, or none of a session, and `OSError`.
        """
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
                saved = {name: archive[name] for name in archive.files}
            about, tokens = saved["kquant_session"].tolist(), checked_ids(saved["tokens"], self._n_vocab)
        except (ValueError, KeyError, EOFError, BadZipFile, OptionError) as error:
            raise OptionError(f"{path}: expected a session that kquant has saved, got {error}") from None
        expected = [self._model, *(t.name for t in self.cache.types)]
        if about != expected:
            raise OptionError(f"{path}: expected a session of {expected}, got {about}")
        self.cache.restore(saved, len(tokens))
        self.tokens = tokens.tolist()


def checked_ids(ids: Any, n_vocab: int) -> npt.NDArray[np.intp]:
    """Token ids, shape (n,), all of the vocabulary.  Raises `OptionError`."""
    array = np.asarray(ids)
    if array.ndim != 1 or not array.size or array.dtype.kind not in "iu":
        raise OptionError(
            f"tokens: expected integers of shape (n,), at least one, got {array.dtype} {array.shape}"
        )
    wrong = np.flatnonzero((array < 0) | (array >= n_vocab))
    if len(wrong):
        raise OptionError(f"tokens: expected 0 to {n_vocab - 1}, got {array[wrong[0]]} at index {wrong[0]}")
    return array.astype(np.intp)
