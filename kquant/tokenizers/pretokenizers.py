r"""How text is cut into words before byte pair encoding, for each pre-tokenizer that llama.cpp names.

A pre-tokenizer is a list of steps; each cuts the pieces that the one before it left.  Most steps are regular
expressions that ask for categories of characters (`\p{L}`, `\p{N}`).  As in llama.cpp they run over a copy of
the text with one byte for each character: ASCII as it is, and one byte for each category of the others.  That
decides what `\s`, `[a-z]` and `\p{Lu}` mean, and it is fast.  Expressions without categories see characters.

https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp (`llm_tokenizer_bpe`),
https://github.com/ggml-org/llama.cpp/blob/master/src/unicode.cpp (`unicode_regex_split`)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kquant.tokenizers.unicode import WHITESPACE, Kind, kinds

__all__ = ["PRE_TOKENIZERS", "PreTokenizer"]

_CATEGORIES: Final = {
    "N": (0xD1, "0-9"),
    "L": (0xD2, "A-Za-z"),
    "P": (0xD3, r"!-#%-*,-/:-;?-@\[-\]_\{\}"),
    "M": (0xD4, ""),
    "S": (0xD5, r"\$+<->\^`\|~"),
}
"""The byte that stands for the characters of a category beyond ASCII, and the ASCII characters in it."""
_OTHER: Final = 0xD0
_SPACE: Final = 0x0B
"""A vertical tab: the white space that stands for all white space beyond ASCII."""
_HAN, _HAN_UNASSIGNED = 0xD6, 0xD7
_HAN_RANGES: Final = (
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F)),
    *((0x2B740, 0x2EBEF), (0x2F800, 0x2FA1F)),
)


class _Text:
    """A text and the copies of it that steps look at."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._views: dict[str, str | bytes] = {}

    def view(self, name: str) -> str | bytes:
        """The copy of one kind: `bytes`, `han` or `characters`."""
        if name not in self._views:
            self._views[name] = self._make(name)
        return self._views[name]

    def _make(self, name: str) -> str | bytes:
        if name == "characters":
            return self.text.translate(_wide_spaces()) if not self.text.isascii() else self.text
        if self.text.isascii():
            return self.text.encode()
        codes = np.frombuffer(self.text.encode("utf-32-le"), "<u4")
        collapsed: bytes = _byte_of_each(name == "han")[codes].tobytes()
        return collapsed


@cache
def _wide_spaces() -> dict[int, int]:
    return {code: _SPACE for code in WHITESPACE if code > 0x7F}


@cache
def _byte_of_each(han: bool) -> NDArray[np.uint8]:
    """For each code point the byte that stands for it."""
    of_kind = np.full(len(Kind), _OTHER, np.uint8)
    for kind, letter in (
        (Kind.NUMBER, "N"),
        (Kind.LETTER, "L"),
        (Kind.PUNCTUATION, "P"),
        (Kind.MARK, "M"),
        (Kind.SYMBOL, "S"),
    ):
        of_kind[kind] = _CATEGORIES[letter][0]
    table = of_kind[kinds()]
    table[sorted(WHITESPACE)] = _SPACE
    table[:0x80] = np.arange(0x80)
    if han:
        for first, last in _HAN_RANGES:
            letters = kinds()[first : last + 1] == Kind.LETTER
            table[first : last + 1] = np.where(letters, _HAN, _HAN_UNASSIGNED)
    return table


_Segments = Iterable[tuple[int, int]]
Step = Callable[[_Text, _Segments], list[int]]
"""The pieces of a text (start, end) -> the ends of the pieces they are cut into."""


def _collapsed(expression: str) -> str:
    """The expression for the copy in bytes: each category becomes a set of characters."""
    out, inside = [], False
    for part in re.findall(r"\\p\{\w+\}|\\.|.", expression, re.DOTALL):
        if part.startswith(r"\p{"):
            byte, ascii_ones = _CATEGORIES[part[3]]
            part = f"{chr(byte)}{ascii_ones}" if inside else f"[{chr(byte)}{ascii_ones}]"
        elif part in "[]":
            inside = part == "["
        out.append(part)
    return "".join(out)


class _Expression:
    """A step that cuts around each match of a regular expression."""

    def __init__(self, expression: str, view: str | None = None) -> None:
        self.expression = expression
        self.view = view or ("bytes" if r"\p{" in expression else "characters")
        self._pattern: re.Pattern[str] | re.Pattern[bytes] | None = None

    def __call__(self, text: _Text, segments: _Segments) -> list[int]:
        if self._pattern is None:
            self._pattern = (
                re.compile(self.expression, re.ASCII)
                if self.view == "characters"
                else re.compile(_collapsed(self.expression).encode("latin-1"))
            )
        subject, find = text.view(self.view), self._pattern.finditer
        ends: list[int] = []
        for start, end in segments:
            at = start
            for match in find(subject, start, end):  # type: ignore[arg-type]
                first, last = match.span()
                if first > at:
                    ends.append(first)
                if last > first:
                    ends.append(last)
                at = last
            if at < end:
                ends.append(end)
        return ends


