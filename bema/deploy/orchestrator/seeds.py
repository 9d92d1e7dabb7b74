"""Seeds: scripts that are deployed under their file's name when the platform starts.

Laws: the file is the desired state, so one that was edited replaces what runs, which keeps its id, its data and its
environment variables; one that is refused changes nothing. What a person did counts more: a deployment that was removed stays
removed, and one that no seed made is left alone. What became of each is told, with its URL and the commands its docstring names:
a line of it that begins with `bema` or `curl`, `$URL` in it standing for the script's own.
"""

from __future__ import annotations

import ast
import asyncio
import hashlib
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from bema.core.access import Principal
from bema.core.errors import BemaError, Conflict
from bema.core.visible import visible, visible_line
from bema.deploy.model.bundle import Bundle
from bema.deploy.model.deployment import CreateRequest, DeploymentInfo, Rollout
from bema.deploy.orchestrator.service import Orchestrator
from bema.deploy.sources.names import name_of
from bema.deploy.store.deployments import Store

_FACT = "seed."


class Sown(msgspec.Struct, frozen=True):
    """What became of a seed: the `id` that it has, or had; what was `done`; and what was `said` of it where it was not sown."""

    seed: Path
    id: str = ""
    done: str = ""
    said: str = ""

    @property
    def name(self) -> str:
        return name_of(self.seed)


async def sow(seeds: Iterable[Path], orchestrator: Orchestrator, store: Store, owner: Principal) -> list[Sown]:
    """Make what is deployed equal the seeds; gives what became of each, in their order."""
    sown: dict[str, Sown] = {}
    for seed in seeds:
        name = name_of(seed)
        if name in sown:
            # both in turn would replace each other at every start
            sown[str(seed)] = Sown(seed, said=f"{sown[name].seed} is deployed under that name already")
            continue
        try:
            sown[name] = await _sow(seed, orchestrator, store, owner)
        except OSError as error:
            sown[name] = Sown(seed, _known(seed, store), said=f"it cannot be read: {error.strerror}")
        except UnicodeDecodeError as error:
            sown[name] = Sown(seed, _known(seed, store), said=f"it is not UTF-8: byte {error.start}")
        except BemaError as error:
            sown[name] = Sown(seed, _known(seed, store), said=_sentence(error))
    return list(sown.values())


async def _sow(seed: Path, orchestrator: Orchestrator, store: Store, owner: Principal) -> Sown:
    code = await asyncio.to_thread(seed.read_text, "utf-8")
    name, digest = name_of(seed), Bundle.of_script(code.encode()).digest
    known = _known(seed, store)
    if not known:
        return await _first(seed, code, digest, orchestrator, store, owner)
    rollout = store.rollouts().get(known)
    if rollout is None and known not in store.unreadable():
        # a person may have deployed it again: then that is as much the seed's as what was removed
        rollout = next((r for r in store.rollouts().values() if (r.owner, r.name) == (owner.subject, name)), None)
        if rollout is None:
            return Sown(seed, done="removed")
        # a person deployed it: that is not undone by a file that was edited at another time
        if rollout.version.digest != digest:
            return Sown(seed, rollout.id, said="it was removed, and another script is deployed under its name")
        known = rollout.id
        await store.remember(_FACT + name, known)
    if rollout is None or rollout.version.digest == digest:
        return Sown(seed, known)
    await orchestrator.update(known, _request(name, code), owner)
    return Sown(seed, known, done="replaced", said=f"edited since {name} was deployed")


async def _first(
    seed: Path, code: str, digest: str, orchestrator: Orchestrator, store: Store, owner: Principal
) -> Sown:
    name = name_of(seed)
    # of this very code: after a death in the middle an edited one is another request
    key = f"{_FACT}{name}.{hashlib.sha256(digest.encode()).hexdigest()[:16]}"
    try:
        id = (await orchestrator.create(_request(name, code), owner, key=key)).id
    except Conflict as error:
        id = str(error.details.get("id", ""))
        other = store.rollouts().get(id)
        if other is None or other.version.digest != digest:
            raise
    await store.remember(_FACT + name, id)
    return Sown(seed, id, done="deployed")


def _request(name: str, code: str) -> CreateRequest:
    return CreateRequest(name, {"type": "inline", "code": code})


def _known(seed: Path, store: Store) -> str:
    return store.fact(_FACT + name_of(seed)) or ""


def _sentence(error: BemaError) -> str:
    return f"{error.code}: {error.message}\n  fix: {error.fix}"


def unnamed(seeds: Iterable[Path], store: Store) -> list[Rollout]:
    """What earlier seeds made, and no seed of now: it stays deployed."""
    names = {name_of(seed) for seed in seeds}
    rollouts = store.rollouts()
    facts = store.facts(_FACT)
    return [rollouts[id] for name, id in sorted(facts.items()) if name not in names and id in rollouts]


def refused(sown: Sown, program: str) -> str:
    """What is told of a seed that was not sown."""
    if sown.done == "removed":
        return f"{sown.name}: not deployed, since it was removed\n  {program} deploy {shlex.quote(str(sown.seed))}"
    left = " it runs on as it was deployed" if sown.id else " it is not deployed"
    first, *rest = visible(sown.said).splitlines() or [""]
    file = visible_line(str(sown.seed))
    return "\n".join(
        (f"{sown.name or file}: refused,{left}: {first}", f"  {file}", *(f"  {line.strip()}" for line in rest))
    )


def left(rollout: Rollout, program: str) -> str:
    """What is told of a deployment whose seed is named no more."""
    return f"{rollout.name}: deployed by an earlier seed, and left as it is\n  {program} rm {rollout.name}"


def report(seed: Path, info: DeploymentInfo, url: str, program: str, done: str = "") -> str:
    """What became of a seed that is deployed, for whoever looks at the terminal."""
    replaced = f", replaced by {info.version} since the file was edited" if done == "replaced" else ""
    lines = [f"{info.name}: {info.state}  {url}{replaced}"]
    if info.state == "ready":
        lines += (f"  {hint}" for hint in _hints(seed, url, program))
    else:
        if info.error is not None:
            lines.append(f"  {visible_line(info.error.message)}")
        lines.append(f"  {program} logs {info.name}")
    return "\n".join(lines)


def _hints(seed: Path, url: str, program: str) -> list[str]:
    try:
        text = ast.get_docstring(ast.parse(seed.read_bytes())) or ""
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    lines = [visible_line(line).strip().replace("$URL", url) for line in text.splitlines()]
    # a line that is printed works when it is pasted: a plain machine has no curl, and what is fetched is told bare
    curl = "curl " if shutil.which("curl") else ""
    return [
        curl + line.removeprefix("curl ") if line.startswith("curl ") else program + line.removeprefix("bema")
        for line in lines
        if line.startswith(("bema ", "curl "))
    ]
