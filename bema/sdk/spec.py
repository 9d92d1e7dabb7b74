"""From the marks of a class to its `ServiceSpec`, once per class.

Law: a mark belongs to the attribute's name. Base classes are read first, each in order of definition. A subclass that
overrides a marked method without marking it again keeps the mark; one that sets the name to None removes it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from bema.core.errors import BadDeclaration
from bema.core.naming import nearest
from bema.core.spec import EndpointSpec, Hooks, ServiceSpec, Shape
from bema.runtime.rpc import signatures

Kind = Literal["endpoint", "init", "shutdown", "entrypoint", "liveness", "readiness"]
MARK = "__bema_mark__"
SCHEDULES = "__bema_schedules__"
SERVICE = "__bema_service__"
_SPEC = "__bema_spec_read__"


class Mark(msgspec.Struct, frozen=True):
    """What a decorator leaves on a method."""

    kind: Kind
    name: str = ""
    idempotent: bool = False
    resumable: bool = False
    durable: bool = False
    facts: dict[str, Any] = {}


class ServiceMark(msgspec.Struct, frozen=True):
    """What `@service` leaves on a class."""

    name: str
    namespace: str
    abstract: bool = False
    facts: dict[str, Any] = {}
    version: str = ""
    slots: int | None = None
    queue: int = 0


def mark(function: Any, what: Mark) -> None:
    """Leave a mark on a function; `BadDeclaration` where it bears one already."""
    if getattr(function, MARK, None) is not None:
        raise BadDeclaration(f"{_show(function)} is marked twice: @{function.__bema_mark__.kind} and @{what.kind}")
    setattr(function, MARK, what)


def schedule(function: Any, what: Any) -> None:
    """Leave one more schedule on a function, which becomes an endpoint by another decorator."""
    # decorators run from the lowest up, and are read from the top down
    setattr(function, SCHEDULES, (what, *getattr(function, SCHEDULES, ())))


def mark_of(cls: type) -> ServiceMark:
    """The mark of the nearest `@service` in the class's bases; `BadDeclaration` where there is none."""
    found = getattr(cls, SERVICE, None)
    if not isinstance(found, ServiceMark):
        raise BadDeclaration(f"{_show(cls)} is not a service: decorate the class with @service(...)")
    return found


def marks_of(cls: type) -> dict[str, Mark]:
    """The marks by attribute name, in the order of the law above.

    `BadDeclaration` for two endpoints of one name, and for a mark on something that is no method.
    """
    found: dict[str, Mark] = {}
    # the bases first, so that what a subclass says of a name comes later, and holds; `object` marks nothing
    for base in reversed(cls.__mro__[:-1]):
        for attribute, value in vars(base).items():
            said = getattr(value, MARK, None)
            if isinstance(said, Mark):
                found[attribute] = _scheduled(said, value)
            elif hasattr(value, SCHEDULES) and inspect.isfunction(value):
                raise BadDeclaration(
                    f"{_show(value)} has a schedule and is no endpoint", fix="Add @endpoint(durable=True)."
                )
            elif isinstance(wrapped := _wrapped(value), Mark):
                raise _hidden(cls, attribute, wrapped, value)
            elif value is None:
                # as `__hash__ = None` in Python's own data model: the subclass has it no more
                found.pop(attribute, None)
    _refuse_duplicates(cls, found)
    return found


def check(cls: type) -> None:
    """Refuse what can be told without annotations: runs when the class is decorated. `BadDeclaration` names it."""
    # annotations wait for `spec_of`: one may name a class that is defined further down the module
    marks = marks_of(cls)
    for attribute, said in marks.items():
        function = inspect.getattr_static(cls, attribute)
        if not inspect.isfunction(function):
            raise _hidden(cls, attribute, said, function)
        if said.kind == "endpoint":
            signatures.check(function, said.name or attribute, method=True)
            _check_room(function, said)
    _refuse_duplicate_schedules(cls, marks)
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing and not mark_of(cls).abstract:
        raise BadDeclaration(
            f"{_show(cls)} does not define {', '.join(missing)}",
            fix="Define what is missing, or declare it with @service(abstract=True).",
        )


def spec_of(cls: type) -> ServiceSpec:
    """The spec of a decorated class. The first call resolves the annotations; `BadDeclaration` where one cannot be."""
    # `vars`, not `getattr`: a subclass must not find the spec of its base
    known = vars(cls).get(_SPEC)
    if isinstance(known, ServiceSpec):
        return known
    said = mark_of(cls)
    marks = marks_of(cls)
    spec = ServiceSpec(
        name=said.name,
        namespace=said.namespace,
        doc=inspect.getdoc(cls) or "",
        endpoints=tuple(_endpoints(cls, marks)),
        hooks=_hooks(cls, marks),
        abstract=said.abstract,
        facts=said.facts,
        version=said.version,
        slots=said.slots,
        queue=said.queue,
    )
    setattr(cls, _SPEC, spec)
    return spec


def _endpoints(cls: type, marks: dict[str, Mark]) -> Iterator[EndpointSpec]:
    for attribute, said in marks.items():
        if said.kind != "endpoint":
            continue
        function = inspect.getattr_static(cls, attribute)
        spec = signatures.read(
            function,
            said.name or attribute,
            method=True,
            declared=getattr(function, "__isabstractmethod__", False) or mark_of(cls).abstract,
            idempotent=said.idempotent,
            resumable=said.resumable,
            durable=said.durable,
        )
        promised = _promised(cls, attribute)
        if promised is not None and promised.shape is not spec.shape:
            raise BadDeclaration(
                f"{_show(cls)}.{attribute} is {spec.shape.value}, but the service it implements declares it"
                f" {promised.shape.value}"
            )
        spec = msgspec.structs.replace(spec, attribute=attribute, facts={**spec.facts, **said.facts})
        _check_schedules(spec, function)
        yield spec


