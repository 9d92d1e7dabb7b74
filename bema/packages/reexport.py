"""Export again into a document that a person has edited.

Law: what only the document can say (provisioning, configuration, deployments, comments, order, unknown fields) is never
touched. What code says is written where it differs, what code no longer has is kept until it is pruned, and each such
thing is reported: no loss, and no change, is silent.
"""

from __future__ import annotations

import importlib
import io
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from bema.core.errors import Invalid, Refused
from bema.packages.opackage import OPackage, to_data
from bema.packages.reader import read_text
from bema.packages.writer import scalar

_SEQUENCE = re.compile(r"^( *)[^\s#-][^\n]*:[ ]*\n(?:[ ]*(?:#[^\n]*)?\n)*( *)- ", re.MULTILINE)
_LINE_WIDTH = 1 << 16  # never fold what a person wrote on one line
_BINDING = ("function_key", "access_modifier", "stateless", "parameters")
_STATE = ("default_provider", "consistency_model", "persistent", "serialization_format")


class Merged(NamedTuple):
    text: str
    added: tuple[str, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]  # no longer in code: kept, or pruned if that was asked for


def reexport(text: str, exported: Mapping[str, Any], name: str = "", *, prune: bool = False) -> Merged:
    """The YAML document `text` brought up to what code says now."""
    present = read_text(text, name)
    if present.name != exported["name"]:
        raise Invalid(f"{name or 'the document'} is of package {present.name}, not of {exported['name']}")
    meant = _Merge(msgspec.to_builtins(present), to_data(present), prune)
    meant.package(exported)
    if not (meant.added or meant.changed or (prune and meant.gone)):
        return Merged(text, (), (), tuple(meant.gone))
    yaml, tree = _round_trip(text, name)
    _Merge(tree, to_data(present), prune, _as_text).package(exported)
    out = io.StringIO()
    yaml.dump(tree, out)
    merged = out.getvalue().replace("\n", "\r\n") if "\r\n" in text else out.getvalue()
    _check(merged, meant.tree, name)
    return Merged(merged, tuple(meant.added), tuple(meant.changed), tuple(meant.gone))


def _check(text: str, meant: dict[str, Any], name: str) -> None:
    """The text must mean what merging the bare data gave.

    It does not where two places share one part by an alias: an edit of the one is an edit of the other.
    """
    if to_data(read_text(text, name)) != to_data(msgspec.convert(meant, OPackage)):
        raise Invalid(
            f"{name or 'the document'} cannot be edited without changing what else it says",
            code="bad_document",
            fix="Write out what aliases (`*name`) stand for, or edit it by hand.",
        )


def _round_trip(text: str, name: str) -> tuple[Any, Any]:
    """A reader and writer set to the text's own manner, and the tree it read."""
    try:
        ruamel = importlib.import_module("ruamel.yaml")
    except ModuleNotFoundError as missing:
        raise Refused(
            "exporting into an edited document needs ruamel.yaml, which is not installed",
            code="missing_extra",
            fix="Install the extra: `pip install 'bema[packages]'`.",
            extra="packages",
        ) from missing
    yaml = ruamel.YAML(typ="rt")
    yaml.Resolver = _text_only(ruamel.resolver.VersionedResolver)
    yaml.preserve_quotes = True
    yaml.width = _LINE_WIDTH
    yaml.explicit_start = True if text.lstrip("\ufeff").startswith("---") else None
    found = _SEQUENCE.search(text)
    offset = len(found.group(2)) - len(found.group(1)) if found else 2
    yaml.indent(mapping=2, sequence=offset + 2, offset=offset)
    try:
        return yaml, yaml.load(text)
    except ruamel.error.YAMLError as error:
        # the model takes a key of `config` twice and keeps the last; an editor would keep the first
        mark, why = getattr(error, "problem_mark", None), getattr(error, "problem", error)
        fix = "Keep one." if "duplicate" in str(why) else "Write it more plainly."
        place = f"{name or 'the document'}{f':{mark.line + 1}:{mark.column + 1}' if mark else ''}"
        raise Invalid(f"{place}: cannot be edited: {why}", code="bad_document", fix=fix) from error


def _text_only(resolver: Any) -> Any:
    """Takes every plain scalar for text, so that `0x0A` and `1.10` are written again as a person wrote them."""

    class TextOnly(resolver):  # type: ignore[misc]
        def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
            return super().resolve(kind, value, (False, True) if isinstance(value, str) else implicit)

    return TextOnly