def _digits_from_the_right(text: _Text, segments: _Segments) -> list[int]:
    """Groups of three digits, counted from the right.

    What stands before a number stays together with its first group, for the next step to cut.
    """
    subject = text.view("bytes")
    assert isinstance(subject, bytes)
    ends: list[int] = []
    for start, end in segments:
        at = start
        for match in _NUMBER.finditer(subject, start, end):
            first, at = match.span()
            rest = (at - first) % 3
            ends.extend(range(first + (rest or 3), at + 1, 3))
        if at < end:
            ends.append(end)
    return ends


_NUMBER: Final = re.compile(rb"[\xd10-9]+")


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """What llama.cpp derives from the name of a pre-tokenizer."""

    steps: tuple[Step, ...]
    ignore_merges: bool = False
    """A word that is a token is that token, whatever the merges say."""
    add_bos: bool = False
    always_bos: bool = False
    """The same, whatever the file says."""
    has_bos: bool = True
    """Whether there is a token at the beginning where the file names none."""
    byte_level: bool = True
    """Words are spelled in GPT-2's alphabet of bytes; else in characters, with tokens for single bytes."""
    escape_spaces: bool = False
    """Spaces are written ▁, as in SentencePiece."""

    def words(self, text: str) -> list[str]:
        """The text, cut into words.

        >>> PRE_TOKENIZERS["llama-bpe"].words("It's 12345 words!")
        ['It', "'s", ' ', '123', '45', ' words', '!']
        """
        views = _Text(text)
        ends = [len(text)]
        for step in self.steps:
            ends = step(views, pairwise([0, *ends]))
        return [text[start:end] for start, end in pairwise([0, *ends])]


_SUFFIX: Final = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_SPACES: Final = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _llama3(digits: str = r"\p{N}{1,3}", spaces: str = _SPACES, suffix: str = f"{_SUFFIX}|") -> str:
    return rf"{suffix}[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{spaces}"


def _cased(upper: str, lower: str, digits: str, suffix: str = "", before: str = r"[^\r\n\p{L}\p{N}]?") -> str:
    """Words that begin with capitals and go on in small letters."""
    words = f"{before}{upper}*{lower}+{suffix}|{before}{upper}+{lower}*{suffix}"
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"


# llama.cpp sees the case of ASCII letters only: all other letters are both
_UPPER, _LOWER = "[\xd2A-Z]", "[\xd2a-z]"
_UPPER_M, _LOWER_M = "[\xd2\xd4A-Z]", "[\xd2\xd4a-z]"
_LETTER_M: Final = r"[\p{L}\p{M}]"

