"""`--fix` mends what has one right answer, in place, and changes nothing else."""

from __future__ import annotations

import difflib

import pytest

from bema.packages.findings import Edit, Severity
from bema.packages.lint import apply, lint, mend
from bema.packages.nodes import Source
from bema.packages.reader import examine, examine_text

from .conftest import DATA, verdicts

MENDED = [
    ("r08-lowercase-access-modifier.yaml", "access_modifier: public", "access_modifier: PUBLIC"),
    ("r10-lowercase-function-type.yaml", "function_type: custom", "function_type: CUSTOM"),
    ("r11-java-function-type-TASK.yaml", "function_type: TASK", "function_type: CUSTOM"),
    ("r16-key-spec-tuple-form.yaml", "[id, string, false]", "{name: id, key_type: string}"),
    ("r20-need-http2-string.yaml", 'need_http2: "true"', "need_http2: true"),
    ("r29-deployment-bad-condition.yaml", "condition: running", "condition: RUNNING"),
    ("r35-version-number.json", '"version":1.0', '"version":"1.0"'),
    ("r40-stateless-yes-word.yaml", "stateless: yes", "stateless: true"),
    ("a04-legacy-knative-immutable-ignored.yaml", "immutable: true", "stateless: true"),
    ("a08-two-bindings-one-function.yaml", "{container_image: i}", "{need_http2: true, container_image: i}"),
]


def mended(text: str, name: str = "p.yaml") -> str:
    source, _ = mend(Source(text, name, name.endswith(".json")))
    return source.text


@pytest.mark.parametrize(("name", "slip", "right"), MENDED, ids=[name for name, *_ in MENDED])
def test_a_slip_is_mended_where_it_stands(name, slip, right):
    text = next(DATA.glob(f"*/{name}")).read_text()
    assert slip in text
    fixed = mended(text, name)
    assert right in fixed
    if name.startswith("r") and "r16" not in name:
        assert fixed == text.replace(slip, right)


@pytest.mark.parametrize("verdict", verdicts(), ids=lambda row: row.name)
def test_fixing_never_makes_it_worse_and_ends(verdict):
    source = Source(verdict.file.read_text(), str(verdict.file), verdict.file.suffix == ".json")
    (before,) = lint([examine_text(source)])
    fixed, done = mend(source)
    (after,) = lint([examine_text(fixed)])
    assert after.count(Severity.ERROR) <= before.count(Severity.ERROR)
    assert (fixed.text == source.text) is not bool(done)
    assert mend(fixed) == (fixed, [])


def test_a_number_in_quotes_loses_them_where_it_fits():
    slip = "name: p\nfunctions: [{key: f, provision_config: {need_http2: true, container_image: i, port: '%s'}}]"
    assert mended(slip % "8080") == (slip % "8080").replace("'", "")
    for left in ("70000", "080", "1.5", "many", "-1", "9" * 30):
        assert mended(slip % left) == slip % left


@pytest.mark.parametrize("broken", [b"# \xff\n", b"#" * 10_000_000], ids=["not UTF-8", "too large"])
def test_a_file_that_was_not_read_to_its_end_is_never_written_back(tmp_path, broken):
    file = tmp_path / "p.yaml"
    file.write_bytes(b"name: p\nfunctions: [{key: f, function_type: custom}]\n" + broken + b"dependencies: []\n")
    source = examine(file).source
    assert mend(source) == (source, [])


def test_fields_are_put_in_as_blocks_are_written():
    text = (
        "name: p  # mine\n"
        "functions:\n"
        "- key: f\n"
        "  provision_config:   # later\n"
        "    # pinned\n"
        "    container_image: 'i'\n"
        "- {key: g, provision_config: {}}\n"
        "classes:\n"
        "  - key: C\n"
        "    state_spec:\n"
        "      persistent: true\n"
    )
    lines = list(difflib.ndiff(text.splitlines(), mended(text).splitlines()))
    assert [line[2:] for line in lines if line.startswith("+ ")] == [
        "    need_http2: true",
        "- {key: g, provision_config: {need_http2: true}}",
        "      serialization_format: json",
        "      default_provider: memory",
    ]
    assert [line[2:] for line in lines if line.startswith("- ")] == ["- {key: g, provision_config: {}}"]


def test_an_anchored_part_is_mended_once():
    fixed = mended(
        "x: &x\n  container_image: i\nname: p\nfunctions: [{key: f, provision_config: *x}, {key: g, provision_config: *x}]"
    )
    assert fixed.count("need_http2: true") == 1


def test_json_stays_json():
    text = '{"name": "p", "functions": [{"key": "f", "function_type": "custom", "provision_config": {}}]}'
    assert mended(text, "p.json") == (
        '{"name": "p", "functions": [{"key": "f", "function_type": "CUSTOM", "provision_config": {"need_http2": true}}]}'
    )


def test_a_trailing_marker_goes():
    assert mended("name: p\n---\n") == "name: p\n"


def test_line_ends_are_kept():
    assert mended("name: p\r\nfunctions: [{key: f, function_type: macro}]\r\n") == (
        "name: p\r\nfunctions: [{key: f, function_type: MACRO}]\r\n"
    )


def test_what_has_no_one_answer_is_left():
    text = (DATA / "reject" / "r13-consistency-EVENTUAL.yaml").read_text()
    assert mended(text) == text
    assert mended("name: p\nfunctions: [{key: f, provision_config: {need_http2: false}}]").endswith(
        "need_http2: false}}]"
    )


def test_of_two_edits_that_overlap_the_first_counts():
    assert apply("abcdef", [Edit(1, 3, "X"), Edit(2, 4, "Y"), Edit(5, 5, "Z"), Edit(1, 3, "X")]) == "aXdeZf"
