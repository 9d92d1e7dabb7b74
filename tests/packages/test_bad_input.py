"""What nobody should send: refused with path and line, without a traceback, in bounded memory."""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import pytest
import yaml

from bema.core.errors import Refused
from bema.core.limits import DEFAULTS
from bema.packages import yaml_tree
from bema.packages.lint import lint
from bema.packages.nodes import Source
from bema.packages.reader import examine, examine_text
from bema.packages.writer import scalar

BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{there}: &{there} [{','.join([f'*{here}'] * 10)}]" for here, there in zip("abcdefghi", "bcdefghij", strict=True)
)


def problem(text: str, *, is_json: bool = False) -> tuple[str, int]:
    document = examine_text(Source(text, is_json=is_json))
    assert document.package is None
    (found,) = document.problems
    return found.rule, found.line


@pytest.mark.parametrize(
    ("text", "rule", "line"),
    [
        (f"name: p\n{BOMB}", "too-many-nodes", 7),
        ("name: p\na: &a [*a]", "alias-cycle", 2),
        ("name: p\na: *b", "yaml-syntax", 2),
        ("[" * 100_000, "too-deep", 1),
        ("{a: " * 100_000, "too-deep", 1),
        ("name: p\n" + "".join(f"{' ' * n}a:\n" for n in range(400)), "too-deep", 130),
        ("name: p\nx: !!python/object:os.system {}", "yaml-tag", 2),
        ("name: p\nx: !!python/name:os.system", "yaml-tag", 2),
        ("name: p\nx: !Custom y", "yaml-tag", 2),
        ("name: p\nfunctions:\n\t- key: f", "yaml-syntax", 3),
        ("name: p\nx: \x07", "yaml-syntax", 2),
        ("name: p\nx: 'never closed", "yaml-syntax", 2),
        ("name: p\nx: {", "yaml-syntax", 2),
        ("name: p\n%bad\n", "yaml-syntax", 2),
        ("@", "yaml-syntax", 1),
    ],
)
def test_yaml_that_is_refused(text, rule, line):
    assert problem(text) == (rule, line)


@pytest.mark.parametrize(
    ("text", "rule", "line"),
    [
        ("[" * 100_000, "too-deep", 1),
        ('{"a":' * 100_000, "too-deep", 1),
        ('{"name": "p",\n "x": [' + "1," * 600_000 + "1]}", "too-many-nodes", 2),
        ('{"name": "p"\n', "json-syntax", 2),
        ('{"name": "p", "x": Infinity}', "json-syntax", 1),
    ],
)
def test_json_that_is_refused(text, rule, line):
    assert problem(text, is_json=True) == (rule, line)


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_invalid_utf8_has_its_line(tmp_path, suffix):
    file = tmp_path / f"p{suffix}"
    file.write_bytes(b"name: p\nx: ab\xff\n")
    (found,) = examine(file).problems
    assert (found.rule, found.line, found.column) == ("encoding", 2, 6)


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_ten_megabytes_are_not_even_read(tmp_path, suffix):
    file = tmp_path / f"p{suffix}"
    file.write_bytes(b"name: p\n" + b"#" * 10_000_000)
    started = time.process_time()
    (found,) = examine(file).problems
    assert (found.rule, found.line) == ("too-large", 1)
    assert str(DEFAULTS.package_document) in found.message
    assert time.process_time() - started < 1


HUNGRY = """
import resource, sys
from pathlib import Path
from bema.packages.reader import examine
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(found,) = examine(Path(sys.argv[1])).problems
print(found.rule, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("text", [f"name: p\n{BOMB}", "[" + "a," * 4_000_000 + "a]", "a: [" + "[]," * 2_000_000 + "]"])
def test_memory_is_bounded(tmp_path, text):
    assert resource.getpagesize()
    file = tmp_path / "p.yaml"
    file.write_text(text)
    done = subprocess.run([sys.executable, "-c", HUNGRY, str(file)], capture_output=True, text=True, check=True)
    rule, megabytes = done.stdout.split()
    assert rule == "too-many-nodes"
    assert int(megabytes) < 400


MANY = 60_000
BINDINGS = ",".join(f"{{name: b{n}, function_key: f{n}, access_modifier: PUBLIC}}" for n in range(15_000))
COSTLY = {
    "many dependencies": f"name: p\ndependencies: [{','.join(f'd{n}' for n in range(MANY))}]",
    "many unknown fields": "name: p\n" + "\n".join(f"k{n}: 1" for n in range(MANY)),
    "one unknown field many times": "name: p\nclasses:\n- key: C\n  function_bindings:\n  - name: a\n"
    + "    immutable: 1\n" * MANY,
    "bindings and dependencies": f"name: p\ndependencies: [{','.join(f'd{n}' for n in range(15_000))}]\n"
    f"classes: [{{key: C, function_bindings: [{BINDINGS}]}}]",
    "one list in many classes": f"name: p\nx: &b [{BINDINGS}]\nclasses:\n"
    + "\n".join(f"- {{key: C{n}, function_bindings: *b}}" for n in range(2000)),
    "a version that can be read in many ways": f"name: p\nversion: '{'1a' * 60}!'",
    "a key with many dots": "name: p\ndependencies: [a]\nclasses: [{key: C, function_bindings: [{name: b, function_key:"
    f" '{'.' * 1_000_000}', access_modifier: PUBLIC}}]}}]",
    "a number with many digits": "name: p\nfunctions: [{key: f, provision_config: {port: %s}}]" % ("9" * 1_000_000),
}


@pytest.mark.parametrize("text", COSTLY.values(), ids=COSTLY)
def test_a_document_costs_no_more_than_its_size(text):
    """Each of these once took hours: a rule or a reader that looks at everything for everything."""
    started = time.process_time()
    (report,) = lint([examine_text(Source(text))])
    assert time.process_time() - started < 6
    assert report.findings
    assert max(len(finding.message) for finding in report.findings) < 600


@pytest.mark.parametrize("text", ["1.2.3" + "a" * 60 + "!", "a" * 100_000 + "!", "1.2.3" + "-a" * 100_000 + "!"])
def test_a_text_is_printed_in_a_time_of_its_length(text):
    started = time.process_time()
    assert yaml.safe_load(scalar(text)) == text
    assert time.process_time() - started < 3


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(Refused, match="No such file"):
        examine(tmp_path / "none.yaml")
    with pytest.raises(Refused, match="directory"):
        examine(tmp_path)


def test_the_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(Refused) as refused:
        examine_text(Source("name: p"))
    assert refused.value.code == "missing_extra"
    assert "bema[packages]" in refused.value.fix
    assert examine_text(Source('{"name": "p"}', is_json=True)).package


@pytest.mark.parametrize(
    "text", ["name: p\nx: &a [1, *a]", f"name: p\n{BOMB}", "name: p\n---\n", "name: p\nx: !t y", "name: [p", "name: p"]
)
def test_without_the_c_parser_the_verdict_is_the_same(monkeypatch, text):
    def verdict():
        document = examine_text(Source(text))
        return document.package, [(found.rule, found.line) for found in document.problems]

    fast = verdict()
    monkeypatch.setattr(yaml_tree, "yaml_module", lambda: WithoutC)
    assert verdict() == fast


class WithoutC:
    """PyYAML as it is where libyaml was not there to build with."""

    SafeLoader = yaml.SafeLoader
    events = yaml.events
    MarkedYAMLError = yaml.MarkedYAMLError
