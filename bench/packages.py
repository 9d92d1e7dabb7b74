"""How long a large package takes: `python -m bench.packages`. Each step is meant to stay within 1.5 s, one lint within 150 ms."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from bema.packages.environments import Environment
from bema.packages.lint import lint
from bema.packages.nodes import Source
from bema.packages.opackage import (
    AccessModifier,
    FunctionBinding,
    KeySpecification,
    OClass,
    OFunction,
    OPackage,
    ProvisionConfig,
    StateSpecification,
    to_data,
)
from bema.packages.planner import plan
from bema.packages.reading import examine_text
from bema.packages.writing import to_yaml

T = TypeVar("T")
ROUNDS = 5


def large(classes: int, functions: int) -> OPackage:
    """A package of so many classes with so many functions each, every function provisioned."""
    package = OPackage("bench.large", "1.0.0")
    for c in range(classes):
        keys = [f"class{c}.method{f}" for f in range(functions)]
        state = StateSpecification([KeySpecification("id", "string")], "memory", serialization_format="json")
        bindings = [
            FunctionBinding(key.partition(".")[2], key, AccessModifier.PUBLIC, False, ["one", "two"]) for key in keys
        ]
        package.classes.append(OClass(f"Class{c}", f"The class of number {c}", state, bindings))
        package.functions += [OFunction(key, description="A method", provision_config=_provision()) for key in keys]
    return package


def _provision() -> ProvisionConfig:
    return ProvisionConfig("ghcr.io/acme/large:1.2.3", None, 8080, 200, True, "250m", "256Mi", "500m", "512Mi", 0, 10)


def timed(name: str, what: Callable[[], T]) -> T:
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        made = what()
        taken.append(time.perf_counter() - started)
    print(f"{name:<28} median {statistics.median(taken) * 1000:7.0f} ms   best {min(taken) * 1000:7.0f} ms")
    return made


def main() -> None:
    package = large(1000, 5)
    text = timed("print 1,000 classes", lambda: to_yaml(to_data(package)))
    document = timed("read them", lambda: examine_text(Source(text)))
    timed("lint them", lambda: lint([document]))
    environments = [Environment(f"e{n}", 0.99) for n in range(3)]
    timed("plan them", lambda: plan(package, environments))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "small.yaml"
        file.write_text(to_yaml(to_data(large(2, 2))))
        timed("lint of one file, process", lambda: _run("-m", "bema", "package", "lint", str(file)))
    timed("import bema, process", lambda: _run("-c", "import bema"))
    timed("and the decorators, process", lambda: _run("-c", "import bema.packages.decorators"))
    timed("import asyncio, msgspec", lambda: _run("-c", "import asyncio, msgspec"))


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


if __name__ == "__main__":
    main()
