"""Exporting again into a document that a person has edited: nothing is lost, nothing changes in silence."""

from __future__ import annotations

import random
import re
import sys

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bema.core.errors import Invalid, Refused
from bema.packages.decorators import bind, oaas_function, package, state_spec
from bema.packages.export import MetadataRepo
from bema.packages.findings import Unreadable
from bema.packages.opackage import to_data
from bema.packages.reader import read_text
from bema.packages.reexport import reexport
from bema.packages.writer import to_yaml

from .documents import packages

EDITED = """\
# the team's document
name: shop   # do not rename
version: 1.0.0
metadata:
  author: Ann
  description: written by hand
  created_at: 2026-03-01T10:00:00Z
functions:    # functions first
  - key: order.add
    function_type: CUSTOM
    description: Add a line
    provision_config:
      # pinned until the next release
      container_image: "ghcr.io/acme/order:1.2.3"
      need_http2: true
      max_scale: 0x0A
    config: {LOG_LEVEL: info, RATIO: 1.10}

  # still called by the old shop
  - key: order.old
    function_type: CUSTOM
classes:
  - key: Order
    description: One order
    function_bindings:
      - name: add
        function_key: order.add
        access_modifier: PUBLIC
        parameters: [sku]
    owner: ann   # not of the model
deployments:
  - {key: orders, package_name: shop, class_key: Order}
"""


def exported(version="1.0.0"):
    @package(name="shop", version=version, author="Ann")
    class Order:
        """One order"""

        @oaas_function("order.add", description="Add a line")
        @bind("add", "order.add")
        def add(self, sku): ...

    return next(iter(MetadataRepo(Order).export_pkg().values()))


def grown():
    @package(name="shop", version="1.1.0", author="Ann", tags=["new"])
    @state_spec([("total", "float", False)], persistent=True)
    class Order:
        """One order"""

        @oaas_function("order.add", description="Add a line")
        @bind("add", "order.add", access_modifier="PRIVATE")
        def add(self, sku, qty): ...

        @oaas_function("order.reset")
        def reset(self):
            """Start: "again" # now"""

    @package(name="shop")
    class Line: ...

    return next(iter(MetadataRepo(Order, Line).export_pkg().values()))


def lines_lost(before, after):
    return [line for line in before.splitlines() if line not in after.splitlines()]


def test_without_a_change_not_a_byte_changes():
    merged = reexport(EDITED, exported())
    assert merged.text == EDITED
    assert (merged.added, merged.changed) == ((), ())
    assert merged.gone == ("function order.old",)


def test_what_code_says_is_written_and_all_else_is_kept():
    merged = reexport(EDITED, grown())
    assert lines_lost(EDITED, merged.text) == ["version: 1.0.0", "        parameters: [sku]"]
    put_in = lines_lost(merged.text, EDITED)
    assert {"version: 1.1.0", "        access_modifier: PRIVATE", "  - key: order.reset"} <= set(put_in)
    assert "# still called by the old shop" in merged.text
    assert "owner: ann   # not of the model" in merged.text
    assert merged.text.index("functions:") < merged.text.index("classes:")


def test_what_was_added_changed_and_is_gone_is_reported():
    merged = reexport(EDITED, grown())
    assert merged.added == (
        "class Order: state_spec",
        "class Order: binding reset",
        "class Line",
        "function order.reset",
    )
    assert merged.changed == (
        "version: '1.0.0' -> '1.1.0'",
        "metadata.tags: nothing -> ['new']",
        "binding add: access_modifier: 'PUBLIC' -> 'PRIVATE'",
        "binding add: parameters: ['sku'] -> ['sku', 'qty']",
    )
    assert merged.gone == ("function order.old",)


def test_provisioning_is_the_persons():
    before, after = read_text(EDITED).functions[0], read_text(reexport(EDITED, grown()).text).functions[0]
    assert before.provision_config is not None
    assert before.provision_config.max_scale == 10
    assert after.provision_config == before.provision_config
    assert after.config == {"LOG_LEVEL": "info", "RATIO": "1.10"}
    assert "max_scale: 0x0A" in reexport(EDITED, grown()).text
    assert read_text(reexport(EDITED, grown()).text).deployments[0].key == "orders"


