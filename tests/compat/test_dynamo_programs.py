"""Small programs of that runtime in the forms that its examples have, each a process: only the import root is another."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HELLO = """
import asyncio, logging, os
import uvloop
from dynamo.runtime import DistributedRuntime, dynamo_endpoint, dynamo_worker
from dynamo.runtime.logging import configure_dynamo_logging

logger = logging.getLogger(__name__)
configure_dynamo_logging(service_name="backend")

@dynamo_endpoint(str, str)
async def greet(request: str):
    logger.info(f"asked {request}")
    logger.debug("not from this level on")
    for word in request.split(","):
        yield f"Hello {word}!"

@dynamo_worker()
async def worker(runtime: DistributedRuntime):
    endpoint = runtime.endpoint(f"{os.environ.get('PLACE', 'hello')}.backend.generate")
    await endpoint.serve_endpoint(greet)

if __name__ == "__main__":
    uvloop.install()
    asyncio.run(worker())
"""

HELLO_CLIENT = """
import asyncio
from dynamo.runtime import DistributedRuntime, dynamo_worker

@dynamo_worker()
async def worker(runtime: DistributedRuntime):
    client = await runtime.endpoint("hello.backend.generate").client()
    await client.wait_for_instances()
    for _ in range(2):
        stream = await client.generate("world,sun")
        async for response in stream:
            print(response.data())

asyncio.run(worker())
"""

ENGINE = """
import argparse, asyncio
from dynamo._core import Context
from dynamo.llm.exceptions import HttpError
from dynamo.runtime import DistributedRuntime, dynamo_worker

class Engine:
    @classmethod
    async def from_args(cls, argv=None):
        parser = argparse.ArgumentParser()
        parser.add_argument("--reply", default="I run no model")
        return cls(parser.parse_args(argv).reply)

    def __init__(self, reply):
        self.reply = reply
        self.tokens = None

    async def start(self):
        self.tokens = self.reply.split()

    async def generate(self, request: dict, context: Context):
        most = (request.get("stop_conditions") or {}).get("max_tokens", len(self.tokens))
        if most < 0:
            raise HttpError(400, "max_tokens is below 0")
        for index, token in enumerate(self.tokens[:most]):
            if context.is_stopped():
                yield {"token": None, "finish_reason": "cancelled"}
                return
            yield {"token": token, "index": index}
        yield {"token": None, "finish_reason": "stop" if most == len(self.tokens) else "length"}

    async def cleanup(self):
        print("cleaned up", flush=True)

@dynamo_worker(enable_nats=False, register_shutdown=True)
async def worker(runtime: DistributedRuntime):
    engine = await Engine.from_args(["--reply", "no model here"])
    await engine.start()
    try:
        endpoint = runtime.endpoint("engines.hello.generate")
        await endpoint.serve_endpoint(engine.generate, metrics_labels=[("model", "hello")])
    finally:
        await engine.cleanup()

asyncio.run(worker())
"""

ENGINE_CLIENT = """
import asyncio
from dynamo.runtime import dynamo_worker

@dynamo_worker()
async def worker(runtime):
    client = await runtime.endpoint("engines.hello.generate").client()
    await client.wait_for_instances()
    for most in (2, 3):
        chunks = [c async for c in await client.generate({"stop_conditions": {"max_tokens": most}}, annotated=False)]
        print([chunk["token"] for chunk in chunks], chunks[-1]["finish_reason"])
    try:
        async for chunk in await client.generate({"stop_conditions": {"max_tokens": -1}}):
            print("no")
    except ValueError as error:
        print(error)

asyncio.run(worker())
"""

SLOW = """
import asyncio
from dynamo._core import DistributedRuntime

class Server:
    async def generate(self, request, context):
        for number in range(1000):
            if context.is_stopped():
                print(f"stopped={context.is_stopped()} killed={context.is_killed()}", flush=True)
                raise asyncio.CancelledError
            await asyncio.sleep(0.02)
            yield number

async def main():
    runtime = DistributedRuntime(asyncio.get_running_loop(), "file", "tcp")
    component = runtime.namespace("demo").component("server")
    await component.create_service()
    await component.endpoint("generate").serve_endpoint(Server().generate)

asyncio.run(main())
"""

MIDDLE = """
import asyncio
from dynamo._core import DistributedRuntime

class Middle:
    def __init__(self, runtime):
        self.runtime = runtime

    async def initialize(self):
        self.client = await self.runtime.namespace("demo").component("server").endpoint("generate").client()
        await self.client.wait_for_instances()

    async def generate(self, request, context):
        async for response in await self.client.round_robin(request, context=context):
            yield response.data()
        print("the backend's stream ended", flush=True)

