"""The figures of the source that a reader would ask about, measured the same way each time: `python -m tests.figures`.

`tests/test_architecture.py` holds some of them to their bounds; the rest are shown beside what is wanted.
"""

from __future__ import annotations

import ast
import configparser
import io
import re
import statistics
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bema"
SHORT = 60  # lines below which a module is hardly looked for
DIRECTIVE = re.compile(r"#\s*(noqa|type:|pragma)")
RAISES = re.compile(r"\b[A-Z]\w*(?:Error|Exceeded|Cut)\b|`[A-Z]\w+`|\b[Rr]efuse[sd]?\b|\b[Rr]aises?\b")
UNITS = re.compile(
    r"\b(seconds?|milliseconds?|bytes|microseconds?|instant|per |at most|at least|None|id|count)\b|`[^`]+`"
)

TREES = {path: ast.parse(path.read_text(), str(path)) for path in sorted(PACKAGE.rglob("*.py"))}


def lines_of(path: Path) -> int:
    return path.read_text().count("\n")


def modules() -> list[Path]:
    """Every module but the heads of folders, which hold a sentence each, and `compat/`, whose modules are another's names."""
    return [p for p in TREES if p.name != "__init__.py" and not p.is_relative_to(PACKAGE / "compat")]


def comment_share() -> float:
    """Lines that hold a comment, of all lines, in percent; directives to tools are none."""
    comments = total = 0
    for path in TREES:
        text = path.read_text()
        total += text.count("\n")
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            comments += token.type == tokenize.COMMENT and not DIRECTIVE.match(token.string)
    return 100 * comments / total


def functions() -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (function.end_lineno or 0) - function.lineno + 1


def documented() -> tuple[int, int]:
    """(those that name what is raised, units or shapes, all with a docstring) of the public functions and methods."""
    said = total = 0
    for tree in TREES.values():
        for function in public_functions(tree):
            if (text := ast.get_docstring(function)) is not None:
                total += 1
                said += bool(RAISES.search(text) or UNITS.search(text))
    return said, total


def public_functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and not inner.name.startswith("_"):
                    yield inner


def shared_names() -> dict[str, list[Path]]:
    """Public class names that stand for more than one class; `compat/` is let off: its names are those of other systems."""
    places = defaultdict(list)
    for path, tree in TREES.items():
        if not path.is_relative_to(PACKAGE / "compat"):
            for node in tree.body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places[node.name].append(path)
    return {name: where for name, where in places.items() if len(where) > 1}


def gerunds() -> list[str]:
    """Modules named for an act instead of a thing; four are the field's own nouns."""
    return sorted(
        p.stem for p in TREES if p.stem.endswith("ing") and p.stem not in ("naming", "tracing", "forwarding", "pending")
    )


def contracts() -> int:
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    return sum(section.startswith("importlinter:contract:") for section in parser.sections())


def arrows(folder: str) -> tuple[int, int]:
    """(boxes, arrows) of one folder: what lies in it, and which of these import which, annotations counted."""
    root = PACKAGE / folder
    boxes = {p.stem for p in root.iterdir() if (p.suffix == ".py" and p.stem != "__init__") or list(p.glob("*.py"))}
    prefix, found = f"bema.{folder.replace('/', '.')}.", set()
    for path, tree in TREES.items():
        if not path.is_relative_to(root) or path == root / "__init__.py":
            continue
        box = path.relative_to(root).parts[0].removesuffix(".py")
        for node in ast.walk(tree):
            names = [f"{node.module}.{a.name}" for a in node.names] if isinstance(node, ast.ImportFrom) else []
            to = {name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)}
            found |= {(box, other) for other in to & boxes if other != box}
    return len(boxes), len(found)


def table() -> list[tuple[str, str, str]]:
    """(figure, measured, wanted)"""
    sizes = [lines_of(path) for path in modules()]
    long = sorted(length(function) for function in functions())
    said, total = documented()
    source = sum(lines_of(path) for path in TREES)
    tests = sum(lines_of(path) for path in (ROOT / "tests").rglob("*.py") if "data" not in path.parts)
    rows = [
        ("lines of source, of tests per line", f"{source}, {tests / source:.2f}", ">= 1"),
        ("module: median lines", f"{statistics.median(sizes):.0f}", "120-180"),
        ("module: most lines", str(max(sizes)), "<= 600"),
        (f"modules under {SHORT} lines", f"{100 * sum(s < SHORT for s in sizes) / len(sizes):.0f} %", "< 20 %"),
        (
            "function: median, 90 of 100, most",
            f"{statistics.median(long):.0f}, {long[len(long) * 9 // 10]}, {long[-1]}",
            "<= 9, 35, 70",
        ),
        ("comment lines", f"{comment_share():.1f} %", "4-8 %"),
        ("docstrings that name errors, units or shapes", f"{100 * said / total:.0f} % of {total}", "31 %"),
        ("class names that stand for two", str(len(shared_names())), "0"),
        ("modules named for an act", str(len(gerunds())), "0"),
        ("contracts on imports", str(contracts()), ">= 11"),
    ]
    for folder in ("runtime", "deploy", "gateway", "sdk", "wire"):
        rows.append((f"{folder}/: boxes, arrows", "{}, {}".format(*arrows(folder)), ""))
    return rows


if __name__ == "__main__":
    for figure, measured, wanted in table():
        print(f"{figure:46} {measured:>18}   {wanted}")
