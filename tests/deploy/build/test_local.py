"""What lies on this machine is part of an environment's name by its content: nothing old is served for it."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bema.core.errors import Failed
from bema.deploy.build import local
from bema.deploy.build.environments import Made, Wanted
from bema.deploy.build.local import LocalPackages, local_packages
from bema.deploy.build.pythons import own_python
from tests.deploy.build.projects import Project
from tests.deploy.build.test_environments import make, output


def wanted(dependency: str, *table: str) -> Wanted:
    block = [f"dependencies = ['{dependency}']", *table]
    code = "# /// script\n" + "".join(f"# {line}\n" for line in block) + "# ///\n"
    return Wanted(code.encode(), (dependency,), own_python())


def in_folder(project: Project, folder: Path) -> Wanted:
    return wanted(f"lib @ {project.folder.as_uri()}")


def by_its_source(project: Project, folder: Path) -> Wanted:
    return wanted("lib", f'tool.uv.sources.lib = {{ path = "{project.folder}" }}')


def editable(project: Project, folder: Path) -> Wanted:
    return wanted("lib", f'tool.uv.sources.lib = {{ path = "{project.folder}", editable = true }}')


def by_a_relative_path(project: Project, folder: Path) -> Wanted:
    path = os.path.relpath(project.folder, folder / "environments" / "build")
    return wanted("lib", f'tool.uv.sources.lib = {{ path = "{path}" }}')


def as_a_wheel(project: Project, folder: Path) -> Wanted:
    return wanted(f"lib @ {project.built('wheel', folder / 'built').as_uri()}")


def as_an_sdist(project: Project, folder: Path) -> Wanted:
    return wanted(f"lib @ {project.built('sdist', folder / 'built').as_uri()}")


def among_links(project: Project, folder: Path) -> Wanted:
    project.built("wheel", folder / "links")
    return wanted("lib", f'tool.uv.find-links = ["{folder / "links"}"]', "tool.uv.no-index = true")


def of_an_index(project: Project, folder: Path) -> Wanted:
    built = project.built("wheel", folder / "index" / "lib")
    (built.parent / "index.html").write_text(f"<a href='{built.name}'>{built.name}</a>")
    return wanted("lib", "[[tool.uv.index]]", f'url = "{(folder / "index").as_uri()}"', "default = true")


def of_a_branch(project: Project, folder: Path) -> Wanted:
    return wanted(f"lib @ {project.committed()}")


def of_a_branch_by_its_source(project: Project, folder: Path) -> Wanted:
    project.committed()
    return wanted("lib", f'tool.uv.sources.lib = {{ git = "{project.folder.as_uri()}", branch = "main" }}')


def below_another(project: Project, folder: Path) -> Wanted:
    if not (folder / "app").exists():
        Project(folder / "app", "app", f"lib @ {project.folder.as_uri()}")
    return wanted(f"app @ {(folder / 'app').as_uri()}")


KINDS = [
    *(in_folder, by_its_source, editable, by_a_relative_path, as_a_wheel, as_an_sdist, among_links, of_an_index),
    *(of_a_branch, of_a_branch_by_its_source, below_another),
]


def made(project: Project, folder: Path, kind: Callable[[Project, Path], Wanted]) -> Made:
    (one,) = make(folder / "environments", kind(project, folder))
    return one


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_changed_is_another_environment_with_what_it_is_now(
    kind: Callable[[Project, Path], Wanted], tmp_path: Path
):
    project = Project(tmp_path / "lib")
    first = made(project, tmp_path, kind)
    assert output(first, "import lib; print(lib.says)") == "old"
    assert made(project, tmp_path, kind).key == first.key
    project.says("changed")
    second = made(project, tmp_path, kind)
    assert output(second, "import lib; print(lib.says)") == "changed"
    assert second.key != first.key


def test_packages_of_one_version_from_two_folders_are_two_environments(tmp_path: Path):
    one, other = Project(tmp_path / "one"), Project(tmp_path / "other")
    other.says("other")
    keys = {
        made(project, project.folder.parent / f"of-{project.folder.name}", among_links).key for project in (one, other)
    }
    assert len(keys) == 2


def test_what_the_installer_is_told_besides_makes_another(tmp_path: Path):
    project = Project(tmp_path / "lib")
    asked = in_folder(project, tmp_path)
    told = [Wanted(asked.code, asked.dependencies, asked.python, options=options) for options in ("", "x", "x")]
    plain, first, second = make(tmp_path / "environments", *told)
    assert plain.key != first.key == second.key


def test_a_lock_that_is_kept_installs_what_the_folder_holds_now(tmp_path: Path):
    project = Project(tmp_path / "lib")
    first = made(project, tmp_path, in_folder)
    project.says("changed")
    asked = in_folder(project, tmp_path)
    (again,) = make(tmp_path / "environments", Wanted(asked.code, asked.dependencies, asked.python, first.lock))
    assert (again.lock, again.key != first.key) == (first.lock, True)
    assert output(again, "import lib; print(lib.says)") == "changed"


def test_a_lock_that_is_kept_refuses_a_wheel_that_changed(tmp_path: Path):
    project = Project(tmp_path / "lib")
    first = made(project, tmp_path, as_a_wheel)
    project.says("changed")
    asked = as_a_wheel(project, tmp_path)
    with pytest.raises(Failed, match=r"[Hh]ash"):
        make(tmp_path / "environments", Wanted(asked.code, asked.dependencies, asked.python, first.lock))


LOCK = """
[manifest]
requirements = [{ name = "asked", directory = "/asked" }]

