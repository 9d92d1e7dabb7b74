#!/usr/bin/env python3
"""Every task of this repository, with nothing but a Python of 3.11 or newer: `python3 dev.py VERB`.

    up [ARGS]          make the environment, start the platform with the examples deployed; Ctrl-C drains it
                       (--check: visit every address and paste every command that it prints, then stop it)
    test [ARGS]        make the environment, run everything that CI runs (ARGS go to pytest)
    setup              make the environment
    check [ARGS]       the quick inner loop: as `test`, without the whole stories (ARGS go to pytest)
    bench NAME [ARGS]  one benchmark of bench/
    soak NAME [ARGS]   one endurance run of bench/soak/
    docs               the site in site/, reference pages made from the tables; warnings are errors
    build              wheel and sdist in dist/, and the story run from the wheel in a clean environment
    bare up|test       the same verbs on a bare Debian, made in .bare/ (as root; exit code 3: it cannot be made)
    ci [ARGS]          what .ci/run runs: `test` and `bare up --check` on a plain PATH, with an empty home
    release VERSION    refuse what is not ready to be released, build it, print how to upload it; uploads nothing

Law: standard library only, safe to run again and to kill at any instant, and nothing is touched outside this folder but
uv's cache. Longer tasks are in tools/.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))  # also where Python was told to be safe about paths

from tools import visit
from tools.bare import bare as run_bare
from tools.ci import ci as run_ci
from tools.pythons import NAMES as OTHER_PYTHONS
from tools.pythons import other_pythons
from tools.registries import CERTIFICATES
from tools.release import check_release, upload_command
from tools.terminal import say, stop

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"
STAMP = VENV / ".bema-setup.json"
EXAMPLES = ("worker.py", "api.py", "tools.py")
TOOLS = ("curl", "nginx", "wrk")
SYSTEM_TOOLS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
ALONE, BESIDE = "slow or alone", "not slow and not alone"
RUNTIME_SUITE = ("tests/core", "tests/wire", "tests/runtime", "tests/sdk")


def main(arguments: list[str]) -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - this file is also read by the Python that is too old
        stop(f"this is Python {sys.version.split()[0]}; bema needs 3.11 or newer", "run dev.py with a newer python3")
    if os.name != "posix":
        stop("the platform needs Linux or macOS", "on Windows use WSL")
    verbs = {
        "up": up,
        "test": test,
        "setup": setup,
        "check": check,
        "bench": bench,
        "soak": soak,
        "docs": docs,
        "build": build,
        "bare": bare,
        "ci": ci,
        "release": release,
    }
    if not arguments or arguments[0] not in verbs:
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 1
    try:
        return verbs[arguments[0]](arguments[1:])
    except KeyboardInterrupt:
        return 130


# verbs


def up(arguments: list[str]) -> int:
    set_up(("platform",))
    # the caller's PATH, not ours: what the platform prints is typed there
    environment = {**tools_environment(), "PATH": os.environ.get("PATH", os.defpath)}
    environment.setdefault("BEMA_STATE_DIR", str(ROOT / ".bema"))
    seeds = [part for name in EXAMPLES for part in ("--seed", str(ROOT / "examples" / name))]
    command = ["bema", "up", *seeds, *(argument for argument in arguments if argument != "--check")]
    if "--check" not in arguments:
        # exec: Ctrl-C, signals and the exit code are the platform's own
        os.execve(BIN / "bema", command, environment)
    return visit.check(command, environment, BIN / "bema")


def setup(arguments: list[str]) -> int:
    set_up(("dev",))
    print(f"ready: {BIN}\nnext: python3 dev.py up   or   python3 dev.py test")
    return 0


def test(arguments: list[str]) -> int:
    set_up(("dev",))
    pythons = other_pythons()
    missing = [tool for tool in TOOLS if not there(tool)] + [name for name in OTHER_PYTHONS if name not in pythons]
    if missing:
        print(f"not found: {', '.join(missing)}; what needs them is left out, the tests by name")
    suites: dict[str, Command] = {
        "tests": [BIN / "python", "-m", "pytest", "-n", "2", "-m", BESIDE, *arguments],
        # one after the other, because promises in seconds are asserted as they stand
        "stories": [BIN / "python", "-m", "pytest", "-m", ALONE, *arguments],
    }
    suites |= {name: on_python(name, path, arguments) for name, path in pythons.items()}
    return run_stages(checks(), suites)


def check(arguments: list[str]) -> int:
    set_up(("dev",))
    quick: Command = [BIN / "python", "-m", "pytest", "-n", "2", "-q", "-x", "-m", BESIDE, *arguments]
    return run_stages(checks(), {"tests": quick})


def bench(arguments: list[str]) -> int:
    return run_module("bench", arguments)


def soak(arguments: list[str]) -> int:
    return run_module("bench.soak", arguments)


def docs(arguments: list[str]) -> int:
    set_up(("dev",))
    run([BIN / "python", ROOT / "docs" / "generate.py"])
    return subprocess.run([BIN / "zensical", "build", "--strict", "--clean"], cwd=ROOT, check=False).returncode


def build(arguments: list[str]) -> int:
    set_up(("dev",))
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    run([BIN / "uv", "build", "--python", BIN / "python"])
    wheel = next((ROOT / "dist").glob("*.whl"))
    with tempfile.TemporaryDirectory(prefix="bema-build-") as folder:
        clean = Path(folder) / "clean"
        locked = Path(folder) / "requirements.txt"
        run([BIN / "uv", "export", "-q", "--locked", "--extra", "platform", "--no-emit-project", "-o", locked])
        run([BIN / "uv", "venv", "-q", "--python", BIN / "python", clean])
        run([BIN / "uv", "pip", "install", "-q", "--python", clean / "bin/python", "-r", locked])
        run([BIN / "uv", "pip", "install", "-q", "--python", clean / "bin/python", "--no-deps", wheel])
        print(f"story from {wheel.name} in a clean environment", flush=True)
        # a safe path: `python -m bema` in this folder would find the checkout's bema before the wheel's
        environment = {**tools_environment(), "BEMA_STORY_PYTHON": str(clean / "bin/python"), "PYTHONSAFEPATH": "1"}
        story: Command = [BIN / "python", "-m", "pytest", "-q", "tests/stories/test_skeleton.py", *arguments]
        return subprocess.run(story, cwd=ROOT, env=environment, check=False).returncode


def bare(arguments: list[str]) -> int:
    return run_bare(ROOT, arguments)


def ci(arguments: list[str]) -> int:
    return run_ci(Path(__file__).resolve(), arguments)


def release(arguments: list[str]) -> int:
    version = check_release(ROOT, arguments)
    code = build([])
    if code == 0:
        print(f"{version} is ready; nothing was uploaded. To upload it:\n  {upload_command(ROOT, version)}")
    return code


# the environment


def set_up(extras: Sequence[str]) -> None:
    """Make `.venv` what the lock says, unless it is already; one at a time per checkout.

    The stamp goes before anything is changed and is written last: an environment without one was left half-made, by
    whatever ended its making, and is made anew.
    """
    with only_one():
        had = read_stamp()
        if had.get("key") == stamp_of(ROOT) and set(extras) <= set(had.get("extras", ())) and environment_is_there():
            return
        started = time.monotonic()
        STAMP.unlink(missing_ok=True)
        kept = had.get("root") == str(ROOT) and environment_works()
        if not kept:
            make_environment()
        put_uv(locked_version("uv"))
        known = sorted({*extras, *(had.get("extras", ()) if kept else ())})
        say(f"syncing the locked packages ({', '.join(known)})")
        command: Command = [BIN / "uv", "sync", "--locked", "--inexact", "--python", BIN / "python"]
        run([*command, *(part for extra in known for part in ("--extra", extra))], quiet=True)
        draft = STAMP.with_suffix(".new")
        draft.write_text(json.dumps({"key": stamp_of(ROOT), "extras": known, "root": str(ROOT)}))
        draft.rename(STAMP)
        say(f"environment ready in {time.monotonic() - started:.1f} s")


@contextmanager
def only_one() -> Iterator[None]:
    """The lock is inherited by the steps: one that goes on when dev.py was killed still keeps the next run waiting."""
    import fcntl  # noqa: PLC0415 - not on Windows, where main() has refused by now

    with (ROOT / ".dev.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another dev.py that sets up this checkout")
            fcntl.flock(file, fcntl.LOCK_EX)
        HELD.append(file.fileno())
        try:
            yield
        finally:
            HELD.clear()


HELD: list[int] = []


def stamp_of(root: Path) -> str:
    """What the environment depends on; a checkout that was moved needs a new one."""
    digest = hashlib.sha256(str(root).encode())
    for file in (root / "uv.lock", root / "pyproject.toml", VENV / "pyvenv.cfg"):
        digest.update(file.read_bytes() if file.exists() else b"-")
    return digest.hexdigest()


def read_stamp() -> dict[str, list[str] | str]:
    try:
        found = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def environment_is_there() -> bool:
    """Not whether it is whole, the stamp says that: whether the Python that it links to still is where it was."""
    python = BIN / "python"
    return (BIN / "bema").exists() and (python.exists() or not python.is_symlink())


def environment_works() -> bool:
    try:
        return subprocess.run([BIN / "python", "-c", "import pip"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def make_environment() -> None:
    found = importlib.util.find_spec("ensurepip")
    if found is None or found.origin is None:  # an empty folder of that name is a namespace package
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stop("this Python cannot make environments: ensurepip is missing", f"sudo apt install python{version}-venv")
    say(f"making .venv with Python {sys.version.split()[0]}")
    run([sys.executable, "-m", "venv", "--clear", VENV])


def put_uv(version: str) -> None:
    try:
        found = subprocess.run([BIN / "uv", "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        found = ""
    if f" {version}" in found:
        return
    say(f"installing uv {version}")
    pip: Command = [BIN / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    run([*pip, f"uv=={version}"], quiet=True)


def locked_version(name: str) -> str:
    """The version of a package in uv.lock."""
    found = re.search(rf'^name = "{name}"\nversion = "([^"]+)"', (ROOT / "uv.lock").read_text(), re.MULTILINE)
    if not found:
        stop(f"uv.lock does not name {name}", "restore uv.lock from the repository")
    return found[1]


def tools_environment() -> dict[str, str]:
    """The caller's environment with `.venv` first and the system's tools last, and uv kept from fetching another Python."""
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONHOME")}
    environment["PATH"] = os.pathsep.join((str(BIN), environment.get("PATH", os.defpath), *SYSTEM_TOOLS))
    environment["UV_PYTHON_DOWNLOADS"] = "never"
    if CERTIFICATES.exists():  # the machine's own store, where it has one: it knows a company's proxy
        environment.setdefault("UV_SYSTEM_CERTS", "1")
    environment["UV_PROJECT_ENVIRONMENT"] = str(VENV)
    return environment


# running things


if TYPE_CHECKING:
    Command = list[str | Path]


class Result(NamedTuple):
    """One stage, or one part of the tests: what ran and how it went."""

    name: str
    passed: int
    failed: int
    skipped: int
    seconds: float


def checks() -> dict[str, Command]:
    return {
        "format": [BIN / "ruff", "format", "--check", "."],
        "lint": [BIN / "ruff", "check", "."],
        "types": [BIN / "mypy"],
        "contracts": [BIN / "lint-imports", "--no-logo"],
    }


def on_python(name: str, path: str, arguments: list[str]) -> Command:
    """The runtime's suite in an environment of another Python, made from the same lock."""
    place = f"UV_PROJECT_ENVIRONMENT={ROOT / '.venvs' / name}"
    python: Command = ["env", place, BIN / "uv", "run", "-q", "--locked", "--python", path, "--extra", "dev", "python"]
    return [*python, "-m", "pytest", "-q", "-n", "2", "-m", BESIDE, *RUNTIME_SUITE, *arguments]


