"""A flame graph is XML whatever a script calls its functions, and as wide as the time that it shows."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bema.cli.flame_graph import draw, total

SVG = "{http://www.w3.org/2000/svg}"
PROFILE = {
    "frames": [["/app.py", "main", 1], ["/app.py", "work", 5], ["/lib.py", "help", 9]],
    "stacks": [[300_000, [0, 1]], [100_000, [0, 1, 2]], [100_000, [0]]],
}


def boxes(svg: str) -> dict[str, tuple[float, float]]:
    """(width, height above the ground) by the first word of what is said of a box."""
    found: dict[str, tuple[float, float]] = {}
    for group in ET.fromstring(svg).iter(f"{SVG}g"):
        title, rect = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None
        assert rect is not None
        assert title.text is not None
        found[title.text.split()[0]] = (float(rect.attrib["width"]), float(rect.attrib["y"]))
    return found


def test_a_box_is_as_wide_as_its_share_and_stands_on_its_caller():
    drawn = boxes(draw(PROFILE, "one"))
    (whole, ground), (main, first), (work, second), (help, third) = (
        drawn[name] for name in ("all:", "main", "work", "help")
    )
    assert [round(width / whole, 2) for width in (main, work, help)] == [1.0, 0.8, 0.2]
    assert ground > first > second > third > 0


def test_what_a_box_says_has_its_time_and_its_place():
    assert "work (/app.py:5): 0.40 s, 80.0 %" in draw(PROFILE, "one")
    assert total(PROFILE) == 500_000


def test_a_profile_of_nothing_is_drawn():
    empty: dict[str, Any] = {"frames": [], "stacks": []}
    assert boxes(draw(empty, "one")) == {}
    assert total(empty) == 0


def test_a_stack_as_deep_as_python_allows_is_drawn():
    deep = {"frames": [["/a.py", "again", 1]], "stacks": [[1000, [0] * 5000]]}
    assert draw(deep, "deep").count("<rect") == 5002


@given(name=st.text(), file=st.text(), title=st.text())
def test_any_name_is_text_and_never_markup(name, file, title):
    svg = ET.fromstring(draw({"frames": [[file, name, 1]], "stacks": [[5, [0]]]}, title))
    assert {each.tag for each in svg.iter()} <= {f"{SVG}{tag}" for tag in ("svg", "title", "rect", "text", "g")}
