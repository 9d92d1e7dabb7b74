"""Whether an instance is fit to take requests: the one request that its author named is sent to it.

Law: below 400 is fit; everything else, and no answer in time, is a doubt with a sentence.
"""

from __future__ import annotations

import asyncio
import contextlib

from bema.deploy.model.deployment import Version
from bema.deploy.model.replica import Replica

_LONGEST = 4096


async def doubt_of(version: Version, replica: Replica, seconds: float) -> str:
    """Why it is not fit to take requests; empty where it is ready and, where its version has a `health`, that answered."""
    if not replica.ready:
        return "it says that it is not ready"
    return await _answer_of(replica, version.settings.health, seconds) if version.settings.health else ""


async def _answer_of(replica: Replica, path: str, seconds: float) -> str:
    """What is wrong with its answer at `path` over its own listener; empty where that is below 400."""
    said = (replica.announce or {}).get("addresses") or {}
    address = next(iter(said.get("http", ())), replica.listen and f"unix:{replica.listen.removeprefix('unix:')}")
    try:
        async with asyncio.timeout(seconds):
            status = await _status(address, path)
    except TimeoutError:
        return f"GET {path} was not answered within {seconds:g} s"
    except (OSError, ValueError) as error:
        return f"GET {path} was not answered: {error}"
    return "" if status < 400 else f"GET {path} was answered {status}"


async def _status(address: str, path: str) -> int:
    """The status of the answer; `ValueError` for one that is no HTTP."""
    scheme, _, place = address.partition(":")
    if scheme == "unix":
        reader, writer = await asyncio.open_unix_connection(place, limit=_LONGEST)
    else:
        host, _, port = place.rpartition(":")
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), limit=_LONGEST)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        line = (await reader.readline()).split(b" ")
        if len(line) < 2 or not line[0].startswith(b"HTTP/1.") or not line[1].isdigit():
            raise ValueError("the answer is no HTTP")
        return int(line[1])
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
