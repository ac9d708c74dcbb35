"""Numbers and names as people read them."""

from __future__ import annotations

from typing import Any

__all__ = ["count", "figure", "percent", "plain", "printable", "share", "size"]


def size(n_bytes: float) -> str:
    """Bytes for people, in powers of 1024.

    >>> size(999), size(105_454_144), size(4 << 30)
    ('999 B', '100.6 MiB', '4.00 GiB')
    """
    if n_bytes < 1024:
        return f"{n_bytes:.0f} B"
    for unit in ("KiB", "MiB"):
        n_bytes /= 1024
        if n_bytes < 1024:
            return f"{n_bytes:.1f} {unit}"
    return f"{n_bytes / 1024:.2f} GiB"


def count(n: int) -> str:
    """A number of parameters, as models are called by it.

    >>> count(4368), count(134_515_008), count(70_553_706_496)
    ('4,368', '134.5 M', '70.6 B')
    """
    for unit, name in ((10**9, "B"), (10**6, "M")):
        if n >= unit:
            return f"{n / unit:.1f} {name}"
    return f"{n:,}"


def share(part: float, whole: float) -> str:
    """A part in per cent of the whole.

    >>> share(1, 8)
    '12.5 %'
    """
    return f"{100 * part / whole:.1f} %" if whole else "–"


def percent(fraction: float) -> str:
    """A relative error, with more places where it is small; a dash where it is not known.

    >>> percent(0.0712345), percent(0.017), percent(0.000123), percent(0), percent(float("nan"))
    ('7.12 %', '1.70 %', '0.0123 %', '0 %', '–')
    """
    if fraction != fraction:
        return "–"
    return f"{100 * fraction:.2f} %" if fraction >= 0.001 else f"{100 * fraction:.3g} %"


def figure(value: float, spec: str) -> str:
    """A number in a format; a dash where it is not known.

    >>> figure(0.5, ".3f"), figure(float("nan"), ".3f")
    ('0.500', '–')
    """
    return "–" if value != value else format(value, spec)


def plain(item: Any) -> str:
    """A single value as people write it: floats of float32 without their noise.

    >>> plain(0.10000000149011612), plain("a"), plain(32)
    ('0.1', "'a'", '32')
    """
    return f"{item:g}" if isinstance(item, float) else repr(item) if isinstance(item, str) else str(item)


def printable(text: str) -> str:
    """Text from a file, safe to show: control characters and broken Unicode become escapes.

    >>> printable("blk.0\\x1b[2J")
    'blk.0\\\\x1b[2J'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
