"""Names next to points, where there is space for them."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["CORNERS", "corners"]

CORNERS = ("right above", "left below", "right below", "left above")
"""Where a name may stand, seen from its point: the best place first."""
LETTER, LINE, GAP, POINT = 7, 15, 7, 5
"""Pixels of a letter and a line, between a point and its name, and from the middle of a point to its edge."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def corners(points: Sequence[tuple[float, float, str]], width: float) -> list[str]:
    """Where the name of each point stands: one of CORNERS, or nothing where there is no space.

    Points are (x, y, name) in pixels, y downwards; the first ones choose first, those without a name are
    only in the way.  No name covers a point or another name, or leaves the plot at its sides.

    >>> corners([(50, 50, "Q4_K"), (60, 40, "Q4_0"), (55, 45, ""), (190, 20, "Q6_K")], 200)
    ['left below', 'right above', '', 'left below']
    """
    taken: list[Box] = [(x - POINT, y - POINT, x + POINT, y + POINT) for x, y, _ in points]
    found = []
    for x, y, name in points:
        boxes = {corner: _box(x, y, name, corner) for corner in CORNERS if name}
        free = (
            corner
            for corner, box in boxes.items()
            if box[0] >= 0 and box[2] <= width and not any(_overlap(box, other) for other in taken)
        )
        corner = next(free, "")
        if corner:
            taken.append(boxes[corner])
        found.append(corner)
    return found


def _box(x: float, y: float, name: str, corner: str) -> Box:
    length = LETTER * len(name)
    left = x + GAP if corner.startswith("right") else x - GAP - length
    top = y - LINE if corner.endswith("above") else y
    return left, top, left + length, top + LINE


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
