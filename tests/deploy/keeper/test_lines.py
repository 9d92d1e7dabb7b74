from hypothesis import given
from hypothesis import strategies as st

from bema.deploy.keeper.lines import Cut, Lines


@given(st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=8), st.integers(1, 50))
def test_lines_are_the_same_however_they_arrive(lines, size):
    data = b"".join(line + b"\n" for line in lines)
    reader = Lines(limit=16)
    found = [line for start in range(0, len(data), size) for line in reader.feed(data[start : start + size])]
    assert found == [Cut(line[:16], max(0, len(line) - 16)) for line in lines]
    assert reader.rest() == []


def test_the_rest_is_what_had_no_newline():
    reader = Lines(limit=4)
    assert reader.feed(b"abcdefg") == []
    assert reader.rest() == [Cut(b"abcd", 3)]
    assert reader.rest() == []
