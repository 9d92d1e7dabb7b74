"""What a pyproject.toml says of the files beside it, and what is locked for them.

Laws: what stands with the code counts before what stands beside it, so a file with a block of its own is not asked for more; and a lock
is used or refused, never passed over. All of it becomes the block of a script, so that there is one way from here on.
Pure: bytes in, text out.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from bema.core.errors import Invalid
from bema.core.limits import DEFAULTS
from bema.deploy.model.bundle import Bundle
from bema.deploy.sources.function_table import KEYS
from bema.deploy.sources.pep723 import CLOSING, OPENING, ScriptMetadata, has_block, read_metadata
from bema.deploy.sources.toml import TomlError, inline, parse

PYPROJECT = "pyproject.toml"
LOCK = "uv.lock"
LONGEST_LOCK = 2 * 1024 * 1024
"""Bytes of a lock: it is kept beside the record of its version."""
# of the table for uv what is about a project's own files, or who works on them
_OF_PROJECTS = ("package", "workspace", "dev-dependencies", "default-groups", "managed", "build-backend", "conflicts")
_PACKAGE = "\n[[package]]\n"
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][\w.-]*)\s*(?:\[[^\]]*\])?\s*\(?([^;@)]*)")
_MALFORMED = re.compile(r"line \d+: the script's metadata block is malformed: ")


class Project(msgspec.Struct, frozen=True):
    """`block` is the head of a script that asks for what the project asks for."""

    block: str
    entry_file: str = ""
    dependencies: tuple[str, ...] = ()


class Requirements(msgspec.Struct, frozen=True):
    """What a Bundle asks for: the code that names it to the installer, the same as metadata, and the lock that came along."""

    code: bytes
    metadata: ScriptMetadata
    lock: str = ""


def requirements_of(bundle: Bundle, most: int = DEFAULTS.script_block) -> Requirements:
    """What the Bundle's code or its project says.

    Raises:
        Invalid: the block (pep723_malformed, ...), the project (pyproject_malformed) or the lock (lock_outdated) is of no use.
    """
    code = bundle.script.decode().removeprefix("\ufeff")
    if has_block(code) or PYPROJECT not in bundle.files:
        lock = _text(bundle.files.get(f"{bundle.entry}.lock", b""), LONGEST_LOCK, f"{bundle.entry}.lock")
        return Requirements(bundle.script, read_metadata(code, most), lock)
    project = read_project(bundle.files[PYPROJECT], most)
    try:
        # a project may say nothing but how it is checked and formatted
        metadata = read_metadata(project.block, len(project.block.encode()))
    except Invalid as error:
        raise _malformed(_MALFORMED.sub("", error.message)) from error
    locked = bundle.files.get(LOCK)
    lock = "" if locked is None else script_lock(_text(locked, LONGEST_LOCK, LOCK), project.dependencies)
    return Requirements(project.block.encode(), metadata, lock)


def read_project(content: bytes, most: int = DEFAULTS.script_block) -> Project:
    """A pyproject.toml of at most `most` bytes; `Invalid` (pyproject_malformed)."""
    if len(content) > most:
        raise _malformed(f"it has {len(content)} bytes; the limit is {most}")
    try:
        table = parse(content.decode().replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        raise _malformed(f"it is not UTF-8: byte {error.start}") from error
    except TomlError as error:
        raise _malformed(f"line {error.line}: {error}", line=error.line) from error
    project, tool = _table(table, "project"), _table(table, "tool")
    bema = dict(_table(tool, "bema"))
    entry_file = bema.pop("entry_file", "")
    if not isinstance(entry_file, str):
        raise _malformed("tool.bema.entry_file must be a string")
    if "dependencies" in (dynamic := project.get("dynamic") or ()):
        raise _malformed(f"dependencies must be written out, and are dynamic: {dynamic}")
    dependencies = project.get("dependencies", [])
    if not isinstance(dependencies, list) or not all(isinstance(one, str) for one in dependencies):
        raise _malformed("project.dependencies must be a list of strings")
    uv = {key: value for key, value in _table(tool, "uv").items() if key not in _OF_PROJECTS}
    _check_sources(uv.get("sources", {}))
    # the table of a project may also set the platform: that is not the function's
    function = {key: value for key, value in bema.items() if key in KEYS}
    said = {key: value for key, value in (("bema", function), ("uv", uv)) if value}
    return Project(_block(project, dependencies, said), entry_file, tuple(dependencies))


def _block(project: dict[str, Any], dependencies: list[str], tool: dict[str, Any]) -> str:
    try:
        lines = [f"dependencies = {inline(dependencies)}"]
        if "requires-python" in project:
            lines.append(f"requires-python = {inline(project['requires-python'])}")
        lines += ["[tool]", *(f"{name} = {inline(table)}" for name, table in tool.items())] if tool else []
    except TypeError as error:
        raise _malformed(str(error)) from error
    return "\n".join((OPENING, *(f"# {line}" for line in lines), CLOSING, ""))


def _check_sources(sources: object) -> None:
    if not isinstance(sources, dict):
        raise _malformed("tool.uv.sources must be a table")
    for name, given in sources.items():
        for one in given if isinstance(given, list) else [given]:
            if not isinstance(one, dict):
                raise _malformed(f"tool.uv.sources.{name} must be a table")
            # the environment is shared by all with an equal lock: it holds no file of one tree
            if "workspace" in one or not str(one.get("path", "/")).startswith("/"):
                raise _malformed(f"tool.uv.sources.{name} lies in the source itself; import it as a file of the tree")


def script_lock(lock: str, dependencies: tuple[str, ...]) -> str:
    """The lock of a project as that of a script which asks for the same; `Invalid` (lock_outdated)."""
    try:
        table = parse(lock)
    except TomlError as error:
        raise _outdated(f"line {error.line}: {error}") from error
    packages = [one for one in _list(table.get("package")) if isinstance(one, dict)]
    roots = [one for one in packages if _is_root(one)]
    if len(roots) != 1 or _table(table, "manifest").get("members"):
        raise _outdated("it is of a workspace, or of no project")
    metadata = roots[0].get("metadata")
    every = _list(metadata.get("requires-dist")) if isinstance(metadata, dict) else []
    asked = [one for one in every if isinstance(one, dict) and "extra ==" not in str(one.get("marker", ""))]
    if (locked := {_key_of_locked(one) for one in asked}) != (wanted := {_key(one) for one in dependencies}):
        names = ", ".join(sorted({name for name, _ in locked ^ wanted}))
        raise _outdated(f"it was made for other dependencies than pyproject.toml has: {names}")
    head, *sections = f"\n{lock}".split(_PACKAGE)
    kept = [section for section in sections if not _is_root_text(section, roots[0])]
    manifest = f"[manifest]\nrequirements = {inline(asked)}\n"
    # one that was there says what is overridden
    head = head.replace("[manifest]\n", manifest, 1) if "\n[manifest]\n" in head else f"{head.rstrip()}\n\n{manifest}"
    return _PACKAGE.join((head.lstrip("\n"), *kept))


def _is_root(package: dict[str, Any]) -> bool:
    source = package.get("source")
    return isinstance(source, dict) and "." in (source.get("virtual"), source.get("editable"))


def _is_root_text(section: str, root: dict[str, Any]) -> bool:
    source = inline(root["source"]).replace('"virtual"', "virtual").replace('"editable"', "editable")
    return f"\nsource = {source}\n" in section


def _key(requirement: str) -> tuple[str, str]:
    found = _REQUIREMENT.match(requirement)
    return (_normal(found[1]), _clauses(found[2])) if found else (requirement, "")


def _key_of_locked(one: dict[str, Any]) -> tuple[str, str]:
    return _normal(str(one.get("name", ""))), _clauses(str(one.get("specifier", "")))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _clauses(specifiers: str) -> str:
    return ",".join(sorted(re.sub(r"\s", "", specifiers).lower().split(",")))


def _table(parent: dict[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name, {})
    if not isinstance(value, dict):
        raise _malformed(f"{name} must be a table")
    return value


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(content: bytes, most: int, name: str) -> str:
    if len(content) > most:
        raise _outdated(f"it has {len(content)} bytes; the limit is {most}", name)
    try:
        return content.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise _outdated(f"it is not UTF-8: byte {error.start}", name) from error


def _malformed(problem: str, **details: Any) -> Invalid:
    return Invalid(f"{PYPROJECT}: {problem}", code="pyproject_malformed", **details)


def _outdated(problem: str, name: str = LOCK) -> Invalid:
    return Invalid(f"{name}: {problem}", code="lock_outdated")