_DEEPSEEK3: Final = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"
)
_CJK: Final = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_DEEPSEEK_LETTERS: Final = (
    "A-Za-z\xb5\xc0-\xd6\xd8-\xf6\xf8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376"
    "\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481"
    "\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf"
    "\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d"
    "\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4"
    "\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107"
    "\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f"
    "\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d"
    "\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17"
    "\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb"
    "\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_DEEPSEEK_CJK: Final = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_YOUTU_CJK: Final = (
    "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
    "|[\u3105-\u312f]+|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
)
_AFMOE_SCRIPTS: Final = (
    "[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f\u0e80-\u0eff"
    "\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)
_NO_PUNCTUATION: Final = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
_LINES: Final = r"[^\n]+|[\n]+"
_KIMI: Final = (
    rf"[\xd6\xd7]+|[^\r\n\xd6\p{{L}}\p{{N}}]?\p{{L}}+{_SUFFIX}?|\p{{N}}{{1,3}}"
    rf"| ?[^\s\xd6\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_QWEN35: Final = (
    rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_BAILING: Final = (
    r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
_SEED: Final = rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}"
_EXAONE_MOE: Final = (
    rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
_JAIS2_SPACES: Final = (
    r"\s*[\r\n]+|" + "|".join(rf"\s{{{2**n}}}(?!\S)" for n in range(9, 1, -1)) + r"|\s{1,2}(?!\S)|\s{1}"
)


def _steps(*steps: str | Step) -> tuple[Step, ...]:
    return tuple(_Expression(step) if isinstance(step, str) else step for step in steps)


_LLAMA3: Final = _steps(_llama3())
_GPT2_WORDS: Final = PreTokenizer(_steps(_GPT2))

_TABLE: Final = {
    # names, separated by spaces -> what they say
    "default": PreTokenizer(
        _steps(r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
    ),
    "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano": PreTokenizer(
        _LLAMA3, ignore_merges=True, add_bos=True
    ),
    "dbrx smaug-bpe": PreTokenizer(_LLAMA3),
    "chatglm-bpe": PreTokenizer(_LLAMA3, has_bos=False),
    "glm4 glm5": PreTokenizer(_LLAMA3, has_bos=False, ignore_merges=True),
    "minicpm5": PreTokenizer(_steps(r"\p{N}{1,3}", _llama3(r"\p{N}+")), ignore_merges=True),
    "jais-2": PreTokenizer(_steps(_llama3(spaces=_JAIS2_SPACES))),
    "deepseek-llm": PreTokenizer(
        _steps(
            r"[\r\n]",
            rf"\s?[{_DEEPSEEK_LETTERS}]+",
            "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
            r"\s+\Z",
            _DEEPSEEK_CJK,
            r"\p{N}+",
        )
    ),
    "deepseek-coder": PreTokenizer(_steps(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _DEEPSEEK_CJK, r"\p{N}")),
    "deepseek-v3 hunyuan-dense joyai-llm hy_v4": PreTokenizer(
        _steps(r"\p{N}{1,3}", _CJK, rf"{_DEEPSEEK3}[\r\n]*|{_SPACES}")
    ),
    "spark2_5": PreTokenizer(_steps(r"\p{N}{1,3}", _CJK, rf"{_DEEPSEEK3}|[\r\n]|\s+(?!\S)|\s+", r"\p{N}")),
    "youtu": PreTokenizer(
        _steps(_YOUTU_CJK, _cased(_LETTER_M, _LETTER_M, r"\p{N}", f"{_SUFFIX}?")), ignore_merges=True
    ),
    "falcon": PreTokenizer(_steps(r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")),
    "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2": PreTokenizer(
        _steps(r"\p{N}", _GPT2)
    ),
    "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert mpt": _GPT2_WORDS,
    "olmo jais trillion granite-docling exaone4 jina-v1-en jina-v2-code roberta-bpe": _GPT2_WORDS,
    "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2": PreTokenizer(
        _steps(_llama3(r"\p{N}"))
    ),
    "qwen35": PreTokenizer(_steps(_QWEN35)),
    "poro-chat bloom gpt3-finnish": PreTokenizer(_steps(_NO_PUNCTUATION)),
    "viking": PreTokenizer(_steps(_NO_PUNCTUATION, r"\p{N}")),
    "tekken": PreTokenizer(_steps(_cased(_UPPER, _LOWER, r"\p{N}")), ignore_merges=True, add_bos=True),
    "chameleon": PreTokenizer(
        _steps(
            "<sentinel:[0-9]+>",
            "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
            _GPT2,
        ),
        add_bos=True,
    ),
    "gpt-4o llama4 kanana2 talkie minimax-m2": PreTokenizer(
        _steps(_cased(_UPPER, _LOWER, r"\p{N}{1,3}", f"{_SUFFIX}?"))
    ),
    "granite-embed-multi-97m": PreTokenizer(
        _steps(_cased(_UPPER_M, _LOWER_M, r"\p{N}{1,3}", f"{_SUFFIX}?")), ignore_merges=True
    ),
    "tiny_aya cohere2moe": PreTokenizer(
        _steps(_digits_from_the_right, _cased(_LETTER_M, _LETTER_M, r"\p{N}{1,3}", f"{_SUFFIX}?"))
    ),
    "kimi-k2": PreTokenizer((_Expression(_KIMI, "han"),)),
    "superbpe": PreTokenizer(_steps(r"\p{N}+", r"(?=(\d{3})+(?!\d))")),
    "bailingmoe bailingmoe2 llada-moe": PreTokenizer(_steps(_BAILING)),
    "seed-coder": PreTokenizer(_steps(_SEED)),
    "ufakzeka": PreTokenizer(_steps(_llama3(r"\p{N}", suffix=""))),
    "afmoe": PreTokenizer(_steps(_digits_from_the_right, _AFMOE_SCRIPTS, rf"{_DEEPSEEK3}[\r\n]*|{_SPACES}")),
    "laguna": PreTokenizer(_steps(_LINES, _llama3(r"\p{N}"))),
    "exaone-moe": PreTokenizer(_steps(_EXAONE_MOE)),
    "gemma4 granite-embed-multi-311m": PreTokenizer(
        _steps(_LINES), byte_level=False, escape_spaces=True, always_bos=True
    ),
    "sarvam-moe": PreTokenizer(_steps(_LINES), byte_level=False, escape_spaces=True),
    "whitespace": PreTokenizer(_steps(r"\S+"), byte_level=False),
}

PRE_TOKENIZERS: Final = {name: pre for names, pre in _TABLE.items() for name in names.split()}
"""Name (`tokenizer.ggml.pre`) -> pre-tokenizer."""
