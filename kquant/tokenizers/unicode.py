"""What kind of character each code point is, as llama.cpp's pre-tokenizers see it.

The general categories of Unicode 15.1, which llama.cpp has: Python's own are older or newer, depending on
its version, and so are those of regular expression libraries.
https://github.com/ggml-org/llama.cpp/blob/master/src/unicode-data.cpp
"""

from __future__ import annotations

import zlib
from base64 import b64decode
from enum import IntEnum
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["WHITESPACE", "Kind", "kinds"]


class Kind(IntEnum):
    """The first letter of a general category."""

    UNASSIGNED = 0
    NUMBER = 1
    LETTER = 2
    SEPARATOR = 3
    MARK = 4
    PUNCTUATION = 5
    SYMBOL = 6
    CONTROL = 7


WHITESPACE: Final = frozenset(
    [
        *range(0x09, 0x0E),
        0x20,
        0x85,
        0xA0,
        0x1680,
        *range(0x2000, 0x200B),
        0x2028,
        0x2029,
        0x202F,
        0x205F,
        0x3000,
    ]
)
"""The code points that are white space (`White_Space` in the Unicode Character Database)."""

_RUNS: Final = (
    "eNptVn9oW8cd53vvyf76cne6vL73+iKe1BdN8hRNbmXhZLKRg6K5nWPS4GeazMuy4oW0pKYppqTBLWnRNM8JJnieCaX1tpKINHim"
    "FE90pROdCWYNqf8oQYPRavsj9R+lNSWkYmSr2NKdHG+sUL5P9+5O3/v+vM/3+86SbWGxW8R9K2LVICy4qAFX4y/INv4gtykXwc7t"
    "glqig/IdvAqiCaLmdh47ndxLBZ2FqfakMGSUU0/xhpBiGXAhIOoochWKFSLp7jViyQh+TjjjpiKWr4MXtUa/G7GEZR/lwXCdvAF+"
    "3GALbZzmgqLHMEXM8EM2fQ6DlDXgbyDXAkfphD9DDhgiTCWzKxCjB6hLU/JFXANXcjySWAWRwfvTAzXyJwieJxXNpReA5kZMy+cl"
    "cLEgDVkB7EPqRCWjOWlKl+aZZ2DIlL5hdysPmHQx423xGS2SDFOe4nRYNoo065shxoddHMIQbjEllbABdNGVdNJQkrjI0h78P333"
    "WDb1Zd0tdYJ2DzOKGSeEUcdQcTMcwwk5x7yU42JM0jSbeOqRRKqg1FQBS9ASoGTGsiaGJJUtPVneK6jLt1hG7im5x5NWhisONNhY"
    "rGXpGjHv/UWFF2K9yoBXW8FycR6cVVDOUNnnMK8HGQ6kfWnysZLGjJwn+ga4by2SloFJVJwUR5hxgMqkmuXQl9EioZEXBY+Yey6B"
    "YC2KmwUsE+8ycDN5FC8TfITtQburU4mpk8tA/d2ZWNSlrpELxcaPU+bH7ApBmqCyTviGiVGpMqTGNaKGGfK/9Qu4pqnXgi7dRy+B"
    "U4LD6UpAZiRf7xR8BrbVwHLqenhHITsPscEFcK3BeTDHxpX75lhZmyJhGhaUST/tp3/sBpmfXgtkk+Y8YTRR0YebgMe9455wLL8B"
    "Mjm6TrwapH/ovEyqkJLWkvYYfq6y0DrdT3fLf8E5LdUk56Hg+P2HDxy00G3A04a/Tk7l42Xlp9PlOyG/TKyhbJ3I0MN5l78BUZZh"
    "hksTJTalV7Yr4xVAMrKg/GtRE+SShn2CRkLYF4nKDEbGI1LNbfzRQ+/BfQ9tex3ESfHEtofwBx1Udkcs6kcsHHdmyeR5MmnTTmqP"
    "qNPJPQqaiqLiiB19MNlJxauascv2rt0fvwXWJ8Hr8PgifKzd0X8H1zqf+wJmNesuHHptx+/hrhafJtbb98tpgh+0LYk9UddIxDus"
    "rQStalnKJ1gVBvvw6zRF/k3oz4n9xBz5C+AHgbG3+Q2YBlVbjI5D9hNifw9P2jsMbqPKmWmHeC3Ao4k6wUYA7Z2HS+QKGRUluAvo"
    "34F94vlp4q+Q56fN0q+1aX3jU+qsaIMNYm3IcAl84yI0SYw/xptgVnTf3J1fgSG72maX9MTmTb0KJWAhFlWWpjqZ092ZLmvxvDmv"
    "XYC85acvQCZMucH8dRiwqvD0KN8AJ9Ykp04i9T0ryUb8pILMqcEQKygUyXgVItSd15i6tGbSpIxehZB1JGWFzOGMyl9mMxx1Ip61"
    "vYX2Aa7OpMvVwFgVvBnNOzunN2xZa1smfWPJBGUjYhxb8GlVl/W2WShC3bamoaTLipYVRXKscwoOpafgNwSfU8BCLiwviVWUQfzG"
    "St2/FnA2rZAhZy/uHX7AlsewpqowKAUvyGfnSL09EfY+I87B97VZ2B7BZxzxT3KLsDlUfs9ok+wj8Epk52AZOgodiQpJJRqAXGG4"
    "wHfdII2OljvEU88qyZe1UX4EX9isalvvV/TqfYMVGC5chQzWCA4t6hlJcZ2omkalKk18XxXs3ibk9xe1llWJXRXodngNEryor2re"
    "duOnIL8g1EUzEYsqvG6AdD22P/todgO2q+TsKJKCWAfT29U/WNGc/grIfQuQ2DcP2fhYbzGwpr+jLWgnFrRsd5nE8v6y8SW0LDG5"
    "ND7U3Q3wab4CR3d2LYOqDfFlsgS9F0FdY3dJO9PvfQHMMOlgbIMctYJxNhyUa5D1026ZnEI/Tk2aXyDMooNuSTsVjce46VNOw3gJ"
    "RudBdZ/ju5nBbmubVUpFZISnm+R4wk/HvtYB0LzXAVqlPZE0Zc5JfYhL6kZGu3wLOQvdhpJ2GQxOlf20SXLywB8has6RknYewnTU"
    "T598BerkacrT/rJWB3nG+0lY9F3ftk7O8IttJf1VGCuozlBQylahB00ZUxfVDA/6y3pBVpW8nLKafQj0sVWSo7GHWZ4ebZApJbvr"
    "xJqePbQcHMIlMoADtGv4M3AsVQXfAjx1XW+ZXyE9DkMTc5Tl/XRG7ZRISq1TqiMu37cAMSurcDGO80T5ddJfDtDJ38ItOMFrvctt"
    "X7Zh12iZ3bwMM23WidL3zgLLnLnRhGrs+q/0tW9lVelVsGvq6KeV0hQfLmm5rs4oF8M+9uISJBag+J2S/geIL7bVdY/Rd7VsbLyo"
    "q1ixUXNi9SuSrzx6gwy986Ye3Qz2gjFJPwXVJyei+XXn4hzU2xLjzlB2RAqTf/vm6+TvRL4Lg1fab2pvB4dXiPxES0V6vj9g5+5A"
    "7Ja2CC/rrrjRfgnG1LMSGHwf3sGlAFZ19Tmgeq+M4jGV7D6c0VVDKqjJOqjUK1A7fVi21O0Ra5sfSt84FuQvtWnvXa3zgvYIO83s"
    "rskUnik+3IR0ZpHn8DzIXCuwiYZ2jrBi+wZxcn3S96gomg1g52CdxPyEKIbXIeYvP9inFCuY4xKT+3PXSVnPUU8F81z3R5rYIXbe"
    "1D8j4vk5FsV6qxxQhcsRdUJ1mzT17nWd0Nb+f6m1aoUxusk3gjOQCCnfZuCiZt+WnxDvStvYS/IlfAnfJMNPzdKrmsqz2j6YtSf2"
    "3Oi41u/NgvOMs9Lu3Q2kn/TE5JPeNS1/OH2N5O+AtG/rV6yx0/IZ52D2DsG9+dPq4MHsax24oi0SfzlfumUWSe1nJN3gcv5TMjHz"
    "Z22y0Tm3AI2dc4/X3yKJ0jQ5995fSfA2nG0r4lSw+PED//jqAdn6/QdB8WKX"
)
"""Runs of code points of one kind, compressed: `kind | length << 3`, seven bits a byte, the lowest first."""


@cache
def kinds() -> NDArray[np.uint8]:
    """The `Kind` of each code point: uint8, shape (0x110000,), read-only.

    >>> [Kind(kinds()[ord(letter)]).name for letter in "é7_+ "]
    ['LETTER', 'NUMBER', 'PUNCTUATION', 'SYMBOL', 'SEPARATOR']
    """
    lengths, values = [], []
    number = shift = 0
    for byte in zlib.decompress(b64decode(_RUNS)):
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            values.append(number & 7)
            lengths.append(number >> 3)
            number = shift = 0
    table = np.repeat(np.array(values, np.uint8), lengths)
    table.flags.writeable = False
    return table
