"""`[[function]]`: read whole, and refused with the function and the key before anything is deployed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bema.cli.declared_functions import FunctionEntry, functions
from bema.core.errors import BemaError, Invalid

TABLE = """
[gateway]
port = 8800

[[function]]
file = "shop/Cart_Api.py"
env = { MODE = "test" }
timeout = 30
memory = "512MB"
secrets = ["TOKEN"]

[[function]]
name = "shared"
source = { type = "gist", id = "abc" }
"""


def table(folder: Path, text: str) -> Path:
    (folder / "shop").mkdir()
    (folder / "shop" / "Cart_Api.py").write_text("app = 1\n")
    (folder / "bema.toml").write_text(text)
    return folder


def test_functions_are_read_in_order_with_their_settings(tmp_path: Path):
    assert functions(table(tmp_path, TABLE)) == [
        FunctionEntry(
            name="cart-api",
            source={"type": "inline", "code": "app = 1\n"},
            env={"MODE": "test"},
            settings={"timeout": 30.0, "memory": 512_000_000, "secrets": ("TOKEN",)},
        ),
        FunctionEntry(name="shared", source={"type": "gist", "id": "abc"}),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "names no function"),
        ("[gateway]\nport = 1", "names no function"),
        ("function = 1", "[[function]]"),
        ("[function]\nname = 'x'", "[[function]]"),
        ("[[function]]\nname = 'x'", "function 1 has neither `file` nor `source`"),
        ("[[function]]\nfile = 'a.py'\nsource = {type = 'url'}", "has both"),
        ("[[function]]\nsource = {type = 'url'}", "function 1 has no `name`"),
        ("[[function]]\nname = 'x'\nsource = {url = 'y'}", "`type`"),
        ("[[function]]\nfile = 'missing.py'", "(missing): missing.py: No such file"),
        ("[[function]]\nfile = 3\nname = 'x'", "`file` is no text"),
        ("[[function]]\nfile = 'bema.toml'\nenv = {A = 1}", "env must be a table of strings"),
        ("[[function]]\nfile = 'bema.toml'\ntimeot = 3", "no key 'timeot'"),
        ("[[function]]\nfile = 'bema.toml'\ntimeout = 'long'", "timeout"),
        ("[[function]]\nfile = 'bema.toml'\nentry = 'app'", "no key 'entry'"),
        ("[[function]]\nfile = 'bema.toml'\nmin_instances = -1", "min_instances is -1"),
        ("[[function]]\nfile = 'bema.toml'\nname = 'A/B'", "A/B"),
        ("[[function]]\nfile = 'bema.toml'\n[[function]]\nfile = 'bema.toml'", "two functions are named 'bema'"),
    ],
)
def test_what_cannot_be_deployed_says_where_it_is_wrong(tmp_path: Path, text: str, says: str):
    with pytest.raises(BemaError) as caught:
        functions(table(tmp_path, text))
    assert says in str(caught.value)


def test_a_folder_without_a_table_says_what_to_write(tmp_path: Path):
    with pytest.raises(Invalid, match="names no function") as caught:
        functions(tmp_path)
    assert caught.value.code == "usage"
    assert "[[function]]" in caught.value.fix


def test_a_table_that_is_no_toml_is_refused(tmp_path: Path):
    with pytest.raises(Exception, match="not valid TOML"):
        functions(table(tmp_path, "[[function]"))
