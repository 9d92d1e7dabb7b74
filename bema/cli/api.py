"""The control API as commands use it: HTTP to the listener that up.json names, with the token that only its user can read.

Law: an error of the API is raised here as the error that it is, so that every command fails in the same words.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bema import system
from bema.core.errors import BemaError, Conflict, Disconnected, NotFound, ProtocolError, StreamCut, Unavailable, of_code
from bema.core.naming import is_uuid
from bema.core.paths import state_dir

Json = dict[str, Any]
# deploying inspects the script before the reply, which may take ten seconds
_PATIENCE = 60.0
_INDEXES = 600.0
_PAGE = 500
_AWAY = 30.0  # seconds in which a follower waits for an API that went away
_PAUSE = 0.1
_PIECE = 64 * 1024
_MISSED = 10_000  # lines to catch up with at most


def deployments() -> list[Json]:
    """Every deployment, as the API shows it; `Unavailable` (not_up) where no platform runs."""
    found: list[Json] = []
    after = ""
    while True:
        page = _call("GET", "/faas/python?" + urllib.parse.urlencode({"count": _PAGE, "after": after}))
        found += page["items"]
        if not page.get("next"):
            return found
        after = page["next"]


def deployment(name: str) -> Json:
    """One deployment, by name or id."""
    if is_uuid(name):
        return read(name)
    # the API has ids only: a name is one owner's, and an administrator sees those of all
    found = [each for each in deployments() if each["name"] == name]
    if len(found) > 1:
        owners = ", ".join(f"{each['id']} ({each['owner']})" for each in found)
        raise Conflict(f"{name} is the name of several: {owners}", code="usage", fix="Name the id of one.")
    if not found:
        raise NotFound(f"there is no deployment named {name!r}")
    return found[0]


def read(id: str) -> Json:
    return _call("GET", f"/faas/python/{id}")


def create(name: str, code: str | Json, env: dict[str, str], key: str = "", **more: Any) -> Json:
    """Deploy a script, or what a source says (`{"type": ...}`). With a `key`, repeating the very request deploys nothing twice.

    `more` are further fields of the body: settings, replace, share, user.
    """
    return _call("POST", "/faas/python", _body(name, code, env, more), {"Idempotency-Key": key} if key else {})


def changes(name: str, code: str | Json, env: dict[str, str], **more: Any) -> Json:
    """What the same `create`, with `replace`, would change."""
    return _call("POST", "/faas/changes", _body(name, code, env, more))


def _body(name: str, code: str | Json, env: dict[str, str], more: Json) -> Json:
    source = {"type": "inline", "code": code} if isinstance(code, str) else code
    return {"name": name, "source": source, "env": env, **more}


def configure(id: str, settings: Json) -> Json:
    """Change settings that need no new process."""
    return _call("PATCH", f"/faas/python/{id}", {"settings": settings})


def versions(id: str) -> list[Json]:
    """The versions that are kept, the newest first."""
    found: list[Json] = _call("GET", f"/faas/python/{id}/versions")["items"]
    return found


def rollback(id: str, version: str = "") -> Json:
    """Go back to a version, or to the good one before the current."""
    return _call("POST", f"/faas/python/{id}/rollback", {"version": version})


def traffic(id: str, shares: dict[str, int], sticky: str | None = None) -> Json:
    """Share requests out, in percent by version; none gives all to the current version."""
    return _call("PUT", f"/faas/python/{id}/traffic", {"shares": shares, "sticky": sticky})


def delete(id: str, *, purge: bool = False) -> None:
    _call("DELETE", f"/faas/python/{id}" + ("?purge=1" if purge else ""))


def outdated(id: str) -> list[Json]:
    """Packages of its lock for which there are newer versions."""
    with _answer("GET", f"/faas/python/{id}/outdated", timeout=_INDEXES) as answer:
        found: list[Json] = _decoded(answer.read())["items"]
        return found


def upgrade(id: str) -> Json:
    """Make the same with the newest packages the next version; `packages` are those that it has others of."""
    with _answer("POST", f"/faas/python/{id}/upgrade", timeout=_INDEXES) as answer:
        return _decoded(answer.read())


def stack(id: str, *, version: str = "", instance: str = "") -> Json:
    """Where the threads and tasks of an instance stand."""
    return _call(
        "GET", f"/faas/python/{id}/stack?" + urllib.parse.urlencode({"version": version, "instance": instance})
    )


def profile(id: str, seconds: int, *, idle: bool, version: str = "", instance: str = "") -> Json:
    """Where the time of an instance goes in the seconds to come."""
    which = {"seconds": seconds, "idle": int(idle), "version": version, "instance": instance}
    path = f"/faas/python/{id}/profile?{urllib.parse.urlencode(which)}"
    with _answer("GET", path, timeout=seconds + _PATIENCE) as answer:
        return _decoded(answer.read())


def data(name: str = "", *, kept: bool = False) -> list[Json]:
    """What functions wrote: of one name, or of all; with `kept`, only what no deployment has any more."""
    query = urllib.parse.urlencode({"name": name, "kept": int(kept)})
    found: list[Json] = _call("GET", f"/faas/data?{query}")["items"]
    return found


def purge(id: str) -> None:
    """Delete what was kept of a deployment that is gone."""
    _call("DELETE", f"/faas/data/{id}")


def set_secret(name: str, value: str, *, user: str = "") -> None:
    _call("PUT", f"/secrets/{urllib.parse.quote(name, safe='')}{_of(user)}", {"value": value})


def secrets(*, user: str = "") -> list[Json]:
    """Names of secrets, and when each was set."""
    found: list[Json] = _call("GET", f"/secrets{_of(user)}")["items"]
    return found


def remove_secret(name: str, *, user: str = "") -> None:
    _call("DELETE", f"/secrets/{urllib.parse.quote(name, safe='')}{_of(user)}")


def _of(user: str) -> str:
    return "?" + urllib.parse.urlencode({"user": user}) if user else ""


def document() -> Json:
    """The API as an OpenAPI document."""
    return _call("GET", "/openapi.json")


def add_key(name: str, *, user: str, admin: bool, expires_in: int | None) -> Json:
    """Make a key; the answer's `key` is told this once. `expires_in` is in seconds."""
    return _call("POST", "/keys", {"name": name, "user": user, "admin": admin, "expires_in": expires_in})


