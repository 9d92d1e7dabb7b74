"""Identity: who an installed distribution is, whatever its folder is called, and whom it hides."""

from __future__ import annotations

import importlib.metadata
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bema.parts import Factory, FactoryError
from bema.parts.doctor import diagnose
from bema.parts.entries import canonical
from bema.parts.metadata import fields_of, identified
from bema.parts.policy import read_policy
from bema.parts.scan import Snapshot, scan
from tests.parts.conftest import Machine

GROUP = "app.endpoints.plugins"
POINTS = f"[{GROUP}]\nchat = acme:Acme\n"
CREATE = "F.create_instance('chat').format('x')"


def metadata(name: str, version: str = "1.0") -> bytes:
    return f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nText.\n".encode()


def put(site: Path, folder: str, said: bytes | None, points: str | None = POINTS, *, file: str = "METADATA") -> Path:
    place = site / folder
    place.mkdir(parents=True)
    if said is not None:
        (place / file).write_bytes(said)
    if points is not None:
        (place / "entry_points.txt").write_text(points)
    return place


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the path."""
    monkeypatch.setattr("sys.path", [str(tmp_path / "site"), str(tmp_path / "later")])
    return tmp_path / "site"


def who(snapshot: Snapshot) -> list[tuple[str, str]]:
    return [(p.dist.name, p.dist.version) for p in snapshot.points(GROUP) if not p.dist.shadowed_by]


WRITTEN = [
    ("acme-evil-1.0.dist-info", metadata("acme-evil"), ("acme-evil", "1.0")),
    ("acme-1.0.dist-info", metadata("evil"), ("evil", "1.0")),
    ("acme-1.0.dist-info", metadata("Acme", "2.0"), ("acme", "2.0")),
    ("acme-1.0-2.dist-info", metadata("acme", "1.0-2"), ("acme", "1.0-2")),
    ("acme.dist-info", metadata("acme"), ("acme", "1.0")),
    ("Acme_Tools-1.0.DIST-INFO", metadata("acme.tools"), ("acme-tools", "1.0")),
    ("acme-1.0.dist-info", b"name: acme\r\nVERSION:1.0\r\n\r\nName: evil\r\n", ("acme", "1.0")),
    ("acme-1.0.dist-info", b"Name:\n acme\nVersion: 1.0\n", ("acme", "1.0")),
    ("acme-1.0.dist-info", b"Name: acme\n -evil\nVersion: 1.0\n", ("", "")),
    ("acme-1.0.dist-info", b"Name: acme\nName: evil\nVersion: 1.0\n", ("", "")),
    ("acme-1.0.dist-info", b"Name: acme\nName: ACME\nVersion: 1.0\n", ("acme", "1.0")),
    ("acme-1.0.dist-info", b"Name: acme\nVersion: 1.0\nVersion: 2.0\n", ("acme", "")),
    ("acme-1.0.dist-info", b"Version: 1.0\n\nName: acme\n", ("", "")),
    ("acme-1.0.dist-info", b"Name: acme\xff\nVersion: 1.0\n", ("", "")),
    ("acme-1.0.dist-info", b"Author: \xff\nName: acme\nVersion: 1.0\n", ("acme", "1.0")),
    ("acme-1.0.dist-info", b"X: \x0cName: evil\nName: acme\nVersion: 1.0\n", ("acme", "1.0")),
    ("acme-1.0.dist-info", b"no header\nName: acme\n", ("", "")),
    ("acme-1.0.dist-info", b"Name: acme evil\n", ("", "")),
    ("acme-1.0.dist-info", b"Name:\nVersion: 1.0\n", ("", "")),
    ("acme-1.0.dist-info", b"X: " + b"x" * 20_000 + b"\nName: acme\nVersion: 1.0\n\n", ("acme", "1.0")),
    ("acme-1.0.dist-info", b"Name: acme\nX: " + b"x" * 20_000 + b"\nName: evil\n\n", ("", "")),
    ("acme-1.0.dist-info", b"", ("", "")),
    ("acme-1.0.dist-info", None, ("", "")),
]


@pytest.mark.parametrize(("folder", "said", "is_it"), WRITTEN)
def test_a_distribution_is_who_its_metadata_says_once_or_nobody(
    site: Path, folder: str, said: bytes | None, is_it: tuple[str, str]
) -> None:
    put(site, folder, said)
    assert who(scan()) == [is_it]


BOTH = [b"Name: acme", b"Version: 1.0"]
BETWEEN = [
    b" folded",
    b"\tfolded",
    b"NAME:Acme",
    b"name: evil",
    b"version: 2.0",
    b"X: y",
    b"",
    b"no header",
    b"Name : evil",
]
ODD = [b" Name: evil", b"X: \x0c", b"\x0cName: evil", b"X:\rName: evil", b"Author: \xff"]
HEADS = st.lists(st.sampled_from([*BETWEEN, *ODD]), max_size=3).flatmap(lambda more: st.permutations([*BOTH, *more]))


@settings(max_examples=500, deadline=None)
@given(lines=HEADS, end=st.sampled_from([b"\n", b"\r\n"]), last=st.sampled_from([b"", b"\n", b"\n\nName: evil\n"]))
def test_to_read_no_further_than_name_and_version_changes_nothing(lines: list[bytes], end: bytes, last: bytes) -> None:
    content = end.join(lines) + last
    fields = fields_of(content)
    names = {canonical(name) for name in fields.get("name", [])} & {"acme", "evil"}
    whole = len({*map(canonical, fields.get("name", []))}) == len(names) == 1
    versions = fields.get("version", [])
    version = versions[0] if len(set(versions)) == 1 else ""
    assert identified(lambda file: content) == ((names.pop(), version) if whole else ("", ""))


@pytest.mark.parametrize("folder", ["acme-evil.egg-info", "acme-1.0-py3.11.egg-info", "acme-evil-1.0-nspkg.egg-info"])
def test_an_egg_is_who_its_pkg_info_says(site: Path, folder: str) -> None:
    put(site, folder, metadata("acme-evil"), file="PKG-INFO")
    assert who(scan()) == [("acme-evil", "1.0")]


def test_an_egg_on_the_path_is_read_too(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    egg = site / "acme-1.0-py3.11.egg"
    put(egg, "EGG-INFO", metadata("acme"), file="PKG-INFO")
    monkeypatch.setattr("sys.path", [str(egg)])
    assert who(scan()) == [("acme", "1.0")]


def test_a_zipped_wheel_is_who_its_metadata_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "acme-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for folder, said in (("a-1.dist-info", b"Name: a\xff\n"), ("acme-evil-1.0.dist-info", metadata("acme-evil"))):
            file.writestr(f"{folder}/METADATA", said)
            file.writestr(f"{folder}/entry_points.txt", POINTS)
    monkeypatch.setattr("sys.path", [str(wheel)])
    assert ("acme-evil", "1.0") in who(scan())
    assert "acme" not in scan().distributions


HIDING_NOBODY = [
    ("acme-9.dist-info", None, None),
    ("acme-9.dist-info", None, POINTS),
    ("acme-9.dist-info", b"", None),
    ("acme-9.dist-info", metadata("zebra"), None),
    ("acme-plugin-utils.egg-info", None, None),
    ("acme-plugin-utils-9.dist-info", metadata("acme-plugin-utils"), None),
    ("acme.egg-info", None, None),
]


@pytest.mark.parametrize(("folder", "said", "points"), HIDING_NOBODY)
def test_the_first_whole_one_wins(site: Path, folder: str, said: bytes | None, points: str | None) -> None:
    put(site, folder, said, points)
    put(site.parent / "later", "acme-1.0.dist-info", metadata("acme"))
    assert ("acme", "1.0") in who(scan())


def test_an_egg_info_that_is_a_file_is_somebody_too(site: Path) -> None:
    site.mkdir()
    (site / "acme-plugin-utils.egg-info").write_bytes(metadata("acme-plugin-utils"))
    (site / "acme-9.egg-info").write_bytes(metadata("acme", "9"))
    put(site.parent / "later", "acme-1.0.dist-info", metadata("acme"))
    snapshot = scan()
    assert [d.version for d in snapshot.shadowed] == ["1.0"]
    assert snapshot.distributions["acme-plugin-utils"].version == "1.0"


@pytest.fixture
def factory() -> type[Factory[object]]:
    class EndpointFactory(Factory[object], group="app.endpoints"):
        pass

    return EndpointFactory


def test_what_is_shadowed_or_hollow_is_a_problem_and_a_finding(site: Path, factory: type[Factory[object]]) -> None:
    hollow = put(site, "acme-9.dist-info", None, None)
    put(site, "acme-2.0.dist-info", metadata("acme", "2.0"))
    later = put(site.parent / "later", "acme-1.0.dist-info", metadata("acme"))
    problems = factory.discover_plugins(refresh=True).problems()
    assert any(str(hollow) in p for p in problems)
    assert any("acme 1.0" in p and "comes first" in p for p in problems)
    with pytest.raises(FactoryError, match="hides nobody"):
        factory.discover_plugins(strict=True)
    found = {f.code: f.says for f in diagnose([factory.registry], {})}
    assert str(hollow) in found["hollow"] and "acme 1.0" in found["shadowed"]
    assert later.exists()


def test_the_egg_info_of_an_editable_project_hides_nothing_from_its_own(
    site: Path, factory: type[Factory[object]]
) -> None:
    place = put(site, "acme-1.0.dist-info", metadata("acme"))
    project = site.parent / "later"
    (place / "direct_url.json").write_text(f'{{"url": "file://{project}", "dir_info": {{"editable": true}}}}')
    put(project, "acme.egg-info", metadata("acme"), file="PKG-INFO")
    report = factory.discover_plugins(refresh=True)
    assert (len(report.shadowed), report.problems()) == (1, [])
    (place / "direct_url.json").unlink()
    assert len(report.problems()) == 1


def test_a_hollow_folder_of_a_vanished_distribution_is_found_by_doctor(
    site: Path, factory: type[Factory[object]]
) -> None:
    hollow = put(site, "acme-9.dist-info", None, None)
    assert factory.discover_plugins(refresh=True).problems() == []
    assert [f.says.split()[0] for f in diagnose([factory.registry], {})] == [str(hollow)]


def test_doctor_tells_of_a_folder_under_anothers_name(site: Path, factory: type[Factory[object]]) -> None:
    put(site, "acme-1.0.dist-info", metadata("evil"))
    factory.discover_plugins(refresh=True)
    assert [(f.code, f.dist) for f in diagnose([factory.registry], {})] == [("identity", "evil")]


def test_a_link_to_a_folder_is_no_second_copy(site: Path) -> None:
    first = put(site, "acme-1.0.dist-info", metadata("acme"))
    (site.parent / "later").mkdir()
    (site.parent / "later" / "acme-1.0.dist-info").symlink_to(first)
    assert scan().shadowed == ()


@pytest.mark.parametrize(
    ("table", "allowed"),
    [
        ({"mode": "allow", "allow": ["acme"]}, False),
        ({"mode": "allow", "allow": ["acme==evil-1.0"]}, False),
        ({"mode": "allow", "allow": ["acme-evil==1.0"]}, True),
        ({"deny": ["acme-evil"]}, False),
        ({"disable": ["acme-evil:chat"]}, False),
        ({"deny": ["acme"]}, True),
    ],
)
def test_policy_goes_by_the_metadata(
    site: Path, policy: object, factory: type[Factory[object]], table: dict[str, object], allowed: bool
) -> None:
    put(site, "acme-evil-1.0.dist-info", metadata("acme-evil"))
    policy(read_policy(table))  # type: ignore[operator]
    (candidate,) = factory.discover_plugins(refresh=True).candidates
    assert candidate.usable is allowed


def test_a_zipped_plugin_that_is_allowed_runs_from_its_zip(machine: Machine) -> None:
    package = machine.package("zipped")
    machine.uv("build", "-q", "--wheel", "--no-index", "-o", str(machine.folder), str(package))
    wheel = str(next(machine.folder.glob("zipped-*.whl")))
    env = {"BEMA_PLUGINS_MODE": "allow", "BEMA_PLUGINS_ALLOW": "zipped", "BEMA_PLUGINS_OVERRIDE_BUILTIN": "zipped"}
    assert machine.ask(CREATE, first=wheel, **env) == "Zipped x"


NAMES = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,6}[a-z0-9])?", fullmatch=True).map(
    lambda n: n if n.islower() else f"x{n}"
)
VERSIONS = st.from_regex(r"[0-9]{1,2}(\.[0-9]{1,2}){0,2}((a|rc)[0-9]|\.post[0-9])?(\+[a-z0-9]{1,3})?", fullmatch=True)
KINDS = st.sampled_from(["dist-info", "egg-info"])
CASES = st.sampled_from([str.lower, str.upper, str.title])
PAIRS = st.lists(st.tuples(st.sampled_from(["chat", "Chat", "x.y"]), st.sampled_from(["m:A", "m.n:B"])), max_size=3)
DISTRIBUTIONS = st.lists(
    st.tuples(NAMES, VERSIONS, KINDS, CASES, PAIRS), max_size=8, unique_by=lambda d: canonical(d[0])
)


def written(site: Path, distributions: list[tuple[str, str, str, object, list[tuple[str, str]]]]) -> Iterator[str]:
    for name, version, kind, case, pairs in distributions:
        said = case(name)  # type: ignore[operator]
        folder = f"{canonical(said).replace('-', '_')}-{version}.{kind}"
        points = f"[{GROUP}]\n" + "".join(f"{key} = {value}\n" for key, value in pairs) if pairs else None
        put(site, folder, metadata(said, version), points, file="METADATA" if kind == "dist-info" else "PKG-INFO")
        yield said


@settings(max_examples=60, deadline=None)
@given(distributions=DISTRIBUTIONS, hollow=st.lists(NAMES, max_size=3, unique_by=canonical))
def test_of_whole_ones_the_answer_is_that_of_importlib_metadata(
    distributions: list[tuple[str, str, str, object, list[tuple[str, str]]]], hollow: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        site = Path(folder, "site")
        site.mkdir()
        list(written(site, distributions))
        theirs = sorted(
            (point.name, point.value, canonical(dist.metadata["Name"]), dist.version)
            for dist in importlib.metadata.distributions(path=[str(site)])
            for point in set(dist.entry_points)
        )
        # what is nobody's comes first, and changes nothing
        first = Path(folder, "first")
        for name in hollow:
            put(first, f"{canonical(name).replace('-', '_')}-99.dist-info", None, None)
        patch.setattr("sys.path", [str(first), str(site)])
        snapshot = scan()
        ours = sorted((p.name, p.value, p.dist.name, p.dist.version) for p in snapshot.points(GROUP))
        assert ours == theirs
        assert snapshot.shadowed == ()