def run_stages(stages: dict[str, Command], suites: dict[str, Command]) -> int:
    """Every stage, whatever the one before it said, then one line each; the last line is the total."""
    results = [run_stage(name, command) for name, command in stages.items()]
    for name, command in suites.items():
        results += run_tests(name, command)
    print()
    for result in results:
        skipped = f", {result.skipped} skipped" if result.skipped else ""
        verdict = "FAILED" if result.failed else "ok"
        counts = f"{result.passed} passed, {result.failed} failed{skipped}"
        print(f"{verdict:7} {result.name:10} {result.seconds:6.1f} s  {counts}")
    failed = sum(result.failed for result in results)
    print(f"{sum(result.passed for result in results)} passed, {failed} failed", flush=True)
    return 1 if failed else 0


def run_stage(name: str, command: Command) -> Result:
    print(f"\n== {name}: {' '.join(shown(part) for part in command)}", flush=True)
    started = time.monotonic()
    code = subprocess.run(command, cwd=ROOT, env=tools_environment(), check=False).returncode
    return Result(name, int(code == 0), int(code != 0), 0, time.monotonic() - started)


def run_tests(name: str, command: Command) -> list[Result]:
    """One suite of tests; it reports how many snippets of the documents were executed."""
    with tempfile.TemporaryDirectory(prefix="bema-test-") as folder:
        report = Path(folder) / "report.xml"
        ran = run_stage(name, [*command, f"--junitxml={report}"])
        cases = list(ET.parse(report).getroot().iter("testcase")) if report.exists() else []
    results = [counted(name, cases, ran.seconds)]
    if ran.failed and not results[0].failed:
        results.append(ran._replace(name=f"{name}: pytest"))
    snippets = [
        int(found.get("value", 0))
        for case in cases
        for found in case.iter("property")
        if found.get("name") == "snippets"
    ]
    if snippets:
        print(f"executed {sum(snippets)} snippets of {len(snippets)} documents")
    return results


