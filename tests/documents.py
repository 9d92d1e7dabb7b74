"""Reads the documents as their readers do: writes the files they show, runs what they run, compares what they promise.

A fenced block says what is done with it by a comment on the line above the fence:

    <!-- file worker.py, serves -->     written to the document's folder, started with python3, left running
    <!-- file client.py, runs -->       written and run to its end
    <!-- file rows.json -->             written
    <!-- runs -->                       a console block: each `$ ` line is run, what follows it is compared
    <!-- platform -->                   anywhere: `bema up` runs while this document is read
    <!-- not run: REASON -->            a python block that is only compiled

A python block without a comment is executed: blocks of one document share their names, and may `await`. A text block that
follows one that ran is what that one printed. In expected output `...` stands for anything.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

from tests.stories.harness import Platform, until

ROOT = Path(__file__).parents[1]
FENCE = re.compile(
    r"^(?P<indent> *)(?:<!-- (?P<order>[^\n]*?) -->\n(?P=indent))?```(?P<language>\w*)[^\n]*\n(?P<body>.*?)\n(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
TOP_LEVEL = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
END = "\x00"
DRIVER = """
import ast, asyncio, inspect, json, sys
async def main():
    names = {"__name__": "__document__"}
    while line := await asyncio.to_thread(sys.stdin.readline):
        place, text = json.loads(line)
        done = eval(compile(text, place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        if inspect.iscoroutine(done):
            await done
        print("\\0", flush=True)
asyncio.run(main())
"""


class Block(NamedTuple):
    document: Path
    line: int  # of its first line of text
    language: str
    order: str
    body: str

    @property
    def place(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def documents() -> list[Path]:
    """Every document that shows a block of Python, or asks for one to be run."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return sorted(path for path in found if any(to_do(block) for block in blocks(path)))


def blocks(document: Path) -> list[Block]:
    text = document.read_text()
    return [
        Block(
            document,
            text[: found.start("body")].count("\n") + 1,
            found["language"],
            found["order"] or "",
            textwrap.dedent(found["body"]),
        )
        for found in FENCE.finditer(text)
    ]


def to_do(block: Block) -> bool:
    return block.language in ("python", "py") or block.order.startswith(("file ", "runs"))


class Reading:
    """One document, read in a folder of its own."""

    def __init__(self, document: Path, folder: Path) -> None:
        self.blocks = blocks(document)
        self.folder = folder
        self.serving: list[subprocess.Popen[str]] = []
        self.reader: subprocess.Popen[str] | None = None
        self.platform = Platform(folder / "state") if "<!-- platform -->" in document.read_text() else None
        keep = {k: v for k, v in os.environ.items() if not k.startswith("BEMA_") and k != "PYTHONDONTWRITEBYTECODE"}
        self.env = {
            **keep,
            "BEMA_STATE_DIR": str(folder / "state"),
            "HOME": str(folder),
            "NO_COLOR": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }

    def read(self) -> int:
        """Do what every block says; how many were executed."""
        done = 0
        printed: str | None = None
        try:
            if self.platform:
                self.platform.up()
            for block in self.blocks:
                if block.language == "text" and not block.order and printed is not None:
                    same(block, printed, block.body)
                printed = self.do(block) if to_do(block) else None
                done += to_do(block) and not block.order.startswith("not run")
        finally:
            self.end()
        return done

    def do(self, block: Block) -> str | None:
        name, _, how = block.order.removeprefix("file ").partition(", ")
        if block.order.startswith("not run"):
            assert block.order.removeprefix("not run: "), f"{block.place}: say why it is not run"
            compile(block.body, block.place, "exec", flags=TOP_LEVEL)
            return None
        if block.order.startswith("file "):
            (self.folder / name).write_text(block.body + "\n")
            if how == "serves":
                self.serve(block, name)
            return self.run(block, [sys.executable, name]) if how == "runs" else None
        if block.order == "runs":
            return self.console(block)
        return self.execute(block)

    def serve(self, block: Block, name: str) -> None:
        there = self.shown()
        child = subprocess.Popen([sys.executable, name], cwd=self.folder, env=self.env, text=True)
        self.serving.append(child)

        def ready() -> bool:
            assert child.poll() is None, f"{block.place}: {name} ended with {child.returncode}"
            return len(self.shown()) > len(there)

        until(f"{block.place}: {name} serves", ready)

    def shown(self) -> set[str]:
        return {path.name for path in (self.folder / "state" / "run" / "d").glob("*.json")}

    def execute(self, block: Block) -> str:
        """Hand a block to the process that executes this document's blocks, one after the other."""
        if self.reader is None:
            with (self.folder / "stderr").open("w") as errors:
                self.reader = subprocess.Popen(
                    [sys.executable, "-c", DRIVER],
                    cwd=self.folder,
                    env=self.env,
                    text=True,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                )
        assert self.reader.stdin and self.reader.stdout
        text = "\n" * (block.line - 1) + block.body
        self.reader.stdin.write(json.dumps([block.place, text]) + "\n")
        self.reader.stdin.flush()
        printed = ""
        while not printed.endswith(END + "\n"):
            line = self.reader.stdout.readline()
            assert line, f"{block.place} failed\n{printed}{(self.folder / 'stderr').read_text()}"
            printed += line
        return printed.removesuffix(END + "\n")

    def console(self, block: Block) -> str:
        """Each command with the lines below it; `\\` continues a command."""
        for part in re.split(r"^\$ ", block.body, flags=re.MULTILINE)[1:]:
            command, _, expected = part.replace("\\\n", "").partition("\n")
            printed = self.run(block, ["bash", "-c", command])
            if expected:
                same(block, printed, expected)
        return ""

    def run(self, block: Block, command: list[str]) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            text=True,
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, f"{block.place} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def end(self) -> None:
        if self.reader:
            self.reader.communicate()
        for child in self.serving:
            child.terminate()
        codes = [child.wait(30) for child in self.serving]
        if self.platform:
            self.platform.stop()
            self.platform.end()
        assert codes == [0] * len(codes), "a service of this document did not drain"


def same(block: Block, printed: str, expected: str) -> None:
    pattern = ".*".join(re.escape(part) for part in expected.strip().split("..."))
    assert re.fullmatch(pattern, printed.strip(), re.DOTALL), (
        f"{block.place} promises\n{expected}\nand it was\n{printed}"
    )
