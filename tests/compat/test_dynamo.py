"""The three personas of the Dynamo proposal, as written: only the import root is another.

The samples use names they do not import; a prelude supplies these and `ChatRequest`, and nothing else is changed.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import bema
from bema.compat.dynamo.runtime import dynamo_endpoint, dynamo_worker
from bema.compat.dynamo.sdk import DynamoContext, ServiceInterface
from bema.compat.dynamo.sdk import endpoint as dynamo_method
from bema.compat.dynamo.sdk import service as dynamo_service
from bema.core.errors import BadDeclaration, Invalid
from bema.core.naming import read_instance_id

DATA = Path(__file__).parents[1] / "data" / "dynamo"
PRELUDE = """
from typing import List
from pydantic import BaseModel as _Model
import msgspec
from bema.compat.dynamo.sdk import service, endpoint, async_init, entrypoint
from bema.compat.dynamo.runtime import DistributedRuntime, Component, Endpoint

class BaseModel(_Model):
    model_config = {"arbitrary_types_allowed": True}

class ChatRequest(msgspec.Struct):
    text: str = ""
"""


class ChatRequest(msgspec.Struct):
    text: str = ""


class Persona:
    """One of the samples, run by `python3` in a process of its own."""

    def __init__(self, folder: Path, number: int, change: tuple[str, str] = ("", "")) -> None:
        sample = (DATA / f"persona{number}.txt").read_text()
        assert change[0] in sample
        file = folder / f"persona{number}.py"
        file.write_text(PRELUDE + sample.replace("from dynamo.", "from bema.compat.dynamo.").replace(*change))
        self.process = subprocess.Popen([sys.executable, str(file)], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        ready = self.process.stderr.readline()
        assert "dynamo.worker is ready" in ready, ready + self.process.stderr.read()
        self.instance = read_instance_id(ready.split()[-1])

    def end(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=10)
        assert self.process.returncode == 0


@pytest.fixture
def run(tmp_path, monkeypatch) -> Iterator[Any]:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path / "state"))
    started: list[Persona] = []

    def start(*arguments: Any) -> Persona:
        started.append(Persona(tmp_path, *arguments))
        return started[-1]

    yield start
    for persona in started:
        persona.end()


async def tokens_of(persona: Persona) -> list[str]:
    async with bema.connect() as runtime:
        client = runtime.endpoint("dynamo.worker.generate").client(instance=persona.instance)
        await client.wait_for_instances()
        return [token async for token in client.generate(ChatRequest(text="hi"))]


TOKENS = ["token1", "token2", "token3"]


def test_the_default_user(run):
    assert asyncio.run(tokens_of(run(1))) == TOKENS


def test_the_mixed_user_beside_the_default_user(run):
    worker, router = run(1), run(2)
    assert worker.instance != router.instance
    for _ in range(6):  # in turn it would come to itself, whose loop it blocks: they bear the same name
        assert asyncio.run(asyncio.wait_for(tokens_of(router), 5)) == TOKENS


def test_the_power_user_s_missing_client_is_a_typed_error(run):
    with pytest.raises(AttributeError, match="worker_client"):
        asyncio.run(tokens_of(run(3)))


def test_the_power_user_with_a_client_made_in_the_constructor(run):
    run(1)
    kept = "self.ctx = dynamo_context"
    place = "dynamo_context.runtime.namespace('dynamo').component('worker').endpoint('generate')"
    made = f"{kept}; self.worker_client = {place}.client()"
    assert asyncio.run(tokens_of(run(3, (kept, made)))) == TOKENS


def test_the_names_are_ours():
    assert DynamoContext is bema.Context
    worker: type[ServiceInterface] = bema.service(name="w", namespace="demo")(type("W", (), {}))
    assert (worker.name, worker.namespace) == ("w", "demo")


def test_options_of_that_system_are_kept_and_its_namespace_holds():
    @dynamo_service(resources={"gpu": 1}, workers=2, dynamo={"enabled": True, "namespace": "inference"})
    class Worker:
        @dynamo_method(is_api=True, idempotent=True)
        async def generate(self) -> None: ...

    spec = bema.spec_of(Worker)
    assert (spec.address, spec.endpoints[0].idempotent) == ("inference.Worker", True)
    assert spec.facts == {"dynamo": {"enabled": True, "namespace": "inference", "resources": {"gpu": 1}, "workers": 2}}
    assert spec.endpoints[0].facts["dynamo"] == {"is_api": True}

    @dynamo_service
    class Plain: ...

    assert bema.spec_of(Plain).address == "default.Plain"


class Answer(msgspec.Struct):
    text: str


def test_a_program_without_a_class(tmp_path, monkeypatch):
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path / "state"))

    @dynamo_endpoint(ChatRequest, Answer)
    async def generate(request):
        assert type(request) is ChatRequest
        yield {"text": request.text}
        yield Answer(os.name)
        yield {"txt": "not an answer"}

    @dynamo_worker()
    async def program(runtime, word):
        served = asyncio.create_task(runtime.endpoint("demo.plain.generate").serve_endpoint(generate))
        async with bema.connect() as calling:
            client = await calling.endpoint("demo.plain.generate").client()
            stream = client.generate(ChatRequest(word))
            assert await anext(stream) == {"text": "hi"}
            assert await anext(stream) == {"text": os.name}
            with pytest.raises(Invalid, match="is no Answer"):
                await anext(stream)
            with pytest.raises(Invalid, match="text"):
                await anext(client.generate({"text": 3}))
        runtime.stop()
        await served

    asyncio.run(program("hi"))
    with pytest.raises(BadDeclaration, match="no static workers"):
        dynamo_worker(static=True)
    with pytest.raises(BadDeclaration, match="async generators"):
        dynamo_endpoint(ChatRequest, Answer)(lambda request: None)
