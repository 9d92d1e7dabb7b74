"""What a class says about itself."""

from __future__ import annotations

import msgspec
import pytest

from bema.core.spec import EndpointSpec, Hooks, Parameter, ServiceSpec, Shape


@pytest.mark.parametrize(
    ("shape", "streams_in", "streams_out"),
    [
        (Shape.UNARY, False, False),
        (Shape.STREAM, False, True),
        (Shape.COLLECT, True, False),
        (Shape.BOTH, True, True),
    ],
)
def test_a_shape_says_which_ways_stream(shape, streams_in, streams_out):
    assert (shape.streams_in, shape.streams_out) == (streams_in, streams_out)


def test_a_service_is_found_by_its_address_and_its_endpoints_by_name():
    generate = EndpointSpec("generate", Shape.STREAM, (Parameter("request", str),), returns=str)
    spec = ServiceSpec("worker", "demo", endpoints=(generate,))
    assert spec.address == "demo.worker"
    assert spec.endpoint("generate") is generate
    assert spec.endpoint("other") is None


def test_a_spec_does_not_change_after_it_was_read():
    spec = ServiceSpec("worker", "demo")
    with pytest.raises(AttributeError):
        spec.name = "other"  # type: ignore[misc]
    assert msgspec.structs.replace(spec, name="other").name == "other"


def test_two_specs_share_no_facts():
    one, other = ServiceSpec("a", "x"), ServiceSpec("b", "x")
    one.facts["packages"] = 1
    assert other.facts == {}


def test_hooks_are_none_unless_marked():
    assert Hooks() == Hooks(init=(), shutdown=(), entrypoint=None, liveness=(), readiness=())
