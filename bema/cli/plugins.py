"""`bema plugins`: what can be plugged in where, who wins and why, and what is wrong with it.

Law: no plugin is imported here, except by `doctor --try`, and there in a process of its own.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from bema.cli import output
from bema.core import files
from bema.core.errors import Invalid
from bema.core.naming import nearest
from bema.parts import Factory, UnknownImplementation, configured
from bema.parts.discover import SUFFIX
from bema.parts.doctor import PluginFinding, diagnose
from bema.parts.edit import with_disabled
from bema.parts.entries import PartEntry, canonical, key_of
from bema.parts.policy import PluginPolicy
from bema.parts.provenance import differences, encode, lockable, read_lock
from bema.parts.resolve import Reason
from bema.parts.scan import installed

# bema's own kinds of parts; a room that opens one adds its row
FACTORIES: tuple[str, ...] = (
    "bema.runtime.discovery.discovery:DiscoveryFactory",
    "bema.runtime.rpc.transports:TransportFactory",
    "bema.runtime.rpc.codec:CodecFactory",
    "bema.runtime.rpc.picker:PickerFactory",
    "bema.sdk.apps:ServerFactory",
    "bema.sdk.extensions:ExtensionFactory",
    "bema.sdk.status:StatusFactory",
    "bema.state.engine:StateFactory",
    "bema.deploy.sources.source:SourceFactory",
    "bema.deploy.launch.launcher:LauncherFactory",
    "bema.deploy.build.environments:EnvironmentsFactory",
)

COLOURS = {"error": "red", "warning": "yellow", "note": "blue"}

_Command = TypeVar("_Command", bound=Callable[..., Any])
AnyFactory = type[Factory[Any]]


@click.group()
def command() -> None:
    """Plugins: list, check, lock, enable or disable them."""


def factory_options(function: _Command) -> _Command:
    says = "Import a module that registers builtins."
    function = click.option("--import", "imports", multiple=True, metavar="MODULE", help=says)(function)
    says = "A factory beside bema's own."
    return click.option("--factory", "named", multiple=True, metavar="MODULE:CLASS", help=says)(function)


@command.command("ls")
@factory_options
@output.json_option
def ls(named: Sequence[str], imports: Sequence[str], as_json: bool) -> None:
    """List every factory, its candidates, who wins and why."""
    shown = [_shown(factory) for factory in factories(named, imports, configured.current())]
    if as_json:
        output.print_json(shown)
        return
    rows = [
        (factory["factory"], _name(name, factory), "*" if row["is_selected"] else "", row["reference"], *_from(row))
        for factory in shown
        for name, found in factory["names"].items()
        for row in found
    ]
    output.print_table(("FACTORY", "NAME", "", "IMPLEMENTATION", "FROM", "STATE", "WHY"), rows)
    if not rows:
        output.note("nothing is plugged in anywhere; --factory MODULE:CLASS shows a factory of your own")


def _shown(factory: AnyFactory) -> dict[str, Any]:
    names = {name: factory.list_implementations(name, detail=True) for name in factory.names()}
    in_use = factory.registry.name_in_use() or None
    return {"factory": factory.__name__, "group": factory.group, "in_use": in_use, "names": names}


def _name(name: str, factory: dict[str, Any]) -> str:
    in_use = factory["in_use"]
    return f"{name} (in use)" if in_use and key_of(in_use) == key_of(name) else name


def _from(row: dict[str, Any]) -> tuple[str, str, str]:
    source = f"{row['dist']} {row['version']}".strip() or row["source"]
    return source, row["state"], f"chosen by {row['reason']}" if row["is_selected"] else row["why"]


@command.command("doctor")
@factory_options
@click.option(
    "--try", "try_them", is_flag=True, help="Import every plugin, in a process of its own, to see which fail."
)
@click.option("--here", is_flag=True, hidden=True, help="Import every plugin in this process: what --try runs.")
@click.option("--trail", type=click.Path(path_type=Path), hidden=True, help="The file that names the plugin in hand.")
@output.json_option
def doctor(
    named: Sequence[str], imports: Sequence[str], try_them: bool, here: bool, trail: Path | None, as_json: bool
) -> None:
    """Look for what is wrong with the plugins; exit 1 if something is."""
    if try_them:
        findings = _tried(named, imports)
    else:
        found = factories(named, imports, configured.current())
        if here:
            _load_all(found, trail)
        findings = diagnose([factory.registry for factory in found], os.environ)
    if as_json:
        output.print_json({"findings": findings})
    for finding in () if as_json else findings:
        output.print_text(
            f"{output.style(finding.level, fg=COLOURS[finding.level])} {finding.says}\n      fix: {finding.fix}"
        )
    output.note(f"{len(findings)} findings" if findings else "nothing is wrong with the plugins")
    if any(finding.level == "error" for finding in findings):
        raise click.exceptions.Exit(1)


def _load_all(found: Sequence[AnyFactory], trail: Path | None) -> None:
    for registry in (factory.registry for factory in found):
        for key in registry.table():
            for candidate in registry.candidates(key):
                if candidate.usable:
                    _leave_trail(trail, candidate.entry.id if candidate.entry.path else "")
                    registry.implementation(candidate.entry, Reason.NOTHING)
                    _leave_trail(trail, "")


def _leave_trail(trail: Path | None, plugin: str) -> None:
    # a file: what a plugin prints may be anything, and a process that ends by os._exit flushes nothing
    if trail is not None:
        trail.write_text(plugin, "utf-8")


def _tried(named: Sequence[str], imports: Sequence[str]) -> list[PluginFinding]:
    """The findings of children that import every plugin: whatever that does, it does not do here.

    A plugin that ends its process is named, and the others are tried without it.
    """
    flags = [f"--factory={one}" for one in named] + [f"--import={one}" for one in imports]
    argv = [sys.executable, "-m", "bema", "plugins", "doctor", "--here", "--json", *flags]
    crashed: dict[str, PluginFinding] = {}
    with tempfile.TemporaryDirectory() as folder:
        trail = Path(folder, "plugin")
        while True:
            trail.write_text("", "utf-8")
            disabled = ",".join(filter(None, (os.environ.get("BEMA_PLUGINS_DISABLE", ""), *crashed)))
            env = {**os.environ, "BEMA_PLUGINS_DISABLE": disabled}
            done = subprocess.run(
                [*argv, f"--trail={trail}"], capture_output=True, check=False, stdin=subprocess.DEVNULL, env=env
            )
            plugin = trail.read_text("utf-8")
            # the same one again: it ended the process although it was disabled, so another round ends alike
            if not plugin or plugin in crashed:
                break
            says = f"{plugin} ended the process that imported it: it ended with {done.returncode}"
            fix = f"Mend or uninstall it, or take it out with `bema plugins disable {plugin}`."
            crashed[plugin] = PluginFinding("crash", "error", says, fix, plugin.partition(":")[0])
    return [*crashed.values(), *_without(_findings(done), crashed)]


def _without(findings: list[PluginFinding], crashed: Collection[str]) -> list[PluginFinding]:
    """Without the notes that a crashed plugin is disabled, which it was for the next try only."""
    dists = {plugin.partition(":")[0] for plugin in crashed}
    return [finding for finding in findings if finding.code != "disabled" or finding.dist not in dists]


def _findings(done: subprocess.CompletedProcess[bytes]) -> list[PluginFinding]:
    # a plugin may have printed before, into the same pipe
    start = done.stdout.find(b'{\n  "findings"')
    try:
        return msgspec.convert(msgspec.json.decode(done.stdout[max(start, 0) :])["findings"], list[PluginFinding])
    except (msgspec.MsgspecError, KeyError, TypeError):
        tail = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        says = f"the process that imported the plugins ended with {done.returncode}: {tail}"
        return [PluginFinding("crash", "error", says, "Disable plugins one by one to find which it is.")]


@command.command("lock")
@factory_options
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if what is installed differs from the lock file.")
@output.json_option
def lock(named: Sequence[str], imports: Sequence[str], check: bool, as_json: bool) -> None:
    """Write down which plugins are installed, for the mode `locked`."""
    policy, file = _unlocked()
    entries = _plugins(factories(named, imports, policy))
    found, problems = lockable(entries)
    for problem in problems:
        output.note(f"not locked: {problem}")
    if check:
        changed = differences(read_lock(file), found.plugins)
        if as_json:
            output.print_json({"file": str(file), "differences": changed})
        for sentence in () if as_json else changed:
            output.print_text(sentence)
        output.note(f"{len(changed)} differences from {file}")
        if changed:
            raise click.exceptions.Exit(1)
        return
    file.write_bytes(encode(found))
    if as_json:
        output.print_json({"file": str(file), "plugins": found.plugins, "not_locked": problems})
    output.note(f"{len(found.plugins)} entry points locked in {file}")


def _unlocked() -> tuple[PluginPolicy, Path]:
    """The policy as it is without its lock, and where that lies."""
    folder = files.folder(os.environ).absolute()
    policy = configured.load_policy(folder, {**os.environ, "BEMA_PLUGINS_MODE": "all"})
    configured.place(policy)
    return policy, folder / policy.lock


def _plugins(found: Sequence[AnyFactory]) -> list[PartEntry]:
    tables = [(factory.registry, key) for factory in found for key in factory.registry.table()]
    candidates = [c for registry, key in tables for c in registry.candidates(key)]
    return [c.entry for c in candidates if c.entry.path and c.usable]


def _complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Distributions, and `distribution:name`, out of the metadata alone."""
    return [name for name in sorted(_patterns()) if name.startswith(incomplete)]


