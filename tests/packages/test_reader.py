"""What counts as what: serde_yaml's rules for YAML, serde_json's for JSON."""

from __future__ import annotations

import json

import pytest

from bema.packages.findings import Unreadable
from bema.packages.opackage import FunctionType, to_data
from bema.packages.reader import examine, read_text


def function(fields: str) -> str:
    return f"name: p\nfunctions: [{{key: f, {fields}}}]\n"


def provision(fields: str) -> str:
    return function(f"provision_config: {{{fields}}}")


def refusal(text: str, *, is_json: bool = False) -> str:
    with pytest.raises(Unreadable) as refused:
        read_text(text, is_json=is_json)
    return f"{refused.value.finding.rule} {refused.value.finding.path}: {refused.value.finding.message}"


@pytest.mark.parametrize("text", ["80", "true", "0.5", "null", "~", "007", "1.10", "0x10", "''", "1e3", "2026-03-01"])
def test_yaml_scalars_keep_their_text_where_text_is_wanted(text):
    package = read_text(function(f"config: {{A: {text}}}"))
    assert package.functions[0].config == {"A": text.strip("'")}


def test_a_blank_is_an_empty_collection_and_null_is_not():
    assert to_data(read_text("name: p\nmetadata:\nclasses:\n")) == to_data(read_text("name: p"))
    assert refusal("name: p\nclasses: null\n") == "wrong-type classes: invalid type: unit value, expected a sequence"
    assert refusal("name: p\nmetadata: ~\n").startswith("wrong-type metadata: invalid type: unit value")
    assert read_text("name:\n").name == ""


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("+80", 80), ("0x1F", 31), ("0o17", 15), ("0b11", 3), ("~", None)]
)
def test_whole_numbers_of_yaml(text, value):
    assert read_text(provision(f"port: {text}")).functions[0].provision_config.port == value  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text", ["080", "8.0", "1e3", "'80'", "-1", "8_0", "0x", "+-8", "99999999999999999999999", "8080 "]
)
def test_what_is_no_port(text):
    text = f'"{text}"' if text.endswith(" ") else text
    assert refusal(provision(f"port: {text}")).startswith("wrong-type functions[0].provision_config.port: invalid type")


def test_numbers_stay_within_their_field():
    assert refusal(provision("port: 65536")).endswith("invalid value: integer `65536`, expected u16")
    assert refusal(provision("min_scale: 4294967296")).endswith("integer `4294967296`, expected u32")
    odgm = "name: p\ndeployments: [{key: d, package_name: p, class_key: C, odgm: {env_node_ids: {e: [%d]}}}]"
    assert read_text(odgm % (2**64 - 1)).deployments[0].odgm
    assert refusal(odgm % 2**64).startswith("wrong-type")


@pytest.mark.parametrize(("text", "value"), [("true", True), ("True", True), ("FALSE", False)])
def test_booleans_of_yaml(text, value):
    assert read_text(provision(f"need_http2: {text}")).functions[0].provision_config.need_http2 is value  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["yes", "on", "tRUE", "1", "'true'", "", "null"])
def test_what_is_no_boolean(text):
    assert refusal(provision(f"need_http2: {text}")).startswith("wrong-type functions[0].provision_config.need_http2")


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1.0), (".5", 0.5), ("5e-1", 0.5), (".inf", float("inf")), ("+.5", 0.5)]
)
def test_numbers_of_yaml(text, value):
    document = (
        f"name: p\ndeployments: [{{key: d, package_name: p, class_key: C, nfr_requirements: {{availability: {text}}}}}]"
    )
    assert read_text(document).deployments[0].nfr_requirements.availability == value


def test_an_enum_takes_exactly_its_words():
    assert read_text(function("function_type: 'WASM'")).functions[0].function_type is FunctionType.WASM
    assert refusal(function("function_type: null")).startswith("unknown-variant")
    assert refusal(function("function_type: [CUSTOM]")).startswith("wrong-type")


def test_unknown_fields_are_read_over_whatever_they_hold():
    package = read_text("name: p\nbase: {a: [1, {b: c}], a: 2}\nname_: [x\n, y]\n")
    assert to_data(package) == to_data(read_text("name: p"))


def test_merge_keys_bring_nothing():
    text = "x: &b {container_image: i}\nname: p\nfunctions: [{key: f, provision_config: {<<: *b, port: 1}}]"
    assert read_text(text).functions[0].provision_config.container_image is None  # type: ignore[union-attr]


def test_instants_are_turned_to_utc():
    text = "name: p\nmetadata: {created_at: %s}"
    assert read_text(text % "2026-03-02T01:00:00.500+02:00").metadata.created_at == "2026-03-01T23:00:00.500Z"
    assert refusal(text % "2026-03-02") == "bad-instant metadata.created_at: not an RFC 3339 instant: '2026-03-02'"


def test_marks_of_a_document():
    assert read_text("---\nname: p\n...\n").name == "p"
    assert read_text("\ufeff--- # head\nname: p\n".removeprefix("\ufeff")).name == "p"
    assert refusal("name: p\n---\n").startswith("trailing-marker")
    assert refusal("name: p\n---\nname: q\n").startswith("several-documents")
    assert refusal("# nothing\n") == "missing-field .: missing field `name`"
    assert refusal("- p\n") == "wrong-type .: invalid type: sequence, expected struct OPackage"


@pytest.mark.parametrize(
    "document",
    [
        '{"name": 1}',
        '{"name": "p", "version": 1.0}',
        '{"name": "p", "functions": [{"key": "f", "config": {"A": 1}}]}',
        '{"name": "p", "functions": null}',
        '{"name": "p", "functions": [{"key": "f", "provision_config": {"port": 80.0}}]}',
        '{"name": "p", "functions": [{"key": "f", "provision_config": {"port": "80"}}]}',
        '{"name": "p", "name": "q"}',
        '{"name": "p",}',
        "{name: p}",
        '{"name": "p"} x',
        '{"name": "\\ud800"}',
        '{"name": "p", "deployments": [{"key": "d", "package_name": "p", "class_key": "C", "nfr_requirements": {"availability": NaN}}]}',
        '{"name": "a\tb"}',
        "",
        "[1",
    ],
)
def test_json_is_read_strictly(document):
    assert refusal(document, is_json=True).split()[0] in {"wrong-type", "duplicate-field", "json-syntax"}


def test_json_reads_what_it_should():
    text = '{"name": "\\u00e9\\/", "version": null, "x": [1e5, -0, true], "functions": [{"key": "f", "description": null}]}'
    package = read_text(text, is_json=True)
    assert (package.name, package.version, package.functions[0].description) == ("é/", None, None)
    assert to_data(package)["name"] == json.loads(text)["name"]


def test_every_slip_is_reported_in_one_reading(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("classes: [{}]\nfunctions: [{key: f, function_type: custom, provision_config: {port: x}}]\n")
    document = examine(file)
    assert document.package is None
    assert [(p.rule, p.path, p.line) for p in document.problems] == [
        ("missing-field", "classes[0]", 1),
        ("unknown-variant", "functions[0].function_type", 2),
        ("wrong-type", "functions[0].provision_config.port", 2),
        ("missing-field", ".", 1),
    ]


def test_lines_are_counted_as_editors_count_them(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_bytes("\ufeffname: é\r\nversion: [x]\r\n".encode())
    (problem,) = examine(file).problems
    assert (problem.line, problem.column, problem.path) == (2, 10, "version")
