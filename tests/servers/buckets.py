"""Buckets of S3 as its documentation has them, strictly: signatures are checked, keys are encoded, lists have pages."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.servers.web import Seen, said

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<id>[^/]+)/(?P<day>\d{8})/(?P<region>[^/]+)/s3/aws4_request,"
    r" ?SignedHeaders=(?P<names>[^,]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)


class Buckets:
    """Objects by bucket and key, below a path of the server. Without `secret` they are public."""

    def __init__(self, region: str = "us-east-1", secret: str = "", token: str = "", page: int = 2) -> None:
        self._region = region
        self._secret = secret
        self._token = token
        self._page = page
        self.objects: dict[tuple[str, str], bytes] = {}
        self.forwards: dict[str, bytes] = {}  # what an object becomes once a list was given

    def put(self, bucket: str, key: str, content: bytes | str) -> None:
        self.objects[bucket, key] = content.encode() if isinstance(content, str) else content

    def answer(self, seen: Seen) -> bytes:
        refused = self._refusal(seen)
        if refused:
            return refused
        bucket, _, path = seen.path.removeprefix("/").partition("/")
        if bucket not in {name for name, _ in self.objects}:
            return _error(404, "NoSuchBucket")
        if not path:
            return self._listed(bucket, seen.query)
        content = self.objects.get((bucket, unquote(path)))
        if content is None:
            return _error(404, "NoSuchKey")
        if seen.headers.get("if-match", _etag(content)) != _etag(content):
            return _error(412, "PreconditionFailed")
        return said(content, content_type="binary/octet-stream", etag=_etag(content), x_amz_version_id="3HL4kqtJ")

    def _listed(self, bucket: str, query: dict[str, str]) -> bytes:
        if query.get("list-type") != "2":
            return _error(400, "InvalidArgument")
        prefix, start = query.get("prefix", ""), int(query.get("continuation-token", "0"))
        keys = sorted(key for name, key in self.objects if name == bucket and key.startswith(prefix))
        shown = keys[start : start + self._page]
        more = start + self._page < len(keys)
        spelled = quote if query.get("encoding-type") == "url" else escape
        contents = "".join(
            f"<Contents><Key>{spelled(key)}</Key><Size>{len(self.objects[bucket, key])}</Size>"
            f"<ETag>{escape(_etag(self.objects[bucket, key]))}</ETag></Contents>"
            for key in shown
        )
        following = f"<NextContinuationToken>{start + self._page}</NextContinuationToken>" if more else ""
        if not more:
            self.objects |= {(bucket, key): content for key, content in self.forwards.items()}
        return said(
            '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{following}{contents}</ListBucketResult>",
            content_type="application/xml",
        )

    def _refusal(self, seen: Seen) -> bytes:
        given = seen.headers.get("authorization")
        if not self._secret:
            return b"" if given is None else _error(403, "InvalidAccessKeyId")
        found = _AUTHORIZATION.fullmatch(given or "")
        if found is None:
            return _error(403, "AccessDenied")
        names = found["names"].split(";")
        # what is sent in AWS's own headers must be signed, and the host
        if not {"host", *(name for name in seen.headers if name.startswith("x-amz-"))} <= set(names):
            return _error(403, "AccessDenied")
        sent = time.mktime(time.strptime(seen.headers["x-amz-date"], "%Y%m%dT%H%M%SZ")) - time.timezone
        if abs(sent - time.time()) > 900 or seen.headers.get("x-amz-security-token", "") != self._token:
            return _error(403, "RequestTimeTooSkewed")
        fits = found["region"] == self._region and hmac.compare_digest(found["signature"], self._signature(seen, names))
        return b"" if fits else _error(403, "SignatureDoesNotMatch")

    def _signature(self, seen: Seen, names: list[str]) -> str:
        pairs = parse_qsl(urlsplit(seen.target).query, keep_blank_values=True)
        canonical = [
            seen.method,
            "/".join(quote(unquote(part), safe="~") for part in seen.path.split("/")),
            "&".join(f"{name}={value}" for name, value in sorted((quote(a, "~"), quote(b, "~")) for a, b in pairs)),
            *(f"{name}:{seen.headers[name]}" for name in names),
            "",
            ";".join(names),
            seen.headers["x-amz-content-sha256"],
        ]
        at = seen.headers["x-amz-date"]
        scope = [at[:8], self._region, "s3", "aws4_request"]
        hashed = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{at}\n{'/'.join(scope)}\n{hashed}"
        key = b"AWS4" + self._secret.encode()
        for part in [*scope, text]:
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return key.hex()


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


def _error(status: int, code: str) -> bytes:
    return said(f"<Error><Code>{code}</Code></Error>", status, content_type="application/xml")
