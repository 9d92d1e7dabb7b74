"""A row of the table of what travels, and the cells that most rows have."""

from typing import Any, NamedTuple

from hypothesis import strategies as st

EQUAL, PLAIN, CALL, DECLARATION = "equal", "plain", "call", "declaration"

COLUMNS = (
    ("typed", "argument"),
    ("typed", "answer"),
    ("typed", "item in"),
    ("typed", "item out"),
    ("address", "argument"),
    ("address", "answer"),
    ("address", "item in"),
    ("address", "item out"),
)

Cells = tuple[str, ...]
DATA: Cells = (EQUAL,) * 8
"""Plain data: no annotation is needed."""
VALUE: Cells = (*(EQUAL,) * 4, CALL, PLAIN, CALL, PLAIN)
"""What only its annotation rebuilds."""
MODEL: Cells = (*(EQUAL,) * 4, EQUAL, PLAIN, CALL, PLAIN)
"""A model: who calls by address may send one, for the annotation of the callee rebuilds it."""
NUMBER: Cells = (*(EQUAL,) * 4, CALL, EQUAL, CALL, EQUAL)
"""An enum that is equal to its value."""
REFUSED: Cells = (CALL,) * 8
NEVER: Cells = (DECLARATION,) * 8


class Row(NamedTuple):
    kind: str
    shown: str  # the annotation as one writes it
    declared: Any  # None: this Python does not have it
    values: tuple[Any, ...]
    cells: Cells
    wrong: tuple[Any, ...] = ()  # values that are refused at the call, whoever calls
    strategy: st.SearchStrategy[Any] | None = None
    why: str = ""  # of an exception
