"""The policy is read from a mapping and an environment, and a mistyped key never loosens it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bema.core.errors import Invalid, Refused
from bema.parts import configured
from bema.parts.policy import Locked, Permit, PluginPolicy, read_policy
from bema.parts.provenance import LockFile, differences, encode, read_lock


def test_nothing_said_is_the_open_mode() -> None:
    assert read_policy({}) == PluginPolicy(mode="all")


def test_every_key_of_the_table() -> None:
    policy = read_policy(
        {
            "mode": "allow",
            "allow": ["Acme_Codecs==1.2", f"x@sha256:{'0' * 64}"],
            "deny": ["Evil.One"],
            "priority": {"acme_codecs": 3},
            "select": {"app.codecs": {"My-Json": "acme-codecs:json"}},
            "disable": ["slow", "acme:My-Json"],
            "on_conflict": "error",
        }
    )
    assert policy.allow == (Permit("acme-codecs", "1.2"), Permit("x", "", "0" * 64))
    assert policy.deny == {"evil-one"}
    assert policy.priority == {"acme-codecs": 3}
    assert policy.select == {"app.codecs": {"my_json": "acme-codecs:json"}}
    assert policy.disable == {"slow", "acme:my_json"}


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"alow": ["x"]}, "plugins.alow is not a setting; did you mean 'allow'?"),
        ({"mode": "open"}, "none of all, allow, locked"),
        ({"allow": "x"}, "not a list of strings"),
        ({"allow": ["x >= 1"]}, "is not distribution"),
        ({"priority": {"x": "high"}}, "whole numbers"),
        ({"select": {"app.codecs": "x"}}, "plugins.select"),
        ({"use": {"app.codecs": {"x": "y"}}}, "plugins.use"),
    ],
)
def test_what_cannot_be_meant_is_refused(table: dict[str, object], says: str) -> None:
    with pytest.raises(Invalid, match=says) as caught:
        read_policy(table)
    assert caught.value.code == "bad_setting"


def test_the_environment_replaces_and_adds_only_to_what_forbids() -> None:
    table = {"mode": "all", "allow": ["a"], "deny": ["b"]}
    env = {"BEMA_PLUGINS_MODE": "allow", "BEMA_PLUGINS_ALLOW": "c, d", "BEMA_PLUGINS_DENY": "e"}
    policy = read_policy(table, env)
    assert policy.mode == "allow"
    assert [permit.dist for permit in policy.allow] == ["c", "d"]
    assert policy.deny == {"b", "e"}


def test_a_mistyped_variable_is_refused_too() -> None:
    with pytest.raises(Invalid, match="did you mean 'BEMA_PLUGINS_DENY'"):
        read_policy({}, {"BEMA_PLUGINS_DENNY": "evil"})


def test_the_files_are_those_of_every_setting_and_the_nearest_wins_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.bema.plugins]\ndeny = ["a"]\n[tool.bema.plugins.priority]\nx = 1\ny = 1\n'
    )
    assert configured.load_policy(tmp_path, {}).deny == {"a"}
    (tmp_path / "bema.toml").write_text('[plugins]\nmode = "allow"\npriority = {x = 2}\n')
    policy = configured.load_policy(tmp_path, {})
    assert policy.mode == "allow"
    assert policy.deny == {"a"}
    assert policy.priority == {"x": 2, "y": 1}
    (tmp_path / ".env").write_text("BEMA_PLUGINS_MODE=all\nBEMA_PLUGINS_DENY=b\nAPP_CODECS_JSON=fast\n")
    policy = configured.load_policy(tmp_path, {"BEMA_PLUGINS_MODE": ""})
    assert policy.mode == "all"
    assert policy.deny == {"a", "b"}
    assert policy.variables["APP_CODECS_JSON"] == "fast"
    assert configured.load_policy(tmp_path, {"BEMA_PLUGINS_MODE": "allow"}).mode == "allow"


@pytest.mark.parametrize(("file", "table"), [("bema.toml", "plugins"), ("pyproject.toml", "tool.bema.plugins")])
def test_a_file_that_cannot_be_meant_is_named(tmp_path: Path, file: str, table: str) -> None:
    above, _, last = table.rpartition(".")
    (tmp_path / file).write_text(f"{f'[{above}]' if above else ''}\n{last} = 1\n")
    with pytest.raises(Invalid, match=f"{file}: {table} is not a table"):
        configured.load_policy(tmp_path, {})
    (tmp_path / file).write_text(f"[{table}")
    with pytest.raises(Refused, match=f"{file} is not valid TOML"):
        configured.load_policy(tmp_path, {})


def test_the_locked_mode_needs_a_readable_lock_file(tmp_path: Path) -> None:
    (tmp_path / "bema.toml").write_text('[plugins]\nmode = "locked"\nlock = "my.lock"\n')
    with pytest.raises(Refused, match="cannot be read") as caught:
        configured.load_policy(tmp_path, {})
    assert "bema plugins lock" in caught.value.fix
    row = Locked("g", "chat", "a:B", "a", "1", "0" * 64)
    (tmp_path / "my.lock").write_bytes(encode(LockFile(plugins=(row,))))
    assert configured.load_policy(tmp_path, {}).locked == {row}
    for content in (b"{}!", b'{"version": 9}'):
        (tmp_path / "my.lock").write_bytes(content)
        with pytest.raises(Refused):
            read_lock(tmp_path / "my.lock")


def test_what_changed_since_the_lock_is_said_entry_by_entry() -> None:
    old = [Locked("g", "chat", "a:B", "a", "1", "x"), Locked("g", "gone", "a:C", "a", "1", "x")]
    new = [Locked("g", "chat", "a:B", "a", "2", "y"), Locked("g", "new", "a:D", "a", "2", "y")]
    assert differences(old, new) == [
        "a:new (g) is not in the lock file",
        "a:gone (g) is locked and not installed",
        "a:chat (g) changed its version, record since the lock was written",
    ]
