"""What plugins, and other people's packages, do to a program; and that it goes on."""

from __future__ import annotations

import json
import os

import pytest

from tests.parts.conftest import Machine

CREATE = "F.create_instance('chat').format('x')"


def rows(machine: Machine) -> list[dict[str, object]]:
    """The candidates after the default was asked for."""
    code = "F.discover_plugins()\nF.create_instance('chat')\nprint(json.dumps(F.list_implementations('chat', detail=True)))"
    found: list[dict[str, object]] = json.loads(machine.run(code).stdout)
    return found


@pytest.mark.parametrize("content", [b"[console_scripts]\nno equals sign\n", b"[x]\na = \xff:b\n", b"a = b:c\n"])
def test_a_foreign_package_with_broken_entry_points_hides_nobody(machine: Machine, content: bytes) -> None:
    machine.add("foreign", {}, {"foreign.py": ""})
    # written afterwards: installers differ in what they let through
    (machine.site / "foreign-1.0.dist-info" / "entry_points.txt").write_bytes(content)
    machine.add("optimized")
    assert machine.ask(CREATE) == "Optimized x"
    assert machine.ask("[b.dist for b in F.discover_plugins().broken]") == ["foreign"]


def test_a_plugin_that_cannot_be_imported_is_passed_over_with_one_warning(machine: Machine) -> None:
    machine.add("broken", files={"broken.py": "import no_such_module"}, version="1.7")
    done = machine.run("F.discover_plugins()\nfor _ in range(3): print(F.create_instance('chat').format('x'))")
    assert done.stdout.split("\n")[:3] == ["chat x"] * 3
    assert done.stderr.count("no_such_module") == 1
    assert "broken 1.7" in done.stderr
    failed, builtin = rows(machine)
    assert (failed["state"], failed["is_selected"], builtin["is_selected"]) == ("failed", False, True)
    assert "No module named 'no_such_module'" in str(failed["error"])


def test_a_plugin_that_was_asked_for_and_fails_is_an_error(machine: Machine) -> None:
    machine.add("broken", files={"broken.py": "import no_such_module"}, version="1.7")
    done = machine.run(
        """
        from bema.parts import LoadFailed
        F.discover_plugins()
        F.use_implementation("chat", "broken:chat")
        try:
            F.create_instance("chat")
        except LoadFailed as error:
            assert isinstance(error.__cause__, ModuleNotFoundError)
            print(error)
        """
    )
    assert "broken 1.7" in done.stdout and "no_such_module" in done.stdout, done.stderr


def test_raise_instead_of_falling_back_is_a_setting(machine: Machine) -> None:
    machine.add("broken", files={"broken.py": "import no_such_module"})
    done = machine.run("F.discover_plugins()\nF.create_instance('chat')", BEMA_PLUGINS_ON_FAILURE="raise")
    assert done.returncode == 1
    assert "LoadFailed" in done.stderr


def test_a_plugin_that_exits_does_not_end_the_program(machine: Machine) -> None:
    machine.add("quitter", files={"quitter.py": "import sys; sys.exit(3)"})
    done = machine.run(f"F.discover_plugins()\nprint({CREATE})")
    assert (done.returncode, done.stdout.strip()) == (0, "chat x")


def test_what_is_not_an_endpoint_is_refused_with_the_part_that_is_missing(machine: Machine) -> None:
    values = {
        "number": ("VALUE = 42", "not a class"),
        "function": ("def VALUE(): ...", "function VALUE"),
        "module": ("import json as VALUE", "module json"),
        "stranger": ("class VALUE: ...", "not a subclass of app.parts.BaseEndpoint"),
        "half": ("import app.parts\nclass VALUE(app.parts.BaseEndpoint): ...", "does not implement format"),
    }
    for name, (code, _) in values.items():
        machine.add(name, {"chat": f"{name}:VALUE"}, {f"{name}.py": code})
    found = {row["dist"]: row for row in rows(machine)}
    whys = {name: str(found[name]["why"]) for name in values}
    for name, (_, part) in values.items():
        assert part in whys[name]
        assert (found[name]["state"], found[name]["is_selected"]) == ("wrong_type", False)
    assert len(set(whys.values())) == 5
    assert found[""]["is_selected"]


