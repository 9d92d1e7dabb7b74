"""The source whose code stands in the request itself: one script, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bema.core.errors import Invalid, TooLarge
from bema.core.limits import DEFAULTS, Limits
from bema.deploy.model.bundle import Bundle


class InlineSource:
    """`code` is the text of the script."""

    def __init__(self, code: str, most: int = DEFAULTS.script) -> None:
        self._code = code
        self._most = most

    @classmethod
    def of(cls, said: Mapping[str, Any], limits: Limits) -> InlineSource:
        code = said.get("code")
        if not isinstance(code, str):
            raise Invalid("an inline source has `code`, a text")
        return cls(code, limits.script)

    async def fetch(self) -> Bundle:
        """`Invalid` (syntax_error) for what is not UTF-8; `TooLarge` (script_too_large)."""
        return Bundle.of_script(_encoded(self._code, self._most))


def _encoded(code: str, most: int) -> bytes:
    # JSON can hold half of a surrogate pair, which no file of UTF-8 can
    try:
        content = code.encode()
    except UnicodeEncodeError as error:
        line = code.count("\n", 0, error.start) + 1
        column = error.start - code.rfind("\n", 0, error.start)
        raise Invalid(
            f"line {line}, column {column}: the script is not UTF-8", code="syntax_error", line=line, column=column
        ) from error
    if len(content) > most:
        raise TooLarge(f"the script has {len(content)} bytes; the limit is {most}", code="script_too_large", limit=most)
    return content
