from __future__ import annotations

import pytest

from bema.core.errors import Refused
from bema.packages.writer import BOM, replace_text


def test_a_file_is_replaced_with_its_mode_and_mark(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_bytes(BOM + b"name: p\r\n")
    file.chmod(0o600)
    replace_text(file, "name: q\r\n")
    assert file.read_bytes() == BOM + b"name: q\r\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_stays_a_link(tmp_path):
    file, link = tmp_path / "p.yaml", tmp_path / "link.yaml"
    file.write_text("old")
    link.symlink_to(file)
    replace_text(link, "new")
    assert link.is_symlink()
    assert file.read_text() == "new"


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(Refused, match="No such file"):
        replace_text(tmp_path / "none" / "p.yaml", "x")
