"""What plugins cost at start: 500 distributions installed, 50 of them plugins, twelve factories.

B is one call of `importlib.metadata.entry_points(group=...)`, measured in the same run; every sample is a fresh process.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import timeit
from pathlib import Path

from bema.parts import Factory, configured
from bema.parts.policy import PluginPolicy

DISTRIBUTIONS, PLUGINS, FACTORIES, SAMPLES = 500, 50, 12, 21
ROOT = Path(__file__).resolve().parents[1]

DEFINE = f"""
import sys, time, json
from bema.parts import Factory, configured
from bema.parts.policy import PluginPolicy
from bema.parts.scan import installed
configured.place(PluginPolicy())
factories = [type(f"F{{n}}", (Factory,), {{}}, group=f"bench.kind{{n}}") for n in range({FACTORIES})]
began = time.perf_counter()
"""

PROGRAMS = {
    "B": """
import importlib.metadata, time, json
began = time.perf_counter()
found = importlib.metadata.entry_points(group="bench.kind0.plugins")
print(json.dumps([time.perf_counter() - began, len(found)]))
""",
    "all": DEFINE
    + """
snapshot = installed()
taken = time.perf_counter() - began
points = [p for group, found in snapshot.groups.items() if group.startswith("bench.") for p in found]
assert all(p.dist.name and p.dist.version for p in points)
print(json.dumps([taken, len(points)]))
""",
    "twelve": DEFINE
    + """
found = sum(factory.discover_plugins().found for factory in factories)
taken = time.perf_counter() - began
rows = [factory.list_implementations(name) for factory in factories for name in factory.names()]
assert not [m for m in sys.modules if m.startswith("bench_plugin")], "a plugin was imported"
assert "importlib.metadata" not in sys.modules
print(json.dumps([taken, found]))
""",
    "second": DEFINE
    + """
for factory in factories: factory.discover_plugins()
began = time.perf_counter()
factories[0].discover_plugins()
print(json.dumps([time.perf_counter() - began, 50]))
""",
}


def install(site: Path) -> None:
    """Distributions as a wheel leaves them; most have console scripts, as on a real machine."""
    for number in range(DISTRIBUTIONS):
        name = f"bench_dist_{number:03}"
        info = site / f"{name}-1.{number}.dist-info"
        info.mkdir(parents=True)
        lines = [
            "Metadata-Version: 2.1",
            f"Name: {name}",
            f"Version: 1.{number}",
            *[f"Classifier: C :: {n}" for n in range(20)],
        ]
        (info / "METADATA").write_text("\n".join(lines) + "\n\n" + "About it.\n" * 100)
        (info / "RECORD").write_text("")
        if number < PLUGINS:
            kind = number % FACTORIES
            (info / "entry_points.txt").write_text(
                f"[bench.kind{kind}.plugins]\nname{number} = bench_plugin_{number}:Plugin\nshared = bench_plugin_{number}:Plugin\n"
            )
            (site / f"bench_plugin_{number}.py").write_text("class Plugin: ...\n")
        elif number % 5 == 0:
            (info / "entry_points.txt").write_text(f"[console_scripts]\nscript{number} = {name}:main\n")


def sample(program: str, site: Path) -> tuple[float, int]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "BEMA_"))}
    env["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(site)))
    done = subprocess.run([sys.executable, "-c", PROGRAMS[program]], env=env, check=True, capture_output=True, cwd=ROOT)
    taken, found = json.loads(done.stdout)
    return taken * 1000, found


def create_overhead() -> float:
    """Microseconds that `create_instance` adds to calling the class."""

    class Part:
        def __init__(self, size: int) -> None:
            self.size = size

    class PartFactory(Factory[Part], group="bench.parts"):
        pass

    PartFactory.register("part")(Part)
    count = 5_000
    ways = (lambda: Part(size=1), lambda: PartFactory.create_instance("part", size=1))
    # short and in turn, so that what else the machine does falls on both
    pairs = [[timeit.timeit(way, number=count) for way in ways] for _ in range(100)]
    direct, through = (min(times) for times in zip(*pairs, strict=True))
    return float(through - direct) / count * 1e6


def plain_import_reads_metadata() -> bool:
    code = "import sys, bema; sys.exit('importlib.metadata' in sys.modules)"
    return bool(subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode)


def main() -> int:
    configured.place(PluginPolicy())
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        install(site)
        taken: dict[str, list[float]] = {name: [] for name in PROGRAMS}
        found: dict[str, int] = {}
        for number in range(SAMPLES + 1):
            for name in PROGRAMS:
                milliseconds, found[name] = sample(name, site)
                if number:  # the first round fills the file cache and writes bytecode
                    taken[name].append(milliseconds)
    median = {name: statistics.median(values) for name, values in taken.items()}
    b = median["B"]
    rows = [
        ("all groups, sorted, deduplicated, with versions", median["all"], 1.25 * b + 1, "ms"),
        (f"{FACTORIES} factories together", median["twelve"], 1.3 * b, "ms"),
        ("second discover", median["second"], 0.2, "ms"),
        ("create_instance over calling the class", create_overhead(), 1.0, "us"),
        ("importlib.metadata imported by `import bema`", float(plain_import_reads_metadata()), 0.0, ""),
    ]
    print(f"{DISTRIBUTIONS} distributions, {PLUGINS} plugins, median of {SAMPLES} fresh processes; B = {b:.2f} ms")
    assert found["all"] == found["twelve"] == 2 * PLUGINS, found
    missed = 0
    for what, value, most, unit in rows:
        missed += value > most
        ratio = f"{value / b:5.2f} B" if unit == "ms" else ""
        print(f"{'MISSED' if value > most else 'ok':6}  {what:50} {value:8.3f} {unit:2} (at most {most:.3f})  {ratio}")
    print("ok      no plugin module imported by discover or list (checked in every sample)")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
