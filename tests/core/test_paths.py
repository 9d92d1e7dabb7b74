"""Where things lie, for every kind of environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core import paths

folders = st.lists(st.text("abcdefgh-_", min_size=1, max_size=40), min_size=1, max_size=6).map(
    lambda p: "/" + "/".join(p)
)


def test_state_lies_where_it_was_told_to():
    env = {"BEMA_STATE_DIR": "/srv/bema", "XDG_STATE_HOME": "/x", "XDG_RUNTIME_DIR": "/r", "HOME": "/home/ada"}
    assert paths.state_dir(env) == Path("/srv/bema")
    assert paths.run_dir(env) == Path("/srv/bema/run")
    assert paths.discovery_dir(env) == Path("/srv/bema/run/d")


def test_else_where_the_desktop_keeps_such_things():
    env = {"XDG_STATE_HOME": "/x/state", "XDG_RUNTIME_DIR": "/run/user/7", "HOME": "/home/ada"}
    assert paths.state_dir(env) == Path("/x/state/bema")
    assert paths.run_dir(env) == Path("/run/user/7/bema")


def test_else_at_home_and_in_the_temporary_folder():
    env = {"HOME": "/home/ada", "TMPDIR": "/var/tmp"}
    assert paths.state_dir(env) == Path("/home/ada/.local/state/bema")
    assert paths.run_dir(env) == Path(f"/var/tmp/bema-{os.getuid()}")


def test_a_relative_state_folder_is_of_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert paths.state_dir({"BEMA_STATE_DIR": ".bema"}) == tmp_path / ".bema"


@given(folders, folders)
def test_a_socket_path_always_fits_into_an_address(state, runtime):
    for env in ({"BEMA_STATE_DIR": state}, {"XDG_RUNTIME_DIR": runtime}, {}):
        longest = paths.socket_dir({**env, "TMPDIR": "/tmp"}) / ("0" * 13 + ".sock")
        assert len(os.fsencode(longest)) <= paths.SOCKET_PATH_MAX + 4


@given(folders, folders)
def test_two_state_folders_never_share_sockets(one, other):
    found = [paths.socket_dir({"BEMA_STATE_DIR": state, "TMPDIR": "/tmp"}) for state in (one, other)]
    assert (found[0] == found[1]) == (one == other)


@pytest.mark.parametrize("function", [paths.state_dir, paths.run_dir, paths.socket_dir])
def test_looking_makes_nothing(function, tmp_path):
    function({"BEMA_STATE_DIR": str(tmp_path / "state")})
    assert list(tmp_path.iterdir()) == []
