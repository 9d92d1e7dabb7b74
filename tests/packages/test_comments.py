"""Comments in every position that YAML allows, and any edit: those of what is removed go, all others stay in order."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bema.packages.opackage import to_data
from bema.packages.reader import read_text
from bema.packages.reexport import reexport

BINDING = {"function_key": "a", "access_modifier": "PUBLIC", "stateless": False}
names = st.lists(st.sampled_from(["a", "b", "c", "d e", "#f"]), unique=True, max_size=4)


@dataclass
class Text:
    """A document written with comments of which each knows what it belongs to."""

    draw: Any
    lines: list[str] = field(default_factory=list)
    owners: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def comment(self, owner: tuple[str, ...]) -> str:
        number = len(self.owners)
        self.owners[number] = owner
        return f"#{self.draw(st.sampled_from(['', ' ', ' - ', ' [', ' x: ']))}<{number}>"

    def chance(self) -> bool:
        return bool(self.draw(st.integers(0, 3)) == 0)

    def line(self, column: int, text: str, owner: tuple[str, ...]) -> None:
        spaces = [" ", "  ", "\t"] if text[-1].isalnum() else [" ", "  "]  # YAML's parsers take a tab behind words only
        behind = self.draw(st.sampled_from(spaces)) + self.comment(owner) if self.chance() else ""
        self.lines.append(" " * column + text + behind)

    def above(self, column: int, owner: tuple[str, ...], around: tuple[str, ...]) -> None:
        """Comment lines over an item: parted from it by an empty line they belong to what is around it."""
        if self.chance():
            self.lines += ["", " " * column + self.comment(around), ""]
        if self.chance():
            self.lines.append(" " * self.draw(st.integers(0, column)) + self.comment(owner))

    def below(self, column: int, owner: tuple[str, ...]) -> None:
        if self.chance():
            self.lines += [""] * self.draw(st.integers(0, 1)) + [" " * (column + 1) + self.comment(owner)]

    def scalars(self, column: int, key: str, items: list[str], path: tuple[str, ...]) -> None:
        look = self.draw(st.sampled_from(["block", "line", "tall"])) if items else "line"
        written = [f'"{item}"' if " " in item or "#" in item or self.chance() else item for item in items]
        if look == "line":
            self.line(column, f"{key}: [{', '.join(written)}]", path)
            return
        self.line(column, f"{key}:" + " [" * (look == "tall"), path)
        inner = column + self.draw(st.sampled_from([2, 4]))
        for n, (item, text) in enumerate(zip(items, written, strict=True)):
            self.above(inner, (*path, item), path)
            comma = "," * (look == "tall" and (n < len(items) - 1 or self.chance()))
            self.line(inner, ("- " if look == "block" else "") + text + comma, (*path, item))
            self.below(inner, (*path, item))
        if look == "tall":
            self.line(column + 1, "]", path)

    def entries(self, column: int, key: str, items: dict[str, Any], path: tuple[str, ...]) -> None:
        """A list of mappings; what an item holds is written by its value."""
        if not items:
            self.line(column, f"{key}: []", path)
            return
        self.line(column, f"{key}:", path)
        dash = column + self.draw(st.sampled_from([0, 2])) if column else 2
        for name, inside in items.items():
            own = (*path, name)
            self.above(dash, own, path)
            alone = self.chance()
            if alone:
                self.line(dash, "-", own)
                self.above(dash + 2, own, own)
            first = " " * (dash + 2) if alone else " " * dash + "- "
            at = len(self.lines)
            inside(dash + 2, own)
            self.lines[at] = first + self.lines[at].lstrip()
            self.below(dash, own)


def written(draw: Any, code: dict[str, Any]) -> Text:
    text = Text(draw)
    if draw(st.booleans()):
        text.above(0, (), ())
        text.line(0, "---", ())
    text.above(0, (), ())
    text.line(0, "name: shop", ())
    text.line(0, f"version: {draw(st.sampled_from(['1', 'v', '!!str 1', '&v 1', '!!int 1']))}", ())
    tags = list(code["metadata"]["tags"])
    text.line(0, "metadata:", ())
    text.scalars(2, "tags", tags, ("tags",))
    text.entries(0, "classes", {"C": lambda c, own: written_class(text, c, own, code["classes"][0])}, ("classes",))
    text.above(0, (), ())
    held = {f["key"]: written_function(text, f["key"]) for f in code["functions"]}
    text.entries(0, "functions", held, ("functions",))
    text.scalars(0, "dependencies", list(code["dependencies"]), ("dependencies",))
    text.above(0, (), ())
    text.line(0, "deployments: []", ())
    text.above(0, (), ())
    if draw(st.booleans()):
        text.line(0, "...", ())
    return text


def written_class(text: Text, column: int, own: tuple[str, ...], code: dict[str, Any]) -> None:
    text.line(column, "key: C", own)
    held = {b["name"]: written_binding(text, b) for b in code["function_bindings"]}
    text.entries(column, "function_bindings", held, ("bindings",))


def written_binding(text: Text, code: dict[str, Any]) -> Any:
    def write(column: int, own: tuple[str, ...]) -> None:
        text.line(column, f"name: {code['name']}", own)
        text.above(column, own, own)
        text.line(column, "function_key: a", own)
        text.line(column, "access_modifier: PUBLIC", own)
        text.scalars(column, "parameters", code["parameters"], (*own, "parameters"))

    return write


def written_function(text: Text, key: str) -> Any:
    def write(column: int, own: tuple[str, ...]) -> None:
        text.line(column, f"key: {key}", own)
        if text.chance():
            text.line(column, "description: |", own)
            text.lines.append(" " * (column + 2) + "# no comment")
        if text.chance():
            text.line(column, "config: {", own)
            text.above(column + 2, own, own)
            text.line(column + 2, "A: b,", own)
            text.above(column + 2, own, own)
            text.line(column, "}", own)

    return write


@st.composite
def codes(draw: Any) -> dict[str, Any]:
    keys = draw(st.lists(st.sampled_from(["f", "g", "h"]), unique=True, max_size=3))
    bound = draw(st.lists(st.sampled_from(["x", "y"]), unique=True, max_size=2))
    return {
        "name": "shop",
        "version": draw(st.sampled_from(["1", "2"])),
        "metadata": {"tags": draw(names)},
        "dependencies": draw(names),
        "classes": [
            {"key": "C", "function_bindings": [{"name": b, **BINDING, "parameters": draw(names)} for b in bound]}
        ],
        "functions": [{"key": key, "function_type": "CUSTOM"} for key in keys],
    }


def ordered(before: list[str], after: list[str]) -> bool:
    """Whether those that are in both have one order in both."""
    return [n for n in before if n in after] == [n for n in after if n in before]


def removed(before: dict[str, Any], after: dict[str, Any]) -> set[tuple[str, ...]]:
    """The paths of what the second does not have."""
    found: set[tuple[str, ...]] = set()
    bound = {b["name"]: b for b in after["classes"][0]["function_bindings"]}
    for binding in before["classes"][0]["function_bindings"]:
        if binding["name"] not in bound:
            found.add(("bindings", binding["name"]))
            continue
        path = ("bindings", binding["name"], "parameters")
        found |= {(*path, p) for p in binding["parameters"] if p not in bound[binding["name"]]["parameters"]}
    keys = [f["key"] for f in after["functions"]]
    found |= {("functions", f["key"]) for f in before["functions"] if f["key"] not in keys}
    for name, here, there in (
        ("tags", before["metadata"]["tags"], after["metadata"]["tags"]),
        ("dependencies", before["dependencies"], after["dependencies"]),
    ):
        if there:  # an empty list of the code is no opinion
            found |= {(name, item) for item in here if item not in there}
    return found


def in_order(before: dict[str, Any], after: dict[str, Any]) -> bool:
    bound = {b["name"]: b["parameters"] for b in after["classes"][0]["function_bindings"]}
    pairs = [(b["parameters"], bound.get(b["name"], [])) for b in before["classes"][0]["function_bindings"]]
    pairs += [(before["metadata"]["tags"], after["metadata"]["tags"]), (before["dependencies"], after["dependencies"])]
    return all(ordered(here, there) for here, there in pairs)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["lf", "crlf"])
@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_stays_keeps_its_comments_and_what_goes_takes_its_own(line_end, data):
    code, wanted = data.draw(codes()), data.draw(codes())
    text = written(data.draw, code)
    before = line_end.join(text.lines) + line_end * data.draw(st.booleans())
    merged = reexport(before, wanted, "shop.yaml", prune=True)
    gone = removed(code, wanted)
    kept = [n for n, owner in text.owners.items() if not any(owner[:i] in gone for i in range(len(owner) + 1))]
    left = [int(n) for n in re.findall(r"#[^<\n]*<(\d+)>", merged.text)]
    assert (left if in_order(code, wanted) else sorted(left)) == kept, merged.text
    assert merged.text.count("\n") == merged.text.count(line_end)
    assert to_data(read_text(merged.text))["functions"] is not None
    assert reexport(merged.text, wanted, "shop.yaml", prune=True).text == merged.text
