"""A large package is handled in a moment. Processor time, with room for a busy machine: bench/packages.py measures."""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import pytest

from bema.packages.environments import Environment
from bema.packages.lint import lint
from bema.packages.nodes import Source
from bema.packages.opackage import OPackage, to_data
from bema.packages.planner import plan
from bema.packages.reader import examine_text
from bema.packages.writer import to_yaml
from bench import packages as bench
from bench.packages import Step, large

SECONDS = 3.0


def test_a_thousand_classes_are_printed_read_linted_and_planned():
    package: OPackage = large(1000, 5)
    assert len(package.functions) == 5000

    def timed(what):
        started = time.process_time()
        made = what()
        assert time.process_time() - started < SECONDS
        return made

    text = timed(lambda: to_yaml(to_data(package)))
    document = timed(lambda: examine_text(Source(text)))
    assert document.package == package
    (report,) = timed(lambda: lint([document]))
    assert report.findings == ()
    assert len(timed(lambda: plan(package, [Environment(f"e{n}", 0.99) for n in range(3)]))) == 1000


@pytest.mark.parametrize(("took", "code", "says"), [(1499.0, 0, "met"), (1501.0, 1, "MISSED")])
def test_the_bench_fails_where_a_step_takes_too_long(monkeypatch, capsys, took, code, says):
    clock = iter((0.0, took / 1000) * bench.ROUNDS)
    monkeypatch.setattr(bench, "_processor", lambda: next(clock))
    steps: list[Step] = []
    assert bench.timed(steps, "read them", lambda: "made", 1500) == "made"
    assert f"at most 1500 ms: {says}" in capsys.readouterr().out
    monkeypatch.setattr(bench, "measure", lambda: steps)
    assert bench.main() == code


def test_one_lint_is_a_matter_of_a_tenth_of_a_second(tmp_path):
    """As a process, in processor time; the limit leaves room for a machine that shares its cores."""
    file = tmp_path / "p.yaml"
    file.write_text(to_yaml(to_data(large(2, 2))))

    def lint_once():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        bench._run("-m", "bema", "package", "lint", str(file))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(lint_once() for _ in range(4)) < 0.3


def test_lint_imports_nothing_it_has_no_use_for(tmp_path):
    """What costs: asyncio, the runtime, the editor of YAML, the network."""
    file = tmp_path / "p.yaml"
    file.write_text("name: p\n")
    code = (
        "import sys; sys.argv = ['bema', 'package', 'lint', sys.argv[1]]\n"
        "from bema.__main__ import main\ntry: main()\nexcept SystemExit: pass\n"
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    heavy = {"asyncio", "ruamel", "ssl", "http.client", "socket", "uvicorn", "starlette", "multiprocessing", "sqlite3"}
    loaded = set(done.stdout.split())
    assert not loaded & heavy
    assert not {
        name for name in loaded if name.startswith(("bema.runtime", "bema.deploy", "bema.gateway", "bema.wire"))
    }
