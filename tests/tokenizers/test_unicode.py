"""The categories of code points."""

from __future__ import annotations

import unicodedata

import numpy as np

from kquant.tokenizers.unicode import WHITESPACE, Kind, kinds

LETTERS = {"N": Kind.NUMBER, "L": Kind.LETTER, "Z": Kind.SEPARATOR, "M": Kind.MARK, "P": Kind.PUNCTUATION}
LETTERS |= {"S": Kind.SYMBOL, "C": Kind.CONTROL}


def test_categories_are_those_of_python_where_both_know_the_character() -> None:
    """Versions differ in what they know; of what both know they may correct a few."""
    assert kinds().shape == (0x110000,)
    categories = [unicodedata.category(chr(code)) for code in range(0x110000)]
    python = np.array([0 if each == "Cn" else LETTERS[each[0]] for each in categories], np.uint8)
    both = (python != Kind.UNASSIGNED) & (kinds() != Kind.UNASSIGNED)
    assert (python[both] != kinds()[both]).sum() <= 10
    assert both.sum() > 280_000


def test_white_space() -> None:
    separators = set(np.flatnonzero(kinds() == Kind.SEPARATOR).tolist())
    assert separators < WHITESPACE
    assert {chr(code).isspace() for code in WHITESPACE} == {True}


def test_the_table_is_of_version_15_1() -> None:
    assert kinds()[0x2FFC] == Kind.SYMBOL  # new in 15.1
    assert kinds()[0x1C89] == Kind.UNASSIGNED  # new in 16
