"""Lint and `--fix` of documents with tags, anchors, comments, tabs and markers in every position.

Every outcome is a finding or a pass. `--fix` ends, keeps line ends and comments, and has nothing to do a second time.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bema.core.errors import Invalid
from bema.packages.layout import comments, walk
from bema.packages.lint import RULES, lint, mend
from bema.packages.nodes import Node, Source
from bema.packages.reader import examine_text
from bema.packages.reexport import reexport

from .conftest import DATA

KNOWN = {rule.id for rule in RULES}
SLIPS = """\
name: shop
version: 1.0
metadata:
  tags: [a, "b"]
  created_at: 2026-03-01T10:00:00Z
classes:
- key: Order
  state_spec: {persistent: yes, key_specs: [[id, string, false]]}
  function_bindings:
  - name: add
    function_key: order.add
    access_modifier: public
    immutable: true
    parameters:
    - sku
- name: Line
functions:
  - key: order.add
    function_type: custom
    provision_config:
      container_image: i
      port: "80"
      min_scale: 0
  - {key: order.sum, provision_config: {}, config: {A: b}}
deployments:
- key: d
  package_name: shop
  class_key: Order
  condition: running
  nfr_requirements: {availability: 0.5, min_throughput_rps: 0}
"""
TEXTS = [SLIPS, *(file.read_text() for file in sorted(DATA.glob("accept/*.yaml")))]
JSON_IN_YAML = """\
{
  "name": "shop",
  "functions": [
    {
      "key": "f",
      "function_type": "custom",
      "provision_config": {
        "container_image": "i"
      }
    },
    {"key": "g", "provision_config": {}}
  ]
}
"""
TAGS = [
    "!!int", "!!bool", "!!float", "!!null", "!!str", "!!map", "!!seq", "!!set", "!!omap", "!!pairs", "!!binary",
    "!!timestamp", "!!merge", "!", "!mine", "!<tag:yaml.org,2002:int>", "!<!mine>", "!!python/object:os.system", "!!",
    "&a", "&a !!int", "!!bool &a", "*a",
]  # fmt: skip


def nodes(text: str) -> list[Node]:
    root = examine_text(Source(text)).root
    return sorted(walk(root), key=lambda node: node.start) if root else []


def disturbed(draw, text: str) -> str:
    """The text with what YAML allows, or nearly, put in at places of its own."""
    for _ in range(draw(st.integers(1, 5))):
        there = nodes(text)
        if not there:
            return text
        what = draw(st.sampled_from(["tag", "tag", "value", "behind", "line", "tab", "marker"]))
        node = draw(st.sampled_from(there))
        if what == "tag":
            text = f"{text[: node.start]}{draw(st.sampled_from(TAGS))} {text[node.start :]}"
        elif what == "value":
            word = draw(
                st.sampled_from(["yes", "~", "", "'true'", "0x1F", "1e3", ".inf", "custom", "''", "[]", "{}", "[a, b]"])
            )
            text = text[: node.start] + word + text[node.end :]
        elif what == "marker":
            end = draw(st.sampled_from(["---\n", "...\n", "---\n# c\n", "--- # c", "...\n---\n", "---\n---\n", "\t\n"]))
            text = text.removesuffix("\n") + "\n" + end
        else:
            breaks = [found.start() for found in re.finditer("\n", text)] or [len(text)]
            at = draw(st.sampled_from(breaks))
            put = {"behind": "  # c", "line": f"\n{' ' * draw(st.integers(0, 8))}# c", "tab": "\t"}[what]
            text = text[:at] + put + text[at:]
    return text


@given(st.data())
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_document_is_answered_and_fixing_it_ends(data):
    text = disturbed(data.draw, data.draw(st.sampled_from([*TEXTS, JSON_IN_YAML])))
    line_end = data.draw(st.sampled_from(["\n", "\r\n"]))
    source = Source(text.replace("\n", line_end), "p.yaml")
    (before,) = lint([examine_text(source)])
    assert before.document.package is not None or before.findings
    assert all(finding.rule in KNOWN and finding.line >= 1 and finding.message for finding in before.findings)
    fixed, done = mend(source)
    (after,) = lint([examine_text(fixed)])
    assert (fixed.text == source.text) is not bool(done)
    assert mend(fixed) == (fixed, [])
    assert before.document.package is None or after.document.package is not None
    assert fixed.text.count("\n") == fixed.text.count(line_end)
    if before.document.root is not None:
        assert after.document.root is not None
        assert said(source.text, before.document.root) == said(fixed.text, after.document.root)


def said(text: str, root: Node) -> Counter[str]:
    return Counter(comment for _, comment in comments(text, root))


@given(st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_document_is_brought_up_to_code_or_refused_with_a_true_reason(data):
    text = disturbed(data.draw, data.draw(st.sampled_from(TEXTS)))
    name = examine_text(Source(text)).package
    if name is None:
        return
    code = {
        "name": name.name,
        "version": "9",
        "metadata": {"tags": ["a", "new"]},
        "dependencies": ["base"],
        "classes": [{"key": "Order", "function_bindings": []}],
        "functions": [{"key": "order.add", "function_type": "LOGICAL", "description": "d"}],
    }
    try:
        merged = reexport(text, code, "p.yaml", prune=data.draw(st.booleans()))
    except Invalid as refused:
        assert re.match(r"p\.yaml(:\d+:\d+:)? cannot be edited", refused.message)
        assert "alias" not in str(refused.fix) or "*" in text
        return
    assert reexport(merged.text, code, "p.yaml").text == merged.text


@pytest.mark.parametrize(("slip", "right"), [
    ("name: p\nfunctions: [{key: f, function_type: &a custom}, {key: g, function_type: *a}]\n", "&a CUSTOM"),
    ("name: p\nfunctions: [{key: f, function_type: custom}]\n---\n", "CUSTOM}]\n"),
    ("name: p\nfunctions: [{key: f, function_type: custom}]\n--- # bye\n...\n", "CUSTOM}]\n# bye\n"),
    ("name: p\nclasses:\n- name: C\n", "- key: C\n"),
    ("name: p\nmetadata: {tags: [!!int a]}\n", "tags: [a]"),
    ("name: p\nfunctions:\n-\t\n  key: f\n  function_type: macro\n", "-\n  key: f\n  function_type: MACRO\n"),
])  # fmt: skip
def test_what_has_one_right_answer_is_mended(slip, right):
    assert right in mend(Source(slip))[0].text


def test_json_in_a_yaml_file_stays_json_and_keeps_its_look():
    assert mend(Source(JSON_IN_YAML))[0].text == JSON_IN_YAML.replace('"custom"', '"CUSTOM"').replace(
        '        "container_image"', '        "need_http2": true,\n        "container_image"'
    ).replace("{}", '{"need_http2": true}')


def test_a_comment_is_worth_more_than_a_fix():
    slip = "name: p\nclasses: [{key: C, state_spec: {default_provider: m, serialization_format: j, key_specs: [[id, # c\n string]]}}]"
    assert mend(Source(slip))[1] == []


def test_a_key_that_is_missing_under_an_old_name_is_to_be_renamed():
    (report,) = lint([examine_text(Source("name: p\nfunctions: [{name: f, function_type: MACRO}]"))])
    assert [finding.fix for finding in report.findings] == ["Write `key` for `name`.", "Write `key`."]


def test_a_mark_before_json_and_a_tab_are_called_so():
    (mark,) = examine_text(Source('\ufeff{"name": "p"}', is_json=True)).problems
    assert mark.message == "a byte order mark is not allowed before JSON"
    (tab,) = examine_text(Source("name: p\nclasses:\n-\t# c\n  key: C\n")).problems
    assert tab.message.startswith("a tab stands where only spaces may")
