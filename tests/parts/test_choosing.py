"""Choosing at run time: in code, by environment, by file; and undoing it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from bema.core.errors import BadDeclaration, Invalid
from bema.parts import ConstructionFailed, Factory, FactoryError, LoadFailed, UnknownImplementation
from bema.parts.doctor import diagnose
from bema.parts.policy import PluginPolicy, read_policy
from tests.parts.conftest import Machine


class Store:
    def __init__(self, size: int = 1) -> None:
        if size < 0:
            raise ValueError("a size is not negative")
        self.size = size


class Small(Store):
    pass


class Large(Store):
    pass


@pytest.fixture
def stores() -> type[Factory[Store]]:
    class StoreFactory(Factory[Store], group="app.stores"):
        pass

    StoreFactory.register("disk")(Small)
    StoreFactory.register("disk")(Large)
    return StoreFactory


def chosen(factory: type[Factory[Any]]) -> str:
    (name,) = [row["name"] for row in factory.list_implementations("disk") if row["is_selected"]]
    assert type(factory.create_instance("disk")).__name__ == name
    return str(name)


def test_the_order_of_the_list_stays_and_the_mark_moves(stores: type[Factory[Store]]) -> None:
    assert chosen(stores) == "Large"
    stores.use_implementation("disk", Small)
    assert stores.list_implementations("disk") == [
        {"name": "Large", "is_plugin": False, "is_selected": False},
        {"name": "Small", "is_plugin": False, "is_selected": True},
    ]
    stores.use_implementation("disk", None)
    assert chosen(stores) == "Large"


@pytest.mark.parametrize("how", [Small, "Small", f"{__name__}:Small"])
def test_by_class_by_class_name_and_by_reference(stores: type[Factory[Store]], how: Any) -> None:
    with stores.use_implementation("disk", how):
        assert chosen(stores) == "Small"
    assert chosen(stores) == "Large"


def test_what_is_no_candidate_changes_nothing(stores: type[Factory[Store]]) -> None:
    class Stranger(Store):
        pass

    stores.discover_plugins()
    for wrong in (Stranger, "Smal", "nobody:disk"):
        with pytest.raises(UnknownImplementation, match=r"which has Large .*, Small"):
            stores.use_implementation("disk", wrong)
    assert chosen(stores) == "Large"
    stores.use_implementation("disk", Stranger, register=True)
    assert chosen(stores) == "Stranger"


def test_unknown_names_are_lookup_errors_with_suggestions(stores: type[Factory[Store]]) -> None:
    with pytest.raises(LookupError, match="did you mean 'disk'"):
        stores.list_implementations("disc")
    assert stores.list_implementations("disc", default=[]) == []
    with pytest.raises(UnknownImplementation, match="it has disk"):
        stores.create_instance("disc")


def test_a_selection_before_discovery_waits_and_is_reported_when_nothing_answers(
    stores: type[Factory[Store]],
) -> None:
    stores.use_implementation("disk", "acme:disk")
    assert stores.discover_plugins().pending == {"disk": "acme:disk"}
    with pytest.raises(UnknownImplementation, match="the code selects 'acme:disk'"):
        stores.create_instance("disk")


def test_a_constructor_that_raises_is_typed_and_chained(stores: type[Factory[Store]]) -> None:
    with pytest.raises(ConstructionFailed, match=r"Large.*for 'disk' raised ValueError: a size") as caught:
        stores.create_instance("disk", size=-1)
    assert isinstance(caught.value.__cause__, ValueError)
    assert isinstance(caught.value, FactoryError)
    assert stores.create_instance("disk", size=2).size == 2
    assert chosen(stores) == "Large"


def test_an_instance_that_exists_stays_what_it_is(stores: type[Factory[Store]]) -> None:
    old, generation = stores.create_instance("disk"), stores.generation()
    stores.use_implementation("disk", "Small")
    assert (type(old), type(stores.create_instance("disk"))) == (Large, Small)
    assert stores.generation() > generation


def test_shared_instances_are_kept_by_implementation(stores: type[Factory[Store]]) -> None:
    large = stores.shared_instance("disk", size=3)
    assert stores.shared_instance("disk", size=3) is large
    with pytest.raises(FactoryError, match="made with other arguments"):
        stores.shared_instance("disk", size=4)
    with stores.use_implementation("disk", Small):
        small = stores.shared_instance("disk")
        assert type(small) is Small
    assert stores.shared_instance("disk", size=3) is large


def test_taking_the_selected_one_away_selects_the_next(stores: type[Factory[Store]]) -> None:
    stores.use_implementation("disk", Small)
    change = stores.unregister("disk", "Small")
    assert [row["name"] for row in stores.list_implementations("disk")] == ["Large"]
    assert chosen(stores) == "Large"
    change.restore()
    assert chosen(stores) == "Small"
    change.restore()
    assert chosen(stores) == "Small"


def test_an_override_ends_with_its_block_even_on_an_error(stores: type[Factory[Store]]) -> None:
    class Fake(Store):
        pass

    before = stores.list_implementations("disk")
    with pytest.raises(RuntimeError), stores.override("disk", Fake):
        assert chosen(stores) == "Fake"
        raise RuntimeError
    assert stores.list_implementations("disk") == before
    with stores.override("disk", Small):
        assert chosen(stores) == "Small"
    assert stores.list_implementations("disk") == before


def test_registering_again_is_nothing_new_and_priority_orders_builtins(stores: type[Factory[Store]]) -> None:
    generation = stores.generation()
    assert stores.register("disk")(Small) is Small
    assert stores.generation() == generation

    @stores.register_all("disk", "ram", override_priority=5)
    class First(Store):
        pass

    assert chosen(stores) == "First"
    assert stores.names() == ["disk", "ram"]


def test_a_lazy_builtin_is_a_reference_until_it_is_used(stores: type[Factory[Store]]) -> None:
    stores.register_lazy("lazy", f"{__name__}:Small")
    stores.register_lazy("missing", "no_such_module:Thing")
    assert stores.list_implementations("lazy", detail=True)[0]["state"] == "declared"
    assert type(stores.create_instance("lazy")).__name__ == "Small"
    with pytest.raises(LoadFailed, match="no_such_module") as caught:
        stores.create_instance("missing")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    with pytest.raises(BadDeclaration):
        stores.register_lazy("x", "no colon")


def test_a_factory_of_a_protocol_looks_at_members_and_signatures() -> None:
    class Codec(Protocol):
        name: str

        def encode(self, value: object, *, indent: int = 0) -> bytes: ...

    class CodecFactory(Factory[Codec], group="app.codecs"):
        pass

    class Good:
        name = "good"

        def encode(self, value: object, *, indent: int = 0, **more: object) -> bytes:
            return b""

    class Silent:
        name = "silent"

    class Narrow:
        def encode(self, value: object) -> bytes:
            return b""

    class Greedy:
        def encode(self, value: object, extra: int, *, indent: int = 0) -> bytes:
            return b""

    CodecFactory.register("good")(Good)
    for wrong, says in ((Silent, "encode of"), (Narrow, "does not take indent"), (Greedy, "also needs 'extra'")):
        with pytest.raises(TypeError, match=says):
            CodecFactory.register("wrong")(wrong)


def test_what_is_not_a_class_or_not_of_the_base_is_refused_at_the_decorator(stores: type[Factory[Store]]) -> None:
    for wrong in (42, chosen, threading, dict):
        with pytest.raises(BadDeclaration):
            stores.register("wrong")(wrong)  # type: ignore[type-var]
    with pytest.raises(TypeError):
        stores.register(7)(Small)


def test_a_factory_of_a_factory_has_entries_of_its_own(stores: type[Factory[Store]]) -> None:
    class Other(Factory[Store], group="app.others"):
        pass

    assert Other.names() == []
    Other.register("disk")(Small)
    assert stores.names() == ["disk"] and chosen(stores) == "Large"


def test_the_precedence_is_code_environment_config_default(
    stores: type[Factory[Store]], policy: Callable[[PluginPolicy], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def reason() -> tuple[str, str]:
        (row,) = [r for r in stores.list_implementations("disk", detail=True) if r["is_selected"]]
        return row["name"], row["reason"]

    assert reason() == ("Large", "builtin")
    policy(read_policy({"select": {"app.stores": {"disk": "Small"}}}))
    assert reason() == ("Small", "config")
    monkeypatch.setenv("APP_STORES_DISK", "Large")
    assert reason() == ("Large", "environment")
    stores.use_implementation("disk", "Small")
    assert reason() == ("Small", "code")


def test_a_mistyped_environment_stops_the_program_with_a_suggestion(machine: Machine) -> None:
    machine.add("optimized")
    assert machine.ask("F.create_instance('chat').format('x')", APP_ENDPOINTS_CHAT="ChatEndpoint") == "chat x"
    assert machine.ask("F.create_instance('chat').format('x')", APP_ENDPOINTS_CHAT="optimized:chat") == "Optimized x"
    done = machine.run("F.discover_plugins()\nF.create_instance('chat')", APP_ENDPOINTS_CHAT="optimised:chat")
    assert done.returncode == 1
    assert "did you mean 'optimized:chat'?" in done.stderr


def test_the_file_selects(machine: Machine) -> None:
    machine.add("optimized")
    file = Path(machine.home / "bema.toml")
    file.write_text('[plugins.select."app.endpoints"]\nchat = "ChatEndpoint"\n')
    assert machine.ask("F.create_instance('chat').format('x')") == "chat x"
    file.write_text("[plugins]\nmoed = 'locked'\n")
    assert "did you mean 'mode'" in machine.run("F.discover_plugins()").stderr
    with pytest.raises(Invalid):
        read_policy({"moed": "locked"})


class ShelfFactory(Factory[Store], group="app.shelves", default="small"):
    pass


ShelfFactory.register("small")(Small)
ShelfFactory.register("large")(Large)


def test_a_name_that_nobody_gives_is_the_nearest_that_was_said(
    monkeypatch: pytest.MonkeyPatch, policy: Callable[[PluginPolicy], object]
) -> None:
    assert ShelfFactory.choose() is Small
    policy(PluginPolicy(use={"app.shelves": "large"}))
    assert ShelfFactory.choose() is Large
    policy(PluginPolicy(use={"app.shelves": "large"}, variables={"APP_SHELVES": "small"}))
    assert ShelfFactory.choose() is Small
    monkeypatch.setenv("APP_SHELVES", "large")
    assert ShelfFactory.choose() is Large
    assert ShelfFactory.choose("small") is Small


def test_a_wrong_name_in_use_is_refused_with_the_right_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_SHELVES", "lrage")
    with pytest.raises(UnknownImplementation, match=r"it has large, small; did you mean 'large'\?"):
        ShelfFactory.choose()
    (finding,) = [f for f in diagnose([ShelfFactory.registry], {}) if f.code == "selection"]
    assert finding.level == "error" and "APP_SHELVES" in finding.fix


def test_the_settings_file_of_variables_selects_too(
    stores: type[Factory[Store]], policy: Callable[[PluginPolicy], object]
) -> None:
    policy(PluginPolicy(variables={"APP_STORES_DISK": "Small"}))
    assert chosen(stores) == "Small"
