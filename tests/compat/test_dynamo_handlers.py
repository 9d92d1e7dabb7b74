"""Handlers of every form that programs of that runtime have."""

import asyncio
import functools
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

import bema.compat.dynamo.runtime as dynamo
from bema.compat.dynamo.runtime import Context, DistributedRuntime, dynamo_endpoint
from bema.core.errors import BadDeclaration, Invalid
from tests.compat.test_dynamo_runtime import run, served


async def words(request: str, context: Any = None) -> AsyncIterator[str]:
    for word in request.split():
        yield f"{word} {context.id()}" if isinstance(context, Context) else word


def returning(request):
    return words(request)


def returning_with_context(request, context):
    return words(request, context)


def annotated(request: str, context: Any) -> AsyncIterator[str]:
    return words(request, context)


def one_answer(request, context):
    return f"{request} {context.id()}"


async def awaited(request, context):
    return f"{request} {context.id()}"


def steps(request, context):
    for word in request.split():
        yield f"{word} {context.id()}"


def an_iterator(request: str) -> Iterator[str]:
    return iter(request.split())


async def anything(*args, **kwargs):
    assert not kwargs
    async for word in words(*args):
        yield word


async def positional(request, /, context):
    async for word in words(request, context):
        yield word


async def more(request, *args, context, **kwargs):
    assert not args and not kwargs
    async for word in words(request, context):
        yield word


async def of_a_model(model, request, context):
    async for word in words(request, context):
        yield f"{model} {word}"


class Answering:
    async def __call__(self, request, context):
        async for word in words(request, context):
            yield word


@functools.wraps(words)
def wrapped(*args, **kwargs):
    return words(*args, **kwargs)


BARE = ["a", "b"]
MARKED = ["a 7", "b 7"]


@pytest.mark.parametrize(
    ("handler", "answers"),
    [
        pytest.param(returning, BARE, id="def that returns an async generator"),
        pytest.param(returning_with_context, MARKED, id="the same with context"),
        pytest.param(annotated, MARKED, id="the same, annotated"),
        pytest.param(lambda request: words(request), BARE, id="lambda"),
        pytest.param(lambda request, context: words(request, context), MARKED, id="lambda with context"),
        pytest.param(functools.partial(words, context="bound"), MARKED, id="partial with a bound context"),
        pytest.param(functools.partial(of_a_model, "m"), ["m a 7", "m b 7"], id="partial with a bound position"),
        pytest.param(lambda request, context: one_answer(request, context), ["a b 7"], id="lambda of one answer"),
        pytest.param(one_answer, ["a b 7"], id="plain function with context"),
        pytest.param(awaited, ["a b 7"], id="coroutine with context"),
        pytest.param(steps, MARKED, id="sync generator with context"),
        pytest.param(an_iterator, BARE, id="def that returns an iterator"),
        pytest.param(lambda request: iter(request.split()), BARE, id="lambda that returns an iterator"),
        pytest.param(lambda request: awaited(request, Context("7")), ["a b 7"], id="lambda of a coroutine"),
        pytest.param(anything, BARE, id="*args and **kwargs"),
        pytest.param(more, MARKED, id="*args and **kwargs beside the request"),
        pytest.param(positional, MARKED, id="positional only"),
        pytest.param(Answering(), MARKED, id="an object that is called"),
        pytest.param(wrapped, MARKED, id="wrapped"),
    ],
)
def test_a_handler_of_any_form_answers(handler, answers):
    async def story():
        async with served(handler) as endpoint:
            stream = await endpoint.client().generate("a b", context=Context("7"))
            assert [answer.data() async for answer in stream] == answers

    run(story)


def test_what_a_partial_was_given_does_not_travel():
    class Model: ...

    async def generate(request: str, model: Model) -> AsyncIterator[str]:
        yield f"{request} {type(model).__name__}"

    async def story():
        async with served(functools.partial(generate, model=Model())) as endpoint:
            client = endpoint.client()
            assert [answer.data() async for answer in client.generate("a")] == ["a Model"]
            assert client.instances()[0].endpoints[0].parameters == ("request",)

    run(story)