def test_a_second_time_there_is_nothing_to_do():
    once = reexport(EDITED, grown())
    twice = reexport(once.text, grown())
    assert twice == (once.text, (), (), once.gone)


def test_pruning_removes_what_is_gone():
    merged = reexport(EDITED, exported(), prune=True)
    assert [f.key for f in read_text(merged.text).functions] == ["order.add"]
    assert merged.gone == ("function order.old",)
    assert "# pinned until the next release" in merged.text


def test_a_state_that_left_the_code_is_kept_until_pruned():
    text = to_yaml(grown())
    plain = exported("1.1.0")
    kept = reexport(text, plain)
    assert "class Order: state_spec" in kept.gone
    assert read_text(kept.text).classes[0].state_spec is not None
    assert read_text(reexport(text, plain, prune=True).text).classes[0].state_spec is None


@pytest.mark.parametrize("indent", ["", "  "])
def test_lists_stay_indented_as_they_were(indent):
    text = f"name: shop\nfunctions:\n{indent}- key: order.mine\n{indent}  function_type: MACRO\n"
    merged = reexport(text, exported())
    assert f"\n{indent}- key: order.mine\n{indent}  function_type: MACRO\n{indent}- key: order.add\n" in merged.text


def test_line_ends_stay_as_they_were():
    text = reexport(EDITED.replace("\n", "\r\n"), grown()).text
    assert text.count("\n") == text.count("\r\n") > 10


def test_lists_of_a_document_that_has_none_are_written_as_an_export_writes_them():
    text = reexport("name: shop\n", exported()).text
    assert "\nfunctions:\n  - key: order.add\n" in text


def test_a_long_line_of_a_person_stays_one_line():
    said = "a sentence that goes on and on, " * 40
    text = EDITED.replace("version:", f"remark: {said}end\nversion:", 1)
    assert f"remark: {said}end\n" in reexport(text, grown()).text


def test_a_document_of_another_package_is_refused():
    with pytest.raises(Invalid, match="is of package other, not of shop"):
        reexport("name: other\n", exported())


@pytest.mark.parametrize(
    ("twice", "place"),
    [("    config: {A: 1, A: 2}\n", "4:20"), ("    owner: ann\n    owner: bob\n", "5:5")],
    ids=["in a map", "of an unknown field"],
)
def test_a_key_that_stands_twice_is_not_settled_for_the_person(twice, place):
    text = f"name: shop\nfunctions:\n  - key: order.add\n{twice}"
    with pytest.raises(Invalid, match=rf"shop.yaml:{place}: cannot be edited: found duplicate key") as refused:
        reexport(text, exported(), "shop.yaml")
    assert refused.value.fix == "Keep one."


def test_a_part_that_two_classes_share_is_not_changed_in_both():
    shared = """\
name: shop
classes:
  - key: Other
    function_bindings: &shared
      - {name: add, function_key: order.add, access_modifier: PUBLIC, parameters: [other]}
  - key: Order
    function_bindings: *shared
functions:
  - key: order.add
"""
    with pytest.raises(Invalid, match="without changing what else it says") as refused:
        reexport(shared, exported(), "shop.yaml")
    assert "Write out" in refused.value.fix


def test_an_alias_that_no_change_touches_stays():
    text = EDITED.replace("config: {LOG_LEVEL: info, RATIO: 1.10}", "config: &c {LOG_LEVEL: info}").replace(
        "  - key: order.old\n", "  - key: order.old\n    config: *c\n"
    )
    merged = reexport(text, exported(version="1.0.1"))
    assert "config: &c {LOG_LEVEL: info}" in merged.text
    assert "config: *c" in merged.text


def test_a_number_that_is_none_is_no_obstacle():
    text = "name: shop\ndeployments:\n- key: d\n  package_name: shop\n  class_key: C\n  nfr_requirements: {availability: .nan}\n"
    assert "availability: .nan" in reexport(text, exported()).text


def test_a_document_that_cannot_be_read_is_left_alone():
    with pytest.raises(Unreadable, match="unknown-variant"):
        reexport("name: shop\nfunctions: [{key: f, function_type: custom}]\n", exported())


def test_the_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(Refused) as refused:
        reexport(EDITED, exported("1.0.1"))
    assert refused.value.code == "missing_extra"
    assert "bema[packages]" in refused.value.fix


