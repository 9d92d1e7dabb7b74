"""Parts are opened in one way: with the settings of their section, the limits and the state folder."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bema.core.errors import BadDeclaration, Refused
from bema.core.settings import PartSettings, read
from bema.parts import Factory, LoadFailed


class ShelfFactory(Factory[object], group="app.shelf", default="plain", opens="plain"):
    pass


class DiskFactory(Factory[object], group="app.disk", default="disk", opens="waiting"):
    pass


@ShelfFactory.register("plain")
class Plain:
    """A part that asks for nothing."""


@ShelfFactory.register("told")
class Told:
    def __init__(self, settings: PartSettings) -> None:
        self.settings = settings

    @classmethod
    def open(cls, settings: PartSettings) -> Told:
        return cls(settings)


@DiskFactory.register("disk")
class Disk(Told):
    @classmethod
    async def open(cls, settings: PartSettings) -> Disk:  # type: ignore[override]
        await asyncio.sleep(0)
        return cls(settings)


TOML = '[parts."app.shelf"]\nwidth = 3\ncolour = "green"\n[limits]\ndrain = 2\n'


def test_a_part_is_given_its_own_section_the_limits_and_the_state_folder():
    held = read({"BEMA_STATE_DIR": "/state"}, {"bema.toml": TOML})
    part = ShelfFactory.open(held, "told")
    assert isinstance(part, Told)
    assert dict(part.settings) == {"width": 3, "colour": "green"}
    assert (part.settings.limits.drain, part.settings.state) == (2.0, Path("/state"))
    assert dict(held.of("app.disk")) == {}


def test_a_variable_is_nearer_than_a_file_and_pyproject_is_the_farthest():
    texts = {"bema.toml": TOML, "pyproject.toml": '[tool.bema.parts."app.shelf"]\nwidth = 9\ndepth = 1\n'}
    held = read({"APP_SHELF__COLOUR": "red", "APP_SHELF": "told"}, texts)
    assert dict(held.of("app.shelf")) == {"width": 3, "depth": 1, "colour": "red"}


def test_its_settings_are_read_only():
    with pytest.raises(TypeError):
        read({}, {"bema.toml": TOML}).of("app.shelf")["width"] = 4  # type: ignore[index]


@pytest.mark.parametrize("section", ["3", "{ width = [1] }", "{ width = { of = 1 } }"])
def test_a_section_that_is_no_table_of_plain_values_is_refused(section):
    with pytest.raises(Refused, match=r'bema.toml parts."app.shelf" is not a table of texts and numbers'):
        read({}, {"bema.toml": f'parts."app.shelf" = {section}\n'})


def test_a_part_without_open_is_made_without_arguments_and_one_may_wait():
    held = read({}, {})
    assert type(ShelfFactory.open(held)) is Plain
    assert type(asyncio.run(DiskFactory.open_waiting(held))) is Disk


class Needy:
    def __init__(self, size: int) -> None: ...


class Keyed:
    @classmethod
    def open(cls, *, size: int) -> Keyed:
        return cls()


class Method:
    def open(self, settings: PartSettings) -> None: ...


class Waits:
    @classmethod
    async def open(cls, settings: PartSettings) -> Waits:
        return cls()


@pytest.mark.parametrize(
    ("implementation", "sentence"),
    [
        (Needy, "Needy does not take settings: it has no open(settings), and its constructor needs arguments"),
        (Keyed, "Keyed does not take settings: its open cannot be called as open(settings)"),
        (Method, "Method does not take settings: its open is not a class method"),
        (Waits, "Waits.open is async, and its kind is opened where nothing can wait: write a plain def"),
    ],
)
def test_a_part_that_does_not_take_settings_is_refused_where_it_is_registered(implementation, sentence):
    with pytest.raises(BadDeclaration) as caught:
        ShelfFactory.register("wrong")(implementation)
    assert str(caught.value) == f"ShelfFactory.register('wrong'): {sentence}"
    assert "@classmethod def open(cls, settings)" in caught.value.fix
    assert "wrong" not in ShelfFactory.names()


def test_a_plugin_that_does_not_take_settings_is_refused_where_it_is_loaded():
    ShelfFactory.register_lazy("lazy", f"{__name__}:Needy")
    with pytest.raises(LoadFailed, match="does not take settings") as caught:
        ShelfFactory.open(read({}, {}), "lazy")
    (row,) = ShelfFactory.list_implementations("lazy", detail=True)
    assert row["state"] == "wrong_type"
    assert "Give it `@classmethod def open(cls, settings)`" in caught.value.fix
