"""What a type checker sees: the base type, by name. mypy reads this file with the rest; pyright is asked below."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Protocol, assert_type

import pytest

from bema.parts import Change, DiscoveryReport, Factory
from tests.parts.conftest import ROOT


class Endpoint:
    def __init__(self, url: str = "") -> None:
        self.url = url


class Codec(Protocol):
    def encode(self, value: object) -> bytes: ...


class EndpointFactory(Factory[Endpoint], group="typed.endpoints"):
    pass


class CodecFactory(Factory[Codec], group="typed.codecs"):
    pass


@EndpointFactory.register("chat")
class Chat(Endpoint):
    pass


@CodecFactory.register("text")
class Text:
    def encode(self, value: object) -> bytes:
        return str(value).encode()


def test_create_instance_and_lookup_have_the_base_type() -> None:
    assert_type(EndpointFactory.create_instance("chat", url="x"), Endpoint)
    assert_type(EndpointFactory.lookup("chat"), type[Endpoint])
    assert_type(EndpointFactory.shared_instance("chat"), Endpoint)
    assert_type(CodecFactory.create_instance("text"), Codec)
    assert_type(EndpointFactory.discover_plugins(), DiscoveryReport)
    assert_type(EndpointFactory.use_implementation("chat", Chat), Change)
    assert_type(Chat(), Chat)
    assert CodecFactory.create_instance("text").encode(1) == b"1"


def pyright() -> str | None:
    beside = Path(sys.executable).with_name("pyright")
    return str(beside) if beside.exists() else shutil.which("pyright")


@pytest.mark.skipif(pyright() is None, reason="pyright is not installed")
def test_pyright_sees_the_same(tmp_path: Path) -> None:
    shutil.copy(__file__, tmp_path / "typed.py")
    settings = {
        "include": ["typed.py"],
        "extraPaths": [str(ROOT)],
        "pythonVersion": "3.11",
        "typeCheckingMode": "strict",
    }
    project = tmp_path / "pyrightconfig.json"
    project.write_text(json.dumps({**settings, "reportMissingTypeStubs": False}))
    done = subprocess.run(
        [str(pyright()), "--outputjson", "--pythonpath", sys.executable, "-p", str(project)],
        capture_output=True,
        text=True,
        check=False,
    )
    said = json.loads(done.stdout)
    assert said["summary"]["filesAnalyzed"] == 1
    assert [d["message"] for d in said["generalDiagnostics"] if d["severity"] == "error"] == []
