"""Activator: asks the orchestrator for an instance where there is none, once per deployment for all waiting requests.

Law: a request waits only while an instance is starting, or is there and takes nothing new for the moment. A build, a
failure and an absent orchestrator are answered at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from bema.core.errors import BemaError, NotFound, Overloaded, Unavailable, of_code
from bema.core.limits import Limits
from bema.core.problems import PROBLEMS
from bema.deploy.model.deployment import Activation
from bema.gateway.routing.choice import InstanceRoute
from bema.gateway.routing.table import RoutingTable

__all__ = ["Activate", "Activator", "not_started", "refusal"]

Activate = Callable[[str, float], Awaitable[Activation]]
"""`(deployment, seconds to wait) -> Activation`: the orchestrator's `activate`."""

_SHOWN = 0.25  # seconds an instance that is ready may take to be seen in Discovery, before it is asked about again
_LOOKS = 20


class _Question:
    __slots__ = ("asking", "waiters")

    def __init__(self, asking: asyncio.Task[InstanceRoute]) -> None:
        self.asking = asking
        self.waiters = 0


class Activator:
    def __init__(self, table: RoutingTable, activate: Activate, limits: Limits) -> None:
        self._table = table
        self._activate = activate
        self._limits = limits
        self._questions: dict[str, _Question] = {}

    async def wait(self, deployment: str) -> InstanceRoute:
        """Wait for a route to an instance of the deployment; what it raises is the answer to the request.

        Raises:
            Overloaded: `http_waiters` requests wait for this deployment already.
            NotFound: there is no such deployment.
            Unavailable: the orchestrator cannot be asked.
            BemaError: the deployment is building, failed, or did not start in time, by the code.
        """
        question = self._questions.get(deployment)
        if question is None:
            question = self._questions[deployment] = _Question(asyncio.create_task(self._ask(deployment)))
            question.asking.add_done_callback(lambda _: self._forget(deployment, question))
        # Bounded per deployment: one that never starts must not hold every connection.
        if question.waiters >= self._limits.http_waiters:
            raise Overloaded(f"{question.waiters} requests wait for this deployment to start", retry_after=1)
        question.waiters += 1
        try:
            # shielded: one client that leaves must not end the question for the others; the last one does
            return await asyncio.shield(question.asking)
        finally:
            question.waiters -= 1
            if not question.waiters:
                # forgotten at once: who came before the task has ended would be cancelled with it, and never answered
                self._forget(deployment, question)
                question.asking.cancel()

    def _forget(self, deployment: str, question: _Question) -> None:
        if self._questions.get(deployment) is question:
            del self._questions[deployment]

    async def _ask(self, deployment: str) -> InstanceRoute:
        # Two sources of one fact: the record may come before the orchestrator's answer, or be all
        # there is when the orchestrator is away.
        shown = asyncio.create_task(self._table.routed(deployment))
        try:
            # the orchestrator may call an instance ready that has just died: one that is not shown soon is asked about again
            for _ in range(_LOOKS):
                await self._kept_back(deployment)
                if (route := self._table.route(deployment)) is not None:
                    return route
                await self._answered(deployment, shown)
                await asyncio.wait({shown}, timeout=_SHOWN)
                if shown.done():
                    return shown.result()
            raise not_started()
        finally:
            shown.cancel()

    async def _kept_back(self, deployment: str) -> None:
        """Wait while every instance is stalled or not ready. The records say so, and nobody need be asked."""
        try:
            async with asyncio.timeout(self._limits.start):
                await self._table.decided(deployment)
        except TimeoutError:
            raise not_started() from None

    async def _answered(self, deployment: str, shown: asyncio.Task[InstanceRoute]) -> None:
        """Wait until an instance is shown or the orchestrator calls one ready; raises what stands in its way."""
        asked = asyncio.ensure_future(self._activate(deployment, self._limits.start))
        try:
            await asyncio.wait({shown, asked}, timeout=self._limits.start + 1, return_when=asyncio.FIRST_COMPLETED)
            if shown.done():
                return
            if not asked.done():
                raise not_started()
            if (refused := refusal(_result(asked))) is not None:
                raise refused
        finally:
            asked.cancel()


def _result(asked: asyncio.Future[Activation]) -> Activation:
    try:
        return asked.result()
    except NotFound as error:
        raise NotFound("no deployment has this id", fix="`bema ls` shows the URL of every deployment.") from error
    except BemaError as error:
        away = Unavailable(f"the orchestrator cannot be asked: {error.message}", fix="Try again in a moment.")
        away.retry_after = 1
        raise away from error


def refusal(activation: Activation) -> BemaError | None:
    """The error for a request to a deployment in the state of `activation`; None where an instance is ready."""
    state = str(activation.state)
    if state == "ready":
        return None
    if state in ("building", "idle", "starting"):
        error = BemaError(code="building") if state == "building" else not_started()
        error.retry_after = activation.retry_after or 2
        return error
    code = state if state in PROBLEMS else "unavailable"
    told = activation.error
    if told is None:
        error = of_code(code, "")
    else:
        error = of_code(code, told.message, detail=told.detail, log=list(told.log[-10:]))
    error.retry_after = activation.retry_after
    return error


def not_started() -> BemaError:
    """The answer where an instance did not begin to serve in time."""
    error = BemaError(code="starting")
    error.retry_after = 1
    return error
