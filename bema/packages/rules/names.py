"""Names: present, single, and of characters that the platform and its routes can carry."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bema.packages.context import Hit, RuleContext, repeated
from bema.packages.nodes import Path

# names travel in URLs, topics and DNS labels; upstream only a space in the package's is refused
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
# the data grid lower-cases entry keys and refuses the rest when the object is first written, long after the deployment
_ENTRY = re.compile(r"[a-z0-9._:-]{1,160}", re.ASCII)
# every character can be taken in one way only: with two ways each, fifty letters would take years to refuse
_VERSION = re.compile(r"v?\d(?:[-+.]?[A-Za-z0-9])*", re.ASCII)


def named(context: RuleContext) -> Iterator[tuple[Path, str, str]]:
    """Every name a document gives: where it stands, what it names, and the name."""
    package = context.package
    yield ("name",), "Package name", package.name
    for c, cls in enumerate(package.classes):
        yield ("classes", c, "key"), "Class key", cls.key
        for b, binding in enumerate(cls.function_bindings):
            yield ("classes", c, "function_bindings", b, "name"), "Binding name", binding.name
            yield ("classes", c, "function_bindings", b, "function_key"), "Function key", binding.function_key
        for k, spec in enumerate(cls.state_spec.key_specs if cls.state_spec else ()):
            yield ("classes", c, "state_spec", "key_specs", k, "name"), "Key name", spec.name
    for f, function in enumerate(package.functions):
        yield ("functions", f, "key"), "Function key", function.key
    for d, deployment in enumerate(package.deployments):
        yield ("deployments", d, "key"), "Deployment key", deployment.key
        yield ("deployments", d, "package_name"), "Package name", deployment.package_name
        yield ("deployments", d, "class_key"), "Class key", deployment.class_key
        for f, placed in enumerate(deployment.functions):
            yield ("deployments", d, "functions", f, "function_key"), "Function key", placed.function_key


def empty_name(context: RuleContext) -> Iterator[Hit]:
    for path, what, name in named(context):
        if not name:
            yield Hit(path, f"{what} cannot be empty")


def name_with_space(context: RuleContext) -> Iterator[Hit]:
    name = context.package.name
    if " " in name:
        yield Hit(("name",), f"package name {name!r} has a space: the package manager refuses it", "Use dots.")


def odd_name(context: RuleContext) -> Iterator[Hit]:
    for path, what, name in named(context):
        if name and path != ("name",) and not _NAME.fullmatch(name):
            yield Hit(path, f"{what} {name!r} has characters that routes cannot carry", "Use A-Z a-z 0-9 . _ -")
    name = context.package.name
    if name and " " not in name and not _NAME.fullmatch(name):
        yield Hit(("name",), f"Package name {name!r} has characters that routes cannot carry", "Use A-Z a-z 0-9 . _ -")


def class_label(context: RuleContext) -> Iterator[Hit]:
    for c, cls in enumerate(context.package.classes):
        # the unit's id is the key as a DNS label: `___` comes out empty and the deployment is refused
        if cls.key and not re.search(r"[A-Za-z0-9]", cls.key, re.ASCII):
            yield Hit(("classes", c, "key"), f"class key {cls.key!r} leaves nothing for the id of a deployment unit")


def odd_version(context: RuleContext) -> Iterator[Hit]:
    version = context.package.version
    if version is not None and not _VERSION.fullmatch(version):
        yield Hit(("version",), f"version {version!r} does not look like one", "Write it like 1.2.3.")


def duplicate_package(context: RuleContext) -> Iterator[Hit]:
    """The package manager keys packages by their name alone: applying the second is refused, or replaces the first."""
    package = context.package
    if package.name and (package.classes or package.functions) and context.packages.get(package.name) is not package:
        message = f"another document given here is of package {package.name} too; the platform keeps one"
        yield Hit(("name",), message, "Merge them, or rename one.")


def duplicate_class(context: RuleContext) -> Iterator[Hit]:
    """Declared by the model's own business rules, which nothing calls: the platform stores such a package."""
    for index, key in repeated(cls.key for cls in context.package.classes):
        yield Hit(("classes", index, "key"), f"Duplicate class key: {key}", "Rename one of them.")


def duplicate_function(context: RuleContext) -> Iterator[Hit]:
    for index, key in repeated(function.key for function in context.package.functions):
        yield Hit(("functions", index, "key"), f"Duplicate function key: {key}", "Keep one of them.")


def duplicate_binding(context: RuleContext) -> Iterator[Hit]:
    for c, cls in enumerate(context.package.classes):
        # the routes are a map from name to function: the last of two wins, and the first is never called
        for index, name in repeated(binding.name for binding in cls.function_bindings):
            message = f"class {cls.key} binds {name!r} twice; the last one takes the route"
            yield Hit(("classes", c, "function_bindings", index, "name"), message, "Rename one of them.")


def duplicate_parameter(context: RuleContext) -> Iterator[Hit]:
    for c, cls in enumerate(context.package.classes):
        for b, binding in enumerate(cls.function_bindings):
            for index, name in repeated(binding.parameters):
                path: Path = ("classes", c, "function_bindings", b, "parameters", index)
                yield Hit(path, f"parameter {name!r} is named twice", "Name each once.")


def duplicate_state_key(context: RuleContext) -> Iterator[Hit]:
    for c, cls in enumerate(context.package.classes):
        for index, name in repeated(spec.name for spec in (cls.state_spec.key_specs if cls.state_spec else ())):
            yield Hit(("classes", c, "state_spec", "key_specs", index, "name"), f"key {name!r} is declared twice")


def entry_key(context: RuleContext) -> Iterator[Hit]:
    for c, cls in enumerate(context.package.classes):
        for k, spec in enumerate(cls.state_spec.key_specs if cls.state_spec else ()):
            if spec.name and not _ENTRY.fullmatch(spec.name.lower()):
                message = f"the data plane cannot store an entry called {spec.name!r}"
                path: Path = ("classes", c, "state_spec", "key_specs", k, "name")
                yield Hit(path, message, "Use a-z 0-9 . : - and at most 160 characters.")


def duplicate_deployment(context: RuleContext) -> Iterator[Hit]:
    for index, key in repeated(deployment.key for deployment in context.package.deployments):
        message = f"two deployments are called {key!r}; the later one replaces the earlier"
        yield Hit(("deployments", index, "key"), message, "Rename one of them.")
