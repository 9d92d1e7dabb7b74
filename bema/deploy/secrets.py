"""Secrets: values that functions are given by name, each in a file of its owner's that this user alone can read.

Laws: a secret is its owner's, and no other owner's function is given it. No value is in a record, a message, an error or a
repr: it goes from its file to a process through a descriptor that nobody in between reads.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from bema.core.errors import Invalid, NotFound, Refused, TooLarge
from bema.core.keys import check_user
from bema.core.limits import DEFAULTS, Limits
from bema.core.naming import shown

__all__ = ["SecretFiles", "SecretInfo", "check_secret", "sealed"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_OURS: Final = frozenset(("PATH", "HOME", "TMPDIR", "PORT", "PYTHONUNBUFFERED"))
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class SecretInfo(msgspec.Struct, frozen=True):
    """What is told of a secret: all but its value. `updated` is an instant, microseconds UTC."""

    name: str
    updated: int


class SecretFiles:
    """The secrets of every owner, below `folder`."""

    def __init__(self, folder: Path, limits: Limits = DEFAULTS) -> None:
        self._folder = folder
        self._limits = limits

    def put(self, owner: str, name: str, value: str) -> bool:
        """Keep a value, durably; False where it was the value before. `Invalid`, `TooLarge` for what no process can be given."""
        check_secret(name, value, self._limits)
        file = self._file(owner, name)
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if file.read_text(encoding="utf-8") == value:
                return False
        draft = file.with_name(f".{secrets.token_hex(8)}")
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as new:
                new.write(value.encode())
                new.flush()
                os.fsync(new.fileno())
            draft.rename(file)
        except OSError as error:
            raise Refused(f"the secret {name} cannot be kept: {error.strerror}", code="state_unwritable") from error
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
        return True

    def all(self, owner: str) -> list[SecretInfo]:
        """What an owner has, by name."""
        return sorted(self._found(owner), key=lambda each: each.name)

    def _found(self, owner: str) -> Iterator[SecretInfo]:
        with contextlib.suppress(FileNotFoundError):
            for file in self._owned(owner).iterdir():
                if _NAME.match(file.name):
                    yield SecretInfo(file.name, file.stat().st_mtime_ns // 1000)

    def remove(self, owner: str, name: str) -> None:
        """Forget one; `NotFound` where there is none. What runs keeps what it was given."""
        try:
            if not _NAME.match(name):
                raise FileNotFoundError
            self._file(owner, name).unlink()
        except FileNotFoundError:
            raise NotFound(f"there is no secret {shown(name)}", fix="`bema secret ls` lists them.") from None

    def values(self, owner: str, names: Iterable[str]) -> dict[str, str]:
        """The values by name; `Refused` (secret_missing) names the first that is not there."""
        found = {}
        for name in names:
            try:
                found[name] = self._file(owner, name).read_text(encoding="utf-8")
            except FileNotFoundError:
                raise Refused(
                    f"the secret {name} of {owner} is not set",
                    code="secret_missing",
                    fix=f"Set it: `bema secret set {name} -` reads it from stdin.",
                ) from None
            except (OSError, UnicodeDecodeError) as error:
                raise Refused(f"the secret {name} of {owner} cannot be read", code="secret_missing") from error
        return found

    def _owned(self, owner: str) -> Path:
        return self._folder / quote(check_user(owner), safe="")

    def _file(self, owner: str, name: str) -> Path:
        return self._owned(owner) / name


def check_secret(name: str, value: str, limits: Limits) -> None:
    """`Invalid` for a name or a value that no environment can have, `TooLarge` for a value beyond the limit `env_variable`."""
    if not _NAME.match(name) or name in _OURS or name.upper().startswith("BEMA_"):
        raise Invalid(
            f"secret {shown(name)} is no name of a variable, or one of bema's own",
            code="bad_name",
            fix="Take letters, digits and '_', not BEMA_ and none of PATH, HOME, TMPDIR, PORT.",
        )
    if "\0" in value:
        raise Invalid(f"the value of {name} has a NUL, which no variable can have")
    try:
        size = len(f"{name}={value}".encode())
    except UnicodeEncodeError as error:
        raise Invalid(f"the value of {name} is no text") from error
    if size > limits.env_variable:
        raise TooLarge(
            f"the value of {name} has {size} bytes; the limit is {limits.env_variable}",
            name=name,
            limit=limits.env_variable,
        )


@contextlib.contextmanager
def sealed(values: Mapping[str, str]) -> Iterator[int]:
    """A descriptor of memory that holds the values and never changes; closed in the end."""
    memory = os.memfd_create("secrets", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with os.fdopen(os.dup(memory), "wb") as file:
            file.write(json.dumps(dict(values)).encode())
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
        yield memory
    finally:
        os.close(memory)
