"""Which files a program is made of, and when they have changed."""

import asyncio
import importlib.util
import os
import time
from pathlib import Path

import pytest

from bema.cli.file_watcher import Watch, imported
from bema.runtime.discovery import inotify


@pytest.fixture
def files(tmp_path):
    def write(**texts):
        for name, text in texts.items():
            path = tmp_path / (name.replace("__", "/") + ".py")
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(text)
        return tmp_path / "main.py"

    return write


def names(main, found):
    return sorted(str(path.relative_to(main.parent)) for path in found)


def test_the_modules_of_its_folder_are_followed_and_no_others(files):
    main = files(
        main="import os, json, one\nfrom pack.inner import thing\nfrom pack import two\ndef f():\n    import late\n",
        one="import one, main",
        two="",
        late="",
        unused="",
        pack__two="from . import three\nfrom .. import one",
        pack__three="",
        pack__inner__thing="",
        json__x="",
    )
    (main.parent / "pack" / "__init__.py").write_text("")
    assert names(main, imported(main)) == [
        "late.py",
        "main.py",
        "one.py",
        "pack/__init__.py",
        "pack/inner/thing.py",
        "pack/three.py",
        "pack/two.py",
    ]


@pytest.mark.parametrize(
    "code", ["def f(:", "x = \0", "(" * 5000, "x = " + "-" * 100_000 + "1", "x = " + "+".join("1" * 9999)]
)
def test_what_cannot_be_read_is_watched_all_the_same(files, code):
    main = files(main="import broken", broken=code)
    assert names(main, imported(main)) == ["broken.py", "main.py"]


@pytest.mark.alone
@pytest.mark.parametrize("told", [True, False], ids=["told", "looking"])
def test_a_change_is_one_of_content_however_it_is_saved(files, monkeypatch, told):
    async def story():
        watch = Watch(main)
        assert watch.look()
        changed = asyncio.ensure_future(watch.changed())
        await asyncio.sleep(0)
        helper.write_text(helper.read_text())  # saved, and the same
        draft = helper.with_suffix(".tmp")
        draft.write_text("x = 2")
        assert not watch.look()
        began = time.monotonic()
        os.replace(draft, helper)
        await asyncio.wait_for(changed, 5)
        assert time.monotonic() - began < 1
        assert not watch.look()
        files(main="import other", other="")
        assert watch.look()
        changed = asyncio.ensure_future(watch.changed())
        await asyncio.sleep(0)
        files(other="y = 1")  # it is watched since it is imported
        await asyncio.wait_for(changed, 5)
        watch.close()

    if not told:
        monkeypatch.setattr(inotify.Inotify, "shared", lambda: None)
    main, helper = files(main="import helper", helper="x = 1"), files().with_name("helper.py")
    asyncio.run(story())


def test_what_was_compiled_of_a_changed_file_is_forgotten(files):
    async def story():
        watch = Watch(main)
        watch.look()
        compiled.parent.mkdir()
        compiled.write_bytes(b"compiled of what it was")
        files(helper="x = 2")
        assert watch.look()
        assert not compiled.exists()
        watch.close()

    main = files(main="import helper", helper="x = 1")
    compiled = Path(importlib.util.cache_from_source(str(main.with_name("helper.py"))))
    asyncio.run(story())
