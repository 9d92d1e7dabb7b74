"""What an instance has written is counted as the disk has it, wherever it hides."""

import asyncio
import os

import pytest

from bema.deploy.launch.disk_quota import passed, used

BLOCK = 4096
PLENTY = 1 << 40


def test_what_is_in_all_folders_counts(tmp_path):
    for name in ("home", "tmp"):
        (tmp_path / name / "deep" / "deeper").mkdir(parents=True)
        (tmp_path / name / "deep" / "deeper" / "file").write_bytes(b"x" * 100_000)
    found = used([tmp_path / "home", tmp_path / "tmp"], PLENTY)
    assert 200_000 <= found <= 200_000 + 16 * BLOCK


def test_an_empty_file_counts_as_a_block_so_that_their_number_is_bounded(tmp_path):
    for number in range(100):
        (tmp_path / str(number)).touch()
    assert used([tmp_path], PLENTY) == 100 * BLOCK


def test_holes_take_no_disk_and_count_as_none(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    assert used([tmp_path], PLENTY) <= 2 * BLOCK


def test_a_file_with_several_names_is_there_once(tmp_path):
    (tmp_path / "one").write_bytes(b"x" * (1 << 20))
    for number in range(10):
        os.link(tmp_path / "one", tmp_path / f"again-{number}")
    assert used([tmp_path], PLENTY) <= (1 << 20) + 12 * BLOCK


def test_where_a_link_leads_is_not_looked_at(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_bytes(b"x" * (1 << 20))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "link").symlink_to(tmp_path / "other")
    assert used([tmp_path / "home"], PLENTY) <= 2 * BLOCK


def test_what_is_not_there_takes_nothing(tmp_path):
    assert used([tmp_path / "gone"], PLENTY) == 0


def test_a_folder_that_cannot_be_looked_into_is_no_place_to_hide(tmp_path):
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        # deeper than the longest path that the kernel takes
        for _ in range(25):
            os.mkdir("d" * 200, dir_fd=here)
            deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
    finally:
        os.close(here)
    assert used([tmp_path], PLENTY) > PLENTY


def test_it_is_told_when_there_is_more_than_there_may_be(tmp_path):
    async def story():
        telling = asyncio.ensure_future(passed([tmp_path], 10 * BLOCK, every=0.01))
        (tmp_path / "some").write_bytes(b"x" * BLOCK)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(telling), 0.2)
        (tmp_path / "more").write_bytes(b"x" * 20 * BLOCK)
        await asyncio.wait_for(telling, 60)

    asyncio.run(story())
