"""Scripts that are deployed by their file's name, once: an example that was removed does not come back.

What became of each is told, with its URL and the commands its docstring names: a line of it that begins with `bema` or
`curl`, `$URL` in it standing for the script's own.
"""

from __future__ import annotations

import ast
import asyncio
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from bema.core.access import Principal
from bema.core.errors import BemaError, Conflict
from bema.deploy.model.deployment import CreateRequest, DeploymentInfo
from bema.deploy.orchestrator.service import Orchestrator
from bema.deploy.sources.names import name_of
from bema.deploy.store.deployments import Store

logger = logging.getLogger(__name__)


async def sow(seeds: Iterable[Path], orchestrator: Orchestrator, store: Store, owner: Principal) -> dict[Path, str]:
    """Deploy what was not deployed before; gives the id of each. One that is refused is said, and tried again at the
    next start."""
    known: dict[Path, str] = {}
    for seed in seeds:
        name = name_of(seed)
        fact = f"seed.{name}"
        if (given := store.fact(fact)) is not None:
            known[seed] = given
            continue
        try:
            code = await asyncio.to_thread(seed.read_text, "utf-8")
            info = await orchestrator.create(CreateRequest(name, code), owner, key=fact)
            known[seed] = info.id
        except Conflict as error:
            known[seed] = str(error.details.get("id", ""))
        except (BemaError, OSError, UnicodeDecodeError) as error:
            logger.warning("%s is not deployed: %s", seed, error)
            continue
        await store.remember(fact, known[seed])
    return known


def report(seed: Path, info: DeploymentInfo, url: str, program: str) -> str:
    """What became of a seed, for whoever looks at the terminal."""
    lines = [f"{info.name}: {info.state}  {url}"]
    if info.state == "ready":
        lines += (f"  {hint}" for hint in _hints(seed, url, program))
    else:
        lines.append(f"  {program} logs {info.name}")
    return "\n".join(lines)


def _hints(seed: Path, url: str, program: str) -> list[str]:
    try:
        text = ast.get_docstring(ast.parse(seed.read_bytes())) or ""
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    lines = [line.strip().replace("$URL", url) for line in text.splitlines()]
    # a line that is printed works when it is pasted: a plain machine has no curl, and what is fetched is told bare
    curl = "curl " if shutil.which("curl") else ""
    return [
        curl + line.removeprefix("curl ") if line.startswith("curl ") else program + line.removeprefix("bema")
        for line in lines
        if line.startswith(("bema ", "curl "))
    ]
