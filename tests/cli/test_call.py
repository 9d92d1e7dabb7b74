"""`bema call`: one call from the shell, against a service in another process."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from bema.cli.call import from_json, from_pairs
from bema.core.errors import Invalid
from bema.core.instance import EndpointInfo

SERVICE = """
import asyncio
from collections.abc import AsyncIterator
import msgspec
from bema import endpoint, service

class Point(msgspec.Struct):
    x: int
    y: int = 0

@service(name="shapes", namespace="demo")
class Shapes:
    @endpoint()
    async def add(self, a: int, b: int = 1) -> int:
        return a + b

    @endpoint()
    async def move(self, point: Point) -> Point:
        return Point(point.x + 1, point.y)

    @endpoint()
    async def words(self, text: str) -> AsyncIterator[str]:
        for word in text.split():
            yield word

    @endpoint()
    async def points(self) -> AsyncIterator[Point]:
        yield Point(1)
        yield Point(2)

    @endpoint()
    async def total(self, numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    @endpoint()
    async def sleep(self) -> None:
        await asyncio.sleep(60)

    @endpoint()
    async def fail(self) -> None:
        raise KeyError("lost")

asyncio.run(Shapes.start())
"""


@pytest.fixture
def shapes(bema: Any) -> Iterator[Any]:
    process = subprocess.Popen([sys.executable, "-c", SERVICE], env=bema.env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "ready" in process.stderr.readline()
    yield bema
    process.terminate()
    process.communicate(timeout=10)


def test_calls_of_every_shape(shapes):
    assert shapes("call", "demo.shapes.add", "a=2", "b=40").stdout == "42\n"
    assert json.loads(shapes("call", "demo.shapes.move", "x=1", "--json").stdout) == {"x": 2, "y": 0}
    assert json.loads(shapes("call", "demo.shapes.move", "-d", '{"x": 1}').stdout) == {"x": 2, "y": 0}
    assert shapes("call", "demo.shapes.words", "text=to be", "--stream").stdout == "to\nbe\n"
    assert shapes("call", "demo.shapes.words", "text=to be", "--stream", "--json").stdout == '"to"\n"be"\n'
    assert json.loads(shapes("call", "demo.shapes.words", "text=to be", "--json").stdout) == ["to", "be"]
    assert shapes("call", "demo.shapes.points", "--stream").stdout == '{"x":1,"y":0}\n{"x":2,"y":0}\n'
    piped = subprocess.run(
        [*shapes.command, "call", "demo.shapes.total"],
        input="1\n2\n\n3\n",
        env=shapes.env,
        text=True,
        capture_output=True,
    )
    assert piped.stdout == "6\n"
    listed = json.loads(shapes("ls", "--json").stdout)["instances"]
    assert shapes("call", f"demo.shapes.add@{listed[0]['id']}", "a=1").stdout == "2\n"


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "nowhere"])
def test_letters_arrive_as_they_were_typed_in_any_locale(shapes, locale):
    env = {"LC_ALL": locale, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [*shapes.command, "call", "demo.shapes.words", "text=caf\u00e9 \u8336", "--stream"],
        env={**shapes.env, **env},
        capture_output=True,
    )
    assert (done.returncode, done.stdout.decode()) == (0, "caf\u00e9\n\u8336\n"), done.stderr
    done = subprocess.run(
        [*shapes.command, "call", "demo.shapes.words", b"text=\xff"], env={**shapes.env, **env}, capture_output=True
    )
    assert done.returncode == 1
    assert b"the value of text is no UTF-8" in done.stderr


def test_from_a_folder_that_was_deleted_it_calls_and_serves(shapes, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    program = tmp_path / "another.py"
    guarded = SERVICE.replace("asyncio.run(", 'if __name__ == "__main__":\n    asyncio.run(')
    program.write_text(guarded.replace('name="shapes"', 'name="another"'))
    within = ["sh", "-c", f'rmdir {gone} && exec "$@"', "sh"]
    done = subprocess.run(
        [*within, *shapes.command, "call", "demo.shapes.add", "a=2"],
        cwd=gone,
        env=shapes.env,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "3\n", done.stderr
    for command in ([sys.executable, str(program)], [*shapes.command, "run", str(program)]):
        gone.mkdir()
        process = subprocess.Popen([*within, *command], cwd=gone, env=shapes.env, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        said = process.stderr.readline()
        assert "demo.another is ready" in said, said + process.stderr.read()
        assert shapes("call", "demo.another.add", "a=4").stdout == "5\n"
        process.terminate()
        process.communicate(timeout=10)


def test_failures_leave_with_their_exit_code(shapes):
    for code, says, arguments in (
        (1, "takes a, b, not c", ("demo.shapes.add", "c=1")),
        (1, "Expected `int`", ("demo.shapes.add", "a=one")),
        (1, "has no endpoint 'sub'", ("demo.shapes.sub",)),
        (1, "not of the form", ("demo.shapes.add", "a")),
        (1, "not JSON", ("demo.shapes.add", "-d", "{")),
        (1, "KeyError", ("demo.shapes.fail",)),
        (1, "is not namespace.component.endpoint", ("shapes.add",)),
        (3, "no instance", ("demo.nobody.add", "a=1")),
        (4, "ran out", ("demo.shapes.sleep", "--timeout", "0.2")),
    ):
        done = shapes("call", *arguments)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert says in done.stderr


def test_a_component_lists_its_endpoints_with_their_types(shapes):
    listed = shapes("call", "demo.shapes").stdout.splitlines()
    assert listed[0] == "demo.shapes"
    assert "  add(a: int, b: int = 1) -> int" in listed
    assert "  words(text: str) -> stream of str" in listed
    assert "  total(numbers: stream of int) -> int" in listed
    assert "Point: x, y?" in listed
    said = json.loads(shapes("call", "demo.shapes", "--json").stdout)
    (move,) = [endpoint for endpoint in said["endpoints"] if endpoint["name"] == "move"]
    assert move["request"]["properties"] == {"point": {"$ref": "#/$defs/Point"}}
    assert said["$defs"]["Point"]["required"] == ["x"]
    (shown,) = json.loads(shapes("ls", "--json").stdout)["instances"]
    assert shown["digest"] == said["digest"]
    assert "$describe" not in str(shown)


def test_a_refusal_says_what_the_endpoint_takes(shapes):
    for arguments in (("c=1",), ("a=text",)):
        done = shapes("call", "demo.shapes.add", *arguments)
        assert "fix: It is add(a: int, b: int = 1) -> int." in done.stderr
    done = shapes("call", "demo.shapes", "a=1")
    assert (done.returncode, "names no endpoint" in done.stderr) == (1, True)


def test_waiting_for_an_instance_has_an_end(bema):
    began = time.monotonic()
    assert bema("call", "demo.nobody.add", "--wait", "0.3").returncode == 3
    assert time.monotonic() - began > 0.3


ADD = EndpointInfo("add", parameters=("a", "b"))
MOVE = EndpointInfo("move", parameters=("point",), fields=("x", "y"))
UNTOLD = EndpointInfo("raw")


@pytest.mark.parametrize(
    ("info", "given", "arguments"),
    [
        (ADD, {"a": 1}, {"a": 1}),
        (MOVE, {"x": 1}, {"point": {"x": 1}}),
        (MOVE, {}, {"point": {}}),
        (MOVE, {"point": {"x": 1}}, {"point": {"x": 1}}),
        (UNTOLD, {"anything": 1}, {"anything": 1}),
    ],
)
def test_pairs_are_parameters_or_the_fields_of_the_only_one(info, given, arguments):
    assert from_pairs(info, given) == arguments


def test_what_the_endpoint_does_not_take_is_named():
    with pytest.raises(Invalid, match="add takes a, b, not c"):
        from_pairs(ADD, {"a": 1, "c": 2})
    with pytest.raises(Invalid, match="move takes point with x, y, not z"):
        from_pairs(MOVE, {"x": 1, "z": 2})
    with pytest.raises(Invalid, match="pass an object"):
        from_json(ADD, 3)


@pytest.mark.parametrize(
    ("info", "value", "arguments"),
    [
        (ADD, {"a": 1, "b": 2}, {"a": 1, "b": 2}),
        (MOVE, {"x": 1}, {"point": {"x": 1}}),
        (MOVE, {}, {"point": {}}),
        (EndpointInfo("say", parameters=("text",)), "hello", {"text": "hello"}),
        (EndpointInfo("none", parameters=()), {}, {}),
    ],
)
def test_one_json_value_is_all_arguments(info, value, arguments):
    assert from_json(info, value) == arguments
