"""Plans: the reference arithmetic, the author's bounds kept, and what cannot be had said aloud."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.errors import Invalid, NotFound
from bema.packages.environments import Environment, parse
from bema.packages.opackage import ProvisionConfig, to_data
from bema.packages.planner import Wishes, plan
from bema.packages.reader import read_text
from bema.packages.replicas import Measure, for_availability, for_strong, for_throughput, quorum_availability
from bema.packages.units import assignments

THREE = [Environment(name, 0.99) for name in ("e1", "e2", "e3")]


def document(
    nfr: str = "{}", provision: str = "{container_image: i, need_http2: true}", more: str = "", model: str = "NONE"
):
    return read_text(
        f"""
name: shop
classes:
  - key: Order
    state_spec: {{consistency_model: {model}}}
    function_bindings:
      - {{name: add, function_key: order.add, access_modifier: PUBLIC}}
      - {{name: also, function_key: order.add, access_modifier: PUBLIC, stateless: true}}
functions:
  - {{key: order.add, provision_config: {provision}, config: {{A: "1"}}}}
deployments:
  - {{key: orders, package_name: shop, class_key: Order, nfr_requirements: {nfr}, {more}}}
"""
    )


def planned(package, environments=THREE, **wishes):
    (found,) = plan(package, environments, wishes=Wishes(**wishes))
    return found


@pytest.mark.parametrize(
    ("target", "environments", "replicas", "strong", "reached"),
    [
        (0.99, [0.99], 1, 3, 0.99),
        (0.999, [0.99] * 3, 3, 3, 0.999702),
        (0.9999, [0.99] * 3, 3, 3, 0.999702),
        (0.9999, [0.99] * 5, 5, 5, 0.99999),
        (0.95, [0.9, 0.99, 0.999], 3, 3, 0.998892),
        (0.90, [0.9, 0.99, 0.999], 1, 3, 0.9),
        (0.99, [0.9] * 9, 5, 5, 0.99144),
    ],
)
def test_the_table_of_the_reference_planner(target, environments, replicas, strong, reached):
    sized = for_availability(target, environments)
    assert sized.replicas == replicas
    assert for_strong(sized.replicas) == strong
    assert sized.reached == pytest.approx(reached, abs=5e-6)
    assert sized.enough is (sized.reached >= target)
    named = [Environment(f"e{n}", share) for n, share in enumerate(environments)]
    found = planned(document(f"{{availability: {target}}}", model="STRONG"), named)
    assert (found.replicas, found.reached) == (strong, sized.reached)


def test_arithmetic_is_capped():
    assert for_availability(1.0, [0.5] * 80).replicas == 50
    assert for_strong(50) == 50
    assert quorum_availability([1.0] * 50) == 1.0
    assert for_throughput(100_000, Measure(1)) == 20


@pytest.mark.parametrize(
    ("rps", "measured", "replicas"),
    [
        (100, Measure(50), 2),
        (101, Measure(50), 3),
        (100, Measure(50, 250), 1),
        (100, Measure(50, 500, 300), 3),
        (1, Measure(1000), 1),
    ],
)
def test_throughput_follows_what_one_replica_was_seen_to_do(rps, measured, replicas):
    assert for_throughput(rps, measured) == replicas
    found = planned(document(f"{{min_throughput_rps: {rps}}}"), measured={"order.add": measured})
    assert found.deployment.functions[0].provision_config.min_scale == max(replicas, 1)


def test_throughput_without_a_measure_is_said_to_be_unknown():
    found = planned(document("{min_throughput_rps: 100}"))
    assert found.conflicts == ()
    assert "100 rps of order.add cannot be sized" in found.notes[0]


def test_a_rate_that_no_number_of_replicas_reaches():
    found = planned(document("{min_throughput_rps: 1000}"), measured={"order.add": Measure(10)})
    assert "needs 1000 rps; 20 replicas, the most, do 200" in found.conflicts[0]


def test_two_bindings_on_one_function_are_one_workload():
    (function,) = planned(document()).deployment.functions
    assert function.function_key == "order.add"
    assert function.config == {"A": "1"}


def test_the_authors_bounds_are_kept():
    package = document("{availability: 0.999}", "{container_image: i, min_scale: 0, max_scale: 10}")
    found = planned(package)
    config = found.deployment.functions[0].provision_config
    assert (config.min_scale, config.max_scale) == (0, 10)
    assert found.conflicts == ()
    assert any("keeps min_scale 0" in note for note in found.notes)


def test_a_conflict_with_max_scale_is_reported():
    found = planned(document("{availability: 0.999}", "{container_image: i, max_scale: 2}"))
    assert found.conflicts == (
        "orders: function order.add needs 3 replicas but max_scale is 2. Raise max_scale, or require less.",
    )
    config = found.deployment.functions[0].provision_config
    assert (config.min_scale, config.max_scale) == (2, 2)


def test_silence_about_scale_is_filled_in():
    assert planned(document("{availability: 0.999}")).deployment.functions[0].provision_config.min_scale == 3


def test_an_availability_that_cannot_be_had_is_explained():
    found = planned(document("{availability: 0.9999}"))
    assert found.replicas == 3
    assert not found.as_data()["fits"]
    assert "availability 0.9999 cannot be had: a quorum of all 3 environments reaches 0.999702" in found.conflicts[0]
    assert "e1 0.99" in found.conflicts[0]


def test_an_availability_out_of_range_is_refused_not_defaulted():
    with pytest.raises(Invalid, match=r"availability 1.5 is not between 0 and 1"):
        planned(document("{availability: 1.5}"))


def test_target_environments_are_taken_as_they_are():
    found = planned(document("{availability: 0.5}", more="target_envs: [e3, e1]"))
    assert found.deployment.status.selected_envs == ["e3", "e1"]
    assert found.deployment.odgm.replica_count == 2


def test_without_targets_the_best_are_taken():
    known = [Environment("poor", 0.9), Environment("good", 0.999), Environment("fair", 0.99)]
    assert planned(document("{availability: 0.9}"), known).deployment.status.selected_envs == ["good"]
    assert planned(document("{availability: 0.95}"), known).deployment.status.selected_envs == ["good", "fair", "poor"]


def test_available_environments_narrow_the_choice():
    found = planned(document(more="available_envs: [e2, gone]"))
    assert found.deployment.status.selected_envs == ["e2"]
    assert "environment gone is listed as available but unknown: left out" in found.notes


@pytest.mark.parametrize(
    ("more", "known", "says"),
    [
        ("target_envs: [nowhere]", THREE, "unknown target environment 'nowhere'"),
        ("available_envs: [nowhere]", THREE, "no eligible environments found"),
        ("", [], "no eligible environments found"),
        ("", [Environment("e", None, 0, 0)], "environment e reports zero nodes"),
        ("", [Environment("e")], "environment e has neither an availability nor ready and node counts"),
        ("", [Environment("e", 1.5)], "availability 1.5 is not between 0 and 1"),
    ],
)
def test_environments_that_cannot_be_used_are_named(more, known, says):
    with pytest.raises(Invalid) as refused:
        planned(document(more=more), known)
    assert says in refused.value.message
    assert refused.value.code == "no_plan"


def test_environments_as_they_are_written():
    assert parse("e") == Environment("e", 0.99)
    assert parse("e=0.5").health() == 0.5
    assert parse("e=2/4").health() == 0.5
    with pytest.raises(Invalid, match="neither an availability nor READY/NODES"):
        parse("e=much")


@pytest.mark.parametrize("text", ["e=5/3", "e=-1/3", "e=1/-3", "e=0/0", "e=1.5", "e=-0.1", "e=nan", "e=1e400"])
def test_an_environment_that_cannot_be_is_refused(text):
    with pytest.raises(Invalid, match="environment e") as refused:
        parse(text).health()
    assert refused.value.code == "no_plan"


@pytest.mark.parametrize("text", ["", "=0.5", "=1/2"])
def test_an_environment_has_a_name(text):
    with pytest.raises(Invalid, match="has no name"):
        parse(text)


def test_an_image_is_overridden_for_this_deployment_only():
    package = document()
    found = planned(package, images={"order.add": "i:2"})
    assert found.deployment.functions[0].provision_config.container_image == "i:2"
    assert package.functions[0].provision_config == ProvisionConfig("i", need_http2=True)
    with pytest.raises(NotFound, match="no function 'x'"):
        planned(package, images={"x": "i"})


def test_what_a_deployment_says_of_a_function_lies_on_top():
    more = "functions: [{function_key: order.add, provision_config: {container_image: j}, config: {B: '2'}}]"
    (function,) = planned(
        document(provision="{container_image: i, need_http2: true, port: 80}", more=more)
    ).deployment.functions
    assert (function.provision_config.container_image, function.provision_config.port) == ("j", 80)
    assert function.provision_config.need_http2
    assert function.config == {"A": "1", "B": "2"}


def test_the_same_input_and_seed_give_the_same_plan():
    package = document("{availability: 0.999}")

    def text(seed):
        return json.dumps(planned(package, seed=seed).as_data())

    assert text(1) == text(1)
    assert text(1) != text(2)
    assert planned(package, [*reversed(THREE)]).deployment.status == planned(package).deployment.status


def test_a_plan_loads_as_a_deployment_of_the_model():
    found = planned(document("{availability: 0.999}", model="STRONG"))
    text = json.dumps({"name": "shop", "deployments": [to_data(found.deployment)]})
    assert read_text(text, is_json=True).deployments == [found.deployment]
    odgm = found.deployment.odgm
    assert (odgm.collections, odgm.log, odgm.replica_count) == (["shop.Order"], "info", 3)
    assert sorted(odgm.env_node_ids) == ["e1", "e2", "e3"]


def test_each_environment_gets_one_unit():
    found = planned(document("{availability: 0.999}"))
    assert [unit["target_env"] for unit in found.units] == ["e1", "e2", "e3"]
    assert all(unit["id"].startswith("order-") and len(unit["id"]) == 14 for unit in found.units)
    assert len({unit["id"] for unit in found.units}) == 3
    assert found.units[0]["routes"]["also"] == {
        "function_key": "order.add",
        "stateless": True,
        "standby": False,
        "url": "",
    }


def test_a_class_without_a_deployment_gets_one():
    package = read_text(
        "name: p\nclasses: [{key: A}, {key: B}]\ndeployments: [{key: x, package_name: p, class_key: B}]"
    )
    assert [found.deployment.key for found in plan(package, THREE)] == ["x", "A"]
    assert [found.deployment.key for found in plan(package, THREE, classes=["A"])] == ["A"]
    with pytest.raises(NotFound, match="no class 'C'"):
        plan(package, THREE, classes=["C"])


def test_a_deployment_of_a_class_that_is_not_here_is_refused():
    package = read_text("name: p\ndeployments: [{key: x, package_name: p, class_key: B}]")
    with pytest.raises(NotFound, match=r"deployment x is of class p.B"):
        plan(package, THREE)


def test_parts_of_the_data_are_spread_over_the_nodes():
    made = assignments(4, 2, [10, 20, 30])
    assert [part["primary"] for part in made] == [10, 30, 20, 10]
    assert made[0] == {"primary": 10, "replica": [10, 20], "shard_ids": [1, 2]}
    assert [n for part in made for n in part["shard_ids"]] == list(range(1, 9))


@pytest.mark.parametrize("odgm", ["{partition_count: 4294967295}", "{partition_count: 3000000}"])
def test_a_plan_that_would_fill_the_memory_is_refused(odgm):
    with pytest.raises(Invalid, match="more than a plan can list") as refused:
        planned(document(more=f"odgm: {odgm}"))
    assert refused.value.code == "no_plan"


chances = st.lists(st.floats(0, 1), min_size=1, max_size=9)


@given(chances)
def test_a_quorums_chance_is_that_of_counting_every_case(chances):
    def chance(case):
        return math.prod(p if up else 1 - p for p, up in zip(chances, case, strict=True))

    cases = itertools.product((True, False), repeat=len(chances))
    expected = math.fsum(chance(case) for case in cases if sum(case) > len(chances) // 2)
    assert quorum_availability(chances) == pytest.approx(expected, abs=1e-9)


@given(chances, st.floats(0, 1))
def test_the_first_number_of_replicas_that_suffices_is_taken(chances, target):
    sized = for_availability(target, chances)
    worst_first = sorted(chances)
    reached = [quorum_availability(worst_first[:n]) for n in range(1, len(chances) + 1)]
    enough = [n for n, share in enumerate(reached, 1) if share >= target - 1e-12]
    assert sized.enough is bool(enough)
    assert sized.replicas == (enough[0] if enough else len(chances))
    assert sized.reached == reached[sized.replicas - 1]


@given(st.integers(1, 49))
def test_a_strong_class_survives_the_loss_of_one(replicas):
    strong = for_strong(replicas)
    assert strong >= max(replicas, 3)
    assert strong - 1 >= strong // 2 + 1, "a quorum of them is left"


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 9))
def test_every_partition_has_its_copies_on_different_nodes(partitions, copies, nodes):
    made = assignments(partitions, copies, list(range(1, nodes + 1)))
    held = min(copies, nodes)
    assert len(made) == partitions
    assert all(len(set(one["replica"])) == len(one["replica"]) == held for one in made)
    assert all(one["primary"] == one["replica"][0] for one in made)
    assert [shard for one in made for shard in one["shard_ids"]] == list(range(1, partitions * held + 1))
    used = Counter(node for one in made for node in one["replica"])
    assert max(used.values()) - min(used.get(node, 0) for node in range(1, nodes + 1)) <= held


def test_the_package_itself_is_never_changed():
    package = document("{availability: 0.999}", more="functions: [{function_key: order.add}]")
    before = json.dumps(to_data(package))
    planned(package, images={"order.add": "x"})
    assert json.dumps(to_data(package)) == before
