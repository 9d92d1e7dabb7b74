"""A script is refused for everything that can be known without running it."""

import asyncio
import hashlib
import sys

import pytest

from bema.core.errors import BemaError, Invalid
from bema.core.limits import DEFAULTS
from bema.deploy.build.pythons import FoundPythons, Python, own_python
from bema.deploy.build.uv import Uv
from bema.deploy.model.bundle import Bundle
from bema.deploy.model.deployment import ScriptEntry
from bema.deploy.sources.inspection import Inspected, inspect
from bema.deploy.sources.source import SourceFactory

PYTHONS = FoundPythons(Uv())


def fetched(code: str) -> Bundle:
    return asyncio.run(SourceFactory.choose("inline").of({"code": code}, DEFAULTS).fetch()).bundle


def checked(code: str) -> Inspected:
    return asyncio.run(inspect(fetched(code), PYTHONS))


def refused(code: str) -> BemaError:
    with pytest.raises(BemaError) as caught:
        checked(code)
    return caught.value


def test_a_good_script_is_known_by_its_digest():
    code = '# /// script\n# dependencies = ["six"]\n# ///\napp = 1\n'
    found = checked(code)
    assert fetched(code).files == {"script.py": code.encode()}
    assert fetched(code).digest == hashlib.sha256(fetched(code).encoded).hexdigest()
    assert fetched(code).digest != fetched(code + "#").digest
    assert found.entry == ScriptEntry("app", "app")
    assert found.metadata.dependencies == ("six",)
    assert found.python == own_python()


def test_nothing_of_the_script_runs(tmp_path):
    mark = tmp_path / "ran"
    checked(f"open({str(mark)!r}, 'w').close()")
    assert not mark.exists()


def test_a_syntax_error_is_422_with_line_and_column():
    error = refused("a = 1\nb = = 2\n")
    assert (error.code, error.problem.http) == ("syntax_error", 422)
    assert error.details == {"line": 2, "column": 5}
    assert error.message.startswith("line 2, column 5: ")


def test_what_is_not_utf8_has_its_place():
    error = refused("a = 1\nb = '\udc80'\n")
    assert (error.code, error.details) == ("syntax_error", {"line": 2, "column": 6})


def test_a_script_over_the_limit():
    most = DEFAULTS.script
    error = refused("#" * (most + 1))
    assert (error.code, error.problem.http, error.details["limit"]) == ("script_too_large", 413, most)
    assert checked("#" * most).entry.kind == "main"


def test_a_byte_order_mark_is_not_in_the_way():
    found = checked('\ufeff# /// script\n# dependencies = ["six"]\n# ///\n')
    assert found.metadata.dependencies == ("six",)


def test_an_entry_that_is_not_there_names_its_line():
    error = refused('# /// script\n# [tool.bema]\n# entry = "nope"\n# ///\napi = 1\n')
    assert (error.code, error.details) == ("entry_not_found", {"names": ["api"], "line": 3})


def test_of_too_many_names_only_some_are_told():
    many = "".join(f"name_{n} = 1\n" for n in range(20_000))
    error = refused(f'# /// script\n# tool.bema.entry = "nope"\n# ///\n{many}')
    assert (error.code, len(error.details["names"]), error.details["line"]) == ("entry_not_found", 100, 2)
    assert len(error.message) < 5000


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("x;" * 200_000, "128 MiB of memory"),
        ("x = " + "-" * 100_000 + "1", "nested too deeply, or larger than its 128 MiB of memory"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds a process from outside")
def test_what_takes_too_much_to_compile_is_refused_with_the_limit(code: str, reason: str):
    limits = DEFAULTS.but(script_memory=128 * 2**20)
    with pytest.raises(Invalid, match=reason) as caught:
        asyncio.run(inspect(fetched(code), PYTHONS, limits))
    assert (caught.value.code, caught.value.problem.http) == ("syntax_error", 422)


@pytest.mark.parametrize(
    "code", ["x = 1\0", "# coding: hex\nx = 1", "# coding: nope\nx = 1", "x = " + "9" * 5000, "(" * 5000]
)
def test_what_the_tokenizer_refuses_is_a_syntax_error(code: str):
    error = refused(code)
    assert (error.code, error.details["line"] >= 1, error.details["column"] >= 1) == ("syntax_error", True, True)


def test_a_python_that_is_not_there_lists_those_that_are():
    error = refused('# /// script\n# requires-python = ">=3.99"\n# ///\n')
    assert (error.code, error.details["requires"]) == ("python_unavailable", ">=3.99")
    assert own_python().version in error.details["available"]


def test_code_that_breaks_the_compiler_breaks_a_child_only():
    assert refused("x = " + "+".join(["1"] * 300_000)).code == "syntax_error"


class Broken:
    async def choose(self, requires: str) -> Python:
        return Python(sys.executable, (3, 11, 0))


def test_the_interpreter_is_a_part_that_can_be_replaced():
    assert isinstance(asyncio.run(inspect(fetched("x = 1"), Broken())), Inspected)


def test_metadata_errors_come_before_the_compiler():
    with pytest.raises(Invalid, match="closing"):
        checked("# /// script\ndef (:\n")
