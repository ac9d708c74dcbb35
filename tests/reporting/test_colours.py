"""Colours that everybody can tell apart and read, in light and in dark: measured."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from kquant.reporting.colours import ERROR_STEPS, ERRORS, ROLES, SURFACES, TYPES, contrast, ink, ramp

MODES = pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])

# WCAG 2.2 AA: 1.4.3 for text, 1.4.11 for parts of pictures
TEXT, GRAPHICS = 4.5, 3.0

# what eyes without one kind of cone see, on linear RGB: Machado, Oliveira and Fernandes 2009
# (https://doi.org/10.1109/TVCG.2009.113), severity 1
VISION = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
# Oklab, https://bottosson.github.io/posts/oklab/
TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
NOTICEABLE = 0.08
"""A distance in Oklab; some four times what is just noticeable."""


def oklab(colours: list[str], vision: str) -> NDArray[np.float64]:
    shares = np.array([list(bytes.fromhex(colour[1:])) for colour in colours]) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ VISION[vision].T, 0, 1)
    lab: NDArray[np.float64] = np.cbrt(seen @ TO_CONES.T) @ TO_LAB.T
    return lab


def distances(colours: list[str], vision: str) -> list[float]:
    lab = oklab(colours, vision)
    return [float(np.linalg.norm(a - b)) for a, b in itertools.combinations(lab, 2)]


@MODES
def test_text(mode: int) -> None:
    for text, ground in itertools.product(("text", "muted", "accent"), ("page", "card")):
        assert contrast(SURFACES[text][mode], SURFACES[ground][mode]) >= TEXT, (text, ground)


@MODES
@pytest.mark.parametrize("stops", [TYPES, ERRORS], ids=["types", "errors"])
def test_text_on_maps(mode: int, stops: tuple[tuple[str, ...], ...]) -> None:
    for n in range(1, 16):
        for colour in ramp(stops[mode], n):
            assert contrast(ink(colour), colour) >= TEXT


@MODES
def test_graphics(mode: int) -> None:
    card = SURFACES["card"][mode]
    drawn = [colours[mode] for colours in ROLES.values()]
    drawn += [SURFACES[name][mode] for name in ("accent", "mark")]
    drawn += ramp(TYPES[mode], 12)
    assert min(contrast(colour, card) for colour in drawn) >= GRAPHICS


@MODES
@pytest.mark.parametrize("vision", VISION)
def test_roles_can_be_told_apart(mode: int, vision: str) -> None:
    assert min(distances([colours[mode] for colours in ROLES.values()], vision)) >= NOTICEABLE


@MODES
@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("stops", [TYPES, ERRORS], ids=["types", "errors"])
def test_more_is_further_from_the_page(mode: int, vision: str, stops: tuple[tuple[str, ...], ...]) -> None:
    colours = ramp(stops[mode], ERROR_STEPS)
    steps = np.diff(oklab(colours, vision)[:, 0])
    assert (steps * (1 if mode else -1) > 0).all()  # lighter in dark mode, darker in light mode
    assert min(distances(colours, vision)) >= NOTICEABLE / 2


def test_one_colour() -> None:
    assert len(ramp(TYPES[0], 1)) == 1