@pytest.mark.parametrize("value", ["no colon or module!", "a..b:C", ":C", "a:b:c"])
def test_a_malformed_reference_is_invalid_and_alone_so(machine: Machine, value: str) -> None:
    raw = f"[app.endpoints.plugins]\nchat = {value}\nother = odd:Odd\n".encode()
    module = "from app.endpoints import ChatEndpoint as Odd"
    machine.add("odd", {}, {"entry_points.raw": raw, "odd.py": module})
    row = machine.ask("F.list_implementations('chat', detail=True)")[0]
    assert (row["state"], row["is_plugin"]) == ("invalid", True)
    assert machine.ask("F.create_instance('other').format('x')") == "chat x"


def test_two_plugins_of_one_name_are_a_conflict_told_once(machine: Machine) -> None:
    machine.add("beta")
    machine.add("alpha")
    done = machine.run(f"for _ in range(3): F.discover_plugins(refresh=True)\nprint({CREATE})")
    assert done.stdout.strip() == "Alpha x"
    assert done.stderr.count("is claimed by") == 1
    strict = machine.run(f"F.discover_plugins()\n{CREATE}", BEMA_PLUGINS_ON_CONFLICT="error")
    assert "2 plugins and none is chosen" in strict.stderr


def test_a_folder_that_appears_after_the_start_is_imported_from_after_a_refresh(machine: Machine) -> None:
    machine.add("late")
    place = machine.folder / "later"
    code = f"""
        import shutil, importlib.util
        sys.path.append({str(place)!r})
        assert importlib.util.find_spec("late") is None
        F.discover_plugins()
        shutil.copytree({str(machine.folder / "kept")!r}, {str(place)!r})
        F.discover_plugins(refresh=True)
        print({CREATE})
        """
    machine.site.rename(machine.folder / "kept")
    done = machine.run(code)
    assert done.stdout.strip() == "Late x", done.stderr


def test_names_that_differ_in_case_or_dashes_are_one_name_and_a_conflict(machine: Machine) -> None:
    machine.add("one", {"My-Chat": "one:One"})
    machine.add("two", {"my_chat": "two:Two"})
    assert machine.ask("F.create_instance('MY-CHAT').format('x')") == "One x"
    assert machine.ask("list(F.discover_plugins().conflicts)") == ["my_chat"]


def test_the_first_copy_of_a_distribution_hides_the_second_and_the_report_says_so(machine: Machine) -> None:
    machine.add("optimized", version="2.0")
    newer = machine.folder / "newer"
    package = machine.package("optimized", version="3.0")
    machine.uv("pip", "install", "-q", "--target", str(newer), "--no-index", "--no-cache", str(package))
    first, second, _ = machine.ask("F.list_implementations('chat', detail=True)", first=str(newer))
    assert (first["version"], first["state"], first["is_selected"]) == ("3.0", "discovered", True)
    assert (second["version"], second["state"]) == ("2.0", "shadowed")
    assert str(newer) in second["why"]


def test_a_leftover_of_pip_and_a_folder_without_metadata_are_not_plugins(machine: Machine) -> None:
    machine.add("optimized")
    (machine.site / "optimized-1.0.dist-info").rename(machine.site / "~ptimized-1.0.dist-info")
    assert machine.ask("[F.discover_plugins().found, len(F.discover_plugins().leftovers)]") == [0, 1]
    (machine.site / "~ptimized-1.0.dist-info").rename(machine.site / "optimized-1.0.dist-info")
    (machine.site / "optimized-1.0.dist-info" / "METADATA").unlink()
    row = machine.ask("F.list_implementations('chat', detail=True)")[0]
    assert (row["state"], row["dist"]) == ("not_allowed", "")
    assert machine.ask(CREATE) == "chat x"


def test_the_same_rows_as_importlib_metadata(machine: Machine) -> None:
    for name in ("one", "two", "three"):
        machine.add(name, {"chat": f"{name}:{name.title()}", f"my.{name}": f"{name} : {name.title()} [gpu]"})
    done = machine.run(
        """
        import importlib.metadata as m
        from bema.parts.scan import installed
        snapshot = installed()
        for group in ["app.endpoints.plugins", *snapshot.groups]:
            theirs = sorted((p.name, p.value, m.distribution(p.dist.name).version) for p in m.entry_points(group=group))
            ours = sorted((p.name, p.value, p.dist.version) for p in snapshot.points(group))
            assert ours == theirs, (ours, theirs)
        print(len(snapshot.points("app.endpoints.plugins")))
        """
    )
    assert done.stdout.strip() == "6", done.stderr


def test_distributions_in_a_zip_file_are_found_too(machine: Machine) -> None:
    package = machine.package("zipped")
    machine.uv("build", "-q", "--wheel", "--no-index", "-o", str(machine.folder), str(package))
    wheel = next(machine.folder.glob("zipped-*.whl"))
    assert machine.ask(CREATE, first=os.fspath(wheel)) == "Zipped x"


