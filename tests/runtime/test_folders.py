"""Private folders: made, taken over from ourselves alone, and told truly where they cannot be."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bema.core.errors import Refused
from bema.runtime.folders import look, prepare

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to others")


def test_a_folder_is_made_for_its_user_alone(tmp_path: Path):
    prepare(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    (tmp_path / "a" / "b").chmod(0o755)
    prepare(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_a_link_of_ours_to_a_folder_of_ours_is_as_good_as_the_folder(tmp_path: Path):
    (tmp_path / "big" / "disk").mkdir(parents=True)
    (tmp_path / "state").symlink_to(tmp_path / "big" / "disk")
    prepare(tmp_path / "state")
    assert (tmp_path / "big" / "disk").stat().st_mode & 0o777 == 0o700
    prepare(tmp_path / "state" / "run")
    assert (tmp_path / "big" / "disk" / "run").is_dir()


def a_file(at: Path) -> None:
    at.write_text("x")


def a_link_to_a_file(at: Path) -> None:
    a_file(at.with_name("file"))
    at.symlink_to("file")


def a_link_to_nothing(at: Path) -> None:
    at.symlink_to(at.with_name("nowhere"))


@pytest.mark.parametrize(
    ("what", "said"),
    [(a_file, "is a file"), (a_link_to_a_file, "is a file"), (a_link_to_nothing, "which is not there")],
)
def test_what_is_no_folder_is_told_as_what_it_is(tmp_path: Path, what: Callable[[Path], None], said: str):
    what(tmp_path / "state")
    for asked in (look, prepare):
        with pytest.raises(Refused, match=said) as caught:
            asked(tmp_path / "state")
        assert caught.value.code == "state_unwritable"
        with pytest.raises(Refused, match=r"is no folder|not there"):
            asked(tmp_path / "state" / "run")


def test_a_file_further_up_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match=f"{tmp_path / 'file'} is no folder"):
        prepare(tmp_path / "file" / "deep" / "state")


def test_looking_makes_nothing(tmp_path: Path):
    look(tmp_path / "state")
    assert list(tmp_path.iterdir()) == []


@needs_root
def test_what_is_another_users_is_refused_whoever_made_the_link(tmp_path: Path):
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    for folder in (theirs, mine):
        folder.mkdir()
    os.chown(theirs, 12345, -1)
    (tmp_path / "to-theirs").symlink_to(theirs)
    (tmp_path / "by-them").symlink_to(mine)
    os.chown(tmp_path / "by-them", 12345, -1, follow_symlinks=False)
    (theirs / "inside").mkdir()
    (tmp_path / "inside-theirs").symlink_to(theirs / "inside")
    for name in ("theirs", "to-theirs", "by-them", "inside-theirs"):
        with pytest.raises(Refused, match="yours"):
            prepare(tmp_path / name)
