"""Clients that were made of /openapi.json drive the API: our own, and that of a stock generator."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bema import cli
from tests.cli.served import Served, served

CODE = "app = 1\n"


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("BEMA_STATE_DIR", str(tmp_path))
    with served(tmp_path) as made:
        yield made


@pytest.fixture
def ours(up: Served, tmp_path: Path) -> ModuleType:
    """The module that `bema client gen --api` writes."""
    file = tmp_path / "bema_client.py"
    assert cli.main(["client", "gen", "--api", "--out", str(file)]) == 0
    spec = importlib.util.spec_from_file_location("bema_client", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bema_client"] = module  # structs look their annotations up there
    spec.loader.exec_module(module)
    return module


def test_our_client_deploys_reads_follows_and_removes(up: Served, ours: ModuleType):
    api = ours.Api(up.url, "the-token")
    made = api.create(ours.CreateBody(name="x", code=CODE, user="ada"), idempotency_key="k")
    assert (made.owner, made.name) == ("ada", "x")
    assert api.create(ours.CreateBody(name="x", code=CODE, user="ada"), idempotency_key="k").id == made.id
    source = ours.CreateBody(name="y", source=ours.Inline(code=CODE), env={"MODE": "test"})
    assert api.create_mcp(source).owner == "local"
    assert [each.name for each in api.list().items] == ["x", "y"]
    assert [each.name for each in api.list_mcp(user="ada", count=1).items] == ["x"]
    assert isinstance(api.read(made.id), ours.Function)
    assert list(api.logs(made.id, tail=5)) == []
    assert "bema_gateway_connections" in api.metrics()
    assert api.health() == {"status": "ok"}
    api.delete(made.id, purge=True)
    with pytest.raises(ours.ApiError) as caught:
        api.read(made.id)
    assert (caught.value.status, caught.value.code) == (404, "not_found")


def test_our_client_makes_keys_and_secrets(up: Served, ours: ModuleType):
    admin = ours.Api(up.url, "the-token")
    made = admin.add_key(ours.KeyBody(name="laptop", user="ada"))
    api = ours.Api(up.url, made.key)
    api.set_secret("TOKEN", ours.SecretBody(value="s3cr3t"))
    assert [each.name for each in api.secrets().items] == ["TOKEN"]
    api.remove_secret("TOKEN")
    with pytest.raises(ours.ApiError) as caught:
        api.keys()
    assert (caught.value.status, caught.value.code) == (403, "forbidden")
    admin.revoke_key("laptop")
    with pytest.raises(ours.ApiError) as caught:
        api.list()
    assert caught.value.status == 401


def test_the_client_of_a_file_is_that_of_the_platform(up: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "openapi.json"
    with urllib.request.urlopen(f"{up.url}/openapi.json", timeout=30) as answer:
        file.write_bytes(answer.read())
    assert cli.main(["client", "gen", "--api", str(file)]) == 0
    of_file = capsys.readouterr().out
    assert cli.main(["client", "gen", "--api"]) == 0
    assert capsys.readouterr().out == of_file


def test_our_client_is_strictly_typed(up: Served, ours: ModuleType, tmp_path: Path):
    (tmp_path / "caller.py").write_text(
        "from bema_client import Api, CreateBody\n\n"
        'api = Api("http://x")\n'
        'ids: list[str] = [each.id for each in api.list(user="ada").items]\n'
        'api.create(CreateBody(name="x", code="y"))\n'
    )
    strict = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", str(tmp_path / ".cache")]
    done = subprocess.run([*strict, "caller.py"], cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("arguments", [["missing.json"], ["not.json"], ["empty.json"], ["not.json", "--stubs"]])
def test_what_is_no_document_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "not.json").write_text("[]")
    (tmp_path / "empty.json").write_text("{}")
    assert cli.main(["client", "gen", "--api", *arguments]) == 1
    assert capsys.readouterr().out == ""


@pytest.fixture
def stock(up: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package that openapi-python-client writes."""
    (tmp_path / "config.yaml").write_text("post_hooks: []\n")
    generate = [sys.executable, "-m", "openapi_python_client", "generate", "--url", f"{up.url}/openapi.json"]
    how = ["--meta", "none", "--config", "config.yaml", "--output-path", str(tmp_path / "stock_client")]
    done = subprocess.run([*generate, *how], cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # lines of JSON have no place in its clients; everything else does
    assert done.stdout.count("WARNING") == done.stdout.count("application/x-ndjson)")
    monkeypatch.syspath_prepend(str(tmp_path))

    def named(name: str) -> Any:
        return importlib.import_module(f"stock_client.{name}")

    yield named
    for name in [name for name in sys.modules if name.partition(".")[0] == "stock_client"]:
        del sys.modules[name]


def test_a_stock_client_deploys_by_each_body_lists_and_removes(up: Served, stock: Any):
    models, types = stock("models"), stock("types")
    operations = {name: stock(f"api.default.{name}") for name in ("create", "create_mcp", "list_", "read", "delete")}
    with stock("client").AuthenticatedClient(base_url=up.url, token="the-token", verify_ssl=False) as client:
        file = types.File(io.BytesIO(CODE.encode()), "main.py", "text/x-python")
        bodies = [
            models.CreateBody(name="json", code=CODE),
            models.CreateForm(data=file, user="foo"),
            models.CreateFields(data=CODE, name="fields"),
        ]
        made = [operations["create"].sync(client=client, body=body) for body in bodies]
        assert [(each.name, each.owner) for each in made] == [("json", "local"), ("main", "foo"), ("fields", "local")]
        assert operations["create_mcp"].sync(client=client, body=models.CreateBody(name="mcp", code=CODE)).name == "mcp"
        listed = operations["list_"].sync(client=client, user="foo")
        assert [each.id for each in listed.items] == [made[1].id]
        assert operations["delete"].sync_detailed(client=client, id=made[0].id).status_code == 204
        refused = operations["read"].sync(client=client, id=made[0].id)
        assert isinstance(refused, models.ErrorBody)
        assert refused.error.code == "not_found"
