"""Classes to documents: one `OPackage` per package name, the same on every run."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from bema.core.errors import BadDeclaration, NotFound
from bema.packages.classes import export_class
from bema.packages.facts import PackageMark, own_facts
from bema.packages.opackage import OPackage
from bema.packages.writer import to_yaml

Dialect = Literal["current", "2025-08"]
DIALECTS: tuple[Dialect, ...] = ("current", "2025-08")
_PLACE = re.compile(r"\$\.(classes|functions)\[(\d+)\]")
_SAID_ONCE = ("version", "author", "description", "tags", "dependencies")


class MetadataRepo:
    """The classes to export, in the order they are added."""

    def __init__(self, *classes: type) -> None:
        self._classes: list[type] = []
        for cls in classes:
            self.add_cls(cls)

    def add_cls(self, cls: type) -> None:
        """Add a class that has a package; adding it again changes nothing."""
        facts = own_facts(cls)
        if facts is None or facts.package is None:
            raise BadDeclaration(
                f"class {cls.__qualname__} has no package", fix='Decorate it with @package(name="...").'
            )
        if cls not in self._classes:
            self._classes.append(cls)

    def export_pkg(self, package: str | None = None, dialect: Dialect = "current") -> dict[str, dict[str, Any]]:
        """Package name to document, in order of first encounter."""
        groups: dict[str, list[type]] = {}
        for cls in self._classes:
            groups.setdefault(_mark(cls).name, []).append(cls)
        if package is not None and package not in groups:
            raise NotFound(f"no class is of package {package!r}", fix=f"There are: {', '.join(groups) or 'none'}.")
        picked = {name: classes for name, classes in groups.items() if package in (None, name)}
        return {name: _in_dialect(_document(name, classes), dialect) for name, classes in picked.items()}

    def print_pkg(self, package: str | None = None, dialect: Dialect = "current") -> str:
        """The documents as YAML, with `---` between two packages and nowhere else."""
        # upstream's command line refuses a file whose last line is `---`: it opens a second, empty document
        return "---\n".join(map(to_yaml, self.export_pkg(package, dialect).values()))


def _mark(cls: type) -> PackageMark:
    facts = own_facts(cls)
    assert facts is not None
    assert facts.package is not None
    return facts.package


def _document(name: str, classes: Iterable[type]) -> dict[str, Any]:
    said = _merged(name, classes)
    metadata = {key: said[key] for key in ("author", "description") if said[key] is not None}
    document: dict[str, Any] = {
        "name": name,
        "version": said["version"],
        "disabled": False,
        "metadata": {**metadata, "tags": list(said["tags"] or ())},
        "classes": [],
        "functions": [],
        "dependencies": list(said["dependencies"] or ()),
        "deployments": [],
    }
    sayers: dict[str, list[type]] = {"classes": [], "functions": []}
    for cls in classes:
        exporter = getattr(cls, "export_pkg", None)
        if callable(exporter):
            exporter(document)
        else:
            export_class(cls, document)
        # what came in with this class is its own, so that a refusal can name it
        for part, by in sayers.items():
            by += [cls] * (len(document[part]) - len(by))
    _refuse_strange(name, document, sayers)
    _refuse_twins("class", document["classes"], sayers["classes"])
    document["functions"] = _distinct(document["functions"], sayers["functions"])
    return document


def _refuse_strange(name: str, document: dict[str, Any], sayers: dict[str, list[type]]) -> None:
    """A class may write what it likes into its part; a document that the model refuses is never handed out."""
    try:
        # the document of all dialects: fields that the model does not know are read over
        msgspec.convert(document, OPackage)
    except msgspec.ValidationError as error:
        at = _PLACE.search(str(error))
        who = f"class {sayers[at[1]][int(at[2])].__qualname__}" if at else "a class"
        raise BadDeclaration(
            f"package {name}: {who} exports what the model refuses: {error}", fix="Mend its export_pkg."
        ) from error


def _merged(name: str, classes: Iterable[type]) -> dict[str, Any]:
    """What the classes of one package say about it; two different values are refused."""
    said: dict[str, Any] = dict.fromkeys(_SAID_ONCE)
    by: dict[str, type] = {}
    for cls in classes:
        for key in _SAID_ONCE:
            value = getattr(_mark(cls), key)
            if value is None:
                continue
            if key in by and said[key] != value:
                raise BadDeclaration(
                    f"package {name}: {key} is {_show(said[key])} in class {by[key].__qualname__}"
                    f" and {_show(value)} in class {cls.__qualname__}",
                    fix="Say it in one class, or the same in both.",
                )
            said[key], by[key] = value, cls
    return said


def _show(value: Any) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)


def _refuse_twins(what: str, parts: list[dict[str, Any]], sayers: list[type]) -> None:
    seen: dict[str, type] = {}
    for part, cls in zip(parts, sayers, strict=True):
        if part["key"] in seen:
            first = seen[part["key"]]
            raise BadDeclaration(
                f"two classes export the {what} {part['key']}: {first.__module__}.{first.__qualname__}"
                f" and {cls.__module__}.{cls.__qualname__}"
            )
        seen[part["key"]] = cls


def _distinct(functions: list[dict[str, Any]], sayers: list[type]) -> list[dict[str, Any]]:
    """Each function once; two classes may share one, when they say the same of it."""
    seen: dict[str, tuple[dict[str, Any], type]] = {}
    for function, cls in zip(functions, sayers, strict=True):
        first, sayer = seen.setdefault(function["key"], (function, cls))
        if first != function:
            raise BadDeclaration(
                f"function {function['key']} is declared differently in class {sayer.__qualname__} and in class"
                f" {cls.__qualname__}"
            )
    return [function for function, _ in seen.values()]


def _in_dialect(document: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    """Without what left the model in September 2025, unless that is the dialect asked for."""
    # to the current model these fields are unknown and dropped: printing them would promise what nobody keeps
    if dialect == "2025-08":
        return document
    document.pop("disabled", None)
    for cls in document["classes"]:
        cls.pop("disabled", None)
        for key in (cls.get("state_spec") or {}).get("key_specs", ()):
            key.pop("nullable", None)
    return document
