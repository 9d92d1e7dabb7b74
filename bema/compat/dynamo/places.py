"""Namespace, component and endpoint of `dynamo.runtime`: ours, with that runtime's names for what is done there."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bema.compat.dynamo.clients import Client, RouterMode, pick_of
from bema.compat.dynamo.handlers import CONTEXT, adapted
from bema.compat.dynamo.migration import MigrationLimits
from bema.compat.dynamo.refused import refuse
from bema.compat.dynamo.statuses import mapping
from bema.core.call import Interceptor
from bema.core.errors import Unavailable
from bema.core.naming import check_endpoint, check_name
from bema.core.spec import EndpointSpec
from bema.runtime import distributed
from bema.runtime.rpc import signatures
from bema.runtime.rpc.adapter import handler_of


class Namespace(distributed.Namespace):
    def component(self, name: str) -> Component:
        return Component(self, check_name(name, "component"))


class Component(distributed.Component):
    def endpoint(self, name: str) -> Endpoint:
        return Endpoint(self, check_endpoint(name))

    async def add(self, spec: EndpointSpec, function: Callable[..., Any], around: Interceptor | None = None) -> None:
        handler, spec = mapping(handler_of(function, spec), spec)
        await self._answer(spec, handler, around)


class Endpoint(distributed.Endpoint):
    def client(  # type: ignore[override]
        self, router_mode: RouterMode | str | None = None, migration_limit: int | None = None, **options: Any
    ) -> Client:
        """The client of this endpoint; it may be awaited.

        `migration_limit`: how often a request for tokens may go on with another worker; without it, `DYN_MIGRATION_LIMIT`.
        """
        limits = MigrationLimits.of(migration_limit)
        return Client(super().client(pick=pick_of(router_mode), **options), limits)

    async def serve_endpoint(  # type: ignore[override]
        self,
        handler: Callable[..., Any],
        graceful_shutdown: bool = True,
        metrics_labels: Sequence[tuple[str, str]] | None = None,
        health_check_payload: Mapping[str, Any] | None = None,
        *,
        resumable: bool = False,
    ) -> None:
        """Serve until the runtime is shut down. The health check's payload is the request it is called with.

        `resumable`: the handler begins its stream behind `context.resume`, so that it goes on with another worker.
        """
        await self._serve(adapted(handler), graceful_shutdown, metrics_labels, health_check_payload, resumable)

    async def serve_bidirectional_endpoint(
        self,
        handler: Callable[..., Any],
        graceful_shutdown: bool = True,
        metrics_labels: Sequence[tuple[str, str]] | None = None,
    ) -> None:
        """Serve a handler whose first parameter is the stream of requests."""
        await self._serve(adapted(handler, streams=True), graceful_shutdown, metrics_labels, None, False)

    async def _serve(
        self,
        handler: Callable[..., Any],
        graceful_shutdown: bool,
        metrics_labels: Sequence[tuple[str, str]] | None,
        payload: Mapping[str, Any] | None,
        resumable: bool,
    ) -> None:
        names = [name for name in inspect.signature(handler).parameters if name != CONTEXT]
        await self._end_of_promise()
        await super().serve_endpoint(
            handler,
            graceful_shutdown=graceful_shutdown,
            resumable=resumable,
            metrics_labels=metrics_labels or (),
            health_check_payload=None if payload is None else dict(zip(names, [payload], strict=False)),
        )

    async def publish(self, **data: Any) -> None:
        """Say something about this instance: what `wait_for_instances_by_runtime_data` looks for."""
        await self.component.publish(**data)

    async def unregister_endpoint_instance(self) -> None:
        await self.hide()

    async def register_endpoint_instance(self) -> None:
        """Tell of it again; or for the first time, before it is served: until then, who calls it is told so."""
        if self.name not in self.component.hosted.endpoints:
            spec = signatures.read(_promised, self.name, method=False)
            await self.component.add(spec, _promised)
            self._promises.add(str(self.address))
        await self.show()

    @property
    def _promises(self) -> set[str]:
        """The endpoints that are told of before they are served."""
        promises: set[str] = vars(self.runtime).setdefault("promised", set())
        return promises

    async def _end_of_promise(self) -> None:
        if str(self.address) in self._promises:
            self._promises.discard(str(self.address))
            await self.runtime.host.remove(self.component.hosted, self.name)

    def connection_id(self) -> int:
        return self.component.hosted.instance_id

    lease_id = connection_id

    if not TYPE_CHECKING:  # with it, a misspelt name would be Any to type checkers

        def __getattr__(self, name: str) -> Any:
            return refuse("Endpoint", name)


async def _promised(request: Any) -> Any:
    raise Unavailable("it was registered, and is not served yet", fix="Call again when it is served.")