async def main():
    runtime = DistributedRuntime(asyncio.get_running_loop(), "file", "tcp")
    handler = Middle(runtime)
    await handler.initialize()
    endpoint = runtime.namespace("demo").component("middle").endpoint("generate")
    await endpoint.serve_endpoint(handler.generate)

asyncio.run(main())
"""

STOPPING = """
import asyncio, sys
from dynamo._core import Context, DistributedRuntime

async def main():
    runtime = DistributedRuntime(asyncio.get_running_loop(), "file", "tcp")
    client = await runtime.namespace("demo").component(sys.argv[1]).endpoint("generate").client()
    await client.wait_for_instances()
    context = Context()
    seen = 0
    async for response in await client.generate("request", context=context):
        print(response.data())
        if seen >= 2:
            context.stop_generating()
            break
        seen += 1
    print("left", flush=True)
    await asyncio.to_thread(input)  # it goes on with something else
    runtime.shutdown()
    await runtime.close()

asyncio.run(main())
"""

TYPED = """
import asyncio
from pydantic import BaseModel
from dynamo.runtime import DistributedRuntime, dynamo_endpoint, dynamo_worker

class Request(BaseModel):
    data: str

class Response(BaseModel):
    char: str

class RequestHandler:
    @dynamo_endpoint(Request, Response)
    async def generate(self, request):
        for char in request.data:
            yield Response(char=char).model_dump()

@dynamo_worker()
async def worker(runtime: DistributedRuntime):
    component = runtime.namespace("typed").component("backend")
    await component.create_service()
    await component.endpoint("generate").serve_endpoint(RequestHandler().generate)

asyncio.run(worker())
"""

TYPED_CLIENT = """
import asyncio
from pydantic import BaseModel
from dynamo.runtime import dynamo_worker

class Request(BaseModel):
    data: str

@dynamo_worker()
async def worker(runtime):
    client = await runtime.namespace("typed").component("backend").endpoint("generate").client()
    await client.wait_for_instances()
    for request in (Request(data="ab").model_dump_json(), Request(data="cd").model_dump()):
        async for char in await client.random(request):
            print(char.data()["char"])
    try:
        async for char in await client.generate('{"data": 7}'):
            print("no")
    except Exception as error:
        print("refused")

asyncio.run(worker())
"""

STAGE = """
import asyncio, sys
from dynamo.runtime import DistributedRuntime, dynamo_worker

name, following = sys.argv[1], sys.argv[2]

class RequestHandler:
    def __init__(self, following):
        self.following = following

    async def generate(self, request):
        async for output in await self.following.random(f"{request}-{name}"):
            yield output.data()

@dynamo_worker()
async def worker(runtime: DistributedRuntime):
    client = await runtime.namespace("pipeline").component(following).endpoint("generate").client()
    component = runtime.namespace("pipeline").component(name)
    await component.create_service()
    await component.endpoint("generate").serve_endpoint(RequestHandler(client).generate)

asyncio.run(worker())
"""

LAST = """
import asyncio
from dynamo.runtime import dynamo_worker

async def generate(request):
    for char in f"{request}-last":
        yield char

@dynamo_worker()
async def worker(runtime):
    await runtime.namespace("pipeline").component("last").endpoint("generate").serve_endpoint(generate)

asyncio.run(worker())
"""

PIPELINE = """
import asyncio
from dynamo.runtime import dynamo_worker

@dynamo_worker()
async def worker(runtime):
    for name in ("last", "third", "second", "first"):
        client = await runtime.namespace("pipeline").component(name).endpoint("generate").client()
        await client.wait_for_instances()
    print("".join([char.data() async for char in await client.generate("asked")]))

asyncio.run(worker())
"""

SIGNALS = """
import asyncio, signal
from dynamo.runtime import dynamo_worker

@dynamo_worker({options})
async def worker(runtime):
    print([signal.getsignal(number) is before for number, before in found.items()])