COMMENTED = """\
# 1: head
name: shop
version: "1"  # 2: bumped by hand
metadata: {tags: [grpc,  # 3: ops want this
  old  # 4: goes with it
  ]}
classes:
  # 5: the only one
  - key: Order
    function_bindings:
      - name: add
        function_key: order.add
        access_modifier: PUBLIC
        parameters:
          - sku  # 6: article number, 8 digits
          # 7: goes
          - gone  # 8: goes

      # 9: above what stays
      - {name: keep, function_key: order.add, access_modifier: PUBLIC}  # 10
functions:
  # 11: goes with what it stands above
  - key: order.old  # 12: goes
    function_type: CUSTOM

    # 13: goes, inside
    config: {A: b}
  # 14: audited, ask legal before touching

  # 15
  - key: order.add
    function_type: CUSTOM
    config: {
      LOG: info,  # 16: ops want this
      # 17: DEBUG: "1"
    }
    description: |  # 18: long
      # not a comment
      text
# 19: the next section
dependencies: []
deployments: []  # 20
# 21: end
"""


def said(*, tags=("grpc", "new"), parameters=("sku", "qty"), more=False):
    return {
        "name": "shop",
        "version": "2",
        "metadata": {"tags": list(tags)},
        "dependencies": ["base"],
        "classes": [
            {
                "key": "Order",
                "function_bindings": [
                    {
                        "name": "add",
                        "function_key": "order.add",
                        "access_modifier": "PUBLIC",
                        "stateless": False,
                        "parameters": list(parameters),
                    },
                    {
                        "name": "keep",
                        "function_key": "order.add",
                        "access_modifier": "PUBLIC",
                        "stateless": False,
                        "parameters": [],
                    },
                ],
            }
        ],
        "functions": [
            {"key": "order.add", "function_type": "CUSTOM"},
            *([{"key": "order.more", "function_type": "CUSTOM", "description": "one more"}] if more else []),
        ],
    }


def commentary(text):
    """The comments of a text in order, by its tokens: independent of how the product finds them."""
    tokens = [t for t in yaml.scan(text, Loader=yaml.SafeLoader) if isinstance(t, yaml.ScalarToken)]
    inside = [(t.start_mark.index, t.end_mark.index) for t in tokens]
    headed = {t.start_mark.index for t in tokens if t.style in ("|", ">")}
    found: list[tuple[str, int]] = []
    for match in re.finditer(r"(?:^|(?<=\s))#.*", text, re.MULTILINE):
        span = next(((a, b) for a, b in inside if a <= match.start() < b), None)
        is_comment = span is None or (span[0] in headed and "\n" not in text[span[0] : match.start()])
        if is_comment and (not found or match.start() >= found[-1][1]):
            found.append((match.group(), match.end()))
    return [comment for comment, _ in found]


def test_comments_go_only_with_what_they_belong_to():
    merged = reexport(COMMENTED, said(more=True), prune=True).text
    numbers = [int(comment[1:].split(":")[0]) for comment in commentary(merged)]
    assert numbers == [1, 2, 3, 5, 6, 9, 10, 14, 15, 16, 17, 18, 19, 20, 21]
    assert merged.index("order.more") < merged.index("# 19")
    assert "    config: {\n      LOG: info,  # 16: ops want this\n" in merged
    assert read_text(merged).dependencies == ["base"]


