"""A sequence of tokens with its cache: what a model has read so far."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from threading import RLock
from typing import Any
from zipfile import ZipFile

import numpy as np
import numpy.typing as npt

from kquant._given import count_of
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

    def __init__(
        self, interpreter: Interpreter, cache: Cache, n_vocab: int, model: Callable[[], str]
    ) -> None:
        self._interpreter, self._n_vocab, self._model = interpreter, n_vocab, model
        self.cache = cache
        """Keys and values of the tokens."""
        self.tokens: list[int] = []
        """What has been read."""
        self._lock = RLock()
        self._reader: object = None  # see `read_after`

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
            OptionError: A token is none of the vocabulary, there is none, the context is full, or some were
                read before, by a model whose tokens see all others.
            ModelError: The model has no logits.
        """
        tokens = checked_ids(ids, self._n_vocab)
        with self._lock:
            self._reader = None
            return self._read(tokens, every, embeddings)

    def read_after(
        self, before: Sequence[int], ids: Sequence[int], reader: object
    ) -> tuple[npt.NDArray[np.float32], int]:
        """Read tokens after those before, whatever others have read since: what differs is read again.

        Args:
            before: Token ids that the sequence should have, shape (m,).
            ids: Token ids that follow them, shape (n,), at least one.
            reader: Whoever reads; if it was the last one, the sequence is as it left it.

        Returns:
            The logits that follow, float32 (n_vocab,), and how many tokens were read.

        Raises as `read`.
        """
        with self._lock:
            if self._reader is not reader:
                whole = [*before, *ids]
                ids = whole[self.keep_prefix_of(whole) :]
            logits = self.read(ids)
            self._reader = reader
            return logits, len(ids)

    def _read(self, tokens: npt.NDArray[np.intp], every: bool, embeddings: bool) -> npt.NDArray[np.float32]:
        room = self.cache.capacity - len(self.tokens)
        if len(tokens) > room:
            raise OptionError(
                f"expected at most {self.cache.capacity} tokens in the context, got "
                f"{len(self.tokens) + len(tokens)}: give the model a larger one with context="
            )
        if self.tokens and not self._interpreter.program.is_causal:
            raise OptionError(
                f"expected an empty sequence, as tokens of this model see those that follow, got {len(self)}"
            )
        self.cache.truncate(len(self.tokens))  # Ctrl-C may have come between its growing and theirs
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
        with self._lock:
            if count_of("length", length, 0) > len(self.tokens):
                raise OptionError(f"length: expected 0 to {len(self.tokens)} tokens, got {length}")
            self._reader = None
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
        with self._lock:
            other = Session(self._interpreter, self.cache.copy(), self._n_vocab, self._model)
            other.tokens = list(self.tokens)
        return other

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write tokens, keys and values to a file, which `load` reads.

        The file is a NumPy archive (.npz) and appears when it is whole.  Raises `OutputError`.
        """
        archive = BytesIO()
        with self._lock:
            np.savez(
                archive,
                kquant_session=np.array([self._model(), *(t.name for t in self.cache.types)]),
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
            saved = _arrays(path)
            about, ids = saved["kquant_session"].tolist(), saved["tokens"]
            tokens = checked_ids(ids, self._n_vocab).tolist() if ids.size else []
        except OSError:
            raise
        except Exception as error:  # zipfile, zlib and numpy.lib.format each have several of their own
            shown = str(error) or type(error).__name__
            raise OptionError(f"{path}: expected a session that kquant has saved, got {shown}") from None
        expected = [self._model(), *(t.name for t in self.cache.types)]
        if about != expected:
            raise OptionError(f"{path}: expected a session of {expected}, got {about}")
        with self._lock:
            self.cache.restore(saved, len(tokens))
            self.tokens, self._reader = tokens, None


def _arrays(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The arrays of an archive that is not compressed: what claims to be larger than its file is a bomb."""
    with Path(path).open("rb") as file:
        with ZipFile(file) as archive:
            n_bytes = sum(member.file_size for member in archive.infolist())
        if n_bytes > (size := os.fstat(file.fileno()).st_size):
            raise OptionError(f"{n_bytes} bytes packed into {size}")
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)


def checked_ids(ids: Any, n_vocab: int) -> npt.NDArray[np.intp]:
    """Token ids, shape (n,), all of the vocabulary.  Raises `OptionError`."""
    array = np.asarray(ids)
    if array.shape == (0,):
        raise OptionError("tokens: expected at least one, got none")
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise OptionError(f"tokens: expected integers of shape (n,), got {array.dtype} {array.shape}")
    wrong = np.flatnonzero((array < 0) | (array >= n_vocab))
    if len(wrong):
        raise OptionError(f"tokens: expected 0 to {n_vocab - 1}, got {array[wrong[0]]} at index {wrong[0]}")
    return array.astype(np.intp)
