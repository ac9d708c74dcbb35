"""From tokens to text, piece by piece.

A token is some bytes: it may end within a character, and a stop string may begin in one token and end in
another. `TextStream` therefore gives out only what later tokens cannot change: bytes of a character that is
not complete are held back, and so is text that may be the beginning of a stop string.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence

from kquant._given import texts_of
from kquant.errors import OptionError

__all__ = ["TextStream"]


class TextStream:
    """The text of tokens that come one by one, up to the first stop string.

    All pieces together are what ``bytes.decode("utf-8", "replace")`` makes of the bytes of all tokens, cut at
    the stop string that is complete first. How the text is cut into tokens makes no difference.

    `token_bytes` gives the bytes of a token: none for a token that is not shown. `errors` is "replace" or, to
    leave out bytes that are no characters, "ignore". Raises `OptionError` for a
    stop string that is empty or no string.

    >>> tokens = [b"caf", b"\\xc3", b"\\xa9 au", b" la", b"it. U", b"ser: more", b" and more"]
    >>> stream = TextStream(tokens.__getitem__, stop=["\\nUser:", "User:"])
    >>> [stream.push(i) for i in range(len(tokens))]
    ['caf', '', 'é au', ' la', 'it. ', '', '']
    >>> stream.finish(), stream.stopped, stream.matched
    ('', True, 'User:')
    """

    def __init__(
        self, token_bytes: Callable[[int], bytes], stop: Sequence[str] = (), errors: str = "replace"
    ) -> None:
        self.stop = tuple(texts_of("stop", stop))
        if "" in self.stop:
            raise OptionError("stop: expected strings with characters, got ''")
        self.matched: str | None = None
        """The stop string that ended the text."""
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors)
        self._held = ""
        self._longest = max(map(len, self.stop), default=0)

    @property
    def stopped(self) -> bool:
        """Whether a stop string has ended the text; tokens that follow give nothing."""
        return self.matched is not None

    def push(self, token: int) -> str:
        """The text that this token completes; often empty."""
        return "" if self.stopped else self._released(self._decoder.decode(self._token_bytes(token)))

    def finish(self) -> str:
        """What was held back, when no more tokens come; bytes without an end become U+FFFD."""
        if self.stopped:
            return ""
        text = self._released(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        return text + held

    def _released(self, text: str) -> str:
        """What can be given out of the text that was held and the text that follows it."""
        text = self._held + text
        matches = [(text.find(stop) + len(stop), -len(stop), stop) for stop in self.stop if stop in text]
        if matches:  # the one that ends first, however many characters came at once; of these the longest
            end, length, self.matched = min(matches)
            self._held = ""
            return text[: end + length]
        n_held = next(
            (
                n
                for n in range(min(len(text), self._longest - 1), 0, -1)
                if any(stop.startswith(text[-n:]) for stop in self.stop)
            ),
            0,
        )
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]
