import stat

import pytest

from bema.core.errors import Refused
from bema.deploy.launch.sandbox import Home, environment


def test_the_environment_is_clean_but_for_language_and_time_zone(tmp_path):
    home = Home(tmp_path)
    ours = {
        "SECRET": "x",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "TZ": "Europe/Berlin",
        "PATH": "/root/bin",
        "PYTHONPATH": "/x",
    }
    assert environment(home, {"MODE": "fast"}, ours) == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "TZ": "Europe/Berlin",
        "PYTHONUNBUFFERED": "1",
        "MODE": "fast",
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
    }


def test_what_was_given_wins_except_over_its_own_folders(tmp_path):
    found = environment(Home(tmp_path), {"PATH": "/opt/bin", "HOME": "/root"}, {})
    assert (found["PATH"], found["HOME"]) == ("/opt/bin", str(tmp_path / "home"))


def test_home_and_tmp_are_for_their_user_alone_and_stay(tmp_path):
    home = Home(tmp_path / "homes" / "one")
    home.prepare()
    (home.home / "kept").touch()
    home.prepare()
    assert (home.home / "kept").exists()
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (home.home, home.tmp)} == {0o700}


def test_a_home_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="cannot be made"):
        Home(tmp_path / "file" / "one").prepare()
