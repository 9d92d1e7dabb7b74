import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from bema.deploy.keeper.lines import Cut
from bema.deploy.keeper.logs import Bounds, Log, prune


@pytest.fixture
def path(tmp_path):
    return tmp_path / "logs" / "one.ndjson"


def a_log(path: Path, file: int = 10_000, files: int = 2) -> Log:
    return Log(path, Bounds(line=100, file=file, files=files), service="api", instance="one", version="v1")


def records(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_becomes_a_record(path):
    log = a_log(path)
    log.write("stdout", [Cut(b"hello \xff\r", 0)])
    [record] = records(path)
    assert record.pop("ts") > 1_600_000_000_000_000
    assert record == {
        "level": "info",
        "service": "api",
        "instance": "one",
        "version": "v1",
        "stream": "stdout",
        "event": "hello \ufffd",
    }
    log.close()


def test_a_record_of_ours_keeps_its_level_and_trace_and_nothing_else(path):
    log = a_log(path)
    log.write("stderr", [Cut(b'{"event":"slow","level":"warning","trace_id":"7","instance":"forged"}', 0)])
    [record] = records(path)
    assert (record["event"], record["level"], record["trace_id"], record["instance"]) == ("slow", "warning", "7", "one")
    log.close()


def test_a_cut_line_says_so(path):
    log = a_log(path)
    log.write("stdout", [Cut(b"x" * 100, 42)])
    assert records(path)[0]["cut"] == 42
    log.close()


def test_full_files_are_rotated_and_the_oldest_goes(path):
    log = a_log(path, file=400, files=2)
    for number in range(12):
        log.write("stdout", [Cut(b"%d" % number, 0)])
    assert sorted(file.name for file in path.parent.iterdir()) == ["one.ndjson", "one.ndjson.1", "one.ndjson.2"]
    kept = [
        int(r["event"])
        for name in ("one.ndjson.2", "one.ndjson.1", "one.ndjson")
        for r in records(path.with_name(name))
    ]
    assert kept == list(range(kept[0], 12))
    assert all(file.stat().st_size <= 400 for file in path.parent.iterdir())
    log.close()


def test_what_the_disk_refuses_is_counted_and_told(path, monkeypatch):
    log = a_log(path)
    log.write("stdout", [Cut(b"before", 0)])
    room = [20, 0]  # a part still fits

    def full(descriptor, data, write=os.write):
        if size := room.pop(0):
            return write(descriptor, data[:size])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        log.write("stdout", [Cut(b"lost", 0), Cut(b"lost too", 0)])
    log.write("stdout", [Cut(b"after", 0)])
    log.write("stdout", [Cut(b"well", 0)])
    assert [(r["event"], r.get("dropped")) for r in records(path)] == [("before", None), ("after", 2), ("well", None)]
    log.close()


def test_the_tail_holds_the_last_fifty_in_memory(path):
    log = a_log(path)
    for number in range(60):
        log.note(str(number))
    assert [record["event"] for record in log.tail] == [str(n) for n in range(10, 60)]
    log.close()


def test_a_crash_loop_leaves_a_bounded_number_of_logs(tmp_path):
    for number in range(6):
        (tmp_path / f"i{number}.ndjson").write_text("")
        (tmp_path / f"i{number}.ndjson.1").write_text("")
        os.utime(tmp_path / f"i{number}.ndjson", (number, number))
    prune(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["i4.ndjson", "i4.ndjson.1", "i5.ndjson", "i5.ndjson.1"]
