"""Typed clients as text: what is written of a spec, and that it is always the same."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import pytest

from bema import endpoint, service, spec_of
from bema.core.instance import EndpointInfo
from bema.core.spec import EndpointSpec, Parameter, ServiceSpec, Shape
from bema.sdk.codegen import client, models

DATA = Path(__file__).parents[2] / "data" / "clients"

T = TypeVar("T")


def spec_of_file(file: Path) -> ServiceSpec:
    found = importlib.util.spec_from_file_location("generated_of", file)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["generated_of"] = module
    found.loader.exec_module(module)
    return spec_of(module.Shapes)


def of(*parameters: Parameter, **about: Any) -> str:
    """The module of a service with one endpoint."""
    return client.module(ServiceSpec("one", "demo", endpoints=(EndpointSpec("go", Shape.UNARY, parameters, **about),)))


@pytest.mark.parametrize(("suffix", "stub"), [(".py", False), (".pyi", True)])
def test_every_shape_and_every_kind_of_type(suffix, stub):
    expected = (DATA / "expected").with_suffix(suffix).read_text()
    assert client.module(spec_of_file(DATA / "shapes.py"), stub=stub) == expected


def test_the_same_service_gives_the_same_bytes_in_every_process():
    code = (
        "import sys; from bema.cli.run import load; from bema.sdk.codegen import client; from bema.sdk.spec import spec_of; from pathlib import Path;"
        "sys.stdout.write(client.module(spec_of(load(Path(sys.argv[1])).Shapes)))"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", code, str(DATA / "shapes.py")],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert made == {(DATA / "expected.py").read_text()}


def test_a_checked_in_client_is_not_reformatted():
    files = [str(DATA / name) for name in ("expected.py", "expected.pyi")]
    subprocess.run([sys.executable, "-m", "ruff", "format", "--isolated", "--check", *files], check=True)


@pytest.mark.parametrize(
    ("name", "cls"), [("worker", "Worker"), ("my-worker", "MyWorker"), ("a_b-c", "ABC"), ("Only", "Only")]
)
def test_a_class_is_named_after_its_component(name, cls):
    assert client.class_name(name) == cls


@pytest.mark.parametrize(
    ("value", "text"),
    [('a"b\n\\', '"a\\"b\\n\\\\"'), (None, "None"), (True, "True"), (-1, "-1"), (1.5, "1.5"), (b"x", "b'x'")],
)
def test_defaults_that_can_be_written(value, text):
    assert models.literal(value) == text
    assert ast.literal_eval(text) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), (1,), {"a": 1}])
def test_a_default_that_cannot_be_written_is_the_callees(value):
    assert models.literal(value) is None
    assert "go(self, a: Any = ...) -> Any: ..." in of(Parameter("a", required=False, default=value))


def test_what_must_be_given_comes_first_and_the_rest_by_name_where_their_order_differs():
    early = Parameter("early", int, required=False, default=1)
    assert "(self, late: int, *, early: int = 1)" in of(early, Parameter("late", int))


def test_text_of_users_cannot_end_a_docstring():
    text = 'Ends """ here \\'
    made = of(doc=text)
    method = next(node for node in ast.walk(ast.parse(made)) if isinstance(node, ast.AsyncFunctionDef))
    assert ast.get_docstring(method) == text


def test_models_of_one_name_are_told_apart_and_a_type_variable_is_anything():
    class Box(msgspec.Struct, Generic[T]):
        item: T

    def other():
        class Box(msgspec.Struct):
            number: int

        return Box

    made = of(Parameter("a", Box[int]), Parameter("b", other()))
    assert "class Box(msgspec.Struct):\n    item: Any\n" in made
    assert "class Box2(msgspec.Struct):\n    number: int\n" in made
    assert "(self, a: Box, b: Box2)" in made


def test_a_class_of_the_services_own_name_gets_another():
    class One(msgspec.Struct):
        number: int

    assert "go(self, a: One2)" in of(Parameter("a", One))


def test_what_cannot_be_said_is_any():
    class Strange: ...

    assert "(self, a: Any, b: dict[str, Any]) -> None" in of(
        Parameter("a", Strange), Parameter("b", dict[str, Strange]), returns=None
    )


def test_a_running_instance_tells_names_and_shapes():
    spec = client.told_spec(
        "demo",
        "worker",
        [
            EndpointInfo("length", idempotent=True, parameters=("request",), fields=("text", "language")),
            EndpointInfo("words", Shape.STREAM, parameters=("text", "every")),
            EndpointInfo("total", Shape.COLLECT, parameters=()),
        ],
    )
    made = client.module(spec)
    assert "@endpoint(idempotent=True)\n    @abc.abstractmethod\n    async def length(self, request: Any = ...)" in made
    assert '"""Takes request with text, language."""' in made
    assert "def words(self, text: Any = ..., every: Any = ...) -> AsyncIterator[Any]: ..." in made
    assert "async def total(self, requests: AsyncIterator[Any]) -> Any: ..." in made


def test_a_service_without_endpoints():
    @service(name="bare", namespace="demo")
    class Bare: ...

    compile(client.module(spec_of(Bare)), "bare.py", "exec")
    compile(client.module(spec_of(Bare), stub=True), "bare.pyi", "exec")


def test_what_was_generated_declares_the_same_service(tmp_path):
    @service(name="round", namespace="demo")
    class Round:
        @endpoint(name="other", idempotent=True)
        async def here(self, text: str, count: int = 2) -> list[int]:
            """Goes round."""
            return []

    (tmp_path / "made.py").write_text(client.module(spec_of(Round)))
    names: dict[str, Any] = {"__name__": "made"}
    exec((tmp_path / "made.py").read_text(), names)
    made = spec_of(names["Round"])
    mine = spec_of(Round)
    assert made.abstract and (made.name, made.namespace) == (mine.name, mine.namespace)
    for ours, theirs in zip(mine.endpoints, made.endpoints, strict=True):
        assert theirs == ours
