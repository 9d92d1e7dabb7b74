"""Both ends of the RPC in one process, over a Unix socket, and this process's memory: what the soaks share."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from bema.core.call import Handler
from bema.core.instance import EndpointInfo, Instance
from bema.core.limits import DEFAULTS
from bema.core.settings import current
from bema.core.spec import EndpointSpec
from bema.runtime.discovery.memory import MemoryDiscovery
from bema.runtime.rpc.client import Client
from bema.runtime.rpc.pool import ConnectionPool
from bema.runtime.rpc.server import Server

MIB = 1024 * 1024


@contextlib.asynccontextmanager
async def ends(spec: EndpointSpec, handler: Handler, *, calls: int = 1024) -> AsyncIterator[Client]:
    """A client of one endpoint, served here to as many calls at once as `calls`."""
    with tempfile.TemporaryDirectory(prefix="bema-soak-") as folder:
        server = Server("token", name="soak", settings=current().but(DEFAULTS.but(rpc_calls=calls)))
        server.add(f"bench.soak.{spec.name}", handler, spec)
        address = await server.listen(f"unix:{folder}/soak.sock")
        discovery, pool = MemoryDiscovery(), ConnectionPool()
        await discovery.register(
            Instance(
                id=1,
                namespace="bench",
                component="soak",
                endpoints=(EndpointInfo(spec.name, spec.shape),),
                addresses={"rpc": (address,)},
                token="token",
            )
        )
        try:
            yield Client(pool, await discovery.view("bench", "soak"), f"bench.soak.{spec.name}", spec)
        finally:
            await pool.close()
            await server.close()


def memory() -> int:
    """Bytes resident, after what is free was given back to the system."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def flat(early: int, late: int) -> bool:
    """Whether memory has stayed within a tenth; says so."""
    fine = late <= early * 1.1
    print(f"{'ok' if fine else 'GREW':5} memory {early / MIB:.1f} MiB early, {late / MIB:.1f} MiB late")
    return fine
