"""Who wins, and why: one pure function."""

from __future__ import annotations

import itertools
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from bema.parts.entries import Origin, PartEntry, PartState
from bema.parts.policy import PluginPolicy, read_policy
from bema.parts.resolve import Candidate, Known, Reason, Selection, judge, order, resolve


def plugin(dist: str, name: str = "chat", **more: Any) -> PartEntry:
    reference = more.pop("reference", f"{dist}:{dist.title()}")
    group = "app.endpoints.plugins"
    return PartEntry(
        group=group, name=name, reference=reference, origin=Origin.PLUGIN, dist=dist, path=f"/{dist}", **more
    )


BUILTIN = PartEntry(group="app.endpoints", name="chat", reference="app:Chat", origin=Origin.CODE)
ALPHA, BETA = plugin("alpha", version="1.0"), plugin("beta", version="2.0")


def choose(*entries: PartEntry, policy: PluginPolicy | None = None, **selection: str) -> tuple[str, str]:
    policy = policy or PluginPolicy()
    choice = resolve("chat", judge(entries, policy), policy, Selection(**selection))
    return (choice.winner.id if choice.winner else choice.problem), choice.reason.value


def test_a_plugin_stands_in_for_the_builtin() -> None:
    assert choose(BUILTIN) == ("app:Chat", "builtin")
    assert choose(BUILTIN, ALPHA) == ("alpha:chat", "plugin")


def test_code_beats_environment_beats_config_beats_the_default() -> None:
    wishes: dict[str, Any] = {"config": "alpha:chat", "environment": "beta:chat", "code": "app:Chat"}
    entries = (BUILTIN, ALPHA, BETA)
    assert choose(*entries, **wishes) == ("app:Chat", "code")
    del wishes["code"]
    assert choose(*entries, **wishes) == ("beta:chat", "environment")
    del wishes["environment"]
    assert choose(*entries, **wishes) == ("alpha:chat", "config")


def test_among_plugins_priority_then_distribution_then_reference() -> None:
    assert choose(BETA, ALPHA)[0] == "alpha:chat"
    assert choose(BETA, ALPHA, policy=read_policy({"priority": {"Beta": 1}}))[0] == "beta:chat"
    assert choose(BETA, ALPHA, policy=read_policy({"priority": {"beta:chat": 1, "alpha": 1}}))[0] == "alpha:chat"
    twins = [plugin("alpha", reference=reference) for reference in ("a:B", "a:A")]
    assert [e.reference for e in order(twins, PluginPolicy())] == ["a:A", "a:B"]


@given(st.permutations([BUILTIN, ALPHA, BETA, plugin("gamma"), plugin("alpha", reference="alpha:Other")]))
def test_the_answer_does_not_depend_on_the_order_of_the_question(entries: list[PartEntry]) -> None:
    assert choose(*entries) == ("alpha:chat", "plugin")
    assert [c.entry.reference for c in judge(entries, PluginPolicy())] == [
        "alpha:Alpha",
        "alpha:Other",
        "beta:Beta",
        "gamma:Gamma",
        "app:Chat",
    ]


@pytest.mark.parametrize("selector", ["beta:chat", "Beta:CHAT", "beta:Beta", "Beta"])
def test_a_selector_is_an_id_a_reference_or_a_class_name(selector: str) -> None:
    assert choose(BUILTIN, ALPHA, BETA, code=selector) == ("beta:chat", "code")


def test_a_selector_that_fits_nothing_or_two_is_a_problem_that_lists_the_candidates() -> None:
    problem, _ = choose(BUILTIN, ALPHA, environment="alhpa:chat")
    assert "the environment selects 'alhpa:chat'" in problem
    assert "Alpha (alpha:chat), Chat (app:Chat)" in problem
    assert "did you mean 'alpha:chat'?" in problem
    twin = plugin("gamma", reference="gamma:Alpha")
    assert "which 2 candidates answer to" in choose(ALPHA, twin, code="Alpha")[0]


