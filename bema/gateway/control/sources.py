"""Where code comes from, as the API takes it.

Law: a kind that comes with bema is held to its fields when a request is read; a plugin's is passed on, and its own part decides.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, get_args

import msgspec

from bema.core.errors import Invalid
from bema.deploy.model.source_fields import SourceFields

__all__ = ["KINDS", "Source", "checked"]

KINDS: Final[dict[str, type[msgspec.Struct]]] = {
    str(kind.__struct_config__.tag): kind for kind in get_args(SourceFields)
}
"""The kinds of the document, by `type`."""

Source = Annotated[
    dict[str, Any],
    msgspec.Meta(
        extra_json_schema={"anyOf": [{"$ref": f"#/components/schemas/{kind.__name__}"} for kind in KINDS.values()]}
    ),
]


def checked(source: dict[str, Any]) -> dict[str, Any]:
    """The source as it was given; `Invalid` where it is of a kind whose fields it does not have."""
    if not isinstance(named := source.get("type"), str):
        raise Invalid("the body does not fit: `source` has no `type`")
    kind = KINDS.get(named)
    if kind is not None:
        try:
            msgspec.convert(source, kind)
        except msgspec.ValidationError as error:
            raise Invalid(f"the body does not fit: in `$.source`: {error}") from error
    return source
