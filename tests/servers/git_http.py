"""Repositories over HTTP by the real `git http-backend`: a bridge from a test's web server to CGI."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from tests.servers.web import Seen
from tests.tools import tool


class Repositories:
    """Bare repositories below a folder. With `password`, only `me` with that password may read."""

    def __init__(self, folder: Path, password: str = "") -> None:
        self.folder = folder
        self._password = password
        folder.mkdir(parents=True, exist_ok=True)

    def git(self, *arguments: str, cwd: Path | None = None) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.test", "-c", "protocol.file.allow=always")
        done = subprocess.run(
            [tool("git"), *who, *arguments], cwd=cwd or self.folder, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def work(self, name: str) -> Path:
        """The folder of a repository's files, in which tests change what they like."""
        folder = self.folder / f"{name}.work"
        if not folder.exists():
            self.git("init", "-q", "-b", "main", str(folder))
            self.git("init", "-q", "--bare", "-b", "main", f"{name}.git")
            self.git("remote", "add", "origin", str(self.folder / f"{name}.git"), cwd=folder)
        return folder

    def commit(self, name: str, files: Mapping[str, bytes | str], *tags: str, branch: str = "main") -> str:
        """Commit these files, and what was changed by hand; gives the commit."""
        folder = self.work(name)
        for path, content in files.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "-A", cwd=folder)
        self.git("commit", "-qm", "change", "--allow-empty", cwd=folder)
        for tag in tags:
            self.git("tag", "-am", tag, tag, cwd=folder)
        self.git("push", "-q", "--tags", "origin", f"HEAD:{branch}", cwd=folder)
        return self.git("rev-parse", "HEAD", cwd=folder)

    async def answer(self, seen: Seen) -> bytes:
        wanted = "Basic " + base64.b64encode(f"me:{self._password}".encode()).decode()
        if self._password and seen.headers.get("authorization") != wanted:
            return b'HTTP/1.1 401 No\r\nwww-authenticate: Basic realm="git"\r\ncontent-length: 0\r\n\r\n'
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": seen.headers.get("git-protocol", ""),
            "REQUEST_METHOD": seen.method,
            "PATH_INFO": seen.path,
            "QUERY_STRING": urlsplit(seen.target).query,
            "CONTENT_TYPE": seen.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(seen.body)),
            "HTTP_CONTENT_ENCODING": seen.headers.get("content-encoding", ""),
        }
        child = await asyncio.create_subprocess_exec(
            *(tool("git"), "-c", "safe.directory=*", "http-backend"),
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await child.communicate(seen.body)
        head, _, body = out.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        status = next((line[8:] for line in lines if line.lower().startswith(b"status: ")), b"200 OK")
        kept = [line for line in lines if not line.lower().startswith(b"status: ")]
        return b"\r\n".join([b"HTTP/1.1 " + status, *kept, b"content-length: %d" % len(body), b"", body])
