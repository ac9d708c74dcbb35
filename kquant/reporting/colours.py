"""The colours of the page, for light and for dark, as CSS variables that the pictures name too.

Hues and steps of lightness were chosen so that any two roles can be told apart with each kind of colour
blindness; the tests measure that, and all contrasts.
"""

from __future__ import annotations

import numpy as np

from kquant.policy.roles import Role

__all__ = [
    "ERRORS",
    "ERROR_STEPS",
    "INKS",
    "ROLES",
    "SURFACES",
    "TYPES",
    "contrast",
    "ink",
    "ramp",
    "role_colour",
    "stylesheet",
    "type_colour",
]

SURFACES = {
    "page": ("#f6f7f9", "#0b0d10"),
    "card": ("#ffffff", "#14171c"),
    "text": ("#1a1e24", "#e8eaed"),
    "muted": ("#57606a", "#9aa4b1"),
    "line": ("#dfe3e8", "#2c333c"),
    "accent": ("#0b5cad", "#74b6fe"),
    "mark": ("#c2410c", "#ff9d5c"),
    "soft": ("#aeb6c0", "#4a545f"),
}
"""Name -> its colour in light and in dark."""

# attention in blues, the feed-forward network in ochres, what is outside of layers in hues of its own
ROLES = {
    Role.TOKEN_EMBD: ("#023022", "#bfe2aa"),
    Role.ATTENTION_Q: ("#2b139e", "#5865a4"),
    Role.ATTENTION_K: ("#005c9a", "#7284e5"),
    Role.ATTENTION_V: ("#3475cc", "#74b6fe"),
    Role.ATTENTION_OUTPUT: ("#7995b9", "#92daff"),
    Role.FFN_GATE: ("#843a02", "#92553d"),
    Role.FFN_UP: ("#9e5d01", "#ad7404"),
    Role.FFN_DOWN: ("#bf7c00", "#bfa145"),
    Role.OUTPUT: ("#6f0062", "#f292b1"),
    Role.OTHER: ("#646464", "#7a7e83"),
}

# few bits to many; small errors to large ones: further from the page is more
TYPES = (
    ("#4fa566", "#078981", "#046581", "#0e3890", "#370065"),
    ("#8259c0", "#5483e0", "#10b7e6", "#41e1d5", "#acffbd"),
)
ERRORS = (
    ("#fcd89d", "#dea467", "#bf6f39", "#9c3913", "#6e020e"),
    ("#6b252b", "#994c37", "#c37944", "#e7ab58", "#ffe38d"),
)
ERROR_STEPS = 6
INKS = ("#000000", "#ffffff")


def role_colour(role: Role) -> str:
    """The CSS of a role's colour."""
    return f"var(--{role.name.lower().replace('_', '-')})"


def type_colour(index: int) -> str:
    """The CSS of the colour of a file's tensor type, counted from the one with the fewest bits."""
    return f"var(--type-{index})"


def ramp(stops: tuple[str, ...], n: int) -> list[str]:
    """So many colours, evenly spread along the stops; the last one alone stands at three quarters.

    >>> ramp(("#000000", "#ff0080"), 3)
    ['#000000', '#800040', '#ff0080']
    """
    at = np.linspace(0, len(stops) - 1, n) if n > 1 else np.array([0.75 * (len(stops) - 1)])
    channels = np.array([_channels(stop) for stop in stops])
    mixed = np.array([np.interp(at, range(len(stops)), channel) for channel in channels.T]).T
    return ["#" + "".join(f"{round(value):02x}" for value in colour) for colour in mixed.tolist()]


def ink(colour: str) -> str:
    """Black or white, whichever is easier to read on that colour.

    >>> ink("#fcd89d"), ink("#0e3890")
    ('#000000', '#ffffff')
    """
    return max(INKS, key=lambda text: contrast(text, colour))


def contrast(a: str, b: str) -> float:
    """The contrast of two colours, 1 to 21, as https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio has it.

    >>> contrast("#000000", "#ffffff")
    21.0
    """
    darker, lighter = sorted((_luminance(a), _luminance(b)))
    return (lighter + 0.05) / (darker + 0.05)


def _channels(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour.lstrip("#")))


def _luminance(colour: str) -> float:
    shares = [value / 255 for value in _channels(colour)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def stylesheet(n_types: int) -> str:
    """The variables, light ones and dark ones, for a file of so many tensor types."""
    light, dark = (_variables(mode, n_types) for mode in (0, 1))
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"


def _variables(mode: int, n_types: int) -> str:
    """The variables of one mode: 0 for light, 1 for dark."""
    found = {name: colours[mode] for name, colours in SURFACES.items()}
    for role, colours in ROLES.items():
        found[role.name.lower().replace("_", "-")] = colours[mode]
    for name, stops, n in (("type", TYPES, n_types), ("error", ERRORS, ERROR_STEPS)):
        for i, colour in enumerate(ramp(stops[mode], n)):
            found[f"{name}-{i}"] = colour
            found[f"on-{name}-{i}"] = ink(colour)
    return " ".join(f"--{name}: {colour};" for name, colour in found.items())