def counted(name: str, cases: list[ET.Element], seconds: float) -> Result:
    failed = sum(case.find("failure") is not None or case.find("error") is not None for case in cases)
    skipped = sum(case.find("skipped") is not None for case in cases)
    return Result(name, len(cases) - failed - skipped, failed, skipped, seconds)


def run_module(package: str, arguments: list[str]) -> int:
    folder = ROOT.joinpath(*package.split("."))
    programs = (file for file in folder.glob("[a-z]*.py") if "__main__" in file.read_text())
    names = sorted([file.stem for file in programs] + [file.parent.name for file in folder.glob("*/__main__.py")])
    if not arguments or arguments[0] not in names:
        stop(f"name one of: {', '.join(names) or 'there is none'}", f"python3 dev.py {package.split('.')[-1]} NAME")
    set_up(("dev",))
    command: Command = [BIN / "python", "-m", f"{package}.{arguments[0]}", *arguments[1:]]
    return subprocess.run(command, cwd=ROOT, env=tools_environment(), check=False).returncode


def run(command: Command, quiet: bool = False) -> None:
    """A step that must succeed; with `quiet` its output is shown only when it does not."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=tools_environment(),
        check=False,
        text=True,
        pass_fds=HELD,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
    )
    if done.returncode == 0:
        return
    if done.stdout:
        print(done.stdout.rstrip(), file=sys.stderr)
    stop(f"`{' '.join(shown(part) for part in command)}` ended with {done.returncode}", hint(done.stdout or ""))


def hint(output: str) -> str:
    if "certificate" in output.lower() and not CERTIFICATES.exists():
        return "sudo apt install ca-certificates"
    if "uv.lock" in output and "needs to be updated" in output:
        return ".venv/bin/uv lock, then look at what changed"
    return "the lines above say why; it is safe to run this again"


def there(tool: str) -> bool:
    return shutil.which(tool, path=tools_environment()["PATH"]) is not None


def shown(part: str | Path) -> str:
    return os.path.relpath(part, ROOT) if isinstance(part, Path) else part


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
