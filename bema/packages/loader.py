"""The classes of a Python file, found by importing it as a module of its own."""

from __future__ import annotations

import contextlib
import sys
import traceback
from pathlib import Path
from types import ModuleType

from bema.core.errors import BemaError, Invalid
from bema.packages.facts import own_facts

_MODULE = "__bema_package__"


def classes_of(file: Path) -> list[type]:
    """The packaged classes of a file, in order, with those it imports from the same packages."""
    module = _import(file)
    found = [value for value in vars(module).values() if isinstance(value, type)]
    packaged = {cls: facts.package.name for cls in found if (facts := own_facts(cls)) and facts.package}
    own = {name for cls, name in packaged.items() if cls.__module__ == _MODULE}
    picked = [cls for cls, name in packaged.items() if not own or name in own]
    if not picked:
        raise Invalid(
            f"{file}: no class has a package", code="bad_declaration", fix='Decorate one with @package(name="...").'
        )
    return picked


def _import(file: Path) -> ModuleType:
    try:
        source = file.read_bytes()
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise Invalid(f"{file}: {reason}", code="not_found", fix="Name a .py file that can be read.") from error
    module = ModuleType(_MODULE)
    module.__file__ = str(file)
    # dataclasses look up the module of a class by its name while they are made
    sys.modules[_MODULE] = module
    sys.path.insert(0, str(file.resolve().parent))
    try:
        # stdout is for the document: what the file prints goes to stderr. Compiled here, because an import would take
        # the bytecode of an earlier edit that has the same size and second.
        with contextlib.redirect_stdout(sys.stderr):
            exec(compile(source, str(file), "exec", dont_inherit=True), module.__dict__)
    except BemaError:
        raise
    except SyntaxError as error:
        where = f"{file}:{error.lineno}" if error.lineno else f"{file}"
        raise Invalid(f"{where}: {error.msg}", code="syntax_error") from error
    except (Exception, SystemExit) as error:
        raise Invalid(
            _what_failed(file, error), code="bad_declaration", fix="Mend it: the file must import."
        ) from error
    finally:
        sys.path.remove(str(file.resolve().parent))
    return module


def _what_failed(file: Path, error: BaseException) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    where = f"{file}:{lines[-1]}" if lines else str(file)
    return f"{where}: {type(error).__name__}: {error}"
