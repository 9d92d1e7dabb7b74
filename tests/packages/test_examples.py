"""The example stays what its document says it is."""

from __future__ import annotations

from pathlib import Path

from bema.packages.environments import Environment
from bema.packages.export import MetadataRepo
from bema.packages.lint import lint
from bema.packages.loader import classes_of
from bema.packages.planner import plan
from bema.packages.reader import examine, read
from bema.packages.reexport import reexport

EXAMPLES = Path(__file__).parents[2] / "examples" / "packages"
DOCUMENT = EXAMPLES / "com.example.analytics.yaml"


def test_exporting_again_changes_nothing():
    (document,) = MetadataRepo(*classes_of(EXAMPLES / "counter.py")).export_pkg().values()
    assert reexport(DOCUMENT.read_text(), document) == (DOCUMENT.read_text(), (), (), ())


def test_it_is_clean_and_can_be_planned():
    assert lint([examine(DOCUMENT)], strict=True)[0].findings == ()
    (found,) = plan(read(DOCUMENT), [Environment("local", 0.99)])
    assert found.conflicts == ()