def _patterns() -> set[str]:
    groups = installed().groups
    points = [p for group, found in groups.items() if group.endswith(SUFFIX) for p in found if p.dist.name]
    return {p.dist.name for p in points} | {f"{p.dist.name}:{key_of(p.name)}" for p in points}


@command.command("disable")
@click.argument("plugin", shell_complete=_complete)
@output.json_option
def disable(plugin: str, as_json: bool) -> None:
    """Take a plugin out: a distribution, distribution:name, or *:name."""
    pattern = _pattern(plugin)
    known = _patterns()
    if not pattern.startswith("*:") and pattern not in known:
        raise UnknownImplementation(f"no plugin is called {plugin!r}{nearest(pattern, known)}")
    _rewrite(lambda disabled: [*disabled, *({pattern} - set(map(_pattern, disabled)))], as_json)


@command.command("enable")
@click.argument("plugin", shell_complete=_complete)
@output.json_option
def enable(plugin: str, as_json: bool) -> None:
    """Take a disabled plugin in again."""
    pattern = _pattern(plugin)

    def without(disabled: list[str]) -> list[str]:
        kept = [item for item in disabled if _pattern(item) != pattern]
        if kept == disabled:
            raise UnknownImplementation(f"{plugin!r} is not disabled{nearest(pattern, disabled)}")
        return kept

    _rewrite(without, as_json)


