"""What `bema deploy` is given becomes a source: what is here is sent, what is elsewhere is named."""

import asyncio
import io
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bema import cli
from bema.cli.sources import source_name, source_of
from bema.core.errors import BemaError, TooLarge
from bema.core.limits import DEFAULTS
from bema.deploy.model.bundle import Bundle
from bema.deploy.sources.source import SourceFactory
from tests.cli.served import served

SHA, REVISION = "0123456789abcdef" * 4, "0123456789" * 4


@pytest.mark.parametrize(
    ("argument", "said", "name"),
    [
        ("gist:a1b2c3", {"type": "gist", "id": "a1b2c3"}, "gist-a1b2c3"),
        (
            f"gist:a1b2c3@{REVISION}#shop.py",
            {"type": "gist", "id": "a1b2c3", "revision": REVISION, "file": "shop.py"},
            "gist-a1b2c3",
        ),
        (
            f"https://gist.github.com/me/a1b2c3d4/{REVISION}",
            {"type": "gist", "id": "a1b2c3d4", "revision": REVISION},
            "gist-a1b2c3d4",
        ),
        ("s3://code/apps/shop.py", {"type": "s3", "url": "s3://code/apps/shop.py"}, "shop"),
        ("s3://code/apps/shop/", {"type": "s3", "url": "s3://code/apps/shop/"}, "shop"),
        ("https://a.test/My_Shop.py?x=1", {"type": "url", "url": "https://a.test/My_Shop.py?x=1"}, "my-shop"),
        (
            f"https://a.test/shop.tar.gz#sha256={SHA}",
            {"type": "url", "url": "https://a.test/shop.tar.gz", "sha256": SHA},
            "shop",
        ),
        ("git+https://a.test/me/shop.git", {"type": "git", "url": "https://a.test/me/shop.git"}, "shop"),
        (
            "git+https://me:a%40b@a.test/me/shop@side/way#apps/till/",
            {"type": "git", "url": "https://me:a%40b@a.test/me/shop", "ref": "side/way", "path": "apps/till"},
            "till",
        ),
        ("git+http://a.test/shop.git#", {"type": "git", "url": "http://a.test/shop.git"}, "shop"),
    ],
)
def test_what_is_elsewhere_is_named(argument: str, said: dict[str, str], name: str):
    assert source_of(argument) == said
    assert source_name(argument) == name
    # the platform takes it as it is said
    SourceFactory.choose(said["type"]).of(said, DEFAULTS)


@pytest.mark.parametrize(
    "argument",
    [
        *("gist:", "gist:a/b", "gist:a@main", "git+ssh://git@a.test/x", "git+https://a.test", "ftp://a.test/x.py"),
        *("file:///etc/passwd", "https://a.test/x.py#main", "https://a.test/x.py#sha256=1"),
    ],
)
def test_what_names_no_place_is_refused_with_those_that_are(argument: str):
    with pytest.raises(BemaError) as caught:
        source_of(argument)
    assert caught.value.code == "usage"
    assert "gist:ID" in caught.value.fix


def test_a_file_is_sent_as_a_text(tmp_path: Path):
    file = tmp_path / "My Shop.py"
    file.write_bytes("x = 'é'\r\n".encode())
    assert source_of(str(file)) == {"type": "inline", "code": "x = 'é'\n"}
    assert source_name(str(file)) == "my-shop"


def test_the_code_may_come_on_stdin(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x = 1\n"), "utf-8"))
    assert source_of("-") == {"type": "inline", "code": "x = 1\n"}
    assert source_name("-") == ""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff"), "utf-8"))
    with pytest.raises(BemaError, match="stdin is not UTF-8"):
        source_of("-")


@pytest.mark.parametrize(
    ("name", "content", "code"), [("nope.py", None, "not_found"), ("a.py", b"\xff", "syntax_error")]
)
def test_a_file_that_cannot_be_sent_says_why(tmp_path: Path, name: str, content: bytes | None, code: str):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BemaError, match=name) as caught:
        source_of(str(tmp_path / name))
    assert caught.value.code == code


def bundle(said: dict[str, Any]) -> Bundle:
    return asyncio.run(SourceFactory.choose(said["type"]).of(said, DEFAULTS).fetch()).bundle


def test_an_archive_is_sent_as_one(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "shop.zip", "w") as archive:
        archive.writestr("main.py", "1")
    assert bundle(source_of(str(tmp_path / "shop.zip"))) == Bundle({"main.py": b"1"})
    assert source_name(str(tmp_path / "shop.zip")) == "shop"


def write(folder: Path, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def test_of_a_folder_goes_what_a_repository_would_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "shop-1.0"
    files = {"main.py": b"import lib\r\n", "lib/__init__.py": b"", "logo.png": b"\x89PNG\xff", ".streamlit/a.toml": b""}
    rest = [".git/config", ".env", "lib/__pycache__/a.pyc", "old.pyc", ".venv/x.py", "env/pyvenv.cfg", "env/y.py"]
    write(folder, {**files, **dict.fromkeys(rest, b"secret")})
    (folder / "again.py").symlink_to("main.py")
    assert bundle(source_of(str(folder))) == Bundle({**files, "again.py": files["main.py"]})
    assert source_name(str(folder)) == "shop-1-0"
    monkeypatch.chdir(folder)
    assert source_name(".") == "shop-1-0"
    assert bundle(source_of(".")) == bundle(source_of(str(folder)))


def test_a_folder_is_deployed_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    write(tmp_path / "My Shop", {"main.py": b"import lib\napp = lib.app\n", "lib.py": b"app = 1\n"})
    with served(tmp_path / "state") as up:
        assert cli.main(["deploy", str(tmp_path / "My Shop")]) == 0
        (workload,) = up.platform.launcher.started
    assert workload.name == "my-shop"
    assert Path(workload.script).with_name("lib.py").read_text() == "app = 1\n"


@pytest.mark.parametrize("target", ["/etc/hostname", "../other.py", "/etc", "nowhere", "lib"])
def test_a_link_that_leads_elsewhere_is_refused_by_name(tmp_path: Path, target: str):
    folder = tmp_path / "shop"
    write(folder, {"main.py": b"", "lib/a.py": b""})
    write(tmp_path, {"other.py": b""})
    (folder / "link").symlink_to(target)
    with pytest.raises(BemaError, match="link"):
        source_of(str(folder))


def test_what_is_no_file_is_refused_and_not_read(tmp_path: Path):
    write(tmp_path, {"main.py": b""})
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BemaError, match="pipe"):
        source_of(str(tmp_path))


@pytest.mark.parametrize(
    ("variable", "value", "word"),
    [
        ("SOURCE_BYTES", "1024", r"data\.bin has 2000"),
        ("HTTP_BODY", "2500", r"data\.bin has 2668"),
        ("SOURCE_FILES", "1", "more than 1 files"),
    ],
)
def test_a_folder_over_the_limit_names_its_largest_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, word: str
):
    monkeypatch.setenv(f"BEMA_LIMITS__{variable}", value)
    write(tmp_path, {"main.py": b"1", "data.bin": b"\xff" * 2000})
    with pytest.raises(TooLarge, match=word) as caught:
        source_of(str(tmp_path))
    assert caught.value.code == "source_too_large"