found = {{number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}}
asyncio.run(worker()) if {own} else asyncio.new_event_loop().run_until_complete(worker())
"""


class Programs:
    """The processes of one story, which share a state folder."""

    def __init__(self, folder: Path) -> None:
        self.environment = {**os.environ, "BEMA_STATE_DIR": str(folder)}
        self.running: list[subprocess.Popen[str]] = []

    def start(self, source: str, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        moved = source.replace("from dynamo", "from bema.compat.dynamo")
        self.running.append(
            subprocess.Popen(
                [sys.executable, "-c", moved, *arguments],
                env={**self.environment, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return self.running[-1]

    def said(self, source: str, *arguments: str) -> list[str]:
        """What a program prints that ends by itself."""
        process = self.start(source, *arguments)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        return out.splitlines()

    def end(self) -> None:
        for process in self.running:
            process.kill()
            process.communicate()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    made = Programs(tmp_path)
    yield made
    made.end()


def ended(process: "subprocess.Popen[str]", number: int = signal.SIGTERM) -> tuple[str, str]:
    process.send_signal(number)
    return process.communicate(timeout=30)


def test_hello_world(programs):
    backend = programs.start(HELLO)
    assert programs.said(HELLO_CLIENT) == ["Hello world!", "Hello sun!"] * 2
    _, log = ended(backend)
    assert log.count("INFO [backend] __main__: asked world,sun") == 2 and "not from this level" not in log


def test_hello_world_says_more_where_it_is_told_to(programs):
    backend = programs.start(HELLO, DYN_LOG="debug,backend=trace")
    programs.said(HELLO_CLIENT)
    assert "DEBUG [backend] __main__: not from this level on" in ended(backend)[1]


def test_a_custom_engine(programs):
    engine = programs.start(ENGINE)
    assert programs.said(ENGINE_CLIENT) == [
        "['no', 'model', None] length",
        "['no', 'model', 'here', None] stop",
        "max_tokens is below 0",
    ]
    assert ended(engine)[0] == "cleaned up\n" and engine.returncode == 0


@pytest.mark.parametrize("asked", ["server", "middle"])
def test_a_stop_goes_through_the_middle_server_to_the_last(programs, asked):
    server, middle = programs.start(SLOW), programs.start(MIDDLE)
    client = programs.start(STOPPING, asked)
    assert [client.stdout.readline() for _ in range(4)] == ["0\n", "1\n", "2\n", "left\n"]
    assert server.stdout.readline() == "stopped=True killed=False\n"
    assert client.communicate("\n", timeout=30)[1] == "" and client.returncode == 0
    assert middle.poll() is server.poll() is None


def test_a_typed_handler(programs):
    programs.start(TYPED)
    assert programs.said(TYPED_CLIENT) == ["a", "b", "c", "d", "refused"]


def test_a_pipeline_of_four_hops(programs):
    programs.start(LAST)
    for stage in (("third", "last"), ("second", "third"), ("first", "second")):
        programs.start(STAGE, *stage)
    assert programs.said(PIPELINE) == ["asked-first-second-third-last"]


@pytest.mark.parametrize(("options", "kept"), [("", "True"), ("register_shutdown=True", "False")])
def test_signals_are_handled_only_where_it_is_asked_for(programs, options, kept):
    # not by `asyncio.run`, which handles SIGINT itself
    assert programs.said(SIGNALS.format(options=options, own=False)) == [f"[{kept}, {kept}]"]


# what is refused, as whoever runs it reads it

MADE = """
import asyncio
from dynamo._core import DistributedRuntime, RouterMode

async def main():
    loop = asyncio.get_running_loop()
    {}

asyncio.run(main())
"""

REFUSED: dict[str, tuple[str, str]] = {
    "etcd": (
        MADE.format("DistributedRuntime(loop, 'etcd', False)"),
        "discovery_backend='etcd') is not here. Use discovery_backend='file'",
    ),
    "plane": (
        MADE.format("DistributedRuntime(loop, 'file', False)"),
        "its instances meet by 'file' or 'mem', and its calls go by 'tcp'",
    ),
    "mode": (
        MADE.format("DistributedRuntime(loop, 'mem').endpoint('a.b.c').client(RouterMode.KV)"),
        "looks at tokens or devices, which a runtime for any service does not know. Use RouterMode.LeastLoaded",
    ),
    "nats": (
        "from dynamo.runtime import dynamo_worker; dynamo_worker(enable_nats=True)",
        "dynamo_worker(enable_nats=True) is not here. Leave enable_nats out",
    ),
    "static": (
        "from dynamo.runtime import dynamo_worker; dynamo_worker(static=True)",
        "there are no static workers here; leave `static` out",
    ),
    "models": (
        "from dynamo.llm import ModelInput, register_model",
        "dynamo.llm: ModelInput is not here. A service of language models is a service: write a class",
    ),
    "router": ("from dynamo.runtime import KvRouter", "KvRouter is not here. Choose among instances by `router_mode`"),
    "core": ("from dynamo._core import KvEventPublisher", "KvEventPublisher is not here. There is no event plane"),
    "exceptions": ("from dynamo.llm.exceptions import SelectionServiceError", "is not here. Choose among instances"),
    "engines": (
        "from dynamo.common.backend.publisher import KvEventSource",
        "dynamo.common is not here. Give the engine's async generator to `endpoint.serve_endpoint(...)`",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_traceback_shows_what_to_use_instead(programs: Any, name: str) -> None:
    source, sentence = REFUSED[name]
    process = programs.start(source)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert sentence in err.splitlines()[-1], err
