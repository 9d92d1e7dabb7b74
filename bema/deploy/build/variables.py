"""The environment variables of a build: what an installer and a build backend need, and nothing else of ours.

Laws: a variable is passed by name, so that one nobody thought of stays here: the platform's own environment holds secrets, and a
build runs the code of strangers. Its HOME is its own and goes with it; what uv, git and cargo keep in the user's is named to
them one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

_PASSED = frozenset(
    (
        *("PATH", "LD_LIBRARY_PATH", "TMPDIR", "TEMP", "TMP", "TZ", "LANG", "LANGUAGE", "SOURCE_DATE_EPOCH"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CLIENT_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"),
        *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_TRUSTED_HOST", "PIP_CERT"),
        *("PIP_CLIENT_CERT", "PIP_PROXY", "PIP_CONFIG_FILE"),
        *("GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"),
        *("CC", "CXX", "CPP", "LD", "AR", "RANLIB", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "ARCHFLAGS"),
        *("MAKEFLAGS", "PKG_CONFIG", "PKG_CONFIG_PATH", "CPATH", "LIBRARY_PATH", "SDKROOT", "MACOSX_DEPLOYMENT_TARGET"),
        *("CARGO_HOME", "RUSTUP_HOME", "XDG_CONFIG_HOME"),
    )
)
# by its prefix, since uv names a variable after each index; there is no SSH_AUTH_SOCK: who has it
# can sign with every key
_PREFIXES = ("LC_", "UV_")
# they would steer uv to an environment of ours, or hand it what only a publisher needs
_WITHHELD = ("UV_PROJECT", "UV_WORKING_DIR", "UV_SYSTEM_PYTHON", "UV_PYTHON", "UV_FROZEN", "UV_LOCKED", "UV_ENV_FILE")
_SECRET = ("UV_PUBLISH_",)
_FIXED = {"UV_PYTHON_DOWNLOADS": "never", "NO_COLOR": "1"}
_IN_HOME = {"CARGO_HOME": ".cargo", "RUSTUP_HOME": ".rustup", "NETRC": ".netrc", "GIT_CONFIG_GLOBAL": ".gitconfig"}
"""Where a tool looks when its variable is not set; of those that are there."""


def build_variables(environ: Mapping[str, str], home: Path | None = None) -> dict[str, str]:
    """Of `environ` what a build is given; with `home` as its HOME, and the way to what uv and others have in the user's."""
    passed = {name: value for name, value in environ.items() if _passes(name)}
    theirs = Path(environ.get("HOME") or Path.home())
    return {**dict(_found_in(theirs, environ)), **passed, "HOME": str(home or theirs), **_FIXED}


def _passes(name: str) -> bool:
    if name.startswith(_SECRET) or name in _WITHHELD or name.startswith("UV_PROJECT_"):
        return False
    # proxies are asked for in small letters by most, and in either by some
    return (
        name in _PASSED or (name.upper() in _PASSED and name.lower().endswith("_proxy")) or name.startswith(_PREFIXES)
    )


def _found_in(home: Path, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    cache, data = environ.get("XDG_CACHE_HOME"), environ.get("XDG_DATA_HOME")
    yield "UV_CACHE_DIR", str(Path(cache or home / ".cache", "uv"))
    yield "UV_PYTHON_INSTALL_DIR", str(Path(data or home / ".local/share", "uv/python"))
    yield "UV_CREDENTIALS_DIR", str(Path(data or home / ".local/share", "uv/credentials"))
    yield "XDG_CONFIG_HOME", str(home / ".config")
    for name, path in _IN_HOME.items():
        if (home / path).exists():
            yield name, str(home / path)
