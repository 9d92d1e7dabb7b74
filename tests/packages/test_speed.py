"""A large package is handled in a moment. Processor time, with room for a busy machine: bench/packages.py measures."""

from __future__ import annotations

import time

from bema.packages.environments import Environment
from bema.packages.lint import lint
from bema.packages.nodes import Source
from bema.packages.opackage import OPackage, to_data
from bema.packages.planner import plan
from bema.packages.reading import examine_text
from bema.packages.writing import to_yaml
from bench.packages import large

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
