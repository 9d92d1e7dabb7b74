"""Writer: plain data as YAML, the same bytes on every run, without a library.

Law: a scalar is written plain only where every YAML reader takes it for the same text; every other one is quoted.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bema.core.errors import Invalid, Refused

_PLAIN = re.compile(
    r"[A-Za-z_](?:[\w./@+()'-]|:(?=[\w./])| (?=[\w(]))*"  # words
    r"|\d+\.\d+\.\d+(?:[A-Za-z]\w*)?(?:[-+.][A-Za-z]\w*)*"  # 1.2.3-rc1
    r"|\d+(?:m|k|M|G|T|Ki|Mi|Gi|Ti)",  # 250m
    re.ASCII,
)
# YAML 1.1 readers (PyYAML, Go's) take these for booleans and null in any case
_WORDS = frozenset(("null", "true", "false", "yes", "no", "on", "off", "y", "n"))
# line breaks and marks that JSON writes as they are, and YAML folds, strips or refuses
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_WIDTH = 100
_LONGEST_KEY = 900  # YAML finds the `:` of a key within 1,024 characters, or not at all
_FLOW_ITEMS = "key_specs"


def to_yaml(data: Mapping[str, Any]) -> str:
    lines: list[str] = []
    _mapping(lines, data, "")
    text = "\n".join(lines) + "\n"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Invalid(f"a text holds a character that no document can carry: {error.object[error.start]!r}") from error
    return text


def scalar(value: Any) -> str:
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
            return value
        quoted = json.dumps(value, ensure_ascii=False)
        return _ESCAPED.sub(lambda found: f"\\u{ord(found.group()):04x}", quoted)
    if isinstance(value, float) and value == value and abs(value) != float("inf"):
        text = repr(value)
        return text if "." in text.partition("e")[0] else text.replace("e", ".0e")  # YAML 1.1 wants the point
    return json.dumps(value)


def _mapping(lines: list[str], data: Mapping[str, Any], indent: str, lead: str | None = None) -> None:
    for key, value in data.items():
        start = indent if lead is None else lead
        lead = None
        name = scalar(key)
        if len(name) > _LONGEST_KEY:
            lines.append(f"{start}? {name}")
            start, name = indent, ""
        _value(lines, f"{start}{name}:", value, indent, flow_items=key == _FLOW_ITEMS)


def _value(lines: list[str], head: str, value: Any, indent: str, flow_items: bool) -> None:
    if isinstance(value, Mapping):
        if value:
            lines.append(head)
            _mapping(lines, value, indent + "  ")
        else:
            lines.append(f"{head} {{}}")
    elif isinstance(value, list | tuple):
        _sequence(lines, head, value, indent, flow_items)
    else:
        lines.append(f"{head} {scalar(value)}")


def _sequence(lines: list[str], head: str, items: list[Any] | tuple[Any, ...], indent: str, flow_items: bool) -> None:
    if not any(isinstance(item, Mapping | list) for item in items):
        flow = f"{head} [{', '.join(map(scalar, items))}]"
        if len(flow) <= _WIDTH or not items:
            lines.append(flow)
            return
    lines.append(head)
    for item in items:
        lead = f"{indent}  - "
        if isinstance(item, Mapping) and item and not flow_items:
            _mapping(lines, item, indent + "    ", lead)
        elif isinstance(item, Mapping):
            lines.append(f"{lead}{{{', '.join(f'{scalar(k)}: {scalar(v)}' for k, v in item.items())}}}")
        else:
            lines.append(lead + scalar(item))


# files a person keeps: replaced whole or not at all, with their mode, their line ends and their byte order mark


BOM = "\ufeff".encode()


def replace_text(file: Path, text: str) -> None:
    """Write a file by rename; one that was there keeps its mode and its byte order mark."""
    # a link stays a link: the file that it leads to is replaced
    target = file.resolve()
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        there = target.exists()
        mark = BOM if there and target.read_bytes().startswith(BOM) else b""
        # exclusive, so that what somebody put there under that name is not written through
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            with os.fdopen(descriptor, "wb") as out:
                out.write(mark + text.encode())
            if there:  # before the rename, so that the file is never seen with another mode
                beside.chmod(target.stat().st_mode & 0o7777)
            beside.replace(target)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Refused(
            f"{file}: {error.strerror}", code="state_unwritable", fix="Name a place that can be written."
        ) from error
