"""`bema plugins`: listing, checking, locking and switching, over packages that are really installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.parts.conftest import Machine

OURS = ("--factory", "app.parts:EndpointFactory", "--import", "app.endpoints")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine")


def test_ls_shows_every_candidate_who_wins_and_why(machine: Machine) -> None:
    machine.add("alpha", version="1.4")
    machine.add("beta")
    markers = machine.folder / "markers"
    markers.mkdir()
    done = machine.bema("plugins", "ls", *OURS, MARKER=str(markers))
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("EndpointFactory")]
    assert lines[0][:4] == ["EndpointFactory", "chat", "*", "alpha:Alpha"]
    assert lines[0][4:] == ["alpha", "1.4", "discovered", "chosen", "by", "plugin"]
    assert lines[1][2:] == ["beta:Beta", "beta", "1.0", "discovered"]
    assert lines[2][2:] == ["app.endpoints:ChatEndpoint", "code", "loaded"]
    assert not list(markers.iterdir())


def test_ls_json_is_data_on_stdout_with_provenance(machine: Machine) -> None:
    machine.add("alpha")
    machine.install(machine.package("editable-one", {"other": "editable_one:EditableOne"}), editable=True)
    done = machine.bema("plugins", "ls", "--json", *OURS)
    (factory,) = [f for f in json.loads(done.stdout) if f["group"] == "app.endpoints"]
    alpha, builtin = factory["names"]["chat"]
    assert (alpha["id"], alpha["source"], alpha["reason"], alpha["state"]) == (
        "alpha:chat",
        alpha["source"],
        "plugin",
        "discovered",
    )
    assert alpha["path"] == str(machine.site / "alpha-1.0.dist-info")
    assert alpha["source"].startswith("file ")
    assert builtin["source"] == "code"
    assert factory["names"]["other"][0]["source"].startswith("editable file:")


def test_a_project_names_its_factories_in_its_settings(machine: Machine) -> None:
    (machine.home / "bema.toml").write_text(
        '[plugins]\nfactories = ["app.parts:EndpointFactory"]\nimports = ["app.endpoints"]\n'
    )
    done = machine.bema("plugins", "ls", "--json")
    assert "chat" in {name for factory in json.loads(done.stdout) for name in factory["names"]}


@pytest.mark.parametrize("wrong", ["app.parts:BaseEndpoint", "no.such:Thing", "app.parts"])
def test_what_is_not_a_factory_is_said_in_one_line(machine: Machine, wrong: str) -> None:
    done = machine.bema("plugins", "ls", "--factory", wrong)
    assert done.returncode == 1
    assert wrong.partition(":")[0] in done.stderr and "Traceback" not in done.stderr


def findings(machine: Machine, *flags: str, **env: str) -> tuple[int, dict[str, dict[str, str]]]:
    done = machine.bema("plugins", "doctor", "--json", *flags, *OURS, **env)
    return done.returncode, {f["code"]: f for f in json.loads(done.stdout)["findings"]}


def test_doctor_has_nothing_to_say_of_a_healthy_machine(machine: Machine) -> None:
    machine.add("alpha")
    assert findings(machine) == (0, {})


def test_doctor_names_each_trouble_and_its_remedy(machine: Machine) -> None:
    machine.add("alpha")
    machine.add("beta")
    machine.add("extra", {"x": "extra:Extra [gpu]"}, project='[project.optional-dependencies]\ngpu = ["cuda-thing"]')
    machine.add("odd", {"y": "odd:Odd"}, project='dependencies = ["app>=9"]')
    (machine.site / "foreign-1.dist-info").mkdir()
    (machine.site / "foreign-1.dist-info" / "entry_points.txt").write_text("nonsense\n")
    (machine.site / "~eft-1.dist-info").mkdir()
    (machine.home / "bema.toml").write_text('[plugins.select."app.endpoint"]\nchat = "x"\n')
    code, found = findings(machine, APP_ENDPOINTS_CHTA="x", APP_ENDPOINTS_CHAT="gamma:chat")
    assert code == 1
    assert set(found) == {
        *("conflict", "extra", "incompatible", "broken_metadata", "leftover", "setting", "variable", "selection")
    }
    assert "cuda-thing" in found["extra"]["says"]
    assert "gamma:chat" in found["selection"]["says"]
    assert all(f["says"] and f["fix"] for f in found.values())


def test_doctor_sees_a_copy_that_hides_another_one(machine: Machine) -> None:
    machine.add("alpha")
    hiding = machine.folder / "hiding"
    machine.write(hiding, {"alpha-9.dist-info/METADATA": "Name: alpha\nVersion: 9\n"})
    code, found = findings(machine, first=str(hiding))
    assert code == 0
    assert str(hiding) in found["shadowed"]["says"]


def test_doctor_tries_the_plugins_in_a_process_of_its_own(machine: Machine) -> None:
    machine.add("alpha", files={"alpha.py": "import no_such_module"})
    assert findings(machine)[0] == 0
    code, found = findings(machine, "--try")
    assert code == 1 and "no_such_module" in found["failed"]["says"]
    machine.add("beta", files={"beta.py": "print('noise', flush=True)\nimport os; os._exit(7)"})
    code, found = findings(machine, "--try")
    assert code == 1 and "ended with 7" in found["crash"]["says"]
    # who did it is named, and the others are tried all the same
    assert found["crash"]["says"].startswith("beta:chat ") and found["crash"]["dist"] == "beta"
    assert "no_such_module" in found["failed"]["says"] and "disabled" not in found


def test_doctor_sees_entry_points_that_an_editable_project_dropped(machine: Machine) -> None:
    package = machine.package("alpha")
    machine.install(package, editable=True)
    project = package / "pyproject.toml"
    project.write_text(project.read_text().replace('"chat"', '"talk"'))
    done = machine.bema("plugins", "doctor", "--json", *OURS)
    says = [f["says"] for f in json.loads(done.stdout)["findings"] if f["code"] == "reinstall"]
    assert len(says) == 2 and "declares talk" in says[0] and "does not declare any more chat" in says[1]


def test_doctor_names_what_runs_before_any_policy(machine: Machine) -> None:
    machine.add("alpha")
    (machine.site / "sneaky.pth").write_text("import os\n")
    (machine.site / "plain.pth").write_text("/nowhere\n")
    assert "startup_code" not in findings(machine)[1]
    env = {"BEMA_PLUGINS_MODE": "allow", "BEMA_PLUGINS_ALLOW": "alpha", "BEMA_PLUGINS_OVERRIDE_BUILTIN": "alpha"}
    done = machine.bema("plugins", "doctor", "--json", *OURS, **env)
    says = " ".join(f["says"] for f in json.loads(done.stdout)["findings"] if f["code"] == "startup_code")
    assert done.returncode == 0 and "sneaky.pth" in says and "plain.pth" not in says


def test_lock_then_check(machine: Machine) -> None:
    machine.add("alpha")
    done = machine.bema("plugins", "lock", *OURS)
    assert (done.returncode, done.stdout) == (0, "")
    file = machine.home / "bema-plugins.lock"
    first = file.read_bytes()
    assert machine.bema("plugins", "lock", "--check", *OURS).returncode == 0
    machine.add("beta", {"new": "beta:Beta"})
    done = machine.bema("plugins", "lock", "--check", *OURS)
    assert (done.returncode, done.stdout) == (1, "beta:new (app.endpoints.plugins) is not in the lock file\n")
    machine.uninstall("beta")
    assert machine.bema("plugins", "lock", *OURS).returncode == 0
    assert file.read_bytes() == first


def test_disable_and_enable_change_one_line_of_the_settings(machine: Machine) -> None:
    machine.add("alpha")
    settings = machine.home / "bema.toml"
    settings.write_text("# mine\n[gateway]\nport = 1\n")
    done = machine.bema("plugins", "disable", "Alpha:chat", "--json")
    assert json.loads(done.stdout) == {"file": str(settings), "disable": ["alpha:chat"]}
    assert settings.read_text() == '# mine\n[gateway]\nport = 1\n\n[plugins]\ndisable = ["alpha:chat"]\n'
    assert machine.ask("F.create_instance('chat').format('x')") == "chat x"
    assert machine.bema("plugins", "enable", "alpha:chat").returncode == 0
    assert machine.ask("F.create_instance('chat').format('x')") == "Alpha x"
    wrong = machine.bema("plugins", "disable", "alhpa")
    assert wrong.returncode == 1 and "did you mean 'alpha'?" in wrong.stderr
    assert machine.bema("plugins", "enable", "alpha").returncode == 1


def test_disable_writes_into_pyproject_where_the_table_is_there(machine: Machine) -> None:
    machine.add("alpha")
    project = machine.home / "pyproject.toml"
    project.write_text("[tool.bema.plugins]\n")
    assert machine.bema("plugins", "disable", "alpha").returncode == 0
    assert project.read_text() == '[tool.bema.plugins]\ndisable = ["alpha"]\n'


def test_completion_knows_the_names_without_importing(machine: Machine) -> None:
    machine.add("alpha", files={"alpha.py": "raise SystemExit(9)"})
    done = machine.run("from bema.cli.plugins import _complete\nprint(_complete(None, None, 'al'))", prelude="")
    assert done.stdout.strip() == "['alpha', 'alpha:chat']"
