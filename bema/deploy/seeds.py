"""Scripts that are deployed by their file's name, once: an example that was removed does not come back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

from bema.core.errors import BemaError, Conflict
from bema.deploy.deployment import CreateRequest
from bema.deploy.naming import name_of
from bema.deploy.orchestrator import Orchestrator
from bema.deploy.store import Store

logger = logging.getLogger(__name__)


async def sow(seeds: Iterable[Path], orchestrator: Orchestrator, store: Store, owner: str) -> None:
    """Deploy what was not deployed before. One that is refused is said, and tried again at the next start."""
    for seed in seeds:
        name = name_of(seed)
        fact = f"seed.{name}"
        if store.fact(fact) is not None:
            continue
        try:
            code = await asyncio.to_thread(seed.read_text, "utf-8")
            info = await orchestrator.create(CreateRequest(name, code, owner=owner), key=fact)
            await store.remember(fact, info.id)
        except Conflict as error:
            await store.remember(fact, str(error.details.get("id", "")))
        except (BemaError, OSError, UnicodeDecodeError) as error:
            logger.warning("%s is not deployed: %s", seed, error)
