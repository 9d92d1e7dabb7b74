"""The tables behind a factory: what is known of a name, from whom, and what changes it. Nothing is installed."""

from __future__ import annotations

from typing import Any

import pytest

from bema.parts import Factory, LoadFailed, UnknownImplementation
from bema.parts.discover import SUFFIX, DiscoveryReport
from bema.parts.entries import Origin, PartEntry
from bema.parts.registry import Registry
from bema.parts.scan import Broken


class Store:
    pass


class Small(Store):
    pass


class Large(Store):
    pass


@pytest.fixture
def stores() -> type[Factory[Store]]:
    class StoreFactory(Factory[Store], group="app.stores"):
        pass

    return StoreFactory


def plugin(cls: str = "Small", **fields: Any) -> PartEntry:
    """What an entry point of the distribution `acme` says."""
    said = {"name": "disk", "origin": Origin.PLUGIN, "dist": "acme", "version": "1", "path": "/site/acme.dist-info"}
    return PartEntry(group="app.stores" + SUFFIX, reference=f"{__name__}:{cls}", **{**said, **fields})


def grouped(cls: str = "Small") -> PartEntry:
    """A builtin that is named by an entry point in the bare group."""
    return plugin(cls, origin=Origin.GROUP)


def listed(registry: Registry, key: str = "disk") -> list[tuple[str, bool]]:
    return [(entry.class_name, entry.is_plugin) for entry in registry.table().get(key, ())]


def test_a_class_that_is_declared_and_a_plugins_is_the_plugins_alone(stores):
    stores.register("disk")(Small)
    stores.registry.discover("app.stores", [plugin()])
    assert listed(stores.registry) == [("Small", True)]


def test_a_declared_class_beside_another_plugin_stays(stores):
    stores.register("disk")(Large)
    stores.registry.discover("app.stores", [plugin()])
    assert listed(stores.registry) == [("Small", True), ("Large", False)]


def test_a_shadowed_copy_claims_nothing(stores):
    stores.register("disk")(Small)
    stores.registry.discover("app.stores", [plugin(shadowed_by="/other/acme.dist-info")])
    assert listed(stores.registry) == [("Small", True), ("Small", False)]


def test_a_name_in_the_bare_group_that_code_declares_too_is_the_codes(stores):
    stores.register("disk")(Small)
    stores.registry.discover("app.stores", [grouped()])
    assert [(e.origin, e.class_name) for e in stores.registry.table()["disk"]] == [(Origin.CODE, "Small")]


def test_a_name_in_the_bare_group_that_nobody_declares_is_listed(stores):
    stores.register("disk")(Large)
    stores.registry.discover("app.stores", [grouped()])
    assert {e.origin for e in stores.registry.table()["disk"]} == {Origin.CODE, Origin.GROUP}


def test_a_class_that_was_loaded_under_another_reference_is_one_entry(stores):
    stores.register("disk")(Small)
    alias = grouped("Alias")
    stores.registry.discover("app.stores", [alias])
    assert len(stores.registry.table()["disk"]) == 2, "not loaded: nobody can tell that it is the same"
    stores.registry.loader.load(alias)
    assert [(e.origin, e.class_name) for e in stores.registry.table()["disk"]] == [(Origin.CODE, "Small")]


def test_a_plugin_that_was_loaded_under_another_reference_takes_the_declared_ones_place(stores):
    stores.register("disk")(Small)
    alias = plugin("Alias")
    stores.registry.discover("app.stores", [alias])
    assert len(stores.registry.table()["disk"]) == 2
    stores.registry.loader.load(alias)
    assert listed(stores.registry) == [("Alias", True)]


Alias = Small


def test_what_code_declared_is_known_without_loading_and_a_lazy_name_is_not(stores):
    stores.register("disk")(Small)
    stores.register_lazy("tape", f"{__name__}:Large")
    known = {key: stores.registry.known(stores.registry.table()[key][0]) for key in ("disk", "tape")}
    assert (known["disk"].loaded, known["tape"].loaded) == (True, False)
    assert not stores.registry.known(plugin()).loaded, "the plugin's own entry is another one"
    assert not stores.registry.known(plugin("Large")).loaded


def test_a_plugin_is_loaded_by_its_own_entry_even_where_code_declares_the_class(stores):
    stores.register("disk")(Small)
    entry = plugin()
    stores.registry.discover("app.stores", [entry])
    assert stores.lookup("disk") is Small
    assert entry in stores.registry.loader.outcomes


def test_a_lazy_name_is_loaded_when_it_is_looked_up(stores):
    stores.register_lazy("tape", f"{__name__}:Large")
    assert stores.registry.loader.outcomes == {}
    assert stores.lookup("tape") is Large


def test_declaring_the_same_again_changes_nothing_and_a_class_fills_its_lazy_name(stores):
    stores.register_lazy("disk", f"{__name__}:Small")
    stores.register("disk")(Small)
    generation = stores.generation()
    stores.register("disk")(Small)
    stores.register_lazy("disk", f"{__name__}:Small")
    assert stores.generation() == generation
    (declared,) = stores.registry.declared.values()
    assert declared.implementation is Small


def test_what_is_new_and_what_is_gone_is_told_once(stores):
    registry, one, two = stores.registry, plugin(), plugin("Large")
    assert registry.discover("app.stores", [one]) == ((one,), ())
    assert registry.discover("app.stores", [one]) == ((), ())
    assert registry.discover("app.stores", [one, two]) == ((two,), ())
    assert registry.discover("app.stores", [two]) == ((), (one,))
    assert registry.discover("app.stores", [two]) == ((), ()), "it went before"
    assert registry.discover("app.stores", [one, two]) == ((one,), ()), "it is back"


def test_only_a_discovery_that_found_something_else_changes_the_tables(stores):
    registry = stores.registry
    registry.discover("app.stores", [])
    generation = registry.generation
    assert "app.stores" in registry.discovered, "the first is kept, also of nothing"
    registry.discover("app.stores", [])
    assert registry.generation == generation
    registry.discover("app.stores", [plugin()])
    assert registry.generation == generation + 1
    registry.discover("app.stores", [])
    assert registry.generation == generation + 2


def test_pending_is_a_selection_that_nothing_answers_and_no_other(stores):
    stores.register("disk")(Small)
    stores.register_lazy("tape", "nowhere:Tape")
    stores.use_implementation("disk", Small)
    stores.use_implementation("tape", "nowhere:Tape")
    stores.use_implementation("moon", "acme:moon")
    assert stores.discover_plugins().pending == {"moon": "acme:moon"}
    with pytest.raises(LoadFailed):
        stores.lookup("tape")
    assert stores.discover_plugins().pending == {"moon": "acme:moon"}, "what is there and broken is not pending"


def test_an_unknown_name_is_told_with_those_there_are_or_that_there_are_none(stores):
    with pytest.raises(UnknownImplementation, match="it has nothing"):
        stores.lookup("disk")
    with pytest.raises(UnknownImplementation, match="it has nothing"):
        stores.list_implementations("disk")
    stores.register("disk")(Small)
    stores.register("tape")(Large)
    with pytest.raises(UnknownImplementation, match="it has disk, tape"):
        stores.lookup("dusk")
    with pytest.raises(UnknownImplementation, match="it has disk, tape"):
        stores.list_implementations("dusk")


def test_metadata_that_cannot_be_read_is_named_by_its_distribution_or_where_it_lies():
    broken = (Broken("acme", "/site/a", "line 1"), Broken("", "/site/b", "line 2"))
    assert DiscoveryReport(group="app.stores", broken=broken).problems() == ["acme: line 1", "/site/b: line 2"]
