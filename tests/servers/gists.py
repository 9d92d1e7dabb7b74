"""GitHub's API for gists as its documentation has it, strictly: what it would refuse is refused."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from urllib.parse import quote, unquote

from tests.servers.web import Seen, said

_WHOLE = 1000
"""Bytes of a file that are told with its gist; GitHub's are a million, and"""
_MOST_FILES = 300
"""files are told of."""


class Gists:
    """Answers for the API and, as the other host that it is, for raw files. `token` is the one it knows.

    A gist whose id begins with `b0` is secret: only its owner sees it. `left` requests are answered before the limit.
    """

    def __init__(self, token: str = "", left: int = 60) -> None:
        self._token = token
        self.left = left
        self.reset = 300
        self.raw_url = ""
        self._gists: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.cut = False  # whether raw files come without their ends

    def push(self, id: str, files: Mapping[str, bytes | str]) -> str:
        """Make another revision of a gist; gives its SHA."""
        content = {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
        history = self._gists.setdefault(id, [])
        revision = hashlib.sha1(repr((len(history), content)).encode()).hexdigest()
        history.insert(0, (revision, content))
        return revision

    def api(self, seen: Seen) -> bytes:
        parts = seen.path.strip("/").split("/")
        if "user-agent" not in seen.headers:
            return _refused(403, "Request forbidden by administrative rules.")
        if seen.headers.get("accept") != "application/vnd.github+json" or "x-github-api-version" not in seen.headers:
            return _refused(415, "Unsupported 'Accept' header")
        credential = seen.headers.get("authorization")
        if credential is not None and credential != f"Bearer {self._token}":
            return _refused(401, "Bad credentials")
        if self.left <= 0:
            reset = str(int(time.time()) + self.reset)
            return _refused(403, "API rate limit exceeded", x_ratelimit_remaining="0", x_ratelimit_reset=reset)
        self.left -= 1
        history = self._gists.get(parts[1], []) if parts[0] == "gists" and len(parts) in (2, 3) else []
        wanted = parts[2] if len(parts) == 3 else (history[0][0] if history else "")
        at = next((n for n, (revision, _) in enumerate(history) if revision == wanted), None)
        if seen.method != "GET" or at is None or (parts[1].startswith("b0") and credential is None):
            return _refused(404, "Not Found")
        return self._told(parts[1], history[at:])

    def _told(self, id: str, history: list[tuple[str, dict[str, bytes]]]) -> bytes:
        revision, content = history[0]
        files = {name: self._file(id, revision, name, found) for name, found in list(content.items())[:_MOST_FILES]}
        body = {
            "id": id,
            "public": True,
            "files": files,
            "history": [{"version": version} for version, _ in history],
            "truncated": len(content) > _MOST_FILES,
        }
        etag = f'W/"{revision}"'
        return said(json.dumps(body), content_type="application/json; charset=utf-8", etag=etag)

    def _file(self, id: str, revision: str, name: str, content: bytes) -> dict[str, object]:
        text = content[:_WHOLE].decode("utf-8", "replace")
        return {
            "filename": name,
            "type": "application/x-python",
            "raw_url": f"{self.raw_url}/{id}/raw/{revision}/{quote(name)}",
            "size": len(content),
            "truncated": len(content) > _WHOLE,
            "content": text,
        }

    def raw(self, seen: Seen) -> bytes:
        if "authorization" in seen.headers:
            return said("a token of another host", 400)
        id, _, revision, name = seen.path.strip("/").split("/")
        content = dict(self._gists[id])[revision][unquote(name)]
        return said(content[:-1] if self.cut else content, content_type="text/plain; charset=utf-8")


def _refused(status: int, message: str, **headers: str) -> bytes:
    return said(json.dumps({"message": message}), status, content_type="application/json; charset=utf-8", **headers)
