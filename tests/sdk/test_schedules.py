"""`@schedule`: what it leaves in the spec, above or below `@endpoint`, and what it refuses where it is written."""

import datetime as dt
from collections.abc import AsyncIterator

import pytest

from bema import BadDeclaration, Call, Queue, endpoint, on_shutdown, schedule, service, spec_of
from bema.core.timetable import DeclaredSchedule


def schedules_of(cls: type, name: str) -> tuple[DeclaredSchedule, ...]:
    found = spec_of(cls).endpoint(name)
    assert found is not None
    declared: tuple[DeclaredSchedule, ...] = found.facts["jobs"]["schedules"]
    return declared


def test_a_schedule_is_a_fact_of_its_endpoint():
    @service(name="shop")
    class Shop:
        @schedule("0 3 * * *", tz="Europe/Berlin", missed="skip", arguments={"days": 30})
        @endpoint(durable=True)
        async def clean(self, days: int, call: Call) -> None: ...

    (said,) = schedules_of(Shop, "clean")
    assert said.timetable.text == "0 3 * * * Europe/Berlin"
    assert (said.name, said.missed, said.arguments) == ("", "skip", {"days": 30})


def test_the_order_of_the_decorators_does_not_matter():
    @service(name="above")
    class Above:
        @schedule(every=60)
        @endpoint(durable=True)
        async def tick(self) -> None: ...

    @service(name="below")
    class Below:
        @endpoint(durable=True)
        @schedule(every=60)
        async def tick(self) -> None: ...

    assert schedules_of(Above, "tick") == schedules_of(Below, "tick")


def test_an_endpoint_may_have_several():
    @service(name="shop")
    class Shop:
        @schedule("0 3 * * *")
        @endpoint(durable=True)
        @schedule("0 12 * * SUN", name="sundays")
        async def clean(self) -> None: ...

    assert [said.name for said in schedules_of(Shop, "clean")] == ["", "sundays"]


def test_an_idempotent_endpoint_may_have_one_and_keeps_its_other_facts():
    @service(name="shop")
    class Shop:
        @schedule(at=dt.datetime(2030, 1, 1))
        @endpoint(idempotent=True, raises=[KeyError], extra={"image": "x"})
        def fetch(self, limit: int = 3) -> None: ...

    found = spec_of(Shop).endpoint("fetch")
    assert found is not None
    assert not found.durable
    assert found.facts["raises"] == (KeyError,)
    assert found.facts["image"] == "x"
    assert len(found.facts["jobs"]["schedules"]) == 1


def test_a_subclass_that_overrides_a_scheduled_method_without_a_mark_keeps_it():
    @service(name="base")
    class Base:
        @schedule(every=60)
        @endpoint(durable=True)
        async def tick(self) -> None: ...

    @service(name="derived")
    class Derived(Base):
        async def tick(self) -> None: ...

    @service(name="quiet")
    class Quiet(Base):
        @endpoint(durable=True)
        async def tick(self) -> None: ...

    assert len(schedules_of(Derived, "tick")) == 1
    found = spec_of(Quiet).endpoint("tick")
    assert found is not None
    assert "schedules" not in found.facts["jobs"]


def test_a_queue_makes_an_endpoint_durable():
    queue = Queue(concurrency=4, group="account", rate=10, per=60)

    @service(name="shop")
    class Shop:
        @endpoint(durable=queue)
        async def order(self, account: str) -> None: ...

    found = spec_of(Shop).endpoint("order")
    assert found is not None
    assert (found.durable, found.facts["jobs"]) == (True, {"queue": queue})


def plain() -> None: ...


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "one of three"),
        ({"every": 60, "missed": "twice"}, "missed is 'once' or 'skip'"),
        ({"every": 60, "arguments": [1]}, "arguments is a mapping"),
        ({"every": 60, "name": "two words"}, "schedule name 'two words' is not a name"),
        ({"evry": 60}, "there is no option 'evry'"),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_is_written(given, sentence):
    with pytest.raises(BadDeclaration, match=sentence):
        schedule(**given)


def test_it_says_when():
    with pytest.raises(BadDeclaration, match="says when"):
        schedule(plain)  # type: ignore[arg-type]
    with pytest.raises(BadDeclaration, match="decorates methods"):
        schedule(every=60)(Queue)


def test_what_is_neither_durable_nor_idempotent_is_refused():
    with pytest.raises(BadDeclaration, match=r"tick has a schedule, but is neither durable nor idempotent"):

        @service
        class Shop:
            @schedule(every=60)
            @endpoint()
            async def tick(self) -> None: ...


def test_what_is_no_endpoint_is_refused():
    with pytest.raises(BadDeclaration, match="tick has a schedule and is no endpoint"):

        @service
        class Shop:
            @schedule(every=60)
            async def tick(self) -> None: ...

    with pytest.raises(BadDeclaration, match="neither durable nor idempotent"):

        @service
        class Hook:
            @schedule(every=60)
            @on_shutdown
            async def tick(self) -> None: ...


def test_two_of_one_name_are_refused():
    with pytest.raises(BadDeclaration, match="two schedules 'tick': of tick and tock"):

        @service
        class Shop:
            @schedule(every=60)
            @endpoint(durable=True)
            async def tick(self) -> None: ...

            @schedule(every=60, name="tick")
            @endpoint(durable=True)
            async def tock(self) -> None: ...


def test_arguments_are_those_of_the_endpoint():
    with pytest.raises(BadDeclaration, match=r"@schedule names 'day', which is no parameter; did you mean 'days'\?"):

        @service
        class Shop:
            @schedule(every=60, arguments={"day": 3})
            @endpoint(durable=True)
            async def clean(self, days: int = 1) -> None: ...

    @service
    class Needs:
        @schedule(every=60)
        @endpoint(durable=True)
        async def clean(self, days: int, call: Call) -> None: ...

    with pytest.raises(BadDeclaration, match="which gives no days") as refused:
        spec_of(Needs)
    assert "arguments={'days': ...}" in refused.value.fix


def test_a_stream_is_refused():
    @service
    class Streams:
        @schedule(every=60)
        @endpoint(idempotent=True)
        async def count(self) -> AsyncIterator[int]:
            yield 1

    with pytest.raises(BadDeclaration, match="has a schedule, but streams"):
        spec_of(Streams)


def test_a_group_is_a_parameter():
    with pytest.raises(BadDeclaration, match=r"Queue\(group=...\) names 'acount', which is no parameter"):

        @service
        class Shop:
            @endpoint(durable=Queue(group="acount"))
            async def order(self, account: str) -> None: ...
