"""What is in a script, decided once and statically: a service, an app, an MCP object, or a program.

Standard library only: the script's own Python runs this file by path (`python -I -S entry.py`, code on stdin, one JSON
object on stdout). So a script is read by the grammar of the interpreter it will run on, and code made to break a
compiler breaks a child, not the orchestrator.

The order: `[tool.bema] entry`, a class decorated with `service`, an app, an MCP object, else the script is a program.
"""

from __future__ import annotations

import ast
import json
import resource
import sys
import warnings
from collections.abc import Iterator
from typing import Any

APP_NAMES = ("app", "application")
APP_MAKERS = frozenset(
    {"FastAPI", "Starlette", "Litestar", "Quart", "Flask", "get_asgi_application", "get_wsgi_application"}
)
MCP_MAKERS = frozenset({"FastMCP", "MCPServer"})
MOUNTS = frozenset({"mount", "import_server"})
MCP_PACKAGES = ("mcp", "fastmcp")
PROGRAM = "__main__"


def inspect(code: bytes, wanted: str = "") -> dict[str, Any]:
    """`{"kind", "name"}` of a script, or `{"error", "message", ...}` with the code of the error to raise."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
            # what parses may not compile: `return` outside a function, `nonlocal` at the top
            compile(code, "script.py", "exec", dont_inherit=True)
    except SyntaxError as error:
        # an encoding that is not there has column -1
        line, column = error.lineno or 1, max(1, error.offset or 1)
        return _refused("syntax_error", f"line {line}, column {column}: {error.msg}", line=line, column=column)
    except (ValueError, RecursionError, OverflowError) as error:
        return _refused("syntax_error", f"line 1, column 1: {error}", line=1, column=1)
    except MemoryError:
        message = f"line 1, column 1: too complex to compile: nested too deeply, or larger than {_memory()}"
        return _refused("syntax_error", message, line=1, column=1)
    return _Script(tree).entry(wanted)


def _refused(code: str, message: str, **details: Any) -> dict[str, Any]:
    return {"error": code, "message": message, **details}


def _memory() -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return "its memory" if limit == resource.RLIM_INFINITY else f"its {limit // 2**20} MiB of memory"


class _Script:
    """The names a module binds at its top level, and what they are bound to."""

    def __init__(self, tree: ast.Module) -> None:
        self.imports: dict[str, str] = {}
        self.bound: dict[str, ast.AST] = {}
        self.guarded: list[ast.AST] = []
        self.calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        for statement in self._top_level(tree.body):
            self._bind(statement)

    def entry(self, wanted: str) -> dict[str, Any]:
        if wanted:
            return self._named(wanted)
        services = [name for name, node in self.bound.items() if self._is_service(node)]
        if len(services) > 1:
            started = [name for name in services if self._starts(name)]
            if len(started) != 1:
                return _refused(
                    "entry_ambiguous", f"the script has {len(services)} services: {', '.join(services)}", names=services
                )
            services = started
        if services:
            return {"kind": "service", "name": services[0]}
        # a maker's name is surer than a variable's: `app` may be anything
        apps = [n for n, node in self.bound.items() if self._maker(node)[1] in APP_MAKERS]
        apps += [n for n in APP_NAMES if n in self.bound and not self._is_mcp(self.bound[n])]
        if apps:
            return {"kind": "app", "name": next((n for n in APP_NAMES if n in apps), apps[0])}
        return self._tools([n for n, node in self.bound.items() if self._is_mcp(node)])

    def _tools(self, names: list[str]) -> dict[str, Any]:
        """Of several MCP servers the one that the script runs, else the one that no other is mounted on."""
        inner = {arg.id for call in self.calls if self._path(call.func)[1] in MOUNTS for arg in _names(call)}
        run = [name for name in names if any(self._path(call.func) == (name, "run") for call in self.calls)]
        # the order says nothing: authors write the parts before the whole, or after it
        left = run if len(run) == 1 else [name for name in names if name not in inner]
        if len(left) > 1:
            said = ", ".join(names)
            line = f'# [tool.bema]\n# entry = "{left[0]}"'
            message = f"the script has {len(names)} MCP servers: {said}; choose one in its block:\n{line}"
            return _refused("entry_ambiguous", message, names=names)
        return {"kind": "mcp", "name": (left or names)[0]} if names else {"kind": "main", "name": PROGRAM}

    def _named(self, wanted: str) -> dict[str, Any]:
        if wanted == PROGRAM:
            return {"kind": "main", "name": PROGRAM}
        node = self.bound.get(wanted)
        if node is None and wanted not in self.imports:
            names = sorted(name for name in self.bound if not name.startswith("_"))
            return _refused(
                "entry_not_found",
                f"[tool.bema] entry is {wanted!r}; the script's top level has {', '.join(names) or 'no names'}",
                names=names,
            )
        if isinstance(node, ast.ClassDef):
            return {"kind": "service", "name": wanted}
        return {"kind": "mcp" if self._is_mcp(node) else "app", "name": wanted}

    def _top_level(self, body: list[ast.stmt]) -> Iterator[ast.stmt]:
        for statement in body:
            # what stands under the guard does not exist where the script is imported
            if isinstance(statement, ast.If) and _is_main_guard(statement.test):
                self.guarded += statement.body
                continue
            yield statement
            # `try: import x` around an app is common; a function's body is another scope
            for field in ("body", "orelse", "finalbody"):
                if isinstance(statement, ast.If | ast.Try | ast.With):
                    yield from self._top_level(getattr(statement, field, []))
            for handler in getattr(statement, "handlers", []):
                yield from self._top_level(handler.body)

    def _bind(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Import(names=names):
                for alias in names:
                    self.imports[alias.asname or alias.name.partition(".")[0]] = alias.name
            case ast.ImportFrom(names=names):
                for alias in names:
                    self.imports[alias.asname or alias.name] = f"{statement.module or ''}.{alias.name}"
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                self.bound[name] = statement
            case ast.Assign(targets=targets, value=value):
                several = [
                    t for target in targets for t in (target.elts if isinstance(target, ast.Tuple) else [target])
                ]
                self.bound |= {target.id: value for target in several if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                self.bound[name] = value

    def _path(self, node: ast.AST) -> tuple[str, str]:
        """Package and last name of what an expression refers to, through the script's imports."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return "", ""
        whole = ".".join([self.imports.get(node.id, node.id), *reversed(parts)])
        return whole.partition(".")[0], whole.rpartition(".")[2]

    def _maker(self, node: ast.AST | None) -> tuple[str, str]:
        return self._path(node.func) if isinstance(node, ast.Call) else ("", "")

    def _is_mcp(self, node: ast.AST | None) -> bool:
        package, name = self._maker(node)
        # many libraries have a Server; the other names are MCP's alone
        return name in MCP_MAKERS or (name == "Server" and package in MCP_PACKAGES)

    def _is_service(self, node: ast.AST) -> bool:
        marks = node.decorator_list if isinstance(node, ast.ClassDef) else []
        return any(self._path(m.func if isinstance(m, ast.Call) else m)[1] == "service" for m in marks)

    def _starts(self, name: str) -> bool:
        """Whether the script's own main block starts this class: `Name.start()` or `serve(Name)`."""
        calls = [n for part in self.guarded for n in ast.walk(part) if isinstance(n, ast.Call)]
        return any(
            self._path(call.func) == (name, "start")
            or (
                self._path(call.func)[1] == "serve" and any(isinstance(a, ast.Name) and a.id == name for a in call.args)
            )
            for call in calls
        )


def _names(call: ast.Call) -> list[ast.Name]:
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    return [one for one in given if isinstance(one, ast.Name)]


def _is_main_guard(test: ast.expr) -> bool:
    return (
        isinstance(test, ast.Compare)
        and isinstance(test.left, ast.Name)
        and test.left.id == "__name__"
        and any(isinstance(c, ast.Constant) and c.value == PROGRAM for c in test.comparators)
    )


if __name__ == "__main__":
    json.dump(inspect(sys.stdin.buffer.read(), *sys.argv[1:2]), sys.stdout)
