"""Text from tokens: equal to the whole text, however it is cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kquant.errors import OptionError
from kquant.runtime.pieces import TextStream


def cut_at_first_stop(text: str, stop: list[str]) -> tuple[str, str | None]:
    """Character by character: the first stop string that is complete; of several the longest."""
    for end in range(1, len(text) + 1):
        done = [s for s in stop if text[:end].endswith(s)]
        if done:
            longest = max(done, key=len)
            return text[: end - len(longest)], longest
    return text, None


def run(tokens: list[bytes], stop: list[str]) -> tuple[list[str], TextStream]:
    stream = TextStream(tokens.__getitem__, stop)
    pieces = [stream.push(i) for i in range(len(tokens))]
    return [*pieces, stream.finish()], stream


def cuts(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(p % (len(data) + 1) for p in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


PLACES = st.lists(st.integers(0, 10_000), max_size=30)
# few characters, so that stop strings occur, overlap and begin without ending; of one to four bytes
FEW = st.text("abé€😀\n", max_size=40)
BYTES = st.lists(
    st.sampled_from([b"a", b"\xe2", b"\x82", b"\xac", b"\xf0\x9f", b"\x98\x80", b"\xff", b"\xc3"])
)


@given(FEW, st.lists(st.text("abé€😀\n", min_size=1, max_size=5), max_size=4), PLACES)
@example("abcdef", ["abcdef", "cd"], [1, 2, 3, 4])
@example("aab", ["ab"], [1, 2])
@example("ab", ["b", "ab"], [1])
def test_the_pieces_are_the_text_up_to_the_first_stop_string(
    text: str, stop: list[str], places: list[int]
) -> None:
    pieces, stream = run(cuts(text.encode(), places), stop)
    expected, matched = cut_at_first_stop(text, stop)
    assert ("".join(pieces), stream.matched, stream.stopped) == (expected, matched, matched is not None)


@given(
    st.binary(max_size=40) | BYTES.map(b"".join),
    PLACES,
    st.sampled_from([[], ["a\ufffd"], ["€a", "\ufffd\ufffd"]]),
)
def test_any_bytes_become_what_the_whole_would(data: bytes, places: list[int], stop: list[str]) -> None:
    pieces, stream = run(cuts(data, places), stop)
    expected, matched = cut_at_first_stop(data.decode("utf-8", "replace"), stop)
    assert ("".join(pieces), stream.matched) == (expected, matched)


@given(FEW, PLACES)
def test_no_piece_has_a_part_of_a_character(text: str, places: list[int]) -> None:
    pieces, _ = run(cuts(text.encode(), places), [])
    assert all("\ufffd" not in piece for piece in pieces)
    # and nothing is held back without need: after each token, all characters that are complete are out
    sizes, out = [len(t) for t in cuts(text.encode(), places)], ""
    for i, piece in enumerate(pieces[:-1]):
        out += piece
        assert out == text.encode()[: sum(sizes[: i + 1])].decode("utf-8", "ignore")


def test_bytes_that_never_become_a_character() -> None:
    assert run([b"a\xe2", b"\x82"], [])[0] == ["a", "", "\ufffd"]
    assert run([b"a\xe2", b"(", b"b"], [])[0] == ["a", "\ufffd(", "b", ""]


def test_what_may_begin_a_stop_string_is_held_back_and_no_more() -> None:
    assert run([b"x\n", b"\n", b"y", b"\n\n", b"#"], ["\n\n#"])[0] == ["x", "", "\n\ny", "", "", ""]
    assert run([b"x\n", b"\n"], ["\n\n#"])[0] == ["x", "", "\n\n"]


def test_after_a_stop_string_tokens_are_not_read() -> None:
    pieces, stream = run([b"a", b"#", b"b"], ["#"])
    assert (pieces, stream.matched) == (["a", "", "", ""], "#")


def test_a_token_of_no_bytes() -> None:
    assert run([b"a", b"", b"b"], ["c"])[0] == ["a", "", "b", ""]


def test_one_stop_string_is_a_list_of_one() -> None:
    assert TextStream(lambda token: b"", stop="###").stop == ("###",)


@pytest.mark.parametrize("stop", [[""], "", ["a", ""], [1], None, b"a"])
def test_stop_strings_that_are_none(stop: Any) -> None:
    with pytest.raises(OptionError, match="stop: expected "):
        TextStream(lambda token: b"", stop)
