"""Settings: the nearest origin wins, every value knows where it came from, a bad one is refused with that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bema.core.errors import Refused
from bema.core.files import FILES
from bema.core.limits import DEFAULTS, LIMITS, Limits
from bema.core.settings import SETTINGS, Value, load, read

NAMES = sorted(SETTINGS)
NUMBERS = [name for name in NAMES if SETTINGS[name].type is int]


def layers(name, values):
    """The arguments of `read` in which each origin says one of `values` (None: says nothing)."""
    flag, variable, dotenv, toml, pyproject = values
    row = SETTINGS[name]
    section, _, key = name.rpartition(".")
    return {
        "flags": {name: flag},
        "env": {} if variable is None else {row.variable: str(variable)},
        "texts": {
            ".env": "" if dotenv is None else f"{row.variable}={dotenv}\n",
            "bema.toml": "" if toml is None else f"[{section}]\n{key} = {toml}\n",
            "pyproject.toml": "" if pyproject is None else f"[tool.bema.{section}]\n{key} = {pyproject}\n",
        },
    }


ORIGINS = (
    "flag",
    "variable BEMA_GATEWAY__PORT",
    ".env BEMA_GATEWAY__PORT",
    "bema.toml gateway.port",
    "pyproject.toml tool.bema.gateway.port",
)


@given(st.lists(st.none() | st.integers(0, 65_535), min_size=5, max_size=5))
def test_the_nearest_origin_wins(values):
    settings = read(**layers("gateway.port", values))
    said = [(value, origin) for value, origin in zip(values, ORIGINS, strict=True) if value is not None]
    assert settings.all()["gateway.port"] == Value(*(said[0] if said else (8700, "default")))
    assert settings.asked_for("gateway.port") == bool(said)


@given(st.sampled_from(NUMBERS), st.data())
def test_every_number_can_be_set_by_its_variable_and_in_every_file(name, data):
    row = SETTINGS[name]
    number = data.draw(st.integers(int(row.least), int(row.most)))
    for place in range(5):
        values = [None] * 5
        values[place] = number
        assert read(**layers(name, values)).all()[name].value == number


def test_without_a_word_from_anybody_the_defaults_hold():
    settings = read({"HOME": "/home/ada"}, {})
    assert settings.limits == DEFAULTS == Limits(**{name: row.default for name, row in LIMITS.items()})  # type: ignore[arg-type]
    assert settings.text("state_dir") == "/home/ada/.local/state/bema"
    assert {name: settings.origin(name) for name in NAMES} == dict.fromkeys(NAMES, "default")


@pytest.mark.parametrize("name", NAMES)
def test_every_row_is_complete_and_its_default_fits(name):
    row = SETTINGS[name]
    assert row.says
    assert isinstance(row.default, row.type)
    assert row.variable == "BEMA_" + name.upper().replace(".", "__")
    if row.default:
        assert read({row.variable: str(row.default)}, {}).all()[name].value == row.default


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("gateway.port", "x", "is not a whole number"),
        ("gateway.port", "1.5", "is not a whole number"),
        ("gateway.port", "-1", "is not at least 0 and at most 65535"),
        ("gateway.port", "65536", "is not at least 0 and at most 65535"),
        ("log.level", "loud", "is not one of debug, info, warning, error"),
        ("limits.stop", "soon", "is not a number"),
        ("limits.stop", "nan", "is not a number"),
        ("limits.stop", "inf", "is not a number"),
        ("limits.stop", "0", "is not at least 0.001 and at most 31536000"),
        ("limits.stop", "-1", "is not at least 0.001 and at most 31536000"),
        ("limits.stop", "1e12", "is not at least 0.001 and at most 31536000"),
        ("limits.script", "0", "is not at least 1 and at most 1073741824"),
        ("limits.script", "99999999999999", "is not at least 1 and at most 1073741824"),
        ("limits.rpc_message", "20", "is not at least 4096 and at most 1073741824"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_origin(name, text, why):
    variable = SETTINGS[name].variable
    with pytest.raises(Refused) as caught:
        read({variable: text}, {})
    assert caught.value.code == "bad_setting"
    assert str(caught.value) == f"setting {name}: {text!r} {why} (from variable {variable})"


@pytest.mark.parametrize("value", ["true", "[8700]", "8700.5", '"x"', "1979-05-27"])
def test_toml_values_are_not_bent(value):
    with pytest.raises(Refused, match=r"from bema.toml gateway.port"):
        read({}, {"bema.toml": f"gateway.port = {value}"})


def test_a_whole_number_is_a_number():
    assert read({}, {"bema.toml": "limits.stop = 5"}).limits.stop == 5.0


@pytest.mark.parametrize("file", ["bema.toml", "pyproject.toml"])
def test_a_file_that_is_not_toml_is_named(file):
    with pytest.raises(Refused, match=f"{file} is not valid TOML") as caught:
        read({}, {file: "gateway = "})
    assert caught.value.fix == f"Mend {file}."


def test_a_mistyped_name_is_refused_wherever_it_stands():
    with pytest.raises(Refused, match=r"bema.toml: there is no setting 'gateway.prot'"):
        read({}, {"bema.toml": "gateway.prot = 1"})
    with pytest.raises(Refused, match="BEMA_GATEWAY__PROT"):
        read({"BEMA_GATEWAY__PROT": "1"}, {})


def test_keys_of_other_readers_are_left_alone():
    assert (
        read({}, {"pyproject.toml": '[tool.bema]\nentry = "app"\n[tool.other]\nx = 1\n'}).number("gateway.port") == 8700
    )
    assert read({"BEMA_CHANNEL": "5", "BEMA_TRACEBACK": "1"}, {}).number("gateway.port") == 8700


def test_a_dotenv_file_is_lines_of_names_and_values():
    text = "# ports\nexport BEMA_GATEWAY__PORT='9000'\n\nnonsense\nBEMA_LOG__LEVEL = \"debug\"\n#BEMA_CONTROL__PORT=1\n"
    settings = read({}, {".env": text})
    assert settings.number("gateway.port") == 9000
    assert settings.text("log.level") == "debug"
    assert settings.number("control.port") == 8701


def test_an_empty_variable_says_nothing():
    assert read({"BEMA_GATEWAY__PORT": ""}, {}).origin("gateway.port") == "default"


def test_the_state_folder_is_the_same_for_every_process():
    assert read({"BEMA_STATE_DIR": "/srv/bema"}, {}).text("state_dir") == "/srv/bema"
    assert read({"BEMA_STATE_DIR": "/srv/bema"}, {}).origin("state_dir") == "variable BEMA_STATE_DIR"
    for file, text in {"bema.toml": 'state_dir = "/x"', ".env": "BEMA_STATE_DIR=/x"}.items():
        with pytest.raises(Refused, match=r"state_dir cannot be set in a file"):
            read({}, {file: text})


@given(st.dictionaries(st.sampled_from(FILES), st.text(max_size=200)))
def test_whatever_the_files_hold_the_answer_is_settings_or_a_refusal(files):
    try:
        assert set(read({}, files).all()) == set(NAMES)
    except Refused as refusal:
        assert refusal.code == "bad_setting"


def test_settings_are_asked_for_by_name_and_type():
    settings = read({}, {})
    with pytest.raises(KeyError):
        settings.text("gateway.prot")
    with pytest.raises(TypeError, match=r"gateway.port is not text"):
        settings.text("gateway.port")
    with pytest.raises(TypeError, match=r"log.level is not a whole number"):
        settings.number("log.level")


def test_the_files_of_a_folder_are_read(tmp_path):
    assert load(tmp_path, {}).number("gateway.port") == 8700
    (tmp_path / "bema.toml").write_text("[gateway]\nport = 9001\n")
    assert load(tmp_path, {}).all()["gateway.port"] == Value(9001, "bema.toml gateway.port")
    (tmp_path / ".env").write_bytes(b"\xff")
    with pytest.raises(Refused, match=r"\.env cannot be read"):
        load(tmp_path, {})


@pytest.mark.parametrize(
    "written",
    [
        "[tool.bema.gateway]\nport = 9001\n",
        "  [ tool . 'bema'.\"gateway\" ]\nport = 9001\n",
        "[tool]\nbema.gateway.port = 9001\n",
        'tool = { "bema" = { gateway = { port = 9001 } } }\n',
        "tool.bema.gateway.port = 9001\n",
        '"tool".bema.gateway.port = 9001\n[tool.ruff]\nline-length = 120\n',
    ],
)
def test_our_table_of_a_projects_file_is_read_in_every_spelling(tmp_path, written):
    (tmp_path / "pyproject.toml").write_text(written)
    assert load(tmp_path, {}).number("gateway.port") == 9001


def test_a_projects_file_without_our_table_is_not_parsed(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[project]\nname = bema tool\n[tool.ruff]\n")
    assert load(tmp_path, {}).number("gateway.port") == 8700
