"""`bema replay`: a durable call run again on this machine with what it recorded."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pdb
import sys
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import click
import msgspec

from bema.cli import output
from bema.cli.calls import places
from bema.cli.run import load, service_of, split
from bema.core.errors import Invalid, NotFound
from bema.deploy import script_environment
from bema.jobs.calls import CallRecord
from bema.jobs.journal import JournalEntry
from bema.jobs.replay import CallHistory, Frames, Replay, ReplayEnd, last_of_users
from bema.jobs.single_step import in_one_step
from bema.jobs.worker import DurableEndpoint
from bema.runtime.distributed import connect
from bema.runtime.rpc.adapter import handler_of, off_the_loop
from bema.sdk import spec
from bema.sdk.context import Context
from bema.sdk.lifecycle import run_hooks
from bema.wire.module.handshake import default_init
from bema.wire.rpc import failures
from bema.wire.values import codecs


@click.command()
@click.argument("id")
@click.argument("target", metavar="FILE[:CLASS]")
@click.option("--pdb", "debug", is_flag=True, help="Debug where the handler raised, or where it waits.")
@click.option("--here", is_flag=True, help="Use the Python that runs bema, whatever the file's PEP 723 block asks for.")
@output.json_option
def command(id: str, target: str, debug: bool, here: bool, as_json: bool) -> None:
    """Run a durable call again with its recorded results, and tell where its code comes to.

    No step is done and nothing is written; the constructor of the class in FILE and its @async_init run as in a start. The exit
    code is 1 where the code and the history of the call disagree, or where the handler fails and the call had not.
    """
    file, name = split(target)
    if not here:
        flags = [*(("--pdb",) if debug else ()), *(("--json",) if as_json else ())]
        script_environment.enter(file, ["replay", "--here", *flags, "--", id, target], output.note)
    history = asyncio.run(_history(id))
    service = service_of(load(file), name, file)
    steps: list[dict[str, Any]] = []

    def told(entry: JournalEntry) -> None:
        steps.append(_step(entry))
        if not as_json:
            came = steps[-1].get("error") or json.dumps(steps[-1].get("result"), default=str)
            output.print_text(
                f"  {entry.order or '':>4}  {entry.shown}  {came}" if entry.order else f"        {entry.shown}"
            )

    end = asyncio.run(_replayed(history, service, file, told, _debug if debug else lambda frames: None))
    if as_json:
        output.print_json({"id": id, "steps": steps, **end._asdict()})
    else:
        output.print_text(f"{end.kind}  {end.says}")
    if not end.agrees:
        sys.exit(1)


async def _history(id: str) -> CallHistory:
    """The whole of a call, from the process that has it or from its file, which is let go of at once."""
    async with places() as found:
        for place in found:
            with contextlib.suppress(NotFound):
                return _read([part async for part in _parts(place, id)])
    raise NotFound(f"there is no call {id}")


async def _parts(place: Any, id: str) -> Any:
    after, more = 0, True
    while more:
        part = await place.ask("history", id=id, after=after)
        yield part
        after, more = part["last"], part["more"]


def _read(parts: list[dict[str, Any]]) -> CallHistory:
    decode = msgspec.msgpack.Decoder(JournalEntry).decode
    return CallHistory(
        record=msgspec.msgpack.decode(parts[0]["record"], type=CallRecord),
        arguments=parts[0]["arguments"],
        entries=[decode(entry) for part in parts for entry in part["entries"]],
        payload=parts[0]["payload"],
    )


async def _replayed(history: CallHistory, service: type[Any], file: Path, told: Any, look: Any) -> ReplayEnd:
    said = spec.spec_of(service)
    namespace_and_name, _, endpoint = history.record.route.rpartition(".")
    declared = next((each for each in said.endpoints if each.name == endpoint and each.later), None)
    if declared is None or said.address != namespace_and_name:
        raise Invalid(
            f"call {history.record.id} is one of {history.record.route}, and {file} has {said.address}",
            code="entry_not_found",
            fix="Name the file and the class that have its endpoint.",
        )
    async with connect() as runtime:
        context = Context(runtime, said, default_init(said.address))
        made = context.construct(service)
        await run_hooks(made, said.hooks.init)
        try:
            handler: Any = off_the_loop(handler_of(getattr(made, declared.attribute), declared), declared)
            if not declared.durable:  # its later calls are one step each
                handler = in_one_step(declared, handler)
            return await Replay(history, DurableEndpoint(declared, handler), told, look).end()
        finally:
            await run_hooks(made, said.hooks.shutdown)


def _step(entry: JournalEntry) -> dict[str, Any]:
    if entry.failure:
        failure = failures.read_failure(entry.failure)
        came: dict[str, Any] = {"error": f"{failure.type or failure.code}: {failure.message}"}
    else:
        came = {"result": codecs.unpack(entry.value) if entry.value else None}
    return {"order": entry.order, "what": entry.shown, **came}


def _debug(frames: Frames) -> None:
    if frames:
        _Standing(frames).interaction(frames[last_of_users(frames)][0], None)


class _Standing(pdb.Pdb):
    """The debugger in frames that stand: those of a suspended handler have no way back to each other of their own."""

    def __init__(self, frames: Frames) -> None:
        super().__init__()
        self._frames = frames
        self.reset()

    def get_stack(self, f: FrameType | None, t: TracebackType | None) -> tuple[Frames, int]:
        return self._frames, last_of_users(self._frames)
