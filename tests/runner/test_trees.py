"""A source of several files runs as a tree: what is run imports its neighbours, and finds what lies beside it."""

from pathlib import Path

from bema.deploy.model.bundle import Bundle

APP = b"""
import pathlib, sys
from shop import greeting

async def app(scope, receive, send):
    if scope["type"] == "http":
        said = greeting() + pathlib.Path(__file__).with_name("data.txt").read_bytes()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": said})
"""
FILES = {
    "main.py": APP,
    "shop/__init__.py": b"from .words import word\ndef greeting(): return word.encode()\n",
    "shop/words.py": b"word = 'hello '\n",
    "data.txt": b"from a file",
}


def test_an_app_of_several_files_answers(launch, tmp_path: Path):
    bundle = Bundle(FILES)
    bundle.place(tmp_path / "tree")
    running = launch("", script=str(tmp_path / "tree" / bundle.entry)).serving()
    assert running.get("/").text == "hello from a file"
    assert running.stop() == 0


def test_a_program_below_a_folder_finds_its_neighbours(launch, tmp_path: Path):
    tree = {"src/run.py": b"import told; print(told.word, __name__)", "src/told.py": b"word = 'told'", "told.py": b""}
    bundle = Bundle(tree, "src/run.py")
    bundle.place(tmp_path / "tree")
    script = str(tmp_path / "tree" / bundle.entry)
    running = launch("", "main", "__main__", script=script, listen="127.0.0.1:0", listen_fd=None)
    assert running.start().ended() == (0, "told __main__\n", "")