@pytest.mark.parametrize("prune", [False, True])
@given(st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_comments_in_every_position_survive_every_edit(prune, data):
    """comments(before) - comments(of removed nodes) == comments(after), in order."""
    lines = COMMENTED.splitlines()
    for number in range(data.draw(st.integers(0, 8))):
        at = data.draw(st.integers(0, len(lines) - 1))
        what = data.draw(st.sampled_from(["above", "behind", "blank"]))
        in_text = lines[at].strip() in ("# not a comment", "text") or (at and lines[at - 1].endswith("long"))
        if what == "behind" and "#" not in lines[at] and not in_text:
            lines[at] += f"  # new {number}"
        elif what == "above" and not in_text:
            lines.insert(at, " " * data.draw(st.integers(0, 9)) + f"# new {number}")
        elif what == "blank" and not in_text:
            lines.insert(at, "")
    before = "\n".join(lines) + "\n"
    if "version" not in before:
        return
    wanted = said(
        tags=data.draw(st.lists(st.sampled_from(["grpc", "old", "new", "a b", "x: y"]), unique=True, min_size=1)),
        parameters=data.draw(st.lists(st.sampled_from(["sku", "gone", "qty", "#no"]), unique=True, min_size=1)),
        more=data.draw(st.booleans()),
    )
    try:
        merged = reexport(before, wanted, "shop.yaml", prune=prune)
    except Invalid as refused:
        assert re.match(r"shop.yaml(:\d+:\d+:)? cannot be edited", refused.message)
        return
    there = commentary(before)
    goes = [comment for comment in there if belongs(before, comment, wanted, prune)]
    kept = [comment for comment in there if comment not in goes]
    left = commentary(merged.text)
    # what is in another order in the code takes its comments along
    names = wanted["classes"][0]["function_bindings"][0]["parameters"]
    moved = names.index("gone") < names.index("sku") if {"gone", "sku"} <= set(names) else False
    assert (sorted(left) == sorted(kept)) if moved else (left == kept), merged.text


def belongs(before, comment, wanted, prune):
    """Whether a comment is of something that goes: on its lines, directly above it, or below it and deeper."""
    lines = before.splitlines()
    at = next(i for i, line in enumerate(lines) if comment in line)
    parameters = wanted["classes"][0]["function_bindings"][0]["parameters"]
    going = [items(lines, f"- {name}", f"- {name}") for name in ("sku", "gone") if name not in parameters]
    if prune:
        going.append(items(lines, "- key: order.old", "config: {A: b}"))
    tags = wanted["metadata"]["tags"]
    if "old" not in tags:
        going.append(items(lines, "old", "old"))
    return any(at in item for item in going) or ("grpc" not in tags and "[grpc" in lines[at])


def items(lines, first, last):
    """The numbers of the lines that belong to an item of a block: its own, and those of its comments."""
    start = next(i for i, line in enumerate(lines) if line.strip().startswith(first))
    end = next(i for i, line in enumerate(lines) if line.strip().startswith(last))
    column = indent(lines[start])
    while start and lines[start - 1].strip().startswith("#") and indent(lines[start - 1]) <= column:
        start -= 1
    below = end
    while below + 1 < len(lines) and (not lines[below + 1].strip() or lines[below + 1].strip().startswith("#")):
        below += 1
        if lines[below].strip() and indent(lines[below]) <= column:
            break
        end = below if lines[below].strip() else end
    return range(start, end + 1)


def indent(line):
    return len(line) - len(line.lstrip())


@given(st.integers())
@settings(max_examples=150)
def test_whatever_a_person_did_to_it_nothing_is_lost_or_it_is_refused(seed):
    """Characters changed at random: what comes out means what was there and what code says, or nothing comes out."""
    chance = random.Random(seed)
    text = list(EDITED)
    for _ in range(chance.randint(1, 5)):
        text[chance.randrange(len(text))] = chance.choice("{}[]:,-#'\"&*!|>%@` \n\tx0~<")
    there = "".join(text)
    try:
        merged = reexport(there, exported("9"), "shop.yaml")
    except Invalid as refused:
        assert "shop.yaml" in refused.message
        return
    before, after = read_text(there), read_text(merged.text)
    assert after.version == "9"
    assert after.deployments == before.deployments
    kept = {function.key: (function.provision_config, function.config) for function in after.functions}
    assert all(kept[f.key] == (f.provision_config, f.config) for f in {f.key: f for f in before.functions}.values())
    assert reexport(merged.text, exported("9")).text == merged.text


@given(packages.filter(lambda p: len({f.key for f in p.functions}) == len(p.functions)))
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_whatever_the_document_holds_is_kept(there):
    there.name = "shop"
    merged = reexport(to_yaml(to_data(there)), exported())
    after = read_text(merged.text)
    known = {function.key: function for function in after.functions}
    for function in there.functions:
        if function.key != "order.add":
            assert known[function.key] == function
        assert known[function.key].provision_config == function.provision_config
    assert after.deployments == there.deployments
    assert yaml.load(merged.text, Loader=yaml.SafeLoader)["name"] == "shop"
