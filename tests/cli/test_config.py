"""`bema config show`."""

from __future__ import annotations

import json

from bema.core.settings import SETTINGS


def test_every_setting_is_shown_with_its_origin(bema):
    (bema.folder / "bema.toml").write_text("[gateway]\nport = 9001\n")
    done = bema("config", "show", "--origin", "--json", BEMA_CONTROL__PORT="9002")
    shown = json.loads(done.stdout)
    assert list(shown) == list(SETTINGS)
    assert shown["gateway.port"] == {"value": 9001, "origin": "bema.toml gateway.port"}
    assert shown["control.port"] == {"value": 9002, "origin": "variable BEMA_CONTROL__PORT"}
    assert shown["state_dir"] == {"value": str(bema.folder / "state"), "origin": "variable BEMA_STATE_DIR"}
    assert shown["log.level"] == {"value": "info", "origin": "default"}


def test_as_text_it_is_a_table_that_names_each_variable(bema):
    heading, *lines = bema("config", "show", "--origin").stdout.splitlines()
    assert heading.split() == ["SETTING", "VALUE", "ORIGIN", "VARIABLE"]
    assert "gateway.port 8700 default BEMA_GATEWAY__PORT" in [" ".join(line.split()) for line in lines]


def test_without_origins_it_is_names_and_values(bema):
    assert json.loads(bema("config", "show", "--json").stdout)["gateway.port"] == 8700
    assert bema("config", "show").stdout.splitlines()[0].split() == ["SETTING", "VALUE"]


def test_a_bad_value_names_its_origin_and_nothing_is_printed(bema):
    done = bema("config", "show", BEMA_GATEWAY__PORT="x")
    assert (done.returncode, done.stdout) == (1, "")
    assert "'x' is not a whole number (from variable BEMA_GATEWAY__PORT)" in done.stderr
    assert "Traceback" not in done.stderr