def _jobs(said: Mark | EndpointSpec) -> Mapping[str, Any]:
    """What is said to the extension of durable calls: the queue of an endpoint and its schedules."""
    found = said.facts.get("jobs")
    return found if isinstance(found, Mapping) else {}


def _scheduled(said: Mark, function: Any) -> Mark:
    if not (found := getattr(function, SCHEDULES, ())):
        return said
    if said.kind != "endpoint" or not (said.durable or said.idempotent):
        raise BadDeclaration(
            f"{_show(function)} has a schedule, but is neither durable nor idempotent: a call that is lost with its process"
            " could not be made again",
            fix="Declare it @endpoint(durable=True), or idempotent=True where running it twice does no harm.",
        )
    return msgspec.structs.replace(said, facts={**said.facts, "jobs": {**_jobs(said), "schedules": found}})


def _check_room(function: Callable[..., Any], said: Mark) -> None:
    """Refuse arguments and groups that name no parameter, which can be told without annotations."""
    names = list(inspect.signature(function).parameters)[1:]
    queue = _jobs(said).get("queue")
    wanted = [(queue.group, "Queue(group=...)")] if queue is not None and queue.group else []
    wanted += [(name, "@schedule") for one in _jobs(said).get("schedules", ()) for name in one.arguments]
    for name, where in wanted:
        if name not in names:
            raise BadDeclaration(
                f"{_show(function)}: {where} names {name!r}, which is no parameter{nearest(name, names)}"
            )


def _check_schedules(spec: EndpointSpec, function: Any) -> None:
    for one in _jobs(spec).get("schedules", ()):
        if spec.shape is not Shape.UNARY:
            raise BadDeclaration(f"{_show(function)} has a schedule, but streams: nobody would read it")
        missing = [each.name for each in spec.parameters if each.required and each.name not in one.arguments]
        if missing:
            raise BadDeclaration(
                f"{_show(function)} has a schedule, which gives no {', '.join(missing)}",
                fix=f"Write @schedule(..., arguments={{{missing[0]!r}: ...}}), or give the parameter a default.",
            )


def _refuse_duplicate_schedules(cls: type, marks: dict[str, Mark]) -> None:
    names: dict[str, str] = {}
    for attribute, said in marks.items():
        for one in _jobs(said).get("schedules", ()):
            name = one.name or said.name or attribute
            if name in names:
                raise BadDeclaration(
                    f"{_show(cls)} has two schedules {name!r}: of {names[name]} and {attribute}",
                    fix="Give one a name=.",
                )
            names[name] = attribute


def _promised(cls: type, attribute: str) -> EndpointSpec | None:
    """The endpoint as the nearest decorated base class declares it, whose shape an implementation has to keep."""
    for base in cls.__mro__[1:]:
        if SERVICE in vars(base):
            return next((e for e in spec_of(base).endpoints if e.attribute == attribute), None)
    return None


def _hooks(cls: type, marks: dict[str, Mark]) -> Hooks:
    def of(kind: Kind) -> tuple[str, ...]:
        return tuple(attribute for attribute, said in marks.items() if said.kind == kind)

    return Hooks(
        init=of("init"),
        shutdown=of("shutdown"),
        entrypoint=next(iter(reversed(of("entrypoint"))), None),
        liveness=of("liveness"),
        readiness=of("readiness"),
    )


def _wrapped(value: Any, depth: int = 3) -> Mark | None:
    """The mark on a function inside of a descriptor: a classmethod, a property, one of the user's own."""
    if inspect.isfunction(value) or isinstance(value, type) or not hasattr(type(value), "__get__"):
        return None
    inside = [getattr(value, part, None) for part in ("__func__", "fget", "fset", "fdel", "func")]
    for part in (*inside, *getattr(value, "__dict__", {}).values()):
        said = getattr(part, MARK, None) if inspect.isfunction(part) else depth and _wrapped(part, depth - 1)
        if isinstance(said, Mark):
            return said
    return None


def _hidden(cls: type, attribute: str, said: Mark, value: Any) -> BadDeclaration:
    return BadDeclaration(
        f"{_show(cls)}.{attribute} is marked @{said.kind} but is not a method: it is a {type(value).__name__}",
        fix="A mark belongs on a plain method, which takes self.",
    )


def _refuse_duplicates(cls: type, marks: dict[str, Mark]) -> None:
    names: dict[str, str] = {}
    for attribute, said in marks.items():
        if said.kind == "endpoint":
            name = said.name or attribute
            if name in names:
                raise BadDeclaration(f"{_show(cls)} has two endpoints {name!r}: {names[name]} and {attribute}")
            names[name] = attribute
    own = [a for a, said in marks.items() if said.kind == "entrypoint" and a in vars(cls)]
    if len(own) > 1:
        raise BadDeclaration(f"{_show(cls)} has two entrypoints: {own[0]} and {own[1]}")


def _show(thing: Callable[..., Any] | type) -> str:
    return getattr(thing, "__qualname__", None) or repr(thing)
