"""The options that say what a function asks of the platform, for every command that takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from bema.core.errors import Invalid
from bema.deploy.model.function import bytes_of

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _bytes(text: str) -> int:
    try:
        return bytes_of(text)
    except ValueError as error:
        raise Invalid(f"--memory: {error}", code="usage") from error


IN_PLACE: Final = (
    ("min_instances", int, "Instances that are kept though nobody asks."),
    ("max_instances", int, "Instances at most."),
    ("concurrency", int, "Requests that one instance is meant to have at a time."),
    ("idle_after", float, "Seconds without a request after which an instance too many ends."),
    ("timeout", float, "Seconds in which a request must be answered."),
    ("sticky", str, "header:NAME or cookie:NAME, whose equal values go to one version."),
)
OF_A_VERSION: Final = (
    ("memory", _bytes, "Memory of an instance: 512MB, 2GiB."),
    ("health", str, "A path that must answer below 400 before a version takes requests."),
    ("isolation", str, "How an instance is contained: none, standard, filtered or strict."),
    ("network", str, "Outbound TCP: any, none, or ports such as 53,443."),
)


def options(*rows: tuple[str, Any, str]) -> Callable[[_Command], _Command]:
    """An option for each setting; none of them has a default, since what is not said is left to others to say."""

    def with_options(command: _Command) -> _Command:
        for name, kind, says in reversed(rows):
            command = click.option(f"--{name.replace('_', '-')}", name, type=kind, help=says)(command)
        return command

    return with_options


def said(settings: dict[str, Any]) -> dict[str, Any]:
    """Those that were said."""
    return {name: value for name, value in settings.items() if value is not None}
