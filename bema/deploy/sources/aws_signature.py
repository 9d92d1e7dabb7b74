"""The signature of a request to S3 (AWS Signature Version 4). Pure: a URL, keys and an instant in, headers out."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec

from bema.core.redaction import hides

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_NOTHING: Final = hashlib.sha256(b"").hexdigest()


class S3Keys(msgspec.Struct, frozen=True):
    """What requests are signed with. `token` comes with keys that were lent for a time."""

    id: str
    secret: str
    token: str = ""
    __repr__ = hides("secret", "token")

    @classmethod
    def of(cls, prefix: str, environment: Mapping[str, str]) -> S3Keys | None:
        """Those in the variables that begin with `prefix`, such as `AWS_`; None where there are none."""
        names = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")
        id, secret, token = (environment.get(prefix + name, "").strip() for name in names)
        return cls(id, secret, token) if prefix and id and secret else None


def signed(url: str, region: str, keys: S3Keys, now: float) -> dict[str, str]:
    """The headers of a GET of `url`, whose path and query are encoded as S3 has them: all but `A-Za-z0-9-._~` as %XX."""
    parts = urlsplit(url)
    at = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {"x-amz-content-sha256": _NOTHING, "x-amz-date": at}
    if keys.token:
        headers["x-amz-security-token"] = keys.token
    sent = {"host": parts.netloc, **headers}
    names = ";".join(sorted(sent))
    listed = "".join(f"{name}:{sent[name]}\n" for name in sorted(sent))
    query = "&".join(sorted(each if "=" in each else f"{each}=" for each in parts.query.split("&") if each))
    request = "\n".join(("GET", parts.path or "/", query, listed, names, _NOTHING))
    scope = f"{at[:8]}/{region}/s3/aws4_request"
    text = "\n".join((_ALGORITHM, at, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = f"AWS4{keys.secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    said = f"{_ALGORITHM} Credential={keys.id}/{scope},SignedHeaders={names},Signature={signature}"
    return {**headers, "authorization": said}


def encoded(text: str, safe: str = "") -> str:
    """A text as part of a URL that is signed."""
    return quote(text, safe=f"-._~{safe}")