def keys() -> list[Json]:
    found: list[Json] = _call("GET", "/keys")["items"]
    return found


def revoke_key(name: str) -> None:
    _call("DELETE", f"/keys/{urllib.parse.quote(name, safe='')}")


def logs(id: str, *, tail: int, follow: bool, since: int = 0, version: str = "", instance: str = "") -> Iterator[Json]:
    """Log records, oldest first; with `follow`, until the deployment goes, through any replacement of who answers.

    Only those later than `since`, microseconds UTC, and of a version or an instance, where one is named.
    """
    of = {name: value for name, value in (("version", version), ("instance", instance)) if value}
    last, seen = since, list[Json]()  # the records of the last instant: asked for again, and left out
    while True:
        try:
            for record in _records(id, of, tail=tail, follow=follow, since=last):
                if record in seen:
                    continue
                seen = [*seen, record] if record.get("ts", 0) == last else [record]
                last, tail = record.get("ts", 0), _MISSED
                yield record
            return
        except (Unavailable, Disconnected, StreamCut):
            if not follow or not _is_back():
                raise
        except NotFound:
            if last == since:
                raise
            return  # it was deleted while nobody answered


def _is_back() -> bool:
    """Wait until the API answers again; not where nothing runs any more, and not for ever."""
    end = time.monotonic() + _AWAY
    while time.monotonic() < end:
        time.sleep(_PAUSE)
        try:
            _call("GET", "/readyz")
        except Unavailable as error:
            # a platform that was stopped is not waited for; one whose gateway died comes back
            if error.code == "not_up":
                return False
        else:
            return True
    return False


def _records(id: str, of: dict[str, str], *, tail: int, follow: bool, since: int) -> Iterator[Json]:
    query = urllib.parse.urlencode({"tail": tail, "follow": int(follow), "since": since, **of})
    # a log may be silent for days
    with _answer("GET", f"/faas/python/{id}/logs?{query}", timeout=None if follow else _PATIENCE) as answer:
        for line in _lines(answer):
            record = _decoded(line)
            # the status was sent before the failure: it comes as the last line
            if "error" in record:
                raise _refusal(record)
            yield record


def _lines(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """Whole lines to the answer's end; `Unavailable` where it is cut (`readline` would show that as an end)."""
    rest = b""
    try:
        while piece := answer.read1(_PIECE):
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable("the control API went away; the log goes on", fix="Ask again.") from error


def _call(method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Json:
    with _answer(method, path, body, headers) as answer:
        return _decoded(answer.read() or b"{}")


@contextlib.contextmanager
def _answer(
    method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, timeout: float | None = _PATIENCE
) -> Iterator[http.client.HTTPResponse]:
    """A successful answer; what the API refused is raised."""
    up = _up()
    where = urllib.parse.urlsplit(up["api"])
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=timeout)
    try:
        sent = None if body is None else json.dumps(body)
        connection.request(
            method, path, sent, {**_credential(up), "Content-Type": "application/json", **(headers or {})}
        )
        answer = connection.getresponse()
        if answer.status >= 400:
            raise _refusal(_decoded(answer.read()))
        yield answer
    except BemaError:
        raise  # some of ours are an OSError too
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(
            f"the control API at {up['api']} does not answer: {error}", fix="`bema status` tells what runs."
        ) from error
    finally:
        connection.close()


def _up() -> Json:
    state = state_dir()
    # the lock is asked first: the file outlives a keeper that was killed
    up = system.read_up(state) if system.is_up(state) else {}
    if not up.get("api"):
        raise Unavailable(f"nothing runs on {state}", code="not_up")
    return up


def _credential(up: Json) -> dict[str, str]:
    try:
        token = Path(up["token_file"]).read_text().strip()
    except OSError as error:
        raise Unavailable(f"the token {up['token_file']} cannot be read: {error.strerror}", code="not_up") from error
    return {"Authorization": f"Bearer {token}"}


def _decoded(text: bytes) -> Json:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ProtocolError(f"the control API answered something that is not JSON: {text[:80]!r}") from error
    if not isinstance(found, dict):
        raise ProtocolError(f"the control API answered {type(found).__name__} where an object was due")
    return found


def _refusal(body: Json) -> BemaError:
    said = dict(body.get("error") or {})
    code, message = str(said.pop("code", "internal")), str(said.pop("message", ""))
    fix, trace = said.pop("fix", None), said.pop("trace_id", "")
    error = of_code(
        code, message, **{key: value for key, value in said.items() if key.isidentifier() and key != "code"}
    )
    error.fix = fix or error.fix
    error.details.setdefault("request_id", trace)
    return error
