"""The options of a decorator: a closed list, whose values are checked where they are given.

Laws: a misspelt name or an impossible value is refused where it is written, in a sentence that names it, not at the first
call. Data for extensions has one place, `extra`, by the extension's name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from bema.core.errors import BadDeclaration
from bema.core.naming import nearest
from bema.core.spec import check_bound

D = TypeVar("D", bound=Callable[..., Any])
_LONGEST_VERSION = 63


def names(decorator: Callable[..., Any]) -> frozenset[str]:
    """The names of a decorator's options, which are its keyword parameters."""
    return frozenset(getattr(decorator, "__wrapped__", decorator).__kwdefaults__ or ())


def closed(decorator: D) -> D:
    """Make a decorator refuse an unknown option with `BadDeclaration`, which names the nearest that there is."""
    own, shown = names(decorator), f"@{decorator.__name__}"

    @functools.wraps(decorator)
    def refusing(*decorated: Any, **given: Any) -> Any:
        if not given.keys() <= own:
            raise _unknown(shown, next(name for name in given if name not in own), own)
        return decorator(*decorated, **given)

    return refusing  # type: ignore[return-value]


def bare(decorator: D) -> D:
    """Make a decorator refuse every option: it is written without parentheses. `BadDeclaration` says so."""
    shown = f"@{decorator.__name__}"

    @functools.wraps(decorator)
    def refusing(*decorated: Any, **given: Any) -> Any:
        if given:
            raise BadDeclaration(f"{shown}: there is no option {next(iter(given))!r}; it has none")
        if not decorated:
            raise BadDeclaration(f"{shown} has no options: write it without parentheses")
        return decorator(*decorated)

    return refusing  # type: ignore[return-value]


def _unknown(shown: str, wrong: str, own: Iterable[str]) -> BadDeclaration:
    return BadDeclaration(
        f"{shown}: there is no option {wrong!r}{nearest(wrong, own)}",
        fix=f"The options are {', '.join(sorted(own))}; what another room knows goes into extra={{ROOM: ...}}.",
    )


def flag(shown: str, name: str, value: Any) -> bool:
    """A boolean; `BadDeclaration` for anything else, 0 and 1 among it."""
    if not isinstance(value, bool):
        raise BadDeclaration(f"{shown}: {name} is True or False, not {value!r}")
    return value


def count(shown: str, name: str, value: Any, *, least: int) -> int | None:
    """A whole number of at least `least`, or None where none was given; `BadDeclaration` for anything else."""
    return None if value is None else check_bound(f"{shown}: {name}", value, least)


def version(value: Any) -> str:
    """A text of at most 63 characters without spaces; `BadDeclaration` for anything else."""
    if not isinstance(value, str) or len(value) > _LONGEST_VERSION or value != "".join(value.split()):
        raise BadDeclaration(
            f"@service: version {value!r} is not a text of at most {_LONGEST_VERSION} characters without spaces"
        )
    return value


def seconds(shown: str, name: str, value: Any, *, zero: bool = False) -> float | None:
    """A time in seconds above 0, with `zero` also 0, or None where none was given; `BadDeclaration` for anything else."""
    if value is None:
        return None
    # `bool` is an `int` to Python; NaN fails both comparisons below
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (value > 0 or (zero and value == 0)):
        raise BadDeclaration(
            f"{shown}: {name} is a number of seconds, {'at least' if zero else 'more than'} 0, not {value!r}"
        )
    return float(value)


def mapping(shown: str, name: str, value: Any) -> Mapping[str, Any]:
    """A mapping; `BadDeclaration` for anything else."""
    if not isinstance(value, Mapping):
        raise BadDeclaration(f"{shown}: {name} is a mapping, not {value!r}")
    return value


def rooms(shown: str, extra: Any, *, taken: Iterable[str]) -> dict[str, Any]:
    """The data of `extra` by the extension's name; `BadDeclaration` for what is no mapping, or for a name in `taken`."""
    if extra is None:
        return {}
    if not isinstance(extra, Mapping):
        raise BadDeclaration(f"{shown}: extra is a mapping by the names of rooms, not {extra!r}")
    for name in extra:
        if not isinstance(name, str) or not name:
            raise BadDeclaration(f"{shown}: extra has the key {name!r}, which is no name of a room")
        if name in taken:
            raise BadDeclaration(
                f"{shown}: {name!r} is an option or read from the signature, and no room",
                fix=f"Give {name} as a keyword.",
            )
    return dict(extra)