def test_a_handler_without_a_place_for_the_request_is_refused():
    async def nothing(**kwargs):
        yield 1

    async def story():
        async with DistributedRuntime(discovery_backend="mem") as runtime:
            with pytest.raises(BadDeclaration, match="nothing has no place for the request: give it a parameter"):
                await runtime.endpoint("a.b.c").serve_endpoint(nothing)

    run(story)


def test_a_function_in_a_thread_ends_its_own_call():
    where: list[Any] = []

    def ending(request, context):
        where.append(threading.current_thread() is threading.main_thread())
        yield 1
        context.stop_generating()
        assert context.is_stopped()
        where.append(context)

    async def story():
        async with served(ending) as endpoint:
            stream = await endpoint.client().generate(None)
            assert (await anext(stream)).data() == 1
            with pytest.raises(dynamo.StreamIncomplete):
                await anext(stream)
            assert where[0] is False
            assert await where[1].async_killed_or_stopped()

    run(story)


class Model(BaseModel):
    text: str
    times: int = 1


class Struct(msgspec.Struct):
    text: str
    times: int = 1


@pytest.mark.parametrize("kind", [Model, Struct])
def test_a_typed_handler_reads_objects_and_json_text(kind):
    @dynamo_endpoint(kind, Any)
    async def generate(request):
        assert type(request) is kind
        for _ in range(request.times):
            yield {"text": request.text}
        yield len(request.text)

    async def story():
        said: dict[str, Any] = {"text": "hi", "times": 2}
        expected = [{"text": "hi"}, {"text": "hi"}, 2]
        async with served(generate) as endpoint:
            client = endpoint.client()
            for request in (said, json.dumps(said), kind(**said)):
                assert [answer.data() async for answer in client.generate(request)] == expected
            for wrong in ({"text": 3}, '{"text": 3}', "no json"):
                with pytest.raises(Invalid):
                    await anext(client.generate(wrong))
            with pytest.raises(ValueError, match="text"):
                await anext(client.generate('{"times": 3}'))
        assert [answer async for answer in generate(said)] == expected  # as its own tests call it

    run(story)


@pytest.mark.parametrize("kind", [int | None, list[int], Any], ids=str)
def test_a_typed_handler_may_answer_with_any_type(kind):
    answers: dict[Any, Any] = {int | None: 3, list[int]: [1], Any: {"a": 1}}

    @dynamo_endpoint(str, kind)
    async def generate(request: str):
        yield answers[kind]
        yield "no" if kind is not Any else "yes"

    async def story():
        async with served(generate) as endpoint:
            stream = endpoint.client().generate("")
            assert (await anext(stream)).data() == answers[kind]
            if kind is Any:
                assert (await anext(stream)).data() == "yes"
            else:
                with pytest.raises(Invalid, match="yielded what is no"):
                    await anext(stream)

    run(story)


def test_a_typed_method_with_a_context():
    class Handler:
        @dynamo_endpoint(Model, str)
        async def generate(self, request, context):
            yield f"{request.text} {context.id()}"

    async def story():
        async with served(Handler().generate) as endpoint:
            stream = endpoint.client().generate({"text": "hi"}, context=Context("7"))
            assert [answer.data() async for answer in stream] == ["hi 7"]

    run(story)


def test_the_description_has_what_the_handler_says_of_itself():
    async def described(handler: Callable[..., Any]) -> str:
        async with served(handler) as endpoint:
            said = await endpoint.runtime.namespace("demo").component("backend").description()
            return str(said)

    async def documented(request: str, context: Any) -> AsyncIterator[str]:
        """Says it again."""
        yield request

    assert "Says it again." in asyncio.run(described(documented))
