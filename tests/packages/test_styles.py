"""A document keeps its style: JSON in a `.yaml` stays JSON, spread stays spread, one line stays one line, blocks stay blocks."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bema.packages.lint import mend
from bema.packages.nodes import Source
from bema.packages.opackage import to_data
from bema.packages.reader import read_text
from bema.packages.reexport import reexport

STATE = {
    "default_provider": "memory",
    "consistency_model": "NONE",
    "persistent": True,
    "serialization_format": "json",
}


def code(seed: int) -> dict[str, Any]:
    """What some program exports."""
    chance = random.Random(seed)

    def some(names):
        return chance.sample(names, chance.randint(0, len(names)))

    def binding(name):
        return {
            "name": name,
            "function_key": chance.choice("fgh"),
            "access_modifier": chance.choice(["PUBLIC", "PRIVATE"]),
            "stateless": chance.random() < 0.5,
            "parameters": some(["a", "b c", "1", "yes"]),
        }

    def cls(key):
        found = {"key": key, "function_bindings": [binding(name) for name in some(["x", "y", "z"])]}
        if chance.random() < 0.5:
            keys = [{"name": name, "key_type": chance.choice(["int", "text"])} for name in some(["k", "l"])]
            found["state_spec"] = {"key_specs": keys, **STATE}
        if chance.random() < 0.5:
            found["description"] = chance.choice(["one", "two: three", "a\nb"])
        return found

    metadata = {"author": chance.choice(["Ann", "Bob"])} if chance.random() < 0.5 else {}
    return {
        "name": "shop",
        "version": chance.choice(["1", "2.0"]),
        "metadata": {**metadata, "tags": some(["t", "u", "#v"])},
        "classes": [cls(key) for key in some(["C", "D"])],
        "functions": [{"key": key, "function_type": "CUSTOM"} for key in some(["f", "g", "h"])],
        "dependencies": some(["p", "q"]),
    }


def same(text: str, wanted: dict[str, Any]) -> None:
    """After pruning the document says what the code says."""
    after, meant = to_data(read_text(text)), wanted
    assert sorted(f["key"] for f in after["functions"]) == sorted(f["key"] for f in meant["functions"])
    classes = {cls["key"]: cls for cls in after["classes"]}
    assert set(classes) == {cls["key"] for cls in meant["classes"]}
    for cls in meant["classes"]:
        there = classes[cls["key"]]
        bound = {b["name"]: b for b in there["function_bindings"]}
        assert bound == {b["name"]: b for b in cls["function_bindings"]}
        assert (there["state_spec"] is None) is ("state_spec" not in cls)


WRITTEN: dict[str, Callable[[Any], str]] = {
    "json on one line": json.dumps,
    "json with an indent": lambda data: json.dumps(data, indent=2) + "\n",
    "json with a wide indent": lambda data: json.dumps(data, indent=4),
    "one line": lambda data: yaml.safe_dump(data, default_flow_style=True, width=10_000),
    "wrapped": lambda data: yaml.safe_dump(data, default_flow_style=True, width=30),
    "mixed": lambda data: yaml.safe_dump(data, default_flow_style=None, sort_keys=False),
    "blocks": lambda data: yaml.safe_dump(data, sort_keys=False),
}


@pytest.mark.parametrize("style", WRITTEN)
@given(st.integers(0, 2**32), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_document_becomes_what_code_says_and_keeps_its_style(style, before, after):
    text, wanted = WRITTEN[style](code(before)), code(after)
    merged = reexport(text, wanted, "p.yaml", prune=True)
    same(merged.text, wanted)
    assert reexport(merged.text, wanted, "p.yaml", prune=True).text == merged.text
    if "json" in style:
        json.loads(merged.text)
    if style == "json with an indent":
        assert merged.text == json.dumps(json.loads(merged.text), indent=2) + "\n"
    if style in ("json on one line", "one line"):
        assert merged.text.count("\n") <= text.count("\n")  # a text may be written over several
    if style == "blocks":
        assert "{" not in merged.text.replace("- {name: ", "")  # as an export writes keys of a state


@pytest.mark.parametrize("style", WRITTEN)
@given(st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_fixing_keeps_the_style_too(style, seed):
    data = code(seed)
    for function in data["functions"]:
        function |= {"function_type": "custom", "provision_config": {"container_image": "i"}}
    fixed = mend(Source(WRITTEN[style](data)))[0].text
    assert all(f["provision_config"]["need_http2"] for f in to_data(read_text(fixed))["functions"])
    if "json" in style:
        json.loads(fixed)
    if style == "json with an indent":
        assert fixed == json.dumps(json.loads(fixed), indent=2) + "\n"
