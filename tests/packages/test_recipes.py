"""The hooks and recipes of docs/packages.md do what the page says: as pre-commit and CI run them, in a repository."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.tools import tool

from .conftest import DATA

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "packages.md").read_text()
HOOKS = {hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}
SHOP = """\
from bema.compat.oaas import oaas_function, package


@package(name="shop", version="1.0.0")
class Order:
    @oaas_function("order.check", function_type="LOGICAL")
    def check(self, sku): ...
"""


class Repository:
    """A git repository; called with a script, it runs it as CI would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "BEMA_STATE_DIR": str(folder / "state"),
            "GIT_CONFIG_GLOBAL": os.devnull,
        }

    def __call__(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-ec", script],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def repository(tmp_path):
    """One with a class, its document exported, and both committed."""
    tool("git")
    found = Repository(tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "shop.py").write_text(SHOP)
    commit = "git -c user.name=Ann -c user.email=a@b.c commit -qm start"
    made = found(f"git init -q . && bema package print src/shop.py --out packages && git add src packages && {commit}")
    assert made.returncode == 0, made.stderr
    return found


def recipe():
    """The CI block of the page, without the installation of what is being tested."""
    (block,) = re.findall(r"^```sh\n(pip install.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    install, _, rest = block.partition("\n")
    assert install == "pip install './bema[packages]'   # beside a clone of bema"
    return rest


def test_the_recipe_for_ci_passes_while_document_and_code_agree(repository):
    done = repository(recipe())
    assert done.returncode == 0, done.stderr


def test_the_recipe_for_ci_fails_when_the_code_went_on(repository):
    (repository.folder / "src" / "shop.py").write_text(SHOP.replace("sku", "sku, qty"))
    done = repository(recipe())
    assert done.returncode == 1
    assert re.search(r"^[+].*qty", done.stdout, re.MULTILINE)


def test_the_recipe_for_ci_fails_on_a_warning(repository):
    file = repository.folder / "packages" / "shop.yaml"
    file.write_text(file.read_text() + "clases: []\n")
    done = repository(recipe())
    assert done.returncode == 1
    assert "dropped-key" in done.stdout


@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
def test_a_hook_takes_documents_below_packages_and_nothing_else(hook):
    wanted = re.compile(hook["files"])
    assert all(map(wanted.search, ["packages/a.yaml", "package/a.yml", "deep/packages/b/c.json"]))
    assert not any(map(wanted.search, ["a.yaml", "packages/a.py", "mypackages/a.yaml", "packages.yaml", "x/p/a.json"]))
    left = re.compile(hook["exclude"])
    foreign = ["package.json", "package-lock.json", "tsconfig.build.json", "pnpm-lock.yaml", "node_modules/a/b.json"]
    assert all(left.search(f"packages/x/{name}") for name in foreign)
    assert not any(map(left.search, ["packages/a.yaml", "packages/my-package.json", "deep/packages/b/c.json"]))
    assert hook["language"] == "python"
    assert hook["require_serial"], "documents are looked at together"


@pytest.mark.parametrize(("hook", "code"), [("bema-package-lint", 1), ("bema-package-fix", 0)])
def test_a_hook_is_run_with_the_changed_files(repository, hook, code):
    slip = (DATA / "reject" / "r08-lowercase-access-modifier.yaml").read_text()
    file = repository.folder / "packages" / "slip.yaml"
    file.write_text(slip)
    done = repository(f"{HOOKS[hook]['entry']} packages/shop.yaml packages/slip.yaml")
    assert done.returncode == code
    assert file.read_text() == (slip.replace("public", "PUBLIC") if hook == "bema-package-fix" else slip)


def test_the_page_names_hooks_that_are_there_with_options_that_they_take(repository):
    (block,) = (
        yaml.safe_load(text) for text in re.findall(r"^```yaml\n(repos:.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    )
    for hook in block["repos"][0]["hooks"]:
        entry = HOOKS[hook["id"]]["entry"]
        done = repository(f"{entry} {shlex.join(hook['args'])} packages/shop.yaml")
        assert done.returncode == 0, done.stdout


def test_the_line_for_editors_names_the_file_that_the_command_before_it_writes():
    (written,) = re.findall(r"`bema package schema > (\S+)`", PAGE)
    assert f"`# yaml-language-server: $schema={written}`" in PAGE
