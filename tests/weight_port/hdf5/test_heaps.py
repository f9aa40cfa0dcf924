"""The view of a file in which arrays are blank, and where heaps are looked for."""

import io

from hypothesis import given
from hypothesis import strategies as st

from weight_port.hdf5.heaps import WithoutArrays

CONTENT = bytes(range(1, 101))


@st.composite
def blank_ranges(draw):
    edges = sorted(draw(st.sets(st.integers(0, len(CONTENT)), max_size=10)))
    return list(zip(edges[::2], edges[1::2], strict=False))


@given(blank_ranges(), st.lists(st.tuples(st.integers(0, 110), st.integers(0, 40)), max_size=20))
def test_ranges_read_as_zeros(ranges, reads):
    expected = bytearray(CONTENT)
    for start, stop in ranges:
        expected[start:stop] = bytes(stop - start)
    file = WithoutArrays(io.BytesIO(CONTENT), ranges)
    assert file.readall() == expected
    for place, count in reads:
        assert file.seek(place) == place
        assert file.read(count) == expected[place : place + count]


@given(blank_ranges())
def test_gaps_are_all_that_is_left(ranges):
    file = WithoutArrays(io.BytesIO(CONTENT), ranges)
    covered = sorted([*ranges, *file.gaps()])
    assert b"".join(CONTENT[start:stop] for start, stop in covered) == CONTENT
