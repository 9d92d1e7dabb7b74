"""For all documents: a print reads as what was printed, and a changed document is either taken or refused with a rule."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bema.packages.lint import RULES, lint, mend
from bema.packages.nodes import Source
from bema.packages.opackage import to_data
from bema.packages.reader import examine_text, read_text
from bema.packages.writer import to_yaml

from .conftest import DATA
from .documents import packages

KNOWN = {rule.id for rule in RULES}
GOOD = (DATA / "accept" / "a02-full-current-model.yaml").read_text()
VALUES = ["x", "", None, 0, -1, 1.5, True, [], {}, ["x"], {"x": "y"}, "80", 2**70, "CUSTOM", "public"]


@given(packages)
def test_print_read_print_is_the_identity_in_yaml(package):
    printed = to_yaml(to_data(package))
    again = read_text(printed)
    assert again == package
    assert to_yaml(to_data(again)) == printed


@given(packages)
def test_print_read_print_is_the_identity_in_json(package):
    printed = json.dumps(to_data(package))
    assert read_text(printed, is_json=True) == package


@given(packages)
def test_other_readers_of_yaml_see_the_same_data(package):
    data = to_data(package)
    assert yaml.load(to_yaml(data), Loader=yaml.SafeLoader) == data


def places(data: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    found: list[tuple[Any, Any]] = []
    keys = list(data) if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    for key in keys:
        found += [(data, key), *places(data[key])]
    return found


def mutated(data: Any, seed: int) -> Any:
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 3)):
        container, key = chance.choice(places(data))
        what = chance.randrange(4)
        if what == 0:
            del container[key]
        elif what == 1 and isinstance(container, dict):
            container[f"{key}_"] = container.pop(key)
        elif what == 2 and isinstance(container, list):
            container.append(container[key])
        else:
            container[key] = copy.deepcopy(chance.choice(VALUES))  # an edit of one place is none of another
    return data


@given(st.integers())
@settings(max_examples=300)
def test_a_mutation_is_taken_with_equal_meaning_or_refused_with_a_rule(seed):
    data = mutated(yaml.load(GOOD, Loader=yaml.SafeLoader), seed)
    for text, is_json in ((json.dumps(data), True), (yaml.safe_dump(data), False)):
        document = examine_text(Source(text, is_json=is_json))
        (report,) = lint([document])
        assert all(finding.rule in KNOWN and finding.line >= 1 for finding in report.findings)
        if document.package is None:
            assert document.problems
        else:
            assert kept(data, to_data(document.package), {note.path for note in document.notes})


def kept(said: Any, printed: Any, dropped: set[str], path: str = "") -> bool:
    """Whether everything that was said is in the print: as it was, as its text, or named as dropped."""
    if path in dropped or said in (None, [], {}):
        return True
    if isinstance(said, dict) and isinstance(printed, dict):
        return all(kept(v, printed.get(k), dropped, f"{path}.{k}".lstrip(".")) for k, v in said.items())
    if isinstance(said, list) and isinstance(printed, list):
        return len(said) == len(printed) and all(
            kept(a, b, dropped, f"{path}[{i}]") for i, (a, b) in enumerate(zip(said, printed, strict=True))
        )
    if isinstance(printed, str):
        return isinstance(said, str | int | float) and (
            said == printed or yaml.safe_dump(said).split("\n")[0] == printed or "T" in printed
        )
    return said == printed or (printed is None and said in ("", 0, False))


@given(st.integers())
@settings(max_examples=100)
def test_mending_a_mutation_breaks_nothing_and_comes_to_an_end(seed):
    data = mutated(yaml.load(GOOD, Loader=yaml.SafeLoader), seed)
    for text, is_json in ((json.dumps(data), True), (yaml.safe_dump(data, default_flow_style=seed % 2 == 0), False)):
        source = Source(text, is_json=is_json)
        fixed, done = mend(source)
        before, after = examine_text(source), examine_text(fixed)
        assert before.package is None or after.package is not None
        assert len(after.problems) <= len(before.problems)
        assert (fixed.text == text) is not bool(done)
        assert mend(fixed) == (fixed, [])


@given(st.integers())
@settings(max_examples=100)
def test_what_was_mended_is_all_that_means_something_else(seed):
    """`--fix` of a document that reads changes only what one of its findings was about."""
    data = mutated(yaml.load(GOOD, Loader=yaml.SafeLoader), seed)
    source = Source(yaml.safe_dump(data))
    fixed, done = mend(source)
    before, after = examine_text(source).package, examine_text(fixed).package
    if before is None or after is None:
        return
    changed = differing(to_data(before), to_data(after))
    places = {finding.path for finding in done}
    assert all(any(path.startswith(place) or place.startswith(path) for place in places) for path in changed)


def differing(one: Any, other: Any, path: str = "") -> set[str]:
    """The paths at which two prints differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [*one, *(key for key in other if key not in one)]
        return set().union(*(differing(one.get(k), other.get(k), f"{path}.{k}".lstrip(".")) for k in keys))
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return set().union(*(differing(a, b, f"{path}[{i}]") for i, (a, b) in enumerate(zip(one, other, strict=True))))
    return set() if one == other else {path}


@given(st.text(max_size=200))
def test_any_text_is_answered(text):
    for is_json in (False, True):
        (report,) = lint([examine_text(Source(text, is_json=is_json))])
        assert report.document.package or report.findings


@given(st.integers())
@settings(max_examples=200)
def test_any_bytes_changed_in_a_good_document_are_answered(seed):
    chance = random.Random(seed)
    text = list(GOOD)
    for _ in range(chance.randint(1, 8)):
        text[chance.randrange(len(text))] = chance.choice("{}[]:,-#'\"&*!|>%@` \n\tx0~<")
    (report,) = lint([examine_text(Source("".join(text)))])
    assert report.document.package or report.findings