def _as_text(value: Any) -> Any:
    """A value of ours in a tree of texts: quoted where a reader would otherwise take it for something else."""
    if isinstance(value, Mapping):
        return {key: _as_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    if not isinstance(value, str):
        return scalar(value)
    quoted: Any = importlib.import_module("ruamel.yaml.scalarstring").DoubleQuotedScalarString
    return quoted(value) if scalar(value).startswith('"') else value


class _Merge:
    """Walks a tree and what it means side by side; `tree` is changed, `present` is asked, `write` makes values of a tree."""

    def __init__(
        self, tree: Any, present: dict[str, Any], prune: bool, write: Callable[[Any], Any] = lambda value: value
    ) -> None:
        self.tree = tree
        self.present = present
        self.prune = prune
        self.write = write
        self.added: list[str] = []
        self.changed: list[str] = []
        self.gone: list[str] = []

    def package(self, exported: Mapping[str, Any]) -> None:
        self._field(self.tree, self.present, exported, "version", "version")
        metadata = self.tree.get("metadata") or type(self.tree)()
        for key in ("author", "description", "tags"):
            self._field(metadata, self.present["metadata"], exported["metadata"], key, f"metadata.{key}")
        if metadata:
            self.tree["metadata"] = metadata
        self._field(self.tree, self.present, exported, "dependencies", "dependencies")
        self._each("class", "classes", self.tree, self.present, exported["classes"], "key", self._class)
        self._each("function", "functions", self.tree, self.present, exported["functions"], "key", self._function)

    def _class(self, node: Any, present: dict[str, Any], said: Mapping[str, Any]) -> None:
        where = f"class {said['key']}"
        self._field(node, present, said, "description", f"{where}: description")
        self._state(node, present, said.get("state_spec"), where)
        self._each(
            "binding", "function_bindings", node, present, said["function_bindings"], "name", self._binding, where
        )

    def _state(self, node: Any, present: dict[str, Any], said: Mapping[str, Any] | None, where: str) -> None:
        if said is None:
            if present["state_spec"] is not None:
                self._lost(f"{where}: state_spec", node, "state_spec")
            return
        if present["state_spec"] is None:
            node["state_spec"] = self.write(said)
            self.added.append(f"{where}: state_spec")
            return
        state = node["state_spec"]
        for key in _STATE:
            self._field(state, present["state_spec"], said, key, f"{where}: state_spec.{key}")
        self._each("key", "key_specs", state, present["state_spec"], said["key_specs"], "name", self._key_spec, where)

    def _key_spec(self, node: Any, present: dict[str, Any], said: Mapping[str, Any]) -> None:
        self._field(node, present, said, "key_type", f"key {said['name']}: key_type")

    def _binding(self, node: Any, present: dict[str, Any], said: Mapping[str, Any]) -> None:
        for key in _BINDING:
            self._field(node, present, said, key, f"binding {said['name']}: {key}", code_decides=True)

    def _function(self, node: Any, present: dict[str, Any], said: Mapping[str, Any]) -> None:
        for key in ("function_type", "description"):
            self._field(node, present, said, key, f"function {said['key']}: {key}")

    def _field(
        self,
        node: Any,
        present: Mapping[str, Any],
        said: Mapping[str, Any],
        key: str,
        where: str,
        code_decides: bool = False,
    ) -> None:
        """Write what code says where it differs; what code leaves unsaid is the person's."""
        value = said.get(key)
        # an export writes neither null nor an empty list by choice: there the code has no opinion
        if (value is None or value == []) and not code_decides:
            return
        before = present.get(key)
        if before != value:
            node[key] = self.write(value)
            self.changed.append(f"{where}: {_show(before)} -> {_show(value)}")

    def _each(
        self,
        what: str,
        key: str,
        node: Any,
        present: Mapping[str, Any],
        said: Iterable[Mapping[str, Any]],
        name: str,
        merge: Any,
        where: str = "",
    ) -> None:
        """Merge a list item by item, by name: new ones go to its end, the order stays."""
        known = {item[name]: index for index, item in enumerate(present.get(key) or ())}
        prefix = f"{where}: " if where else ""
        wanted = set()
        for item in said:
            wanted.add(item[name])
            if item[name] in known:
                index = known[item[name]]
                merge(node[key][index], present[key][index], item)
            else:
                self._list(node, key).append(self.write(item))
                self.added.append(f"{prefix}{what} {item[name]}")
        for label, index in sorted(known.items(), key=lambda pair: -pair[1]):
            if label not in wanted:
                self._lost(f"{prefix}{what} {label}", node[key], index)

    def _lost(self, what: str, node: Any, at: Any) -> None:
        self.gone.append(what)
        if self.prune:
            del node[at]

    def _list(self, node: Any, key: str) -> Any:
        """The list under a key; a new block where there was none, or an empty one."""
        if not node.get(key):
            node[key] = []
        return node[key]


def _show(value: Any) -> str:
    return "nothing" if value in (None, "", []) else repr(value)
