"""Secrets in files: their owner's alone, read by this user alone, never shown."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bema.core.errors import BemaError, Invalid, NotFound, Refused, TooLarge
from bema.core.limits import DEFAULTS
from bema.deploy.secrets import SecretFiles, sealed
from tests.deploy.platform import workload

SECRET = "s3cr3t-\u00e4-value"


def test_a_secret_is_given_by_name_and_never_listed_with_its_value(tmp_path: Path):
    files = SecretFiles(tmp_path / "secrets")
    assert files.put("ada", "TOKEN", SECRET)
    assert not files.put("ada", "TOKEN", SECRET)
    assert files.put("ada", "TOKEN", "other")
    files.put("ada", "DB", "")
    assert [each.name for each in files.all("ada")] == ["DB", "TOKEN"]
    assert files.values("ada", ["TOKEN", "DB"]) == {"TOKEN": "other", "DB": ""}
    assert SECRET not in repr(files.all("ada"))


def test_a_secret_is_its_owners(tmp_path: Path):
    files = SecretFiles(tmp_path)
    files.put("ada", "TOKEN", SECRET)
    assert files.all("bob") == []
    with pytest.raises(Refused) as caught:
        files.values("bob", ["TOKEN"])
    assert caught.value.code == "secret_missing"
    assert "TOKEN of bob" in caught.value.message
    assert "bema secret set TOKEN" in caught.value.fix
    with pytest.raises(NotFound):
        files.remove("bob", "TOKEN")
    files.remove("ada", "TOKEN")
    assert files.all("ada") == []


def test_nobody_else_reads_the_files_and_no_draft_stays(tmp_path: Path):
    files = SecretFiles(tmp_path / "secrets")
    files.put("ada", "TOKEN", SECRET)
    files.put("ada", "TOKEN", "other")
    made = [path for path in (tmp_path / "secrets").rglob("*") if path.is_file()]
    assert [path.name for path in made] == ["TOKEN"]
    assert stat.S_IMODE(made[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(made[0].parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "name", ["", "a-b", "1A", "A/B", "..", "PATH", "HOME", "PORT", "BEMA_CHANNEL", "A" * 129, "A\n"]
)
def test_a_name_that_no_variable_has_is_refused(tmp_path: Path, name: str):
    files = SecretFiles(tmp_path)
    with pytest.raises(Invalid) as caught:
        files.put("ada", name, SECRET)
    assert caught.value.code == "bad_name"
    with pytest.raises(NotFound):
        files.remove("ada", name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["a\0b", "\ud800", "x" * DEFAULTS.env_variable])
def test_a_value_that_no_process_can_have_is_refused(tmp_path: Path, value: str):
    with pytest.raises((Invalid, TooLarge)) as caught:
        SecretFiles(tmp_path).put("ada", "TOKEN", value)
    assert value not in str(caught.value)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_nothing_that_is_asked_leaves_the_folder(
    tmp_path_factory: pytest.TempPathFactory, owner: str, name: str, value: str
):
    folder = tmp_path_factory.mktemp("s")
    files = SecretFiles(folder / "in" / "secrets")
    try:
        files.put(owner, name, value)
    except BemaError:
        pass
    else:
        assert files.values(owner, [name]) == {name: value}
    assert [path.name for path in folder.iterdir()] in ([], ["in"])


def test_a_disk_that_takes_nothing_is_said_without_the_value(tmp_path: Path):
    (tmp_path / "secrets").write_text("in the way")
    with pytest.raises(Refused) as caught:
        SecretFiles(tmp_path / "secrets").put("ada", "TOKEN", SECRET)
    assert caught.value.code == "state_unwritable"
    assert SECRET not in str(caught.value)


def test_sealed_memory_holds_the_values_and_cannot_be_changed():
    with sealed({"TOKEN": SECRET}) as descriptor:
        assert json.loads(os.pread(descriptor, 4096, 0)) == {"TOKEN": SECRET}
        assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
        assert not os.get_inheritable(descriptor)
        with pytest.raises(PermissionError):
            os.write(descriptor, b"x")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_workload_does_not_show_its_secrets():
    given = workload(secrets={"TOKEN": SECRET})
    assert SECRET not in repr(given)
    assert "TOKEN" in repr(given)
    assert msgspec.structs.asdict(given)["secrets"] == {"TOKEN": SECRET}
