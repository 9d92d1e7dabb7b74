"""JSON Schema (2020-12) of annotations: msgspec's own for the types that it knows, Pydantic's own for its models.

Laws: equal annotations give equal schemas in every process. All schemas share one set of definitions: each model is defined
once, and a second model of the same name gets a number. A type without a schema becomes `{}`, which allows anything, with
a note that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from bema.core.type_text import UNREADABLE, text

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_REF: Final = "#/$defs/"
_PYDANTIC: Final = f"{_REF}pydantic:"  # until it is known which names msgspec took

_ANYTHING: Final = {"$comment": "anything"}  # until it may be empty: msgspec takes an empty schema for none

Schema = dict[str, Any]


class Schemas(NamedTuple):
    """Schemas in the order of their annotations, the definitions that they share, and notes on types without a schema."""

    each: list[Schema]
    definitions: dict[str, Schema]
    notes: tuple[str, ...]


def schemas_of(annotations: Sequence[Any]) -> Schemas:
    """The schemas of annotations. It raises for none of them: `notes` names those that have no schema."""
    # All at once, since that is the common case; one by one only to find the annotation that msgspec refuses.
    models, refused = _Models(), []
    try:
        made, definitions = _made(annotations, models)
    except UNREADABLE:
        sayable = []
        for annotation in annotations:
            why = _why_not(annotation)
            sayable.append(Any if why else annotation)
            refused += [why] if why else []
        # anew: the walk that failed has left models of annotations that are taken out now
        models = _Models()
        made, definitions = _made(sayable, models)
    each, shared = models.merged(made, definitions)
    return Schemas(each, shared, tuple(dict.fromkeys((*refused, *models.notes))))


def _made(annotations: Sequence[Any], models: _Models) -> tuple[list[Schema], dict[str, Schema]]:
    made, definitions = msgspec.json.schema_components(annotations, schema_hook=models.of)
    msgspec.json.encode([made, definitions])  # what an annotation adds by itself may have no JSON form
    return list(made), definitions


def _why_not(annotation: Any) -> str:
    try:
        _made([annotation], _Models())
    except UNREADABLE as error:
        return f"{text(annotation)} has no JSON Schema: {error}"
    return ""


class _Models:
    """The models that know their own schema, collected while msgspec walks the annotations."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._known: dict[type, Schema] = {}
        self._definitions: dict[str, Schema] = {}

    def of(self, cls: Any) -> Schema:
        """The schema of a class that msgspec does not know."""
        if cls not in self._known:
            self._known[cls] = self._asked(cls)
        return dict(self._known[cls])

    def _asked(self, cls: Any) -> Schema:
        ask = getattr(cls, "model_json_schema", None)
        if ask is None:
            self.notes.append(f"{text(cls)} has no JSON Schema: it is no msgspec, dataclass or Pydantic type")
            return dict(_ANYTHING)
        try:
            # by name: so its values travel, whatever aliases it has
            own: Schema = ask(by_alias=False, ref_template=_PYDANTIC + "{model}")
        except UNREADABLE as error:
            self.notes.append(f"{text(cls)} has no JSON Schema: {str(error).partition(chr(10))[0]}")
            return dict(_ANYTHING)
        parts: dict[str, Schema] = own.pop("$defs", {})
        name = own["$ref"].removeprefix(_PYDANTIC) if own.keys() == {"$ref"} else cls.__name__
        if own.keys() != {"$ref"}:
            parts[name] = own
        renamed = {part: self._free(part, schema) for part, schema in parts.items()}
        moved = {_PYDANTIC + old: _PYDANTIC + new for old, new in renamed.items()}
        self._definitions |= {renamed[part]: _rewritten(schema, moved) for part, schema in parts.items()}
        return {"$ref": _PYDANTIC + renamed[name]}

    def _free(self, name: str, schema: Schema) -> str:
        return _free(name, lambda taken: self._definitions.get(taken, schema) != schema)

    def merged(self, made: list[Schema], definitions: dict[str, Schema]) -> tuple[list[Schema], dict[str, Schema]]:
        """All under the names they keep: those of msgspec first."""
        names: dict[str, str] = {}
        for name in self._definitions:
            names[name] = _free(name, lambda taken: taken in definitions or taken in names.values())
        moved = {_PYDANTIC + old: _REF + new for old, new in names.items()}
        theirs = {names[name]: schema for name, schema in self._definitions.items()}
        return (
            [_rewritten(schema, moved) for schema in made],
            {name: _rewritten(schema, moved) for name, schema in {**definitions, **theirs}.items()},
        )


def _free(name: str, taken: Callable[[str], bool]) -> str:
    free, number = name, 2
    while taken(free):
        free, number = f"{name}_{number}", number + 1
    return free


def _rewritten(schema: Any, moved: dict[str, str]) -> Any:
    """A schema with its references moved, and with the defaults of sets in sorted order."""
    if isinstance(schema, list):
        return [_rewritten(part, moved) for part in schema]
    if schema == _ANYTHING:
        return {}
    if not isinstance(schema, dict):
        return moved.get(schema, schema) if isinstance(schema, str) else schema
    made = {name: _rewritten(part, moved) for name, part in schema.items()}
    if isinstance(default := made.get("default"), list) and _is_set(made):
        made["default"] = sorted(default, key=repr)
    return made


def _is_set(schema: Schema) -> bool:
    return schema.get("uniqueItems") is True or any(arm.get("uniqueItems") is True for arm in schema.get("anyOf", ()))
