"""Dependencies among the documents of one run."""

from __future__ import annotations

from bema.packages.lint import lint
from bema.packages.nodes import Source
from bema.packages.opackage import OPackage
from bema.packages.reader import examine_text
from bema.packages.rules.dependencies import cycle_through, dependents

FUNCTION = "functions: [{key: %s, function_type: MACRO}]"


def found(*texts: str, known: tuple[str, ...] = ()) -> list[list[tuple[str, str]]]:
    reports = lint([examine_text(Source(text)) for text in texts], known=known)
    return [[(f.rule, f.message) for f in report.findings] for report in reports]


def of(**packages: list[str]) -> list[str]:
    return [f"name: {name}\ndependencies: {needs}" for name, needs in packages.items()]


def test_a_missing_package_is_named_and_may_be_said_to_be_stored():
    assert found(*of(a=["b"])) == [[("missing-dependency", "Dependency not found: b")]]
    assert found(*of(a=["b"]), known=("b",)) == [[]]
    assert found(*of(a=["b"], b=[])) == [[], []]


def test_a_package_that_depends_on_itself():
    assert found(*of(a=["a"])) == [[("self-dependency", "a depends on itself")]]


def test_a_circle_of_three_is_shown_from_each_of_them():
    reports = found(*of(a=["b"], b=["c"], c=["a"]))
    assert [report[0][1] for report in reports] == [
        "dependencies go in a circle: a -> b -> c -> a",
        "dependencies go in a circle: b -> c -> a -> b",
        "dependencies go in a circle: c -> a -> b -> c",
    ]


def test_a_diamond_is_no_circle():
    assert found(*of(a=["b", "c"], b=["d"], c=["d"], d=[])) == [[], [], [], []]


def test_one_that_leads_into_a_circle_is_not_part_of_it():
    assert found(*of(a=["b"], b=["c"], c=["b"]))[0] == []


def test_a_dependency_is_listed_once():
    assert [rule for rule, _ in found(*of(a=["b", "b"], b=[]))[0]] == ["duplicate-dependency"]


def binding(key: str, dependencies: str = "") -> str:
    return (
        f"name: a\nclasses: [{{key: C, function_bindings: [{{name: f, function_key: {key}, access_modifier: PUBLIC}}]}}]"
        f"\ndependencies: [{dependencies}]"
    )


def test_a_binding_may_name_a_function_of_a_declared_dependency():
    other = f"name: b\n{FUNCTION % 'g'}"
    assert found(binding("g", "b"), other) == [[], []]
    assert found(binding("b.g", "b"), other) == [[], []]


def test_a_binding_to_a_package_that_is_not_declared_is_refused():
    reports = lint([examine_text(Source(binding("g"))), examine_text(Source(f"name: b\n{FUNCTION % 'g'}"))])
    (refused,) = reports[0].findings
    assert refused.rule == "missing-function"
    assert refused.fix == "It is a function of b: add b to dependencies."


def test_a_binding_into_a_stored_dependency_is_taken_on_trust():
    assert found(binding("b.g", "b"), known=("b",)) == [[]]
    assert [rule for rule, _ in found(binding("g", "b"), known=("b",))[0]] == ["missing-function"]


def test_who_needs_a_package_keeps_it_from_being_deleted():
    stored = [OPackage("a", dependencies=["c"]), OPackage("b", dependencies=["c", "a"]), OPackage("c"), OPackage("d")]
    assert dependents(stored) == {"c": ["a", "b"], "a": ["b"]}


def test_a_missing_package_is_named_with_all_that_need_it():
    texts = of(a=["x"], b=["x"], c=["a", "x"])
    reports = lint([examine_text(Source(text)) for text in texts])
    assert [report.findings[0].fix.partition("--known x.")[2] for report in reports] == [
        " b, c depend on it too.",
        " a, c depend on it too.",
        " a, b depend on it too.",
    ]


def test_the_shortest_way_round():
    packages = {
        p.name: p
        for p in (
            OPackage("a", dependencies=["b", "c"]),
            OPackage("b", dependencies=["c"]),
            OPackage("c", dependencies=["a"]),
        )
    }
    assert cycle_through("a", packages) == ["a", "c", "a"]
    assert cycle_through("x", packages) is None
