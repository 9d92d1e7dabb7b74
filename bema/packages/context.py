"""RuleContext: what a lint rule may look at: one document, the other packages, and the places for an edit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from bema.packages import nodes
from bema.packages.findings import Edit
from bema.packages.layout import Layout
from bema.packages.nodes import Node, Path
from bema.packages.opackage import OFunction, OPackage, ProvisionConfig
from bema.packages.reader import Document


class Hit(NamedTuple):
    """One breach of a rule: where, what, and how it is mended."""

    path: Path
    message: str
    fix: str = ""
    edits: tuple[Edit, ...] = ()


class Provision(NamedTuple):
    """A provision_config, whose function it is for, and whether it stands in a deployment."""

    path: Path
    config: ProvisionConfig
    function: OFunction | None
    override: bool


class RuleContext:
    def __init__(
        self,
        document: Document,
        packages: Mapping[str, OPackage],
        known: frozenset[str],
        dependents: Mapping[str, list[str]],
    ) -> None:
        assert document.package is not None
        self.document = document
        self.package = document.package
        self.packages = packages  # every package given in this run, by name
        self.known = known  # packages that are said to be stored where this one goes
        self.dependents = dependents  # by package: which of this run need it
        self.functions = {function.key: function for function in self.package.functions}

    def node(self, path: Path) -> Node | None:
        return nodes.find(self.document.root, path)

    def says(self, path: Path, key: str) -> bool:
        """Whether the mapping at `path` has the key at all."""
        node = self.node(path)
        return isinstance(node, nodes.Mapping) and any(
            isinstance(name, nodes.Scalar) and name.value == key for name, _ in node.pairs
        )

    def insert(self, path: Path, key: str, value: str | bool) -> tuple[Edit, ...]:
        """The edit that puts a field at the head of the mapping at `path`, in the look of its neighbours."""
        node = self.node(path)
        if not isinstance(node, nodes.Mapping):
            return ()
        source, layout = self.document.source, Layout(self.document.source)
        text = f"{json.dumps(key)}: {json.dumps(value)}" if self._quotes(node) else f"{key}: {_plain(value)}"
        if not node.pairs:
            start = layout.content_start(node) + 1
            return (Edit(start, start, text + " " * (source.text[start] == "#")),) if node.flow else ()
        # at the head, because behind the last field may be its comments
        first = node.pairs[0][0].start
        if not node.flow and layout.skip(layout.line_start(first)) < first and "?" in layout.lead(first):
            return ()  # behind `? ` a second key would be part of the first
        indent = " " * layout.column(first)
        after = ", " if node.flow else source.line_end(first) + indent
        if node.flow and layout.begins_line(first):
            after = "," + source.line_end(first) + layout.lead(first)
        return (Edit(first, first, text + after),)

    def _quotes(self, node: nodes.Mapping) -> bool:
        """Whether keys are quoted here: always in JSON, and in YAML where the neighbours' or else the document's are."""
        root = self.document.root
        # an empty mapping has no look of its own
        near = node if node.pairs else root
        if self.document.source.is_json or not isinstance(near, nodes.Mapping):
            return self.document.source.is_json
        return near.flow and all(isinstance(key, nodes.Scalar) and key.style == '"' for key, _ in near.pairs)

    def provisions(self) -> Iterator[Provision]:
        for index, function in enumerate(self.package.functions):
            if function.provision_config is not None:
                path: Path = ("functions", index, "provision_config")
                yield Provision(path, function.provision_config, function, override=False)
        for number, deployment in enumerate(self.package.deployments):
            for index, spec in enumerate(deployment.functions):
                if spec.provision_config is not None:
                    path = ("deployments", number, "functions", index, "provision_config")
                    yield Provision(path, spec.provision_config, self.functions.get(spec.function_key), override=True)


def _plain(value: str | bool) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def repeated(names: Iterable[str]) -> Iterator[tuple[int, str]]:
    """The second and later occurrences; empty names are another rule's business."""
    seen: Counter[str] = Counter()
    for index, name in enumerate(names):
        seen[name] += 1
        if name and seen[name] > 1:
            yield index, name
