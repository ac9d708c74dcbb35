"""Names next to points: nothing covers anything."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from kquant.reporting.figures.labels import CORNERS, GAP, LETTER, LINE, POINT, corners

WIDTH = 300
COORDINATES = st.integers(0, WIDTH)
NAMES = st.sampled_from(["", "Q4_K", "Q4_K_M"])
POINTS = st.lists(st.tuples(COORDINATES, COORDINATES, NAMES), max_size=25)


@given(POINTS)
def test_nothing_is_covered(points: list[tuple[int, int, str]]) -> None:
    found = corners(points, WIDTH)
    pixels = []
    for (x, y, name), corner in zip(points, found, strict=True):
        assert corner in ("", *CORNERS)
        assert name or not corner
        if corner:
            side, height = corner.split()
            left = x + GAP if side == "right" else x - GAP - LETTER * len(name)
            top = y - LINE if height == "above" else y
            assert 0 <= left <= left + LETTER * len(name) <= WIDTH
            pixels.append((range(left, left + LETTER * len(name)), range(top, top + LINE)))
    for (columns, rows), (other_columns, other_rows) in itertools.combinations(pixels, 2):
        assert not (set(columns) & set(other_columns) and set(rows) & set(other_rows))
    for (columns, rows), (x, y, _) in itertools.product(pixels, points):
        assert not (
            columns.start < x + POINT
            and x - POINT < columns.stop
            and rows.start < y + POINT
            and y - POINT < rows.stop
        )


def test_a_point_alone_is_named_at_the_best_place() -> None:
    assert corners([(100, 100, "Q4_K")], WIDTH) == [CORNERS[0]]
    assert corners([(WIDTH - 1, 100, "Q4_K")], WIDTH) == [CORNERS[1]]
