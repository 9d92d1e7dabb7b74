"""Resolution: which implementation of a name wins, and why. Pure: equal entries, policy and selection give equal answers.

Law: code > environment > config file > plugin > builtin. Among plugins the priority of the config file, else
of the plugin's manifest, then the distribution's name, then the reference. What was chosen explicitly is taken or refused, never replaced; only the default
falls back to the next.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from bema.core.naming import nearest
from bema.core.versions import satisfies
from bema.parts.entries import USABLE, PartEntry, PartState, matches
from bema.parts.policy import PluginPolicy, distrust, may_override


class Reason(enum.StrEnum):
    """Why the winner won."""

    CODE = "code"
    ENVIRONMENT = "environment"
    CONFIG = "config"
    PLUGIN = "plugin"
    BUILTIN = "builtin"
    NOTHING = "nothing"


class Candidate(msgspec.Struct, frozen=True):
    """An entry with its state, and the reason where it cannot be chosen."""

    entry: PartEntry
    state: PartState
    why: str = ""

    @property
    def usable(self) -> bool:
        """Whether it can be chosen."""
        return self.state in USABLE


class Selection(msgspec.Struct, frozen=True):
    """What was asked for explicitly, by whom. A selector is `dist:name`, `module:Class` or a class name."""

    code: str | None = None
    environment: str | None = None
    config: str | None = None

    def asked(self) -> tuple[Reason, str] | None:
        """The strongest choice that was made."""
        wishes = ((Reason.CODE, self.code), (Reason.ENVIRONMENT, self.environment), (Reason.CONFIG, self.config))
        return next(((reason, wish) for reason, wish in wishes if wish), None)


class Choice(msgspec.Struct, frozen=True):
    """The winner and the reason; without a winner, the problem says what stands in the way."""

    winner: PartEntry | None
    reason: Reason
    problem: str = ""
    conflict: tuple[PartEntry, ...] = ()  # plugins that the winner was preferred to by order alone
    culprit: PartEntry | None = None  # the candidate that the problem is about


class Known(msgspec.Struct, frozen=True):
    """What the process learned of an entry beyond what is written about it."""

    loaded: bool = False
    failure: PartState | None = None
    why: str = ""
    gone: bool = False


NOTHING_KNOWN = Known()


def order(entries: Iterable[PartEntry], policy: PluginPolicy) -> list[PartEntry]:
    """Plugins first; the one total order of candidates."""
    return sorted(
        entries,
        key=lambda e: (not e.is_plugin, -policy.priority_of(e), e.dist, e.reference, bool(e.shadowed_by), e.path),
    )


def judge(
    entries: Sequence[PartEntry],
    policy: PluginPolicy,
    *,
    known: Callable[[PartEntry], Known] = lambda _: NOTHING_KNOWN,
    digest: Callable[[str], str] = lambda _: "",
    api: str = "",
) -> list[Candidate]:
    """Every entry of one name with its state, in order."""
    found = [_judge(entry, policy, known(entry), digest, api) for entry in order(entries, policy)]
    # the right to stand in is asked for only where there is something to stand in for
    if not any(c.usable and not c.entry.is_plugin for c in found):
        return found
    return [_without_right(c, policy) for c in found]


def _judge(entry: PartEntry, policy: PluginPolicy, known: Known, digest: Callable[[str], str], api: str) -> Candidate:
    # from what cannot be changed here to what can: the first reason is the one to act on
    if entry.shadowed_by:
        return Candidate(entry, PartState.SHADOWED, f"{entry.shadowed_by} comes first on the path")
    if entry.invalid:
        return Candidate(entry, PartState.INVALID, entry.invalid)
    if known.gone:
        return Candidate(entry, PartState.GONE, "it was uninstalled")
    if policy.disables(entry):
        return Candidate(entry, PartState.DISABLED, "it is disabled by the settings")
    if entry.path and (why := distrust(entry, policy, digest)):
        return Candidate(entry, PartState.NOT_ALLOWED, why)
    if known.failure is not None:
        return Candidate(entry, known.failure, known.why)
    if why := _incompatible(entry, api):
        return Candidate(entry, PartState.INCOMPATIBLE, why)
    if known.loaded:
        return Candidate(entry, PartState.LOADED)
    return Candidate(entry, PartState.DISCOVERED if entry.path else PartState.DECLARED)


def _incompatible(entry: PartEntry, api: str) -> str:
    if not api or not entry.requires:
        return ""
    try:
        fits = satisfies(api, entry.requires)
    except ValueError as error:
        return f"what it requires cannot be read: {error}"
    return "" if fits else f"it requires version {entry.requires} of the interface, and this is {api}"


def _without_right(candidate: Candidate, policy: PluginPolicy) -> Candidate:
    entry = candidate.entry
    if not candidate.usable or not entry.is_plugin or may_override(entry, policy):
        return candidate
    why = f"{entry.dist} may not stand in for the builtin {entry.name!r}: it is not in plugins.override_builtin"
    return Candidate(entry, PartState.NOT_ALLOWED, why)


def resolve(name: str, candidates: Sequence[Candidate], policy: PluginPolicy, selection: Selection) -> Choice:
    """The winner among the candidates of one name."""
    if asked := selection.asked():
        return _explicit(name, candidates, *asked)
    usable = [c.entry for c in candidates if c.usable]
    plugins = [e for e in usable if e.is_plugin]
    # `on_conflict = "error"` asks for a decision, and a priority is one
    if len(plugins) > 1 and policy.on_conflict == "error" and not leads(policy, plugins):
        rivals = ", ".join(e.label for e in plugins)
        return Choice(None, Reason.NOTHING, f"{name!r} has {len(plugins)} plugins and none is chosen: {rivals}")
    # only what came first would have been the default; a failure further down changes nothing
    failed = next((c for c in candidates if c.entry.is_plugin and (c.usable or c.state in _BROKE)), None)
    if failed is not None and failed.state in _BROKE and policy.on_failure == "raise":
        return Choice(None, Reason.NOTHING, broke(failed), culprit=failed.entry)
    if not usable:
        culprit = candidates[0].entry if candidates else None
        return Choice(None, Reason.NOTHING, _nothing(name, candidates), culprit=culprit)
    winner = usable[0]
    return Choice(winner, Reason.PLUGIN if winner.is_plugin else Reason.BUILTIN, "", tuple(plugins[1:]))


def leads(policy: PluginPolicy, plugins: Sequence[PartEntry]) -> bool:
    """Whether the first of these plugins, in their order, leads by its priority: then somebody decided."""
    # among equals the order of their names decides, and a name is nobody's decision
    first, second = (*map(policy.priority_of, plugins), 0, 0)[:2]
    return bool(plugins) and first > second


_BROKE = frozenset({PartState.FAILED, PartState.WRONG_TYPE, PartState.INVALID})


def broke(candidate: Candidate) -> str:
    """One sentence on a candidate that cannot be used."""
    return f"{candidate.entry.name!r}: {candidate.entry.label} is {candidate.state.value}: {candidate.why}"


def _nothing(name: str, candidates: Sequence[Candidate]) -> str:
    if not candidates:
        return f"nothing is named {name!r}"
    return "no candidate can be used; " + "; ".join(map(broke, candidates))


def _explicit(name: str, candidates: Sequence[Candidate], reason: Reason, selector: str) -> Choice:
    found = select(candidates, selector)
    asked = f"the {reason.value} selects {selector!r} for {name!r}"
    if len(found) > 1:
        return Choice(None, reason, f"{asked}, which {len(found)} candidates answer to: {listed(found)}")
    if not found:
        return Choice(None, reason, f"{asked}, which is none of {listed(candidates)}{near(selector, candidates)}")
    if not found[0].usable:
        return Choice(None, reason, f"{asked}; {broke(found[0])}", culprit=found[0].entry)
    return Choice(found[0].entry, reason)


def select(candidates: Sequence[Candidate], selector: str) -> list[Candidate]:
    """The candidates a selector means; what is shadowed or gone only where nothing else is meant."""
    found = [c for c in candidates if matches(c.entry, selector)]
    # an uninstalled plugin that was chosen is named in the refusal, and not called unknown
    present = [c for c in found if c.state not in (PartState.SHADOWED, PartState.GONE)]
    return present or found[:1]


def listed(candidates: Iterable[Any]) -> str:
    return ", ".join(f"{c.entry.class_name} ({c.entry.id})" for c in candidates) or "nothing"


def near(selector: str, candidates: Sequence[Candidate]) -> str:
    names = [n for c in candidates for n in (c.entry.id, c.entry.class_name, c.entry.reference)]
    return nearest(selector, names)
