"""Places in a buffer: never two at once, none beyond its end, and as many as there can be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.image.squashfs.ring import Ring

_SIZE, _MOST = 100, 6
_STEPS = st.lists(st.one_of(st.integers(1, _SIZE), st.none()), max_size=60)
"""Bytes to be taken, or that the oldest place is freed."""


@given(_STEPS)
def test_places_that_are_taken_do_not_meet(steps: list[int | None]) -> None:
    ring = Ring(_SIZE, _MOST)
    taken: list[tuple[int, int]] = []
    for count in steps:
        if count is None:
            if taken:
                start, end = taken.pop(0)
                assert ring.free() == (start, end - start)
            continue
        place = ring.room(count)
        if place is None:
            assert taken, "a buffer that is free has room for all that fits into it"
            continue
        assert ring.take(count) == place
        assert place + count <= _SIZE
        assert all(place + count <= start or end <= place for start, end in taken)
        taken.append((place, place + count))
        assert len(taken) <= _MOST


@given(st.integers(1, _SIZE))
def test_pieces_of_one_size_find_room_as_soon_as_one_was_freed(size: int) -> None:
    """And as many fit as the buffer holds."""
    ring = Ring(_SIZE, _MOST)
    held = 0
    for _ in range(50):
        while ring.room(size) is not None:
            ring.take(size)
            held += 1
        assert held == min(_MOST, _SIZE // size)
        ring.free()
        held -= 1


def test_what_is_larger_than_the_buffer_has_no_room() -> None:
    ring = Ring(_SIZE, _MOST)
    assert ring.room(_SIZE) == 0
    assert ring.room(_SIZE + 1) is None
    with pytest.raises(AssertionError, match="no room"):
        ring.take(_SIZE + 1)
