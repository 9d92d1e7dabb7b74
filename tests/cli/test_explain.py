"""`bema explain`."""

from __future__ import annotations

import json

import msgspec

from bema.core.problems import PROBLEMS


def test_a_code_is_explained(bema):
    done = bema("explain", "not_up")
    assert done.returncode == 0
    row = PROBLEMS["not_up"]
    assert done.stdout == f"not_up\n  {row.says}\n  fix: {row.fix}\n  HTTP status 503, gRPC status 14, exit code 3\n"


def test_a_code_is_explained_to_a_program(bema):
    assert json.loads(bema("explain", "not_up", "--json").stdout) == {
        "code": "not_up",
        **msgspec.structs.asdict(PROBLEMS["not_up"]),
    }


def test_without_a_code_all_are_listed(bema):
    listed = bema("explain").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["CODE", *PROBLEMS]
    assert [row["code"] for row in json.loads(bema("explain", "--json").stdout)] == list(PROBLEMS)


def test_a_code_that_is_none_is_not_found(bema):
    done = bema("explain", "nope")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "error not_found: there is no error code 'nope'\n  fix: `bema explain` lists them all."
    )
