"""`bema package`: print, lint, plan and schema, as a person and as a script run them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

DATA = Path(__file__).parents[1] / "data" / "packages"
SHOP = """\
from bema.packages.decorators import bind, oaas_function, package, state_spec

print("said while importing")


@package(name="shop", version="1.0.0")
@state_spec([("total", "float", False)])
class Order:
    '''One order'''

    @oaas_function("order.add")
    @bind("add", "order.add")
    def add(self, sku): ...


@package(name="base")
class Base: ...
"""
LINTED = """\
name: shop
functions:
  - key: order.add   # mine
    function_type: custom
    provision_config: {container_image: i}
"""


@pytest.fixture
def shop(bema):
    file = bema.folder / "shop.py"
    file.write_text(SHOP)
    return file


def test_classes_are_printed_as_yaml(bema, shop):
    done = bema("package", "print", "shop.py")
    assert done.returncode == 0
    assert [d["name"] for d in yaml.load_all(done.stdout, Loader=yaml.SafeLoader)] == ["shop", "base"]
    assert "said while importing" in done.stderr
    assert bema("package", "print", "shop.py").stdout == done.stdout


def test_one_package_of_a_file_as_json_in_the_earlier_dialect(bema, shop):
    done = bema("package", "print", "shop.py", "--package", "shop", "--dialect", "2025-08", "--json")
    document = json.loads(done.stdout)
    assert document["disabled"] is False
    assert document["classes"][0]["state_spec"]["key_specs"] == [
        {"name": "total", "key_type": "float", "nullable": False}
    ]


def test_writing_twice_keeps_the_edits_and_tells_what_changed(bema, shop):
    out = bema.folder / "out"
    assert bema("package", "print", "shop.py", "--out", str(out)).returncode == 0
    file = out / "shop.yaml"
    assert {path.name for path in out.iterdir()} == {"shop.yaml", "base.yaml"}
    file.write_text(file.read_text().replace("function_type: CUSTOM", "function_type: CUSTOM  # mine"))
    shop.write_text(SHOP.replace("def add(self, sku)", "def add(self, sku, qty)"))
    done = bema("package", "print", "shop.py", "--package", "shop", "--out", str(out), "--json")
    (report,) = json.loads(done.stdout)
    assert report["changed"] == ["binding add: parameters: ['sku'] -> ['sku', 'qty']"]
    assert f"{file}: changed: binding add: parameters" in done.stderr
    assert "# mine" in file.read_text()


@pytest.mark.parametrize("name", ["a02-full-current-model", "a05-yaml-scalars-become-strings", "a17-anchor-alias"])
def test_a_document_is_printed_as_the_model_would(bema, name):
    done = bema("package", "print", str(DATA / "accept" / f"{name}.yaml"), "--json")
    assert json.loads(done.stdout) == json.loads((DATA / "golden" / f"{name}.yaml.json").read_text())


def test_a_document_the_model_refuses_is_one_error_with_its_place(bema):
    done = bema("package", "print", str(DATA / "reject" / "r17-port-too-large.yaml"), "--json")
    assert (done.returncode, done.stdout) == (1, "")
    error = json.loads(done.stderr)["error"]
    assert (error["code"], error["rule"], error["path"], error["line"]) == (
        "bad_document", "out-of-range", "functions[0].provision_config.port", 2,
    )  # fmt: skip
    assert "Traceback" not in done.stderr


def test_a_name_that_leads_elsewhere_is_no_file(bema):
    (bema.folder / "p.py").write_text("from bema.compat.oaas import package\n@package(name='../p')\nclass C: ...\n")
    done = bema("package", "print", "p.py", "--out", "out")
    assert done.returncode == 1
    assert "cannot be the name of a file" in done.stderr


def test_options_of_classes_are_refused_for_documents(bema):
    done = bema("package", "print", str(DATA / "accept" / "a01-minimal.yaml"), "--out", "x")
    assert done.returncode == 1
    assert done.stderr.startswith("error usage:")


def test_lint_says_where_and_what_and_ends_with_one(bema):
    (bema.folder / "p.yaml").write_text(LINTED)
    done = bema("package", "lint", "p.yaml")
    assert done.returncode == 1
    assert done.stdout.startswith("p.yaml:4:20: error unknown-variant: unknown variant `custom`")
    assert "fix: Write CUSTOM." in done.stdout
    assert done.stderr.startswith("1 file, 1 error, 0 warnings")


def test_fix_mends_the_file_and_nothing_else(bema):
    file = bema.folder / "p.yaml"
    file.write_text(LINTED)
    file.chmod(0o640)
    done = bema("package", "lint", "p.yaml", "--fix")
    assert done.returncode == 0
    assert file.read_text() == LINTED.replace("custom", "CUSTOM").replace("{con", "{need_http2: true, con")
    assert file.stat().st_mode & 0o777 == 0o640
    assert "2 fixed" in done.stderr


def test_strict_counts_warnings(bema):
    document = str(DATA / "accept" / "a10-duplicate-binding-name.yaml")
    assert bema("package", "lint", document).returncode == 0
    done = bema("package", "lint", document, "--strict", "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["errors"] == 3
    assert {finding["severity"] for finding in report["files"][0]["findings"]} == {"error"}


def test_several_files_are_looked_at_together(bema):
    (bema.folder / "a.yaml").write_text("name: a\ndependencies: [b]\n")
    (bema.folder / "b.json").write_text('{"name": "b"}')
    assert bema("package", "lint", "a.yaml").returncode == 1
    assert bema("package", "lint", "a.yaml", "b.json").returncode == 0
    assert bema("package", "lint", "a.yaml", "--known", "b").returncode == 0


def test_plan_prints_a_table_and_json_that_is_a_document(bema):
    document = str(DATA / "accept" / "a02-full-current-model.yaml")
    table = bema("package", "plan", document, "--env", "env-1=0.9995")
    assert table.returncode == 0
    assert table.stdout.splitlines()[1].split() == [
        "order-dep",
        "Order",
        "3",
        "0.9995",
        "0.999",
        "env-1",
        "order.add_line",
    ]
    done = bema("package", "plan", document, "--env", "env-1=0.9995", "--image", "order.add_line=i:3", "--json")
    (bema.folder / "plan.json").write_text(done.stdout)
    again = json.loads(bema("package", "print", "plan.json", "--json").stdout)
    assert again["deployments"] == json.loads(done.stdout)["deployments"]
    assert again["deployments"][0]["functions"][0]["provision_config"]["container_image"] == "i:3"


def test_a_plan_that_does_not_fit_says_why_and_ends_with_one(bema):
    document = str(DATA / "accept" / "a02-full-current-model.yaml")
    done = bema("package", "plan", document)
    assert done.returncode == 1
    assert "no --env: assuming env-1 at 0.99, env-2 at 0.99" in done.stderr
    assert "conflict: order-dep: availability 0.999 cannot be had" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--env", "other"), "no_plan"),
        (("--env", "env-1=much"), "no_plan"),
        (("--image", "order.add_line"), "usage"),
        (("--image", "nope=i"), "not_found"),
        (("--measured", "order.add_line=fast"), "usage"),
        (("--env", "env-1", "--env", "env-1=0.5"), "usage"),
        (("--image", "order.add_line=i:1", "--image", "order.add_line=i:2"), "usage"),
        (("--measured", "order.add_line=1", "--measured", "order.add_line=2"), "usage"),
        (("--env", "=0.5"), "no_plan"),
        (("--class", "Nope"), "not_found"),
    ],
)
def test_what_cannot_be_planned_is_one_error(bema, arguments, code):
    document = str(DATA / "accept" / "a02-full-current-model.yaml")
    done = bema("package", "plan", document, *arguments, "--json")
    assert done.returncode == 1
    assert json.loads(done.stderr.splitlines()[-1])["error"]["code"] == code


def test_the_schema_is_json(bema):
    assert json.loads(bema("package", "schema").stdout)["title"] == "OPackage"


def test_a_document_that_says_it_all_already_is_not_written(bema, shop):
    assert bema("package", "print", "shop.py", "--out", "out").stderr.count(": written") == 2
    file = bema.folder / "out" / "shop.yaml"
    before = file.stat()
    assert "out/shop.yaml: unchanged" in bema("package", "print", "shop.py", "--out", "out").stderr
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_code_given_for_a_document_is_told_what_comes_first(bema, shop):
    for verb in ("lint", "plan"):
        done = bema("package", verb, "shop.py")
        assert done.returncode == 1
        assert "fix: Export it first: `bema package print shop.py --out packages`." in done.stderr


def test_a_file_that_is_not_there_does_not_hide_what_is_wrong_with_the_others(bema):
    (bema.folder / "p.yaml").write_text(LINTED)
    (bema.folder / "empty").mkdir()
    done = bema("package", "lint", "none.yaml", "p.yaml", "empty", "./p.yaml", "--fix", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert [[found["rule"] for found in file["findings"]] for file in report["files"]] == [["no-file"], [], ["no-file"]]
    assert report["files"][0]["findings"][0]["message"] == "No such file or directory"
    assert report["fixed"] == 2


def test_a_document_that_cannot_be_edited_leaves_the_others_as_they_were(bema, shop):
    out = bema.folder / "out"
    assert bema("package", "print", "shop.py", "--out", "out").returncode == 0
    (out / "base.yaml").write_text("name: base\nname: twice\n")
    before = (out / "shop.yaml").read_text()
    shop.write_text(SHOP.replace("def add(self, sku)", "def add(self, sku, qty)"))
    done = bema("package", "print", "shop.py", "--out", "out")
    assert done.returncode == 1
    assert "out/base.yaml:2:1: name: duplicate field `name`" in done.stderr
    assert (out / "shop.yaml").read_text() == before


@pytest.mark.parametrize("verb", ["print", "plan"])
def test_a_file_that_is_not_there(bema, verb):
    done = bema("package", verb, "none.yaml")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "  more: bema explain not_found"


def piped(bema, data, *arguments):
    """Exit code, stdout and stderr, as bytes: no line end is translated on the way."""
    command = [*bema.command, "package", "lint", "-", *arguments]
    done = subprocess.run(command, cwd=bema.folder, env=bema.env, input=data, capture_output=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_lint_reads_stdin(bema):
    code, out, err = piped(bema, LINTED.encode())
    assert code == 1
    assert out.startswith(b"-:4:20: error unknown-variant: unknown variant `custom`")
    assert err.startswith(b"1 file, 1 error")
    out = piped(bema, LINTED.encode(), "--stdin-filename", "packages/shop.yaml")[1]
    assert out.startswith(b"packages/shop.yaml:4:20: error")
    number = b'{"name": "p", "version": 1}'  # JSON is read more strictly
    assert b"wrong-type" in piped(bema, number)[1]
    assert piped(bema, number, "--stdin-filename", "p.yaml")[0] == 0


@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "bom"])
def test_fix_writes_what_came_from_stdin_to_stdout(bema, mark, line_end):
    slip = (mark + LINTED.replace("\n", line_end)).removesuffix(line_end)
    right = slip.replace("custom", "CUSTOM").replace("{con", "{need_http2: true, con")
    code, out, err = piped(bema, slip.encode(), "--fix")
    assert (code, out) == (0, right.encode())
    assert b"2 fixed" in err


@pytest.mark.parametrize("broken", [b"name: [p\n\xff", b"name: p\n" + b"#" * 10_000_000], ids=["encoding", "too-large"])
def test_what_cannot_be_read_goes_to_stdout_as_it_came(bema, broken, request):
    code, out, err = piped(bema, broken, "--fix")
    assert (code, out) == (1, broken)
    assert f"error {request.node.callspec.id}".encode() in err


def test_fix_of_stdin_and_json_would_both_write_to_stdout(bema):
    code, out, err = piped(bema, LINTED.encode(), "--fix", "--json")
    assert (code, out) == (1, b"")
    assert b"both write to stdout" in err


def test_lint_of_a_folder_finds_package_documents_below(bema):
    folder = bema.folder / "all"
    (folder / "deep" / "node_modules").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "a.yaml").write_text("name: a\ndependencies: [b]\n")
    (folder / "deep" / "b.yml").write_text("name: b\nclasses: []\n")
    (folder / "deep" / "c.json").write_text('{"name": "c", "functions": []}')
    (folder / "deep" / "slip.yaml").write_text("name: d\nclasses: [\n")
    for other, text in {
        "package.json": '{"name": "js", "version": "1"}',
        "ci.yaml": "name: CI\non: push\njobs: {}\n",
        "pod.yaml": "apiVersion: v1\nmetadata: {name: x}\n",
        "note.yaml": "- name: x\n",
        "deep/node_modules/n.yaml": "name: n\n",
        ".git/g.yaml": "name: g\n",
        "read.me": "name: r\n",
    }.items():
        (folder / other).write_text(text)
    done = bema("package", "lint", "all", "--json")
    report = json.loads(done.stdout)
    names = [file["file"] for file in report["files"]]
    assert names == ["all/a.yaml", "all/deep/b.yml", "all/deep/c.json", "all/deep/slip.yaml"]
    assert [file["package"] for file in report["files"]] == ["a", "b", "c", None]
    assert [found["rule"] for file in report["files"] for found in file["findings"]] == ["yaml-syntax"]


def test_a_folder_without_documents_and_a_pattern_without_match_are_findings(bema):
    (bema.folder / "none").mkdir()
    done = bema("package", "lint", "none", "no*.yaml")
    assert done.returncode == 1
    assert done.stdout.splitlines()[0].startswith("none:1:1: error no-file: no package document is below")
    assert done.stdout.splitlines()[1].startswith("no*.yaml:1:1: error no-file: No such file")


def test_a_quoted_pattern_is_expanded(bema):
    (bema.folder / "p" / "q").mkdir(parents=True)
    (bema.folder / "p" / "a.yaml").write_text("name: a\n")
    (bema.folder / "p" / "q" / "b.yaml").write_text("name: b\n")
    (bema.folder / "p" / "[c].yaml").write_text("name: c\n")

    def files(pattern):
        return [file["file"] for file in json.loads(bema("package", "lint", pattern, "--json").stdout)["files"]]

    assert files("p/*.yaml") == ["p/[c].yaml", "p/a.yaml"]
    assert files("p/**/*.yaml") == ["p/[c].yaml", "p/a.yaml", "p/q/b.yaml"]
    assert files(str(bema.folder / "p" / "?.yaml")) == [str(bema.folder / "p" / "a.yaml")]
    assert files("p/[c].yaml") == ["p/[c].yaml"]