def test_the_default_falls_back_and_the_explicit_does_not() -> None:
    def known(entry: PartEntry) -> Known:
        return Known(failure=PartState.FAILED, why="boom") if entry == ALPHA else Known()

    found = judge((BUILTIN, ALPHA, BETA), PluginPolicy(), known=known)
    assert resolve("chat", found, PluginPolicy(), Selection()).winner == BETA
    choice = resolve("chat", found, PluginPolicy(), Selection(config="alpha:chat"))
    assert (choice.winner, choice.culprit) == (None, ALPHA)
    assert "alpha 1.0" in choice.problem and "boom" in choice.problem
    assert resolve("chat", found, PluginPolicy(on_failure="raise"), Selection()).culprit == ALPHA


def test_a_conflict_is_reported_or_refused() -> None:
    found = judge((BUILTIN, ALPHA, BETA), PluginPolicy())
    assert resolve("chat", found, PluginPolicy(), Selection()).conflict == (BETA,)
    strict = resolve("chat", found, PluginPolicy(on_conflict="error"), Selection())
    assert strict.winner is None and strict.reason is Reason.NOTHING
    assert resolve("chat", found, PluginPolicy(on_conflict="error"), Selection(code="Beta")).winner == BETA


def states(*entries: PartEntry, **more: Any) -> dict[str, str]:
    policy = more.pop("policy", PluginPolicy())
    return {c.entry.id: c.state.value for c in judge(entries, policy, **more)}


def test_every_way_of_being_out_of_the_running_has_a_state() -> None:
    entries = {
        PartState.SHADOWED: msgspec.structs.replace(plugin("a"), shadowed_by="/elsewhere"),
        PartState.INVALID: msgspec.structs.replace(plugin("b"), invalid="not `module:Class`"),
        PartState.DISABLED: plugin("c"),
        PartState.NOT_ALLOWED: plugin("d"),
        PartState.INCOMPATIBLE: msgspec.structs.replace(plugin("e"), requires=">=3"),
        PartState.GONE: plugin("f"),
        PartState.DISCOVERED: plugin("g"),
    }
    policy = read_policy({"disable": ["c"], "deny": ["d"]})
    found = judge(tuple(entries.values()), policy, known=lambda e: Known(gone=e.dist == "f"), api="2.1")
    assert {c.state: c.entry for c in found} == entries
    assert all(c.why for c in found if not c.usable)


def test_disabling_by_distribution_by_name_and_by_both() -> None:
    for pattern, expected in {
        "alpha": "disabled",
        "alpha:chat": "disabled",
        "*:chat": "disabled",
        "alpha:x": "discovered",
    }.items():
        assert states(ALPHA, BUILTIN, policy=read_policy({"disable": [pattern]})) == {
            "alpha:chat": expected,
            "app:Chat": "declared",
        }


def test_the_right_to_stand_in_for_a_builtin_is_separate() -> None:
    allowed = read_policy({"mode": "allow", "allow": ["alpha"]})
    assert states(ALPHA, BUILTIN, policy=allowed)["alpha:chat"] == "not_allowed"
    assert states(ALPHA, policy=allowed)["alpha:chat"] == "discovered"
    both = read_policy({"mode": "allow", "allow": ["alpha"], "override_builtin": ["Alpha"]})
    assert states(ALPHA, BUILTIN, policy=both)["alpha:chat"] == "discovered"


def test_deny_beats_allow() -> None:
    for table in ({"deny": ["alpha"]}, {"mode": "allow", "allow": ["alpha"], "deny": ["Alpha"]}):
        assert states(ALPHA, policy=read_policy(table)) == {"alpha:chat": "not_allowed"}


@pytest.mark.parametrize(
    ("permit", "state"),
    [
        ("alpha", "discovered"),
        ("alpha==1.0", "discovered"),
        ("alpha==1.1", "not_allowed"),
        (f"alpha@sha256:{'a' * 64}", "discovered"),
        (f"alpha==1.0@sha256:{'b' * 64}", "not_allowed"),
        ("beta", "not_allowed"),
    ],
)
def test_the_allow_list_names_distribution_version_and_content(permit: str, state: str) -> None:
    policy = read_policy({"mode": "allow", "allow": [permit]})
    assert states(ALPHA, policy=policy, digest=lambda _: "a" * 64) == {"alpha:chat": state}


def test_one_candidate_knows_its_place_among_all_others() -> None:
    for entries in itertools.permutations((ALPHA, BETA, BUILTIN)):
        assert [c.entry for c in judge(entries, PluginPolicy())] == [ALPHA, BETA, BUILTIN]
    assert Candidate(ALPHA, PartState.FAILED).usable is False
