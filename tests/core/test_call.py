"""The one signature: a call, its two forms, and the adapters between them."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.call import Call, as_stream, as_unary, traceparent
from bema.core.errors import Invalid

PARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")


def answer(awaitable):
    async def wait():
        return await awaitable

    return asyncio.run(wait())


async def double(call):
    return call.arguments["n"] * 2


def upto(count):
    async def stream(call):
        for n in range(count):
            yield n

    return stream


@given(st.integers())
def test_unary_there_and_back_is_the_same_answer(n):
    call = Call("demo.math.double", {"n": n})
    assert answer(as_unary(as_stream(double))(call)) == n * 2


@pytest.mark.parametrize("count", [0, 2, 5])
def test_a_stream_of_other_than_one_answer_is_not_unary(count):
    with pytest.raises(Invalid, match=f"demo.x.y gave {count} answers"):
        answer(as_unary(upto(count))(Call("demo.x.y")))


def test_a_failing_handler_fails_through_both_adapters():
    async def broken(call):
        raise LookupError("no")

    with pytest.raises(LookupError):
        answer(as_unary(as_stream(broken))(Call()))


def test_two_calls_share_nothing():
    one, other = Call(), Call()
    one.arguments["x"] = 1
    one.metadata["y"] = "2"
    assert (other.arguments, other.metadata) == ({}, {})


def test_a_call_can_be_asked_to_end_early():
    call = Call()
    assert not call.is_stopped()
    call.stop_generating()
    assert call.is_stopped()


def test_a_trace_is_continued_with_a_new_span():
    parent = traceparent()
    child = traceparent(parent)
    assert PARENT.match(parent)
    assert child.split("-")[1] == parent.split("-")[1]
    assert child.split("-")[2] != parent.split("-")[2]
    assert child.split("-")[3] == parent.split("-")[3]


@given(st.none() | st.text(max_size=60))
def test_whatever_a_peer_sends_as_trace_context_ours_is_valid(text):
    assert PARENT.match(traceparent(text))


@pytest.mark.parametrize(
    "bad",
    [
        "00-" + "0" * 32 + "-0123456789abcdef-01",
        "00-" + "g" * 32 + "-0123456789abcdef-01",
        "00-" + "a" * 32 + "-0123456789abcdef-zz",
        "00-" + "A" * 32 + "-0123456789abcdef-01",
        "ff-" + "a" * 32 + "-0123456789abcdef-01",
    ],
)
def test_an_invalid_parent_starts_a_new_trace(bad):
    made = traceparent(bad)
    assert PARENT.match(made)
    assert made.split("-")[1] != bad.split("-")[1]
