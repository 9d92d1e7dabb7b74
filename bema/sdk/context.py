"""Context: what a service's constructor may ask for. Law: it asks by type or by parameter name, never by a global."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from bema.core.call import Interceptor, chained
from bema.core.deferred import deferred
from bema.core.errors import BadDeclaration, NotFound
from bema.core.spec import ServiceSpec
from bema.runtime.distributed import Component, DistributedRuntime, Endpoint
from bema.sdk.depends import Depends, bind, constructing
from bema.wire.module.handshake import Init

if TYPE_CHECKING:
    from bema.runtime.process import line_channel
else:  # of a process that was launched
    line_channel = deferred("bema.runtime.process.line_channel")

T = TypeVar("T")

# names under which the context is passed where a parameter has no annotation
_NAMES = ("context", "dynamo_context")


class Context:
    """The process as a service sees it: `runtime`, `component`, `endpoints`, and `init`, which the launcher sent."""

    def __init__(
        self,
        runtime: DistributedRuntime,
        spec: ServiceSpec,
        init: Init,
        operations: Callable[[], Awaitable[line_channel.LineChannel]] | None = None,
    ) -> None:
        self.runtime = runtime
        self.spec = spec
        self.init = init
        self.bound: dict[type[Any], Any] = {}  # objects of extensions, by the type that a constructor asks for
        self.interceptors: dict[str, list[Interceptor]] = {}  # of extensions, by endpoint
        self._operations = operations
        self.namespace = spec.namespace
        self.name = spec.name
        self.component: Component = runtime.namespace(spec.namespace).component(spec.name)
        self.endpoints: list[Endpoint] = [self.component.endpoint(endpoint.name) for endpoint in spec.endpoints]

    @property
    def instance_id(self) -> int:
        """The id of this instance, a positive number below 2**63."""
        return self.component.hosted.instance_id

    def around(self, endpoint: str) -> Interceptor | None:
        """The interceptors of extensions around one endpoint, as one, the first outermost; None where there are none."""
        return chained(self.interceptors.get(endpoint, ()))

    async def operations(self) -> line_channel.LineChannel:
        """The channel on which this process asks its orchestrator for something.

        Raises:
            NotFound: nobody launched this process, or its launcher offers no such channel.
        """
        if self._operations is None:
            raise NotFound("nobody launched this process: there is nobody to ask")
        return await self._operations()

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the launcher gave this process, by name; empty for one that was started by hand."""
        return self.init.settings or {}

    def limit(self, name: str) -> float:
        """The limit of that name in force here: seconds, bytes or a count, as the table of limits says.

        `Refused` (code `bad_setting`) where there is no limit of that name.
        """
        return float(self.runtime.limits.named(name))

    def construct(self, cls: type[T]) -> T:
        """Make an object of a service class, its constructor's arguments given as `arguments` finds them.

        `BadDeclaration` as there; an exception of the constructor passes through.
        """
        with constructing(self.runtime):
            service = cls(**self.arguments(cls, skip=1))
        bind(service, self.runtime)
        return service

    def arguments(self, function: Any, *, skip: int = 0) -> dict[str, Any]:
        """The arguments that `function` asks for by type or by parameter name, without its first `skip` parameters.

        Raises:
            BadDeclaration: a parameter without a default asks for something that a context does not have.
        """
        target = inspect.getattr_static(function, "__init__") if isinstance(function, type) else function
        if target is object.__init__:
            return {}
        hints = _hints(target)
        found: dict[str, Any] = {}
        for parameter in list(inspect.signature(target).parameters.values())[skip:]:
            if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                continue
            # before its type is looked at: a dependency is annotated with the class that it stands
            # for
            if isinstance(parameter.default, Depends):
                found[parameter.name] = parameter.default.of(self.runtime)
            elif (given := self._offered(parameter, hints.get(parameter.name))) is not None:
                found[parameter.name] = given
            elif parameter.default is inspect.Parameter.empty:
                raise BadDeclaration(
                    f"{target.__qualname__} asks for {parameter.name!r}, which nothing can be passed for: it can ask for"
                    " Context, DistributedRuntime, Component, Init (by type), context or runtime (by name), and for"
                    " other services with depends()"
                )
        return found

    def _offered(self, parameter: inspect.Parameter, annotation: Any) -> Any:
        by_type = {Context: self, Component: self.component, Init: self.init, **self.bound}
        for arm in (annotation, *typing.get_args(annotation)):
            if isinstance(arm, type) and issubclass(arm, DistributedRuntime):
                return self.runtime
            if isinstance(arm, type) and arm in by_type:
                return by_type[arm]
        if annotation is None and parameter.name in _NAMES:
            return self
        return self.runtime if annotation is None and parameter.name == "runtime" else None


def _hints(function: Any) -> dict[str, Any]:
    # what `get_type_hints` raises when it evaluates an annotation that is a text (PEP 563)
    try:
        return typing.get_type_hints(function)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise BadDeclaration(f"{function.__qualname__}: an annotation cannot be resolved: {error}") from error