[[package]]
name = "six"
source = { registry = "https://pypi.org/simple" }
wheels = [{ url = "https://files.test/six.whl", hash = "sha256:0" }]

[[package]]
name = "folder"
source = { directory = "/a b/\\"c\\"" }

[[package]]
name = "links"
source = { registry = "../links" }
wheels = [
    { path = "../links/links-1-py3-none-any.whl" },
]

[[package]]
name = "git"
source = { git = "file:///repository?rev=main#0123" }

[[package]]
name = "work"
source = { editable = '/work' }
"""


def test_a_lock_says_what_is_local():
    assert local_packages(LOCK) == LocalPackages(
        frozenset({"folder", "links", "work"}), frozenset({'/a b/"c"', "../links/links-1-py3-none-any.whl", "/work"})
    )


class Folder:
    """A folder, and its digest by its content."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir()

    def write(self, path: str, text: str) -> None:
        (self.place / path).parent.mkdir(parents=True, exist_ok=True)
        (self.place / path).write_text(text)

    def digest(self) -> str:
        return LocalPackages(frozenset(), frozenset({self.place.name})).digest(self.place.parent)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    found = Folder(tmp_path / "project")
    found.write("a/b.py", "x = 1\n")
    return found


@pytest.mark.parametrize("path", ["a/b.py", "a/c.py", "b.py", ".git/HEAD", ".git/refs/heads/main", "build/lib/a.py"])
def test_content_counts(folder: Folder, path: str):
    before = folder.digest()
    folder.write(path, "x = 2\n")
    assert folder.digest() != before


@pytest.mark.parametrize(
    "path",
    ["__pycache__/b.pyc", "a/__pycache__/b.pyc", ".git/index", ".git/objects/aa/bb", ".tox/x", "a.egg-info/PKG-INFO"],
)
def test_what_tools_leave_does_not(folder: Folder, path: str):
    folder.write(".git/HEAD", "ref: refs/heads/main")
    before = folder.digest()
    folder.write(path, "x = 2\n")
    os.utime(folder.place / "a" / "b.py")
    assert folder.digest() == before


def test_an_environment_or_a_cache_in_a_project_does_not_count(folder: Folder):
    before = folder.digest()
    folder.write("env/pyvenv.cfg", "home = /usr/bin")
    folder.write("env/lib/six.py", "")
    folder.write("target/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55")
    folder.write("target/debug/lib.rlib", "")
    assert folder.digest() == before


def test_names_modes_and_what_links_lead_to_count(folder: Folder, tmp_path: Path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "s.py").write_text("1")
    (folder.place / "a" / "link").symlink_to(tmp_path / "shared")
    seen = [folder.digest()]
    (tmp_path / "shared" / "s.py").write_text("2")
    seen.append(folder.digest())
    (folder.place / "a" / "b.py").chmod(0o755)
    seen.append(folder.digest())
    (folder.place / "a" / "b.py").rename(folder.place / "a" / "c.py")
    seen.append(folder.digest())
    assert len(set(seen)) == 4


def test_neither_circles_nor_pipes_nor_broken_links_hold_it_up(folder: Folder):
    (folder.place / "a" / "back").symlink_to(folder.place)
    (folder.place / "gone").symlink_to("/nowhere/at/all")
    os.mkfifo(folder.place / "pipe")
    assert folder.digest() == folder.digest()


def test_reading_ends_with_who_asked(folder: Folder, monkeypatch: pytest.MonkeyPatch):
    read = threading.Event()

    def endless(place: Path) -> Iterator[bytes]:
        while True:
            read.set()
            yield b"more"

    monkeypatch.setattr(local, "_content", endless)

    async def story() -> None:
        packages = LocalPackages(frozenset(), frozenset({"project"}))
        reading = asyncio.create_task(packages.content(folder.place.parent))
        await asyncio.to_thread(read.wait, 10)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

    asyncio.run(story())  # which waits for its threads


def test_a_folder_that_is_not_there_has_a_digest(tmp_path: Path):
    assert LocalPackages(frozenset(), frozenset({"nowhere"})).digest(tmp_path)
