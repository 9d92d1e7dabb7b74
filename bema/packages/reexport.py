"""Reexport: exporting again into a document that a person has edited.

Laws: what only the document holds (provisioning, configuration, deployments, comments, order, unknown fields) is never
touched. What code declares is written where it differs. What code no longer has stays until it is pruned. Every change and
every such rest is reported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from bema.core.errors import Invalid
from bema.packages.edited import Edited
from bema.packages.findings import Unreadable
from bema.packages.layout import comments, has_alias
from bema.packages.nodes import Mapping as Tree
from bema.packages.nodes import Path, Source, find
from bema.packages.opackage import OPackage, to_data
from bema.packages.reader import examine_text, read_text

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
    # twice: on bare data, which tells what is meant, and on the text, which must come to the same
    meant = _Merge(msgspec.to_builtins(present), to_data(present), prune)
    meant.package(exported)
    if not (meant.added or meant.changed or (prune and meant.gone)):
        return Merged(text, (), (), tuple(meant.gone))
    merged = _edited(text, name, to_data(present), exported, meant)
    return Merged(merged, tuple(meant.added), tuple(meant.changed), tuple(meant.gone))


def _edited(text: str, name: str, present: dict[str, Any], exported: Mapping[str, Any], meant: _Merge) -> str:
    source = Source(text, name)
    root = examine_text(source).root
    assert isinstance(root, Tree), "it was read before"
    edited = Edited(source, root)
    for path, what in meant.doubled:
        there = find(root, path)
        offset = there.start if there else root.start
        raise edited.refusal(offset, f"two entries are called {what}, and code changes one", "Keep one.")
    _Merge(edited.root, present, meant.prune).package(exported)
    merged = edited.text()
    try:
        said = to_data(read_text(merged, name))
    except Unreadable as error:
        raise _refusal(name, root) from error
    # they differ where two places share one part by an alias: an edit of the one is an edit of the other
    if said != to_data(msgspec.convert(meant.tree, OPackage)):
        raise _refusal(name, root)
    _check_comments(edited, root, merged)
    return merged


def _refusal(name: str, root: Tree) -> Invalid:
    shared = "Write out what aliases (`*name`) stand for, or edit it by hand."
    return Invalid(
        f"{name or 'the document'} cannot be edited without changing what else it says",
        code="bad_document",
        fix=shared if has_alias(root) else "Edit it by hand.",
    )


def _check_comments(edited: Edited, root: Tree, merged: str) -> None:
    """Every comment is there still, in order, but those of what was taken out."""
    kept = [
        (offset, comment)
        for offset, comment in comments(edited.text_before, root)
        if not any(start <= offset < end for start, end in edited.removed)
    ]
    after = examine_text(Source(merged)).root
    assert after is not None
    there = [comment for _, comment in comments(merged, after)]
    # what moved took its comments along: their order differs, their number may not
    if edited.moved and Counter(comment for _, comment in kept) == Counter(there):
        return
    if [comment for _, comment in kept] != there:
        at = next((i for i, (_, comment) in enumerate(kept) if there[i : i + 1] != [comment]), len(kept) - 1)
        lost = kept[at][0] if kept else 0
        raise edited.refusal(lost, "a comment would be lost or moved", "Edit it by hand.")


class _Merge:
    """Walks a tree and what it means side by side; `tree` is changed, `present` is asked.

    The tree is bare data, which tells what is meant, or a document, which is edited: both are used the same way.
    """

    def __init__(self, tree: Any, present: dict[str, Any], prune: bool) -> None:
        self.tree = tree
        self.present = present
        self.prune = prune
        self.added: list[str] = []
        self.changed: list[str] = []
        self.gone: list[str] = []
        self.doubled: list[tuple[Path, str]] = []  # entries that code changes, and that another is called like
        self._path: Path = ()

    def package(self, exported: Mapping[str, Any]) -> None:
        self._field(self.tree, self.present, exported, "version", "version")
        metadata, new = self.tree.get("metadata"), dict[str, Any]()
        for key in ("author", "description", "tags"):
            place = new if metadata is None else metadata
            self._field(place, self.present["metadata"], exported["metadata"], key, f"metadata.{key}")
        if new:
            self.tree["metadata"] = new
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
            node["state_spec"] = dict(said)
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
            node[key] = value
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
        known: dict[str, list[int]] = {}
        for index, item in enumerate(present.get(key) or ()):
            known.setdefault(item[name], []).append(index)
        prefix = f"{where}: " if where else ""
        wanted = set()
        for item in said:
            wanted.add(item[name])
            if item[name] in known:
                # of two of one name the last counts, as on the platform
                self._within(node, key, known[item[name]], present, item, merge, item[name])
            else:
                self._append(node, key, item)
                self.added.append(f"{prefix}{what} {item[name]}")
        rest = [(index, label) for label, indexes in known.items() if label not in wanted for index in indexes]
        # from behind, because an index of bare data moves when one before it goes
        for index, label in sorted(rest, reverse=True):
            self._lost(f"{prefix}{what} {label}", node[key], index)

    def _within(
        self,
        node: Any,
        key: str,
        indexes: list[int],
        present: Mapping[str, Any],
        item: Mapping[str, Any],
        merge: Any,
        label: str,
    ) -> None:
        # reports are all that tells whether code had anything to change there
        said, above = len(self.added) + len(self.changed), self._path
        self._path = (*above, key, indexes[-1])
        merge(node[key][indexes[-1]], present[key][indexes[-1]], item)
        if len(indexes) > 1 and len(self.added) + len(self.changed) > said:
            self.doubled.append((self._path, label))
        self._path = above

    def _lost(self, what: str, node: Any, at: Any) -> None:
        self.gone.append(what)
        if self.prune:
            del node[at]

    def _append(self, node: Any, key: str, item: Any) -> None:
        """One more at the end of the list under a key, or the first of a new one."""
        if node.get(key):
            node[key].append(item)
        else:
            node[key] = [item]


def _show(value: Any) -> str:
    return "nothing" if value in (None, "", []) else repr(value)
