"""How this host reaches its package registries: what a machine, or a run, that begins with nothing has to be told.

Law: pip's and uv's configuration, certificates, proxies, and the local folders and files that these name. Nothing else of
the caller's environment is told.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

VARIABLES = re.compile(
    r"PIP_(INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|TRUSTED_HOST|CERT|CLIENT_CERT|PROXY|TIMEOUT|DEFAULT_TIMEOUT|RETRIES"
    r"|CONFIG_FILE|KEYRING_PROVIDER|DISABLE_PIP_VERSION_CHECK)"
    r"|UV_(DEFAULT_INDEX|INDEX\w*|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|INSECURE_HOST|SYSTEM_CERTS|NATIVE_TLS|CONFIG_FILE"
    r"|KEYRING_PROVIDER|HTTP_\w+|OFFLINE)"
    r"|SSL_CERT_(FILE|DIR)|SSL_CLIENT_CERT|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    r"|(HTTPS?|ALL|NO)_PROXY|(https?|all|no)_proxy"
)
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
OF_THE_HOST = (
    Path("/etc/pip.conf"),
    Path("/etc/xdg/pip/pip.conf"),
    Path("/etc/uv/uv.toml"),
    Path("/etc/xdg/uv/uv.toml"),
)
OF_THE_USER = (".config/pip/pip.conf", ".config/uv/uv.toml", ".pip/pip.conf")

_PATH = re.compile(r"(?:file://)?(/[^\s\"',;=\]]+)")
_OURS = frozenset(
    map(Path, ("/", "/bin", "/dev", "/etc", "/home", "/lib", "/proc", "/root", "/sys", "/tmp", "/usr", "/var"))
)


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if VARIABLES.fullmatch(name)}


def files_of_the_user(environment: Mapping[str, str]) -> dict[str, Path]:
    """The user's own configuration files that are there, by where they belong in a home."""
    home = Path(environment.get("HOME") or "/nonexistent")
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    found = {name: config / name.removeprefix(".config/") for name in OF_THE_USER if name.startswith(".config/")}
    found |= {name: home / name for name in OF_THE_USER if name not in found}
    return {name: path for name, path in found.items() if path.is_file()}


def give_to(home: Path, environment: Mapping[str, str]) -> None:
    """Copy the user's files into another home."""
    for name, path in files_of_the_user(environment).items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, home / name)


def places(environment: Mapping[str, str]) -> list[Path]:
    """Every file and folder of this host that has to be there too, outer ones first: configuration and what it names."""
    configuration = [path for path in OF_THE_HOST if path.is_file()]
    texts = [*variables(environment).values()]
    texts += [path.read_text(errors="replace") for path in (*configuration, *files_of_the_user(environment).values())]
    found = {*configuration, *named(texts)}
    if CERTIFICATES.is_file():  # it may know a company's proxy
        found.add(CERTIFICATES)
    return sorted(found, key=lambda path: len(path.parts))


def named(texts: Iterable[str]) -> set[Path]:
    """The files and folders that settings name by absolute paths or file: URLs, as far as they are there."""
    found = {Path(os.path.normpath(match[1])) for text in texts for match in _PATH.finditer(text)}
    # the rest of an address is no path of ours, and the root of a system is no folder of packages
    return {path for path in found - _OURS if path.exists()}