@pytest.mark.parametrize(
    "decided",
    [
        '[plugins.select."app.endpoints"]\nchat = "beta:chat"\n',
        "[plugins.priority]\nbeta = 1\n",
        '[plugins]\non_conflict = "error"\n[plugins.priority]\nbeta = 1\n',
        '[plugins]\ndisable = ["alpha"]\n',
    ],
)
def test_a_conflict_that_somebody_decided_is_none(machine: Machine, decided: str) -> None:
    machine.add("beta")
    machine.add("alpha")
    (machine.home / "bema.toml").write_text(decided)
    done = machine.run(f"F.discover_plugins(strict=True)\nprint({CREATE})")
    assert (done.stdout.strip(), done.stderr) == ("Beta x", "")
    doctor = machine.bema("plugins", "doctor", "--json", "--factory", "app.parts:EndpointFactory")
    assert "conflict" not in {f["code"] for f in json.loads(doctor.stdout)["findings"]}


def test_a_choice_of_what_is_not_there_decides_no_conflict(machine: Machine) -> None:
    machine.add("beta")
    machine.add("alpha")
    (machine.home / "bema.toml").write_text('[plugins.select."app.endpoints"]\nchat = "gamma:chat"\n')
    assert machine.ask("list(F.discover_plugins().conflicts)") == ["chat"]


WILD = {
    "an exception without a text": """
        class Wild(Exception):
            def __str__(self): raise RuntimeError("no text")
            __repr__ = __str__
        raise Wild
        """,
    "a metaclass that answers with an error": """
        class Meta(type):
            def __getattr__(cls, name): raise RuntimeError(name)
            def __hash__(cls): raise RuntimeError("hash")
            def __eq__(cls, other): raise RuntimeError("eq")
        class Wild(metaclass=Meta): pass
        """,
    "a value that has no repr": """
        class Meta:
            def __repr__(self): raise RuntimeError("repr")
        Wild = Meta()
        """,
    "a subclass that says nothing about itself": """
        from app.parts import BaseEndpoint
        class Meta(type(BaseEndpoint)):
            def __getattribute__(cls, name): raise RuntimeError(name)
        class Wild(BaseEndpoint, metaclass=Meta):
            def format(self, text): return text
        """,
}


@pytest.mark.parametrize("code", WILD.values(), ids=WILD.keys())
def test_what_a_plugin_does_when_it_is_looked_at_escapes_to_nobody(machine: Machine, code: str) -> None:
    machine.add("wild", {"chat": "wild:Wild"}, {"wild.py": code})
    done = machine.run(f"F.discover_plugins()\nprint({CREATE})\nF.list_implementations('chat', detail=True)")
    assert (done.returncode, done.stdout.strip()) == (0, "chat x"), done.stderr
    assert done.stderr.count("wild 1.0") == 1


def test_a_plugin_that_meets_the_program_half_imported_is_tried_again_afterwards(machine: Machine) -> None:
    machine.add("early", files={"early.py": "from site_of import Base\nclass Early(Base): pass"})
    code = """
        from app.endpoints import ChatEndpoint
        from app.parts import EndpointFactory as F
        F.discover_plugins()
        FIRST = F.create_instance("chat").format("x")
        class Base(ChatEndpoint):
            def format(self, text): return f"early {text}"
        """
    machine.write(machine.source, {"site_of.py": code})
    done = machine.run(f"import site_of\nprint(site_of.FIRST, {CREATE})")
    assert done.stdout.strip() == "chat x early x", done.stderr


def test_a_lazy_builtin_stays_when_the_plugin_of_its_name_fails(machine: Machine) -> None:
    machine.add("broken", {"lazy": "broken:Broken"}, {"broken.py": "import no_such_module"})
    code = "F.register_lazy('lazy', 'app.endpoints:ChatEndpoint')\nF.discover_plugins()\n"
    done = machine.run(code + "print(F.create_instance('lazy').format('x'))")
    assert done.stdout.strip() == "chat x", done.stderr


def test_a_name_that_is_there_is_not_offered_as_the_nearest_one(machine: Machine) -> None:
    done = machine.run(f"F.discover_plugins()\n{CREATE}", APP_ENDPOINTS_CHAT="gamma:chat")
    assert "gamma:chat" in done.stderr and "did you mean" not in done.stderr and "it has chat" not in done.stderr
