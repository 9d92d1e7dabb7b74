"""The source whose code stands in the request itself: one script, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bema.core.errors import Invalid
from bema.core.limits import DEFAULTS, Limits
from bema.deploy.model.bundle import Bundle
from bema.deploy.model.source_fields import Inline
from bema.deploy.sources.source import Fetched, SourceOrigin, fields
from bema.deploy.sources.tree import check_script


class InlineSource:
    """`code` is the text of the script."""

    def __init__(self, code: str, limits: Limits = DEFAULTS) -> None:
        self._code = code
        self._limits = limits

    @classmethod
    def of(cls, said: Mapping[str, Any], limits: Limits) -> InlineSource:
        return cls(fields(said, Inline).code, limits)

    async def fetch(self) -> Fetched:
        """`Invalid` (syntax_error) for what is not UTF-8; `TooLarge` (script_too_large)."""
        return Fetched(Bundle.of_script(check_script(encoded(self._code), self._limits)), SourceOrigin("inline"))


def encoded(code: str) -> bytes:
    """The bytes of a text. JSON can hold half of a surrogate pair, which no file of UTF-8 can: `Invalid` (syntax_error)."""
    try:
        return code.encode()
    except UnicodeEncodeError as error:
        line = code.count("\n", 0, error.start) + 1
        column = error.start - code.rfind("\n", 0, error.start)
        raise Invalid(
            f"line {line}, column {column}: the script is not UTF-8", code="syntax_error", line=line, column=column
        ) from error