def _pattern(text: str) -> str:
    dist, colon, name = text.partition(":")
    return canonical(dist) + (f":{key_of(name or '?')}" if colon else "")


def _rewrite(change: Callable[[list[str]], list[str]], as_json: bool) -> None:
    folder = files.folder(os.environ).absolute()
    texts = files.texts(folder)
    file = folder / configured.home(texts)
    disabled = change(list(configured.merged(texts).get("disable", [])))
    path = (*files.TABLES[file.name], configured.TABLE)
    # beside it and renamed: a crash leaves the old settings or the new, and half of none
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(with_disabled(texts.get(file.name, ""), path, disabled), "utf-8")
    temporary.replace(file)
    if as_json:
        output.print_json({"file": str(file), "disable": disabled})
    output.note(f"{file} disables {', '.join(disabled) or 'nothing'}")


def factories(named: Sequence[str], imports: Sequence[str], policy: PluginPolicy) -> list[AnyFactory]:
    """bema's own factories, those of the settings, and those named; discovered."""
    with _here():
        for module in (*policy.imports, *imports):
            _imported(module)
        references = dict.fromkeys((*FACTORIES, *policy.factories, *named))
        found = [_factory(reference) for reference in references]
    for factory in found:
        factory.discover_plugins()
    return found


@contextmanager
def _here() -> Iterator[None]:
    """A project's own modules can be imported, as by `python -m`; its leftovers of builds are not taken for plugins."""
    # for the imports only: during discovery an egg-info of a build here would count as installed
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Invalid(
            f"{module} cannot be imported: {error}", fix="Run this where your project is installed."
        ) from error


def _factory(reference: str) -> AnyFactory:
    module, _, attribute = reference.partition(":")
    found = getattr(_imported(module), attribute, None)
    if not (isinstance(found, type) and issubclass(found, Factory)):
        raise Invalid(f"{reference} is not a factory", fix="Name a subclass of Factory as `module:Class`.")
    return found
