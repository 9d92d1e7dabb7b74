"""From a stored tree to a workload: its project says what is installed, and all of its files lie beside what is run."""

import asyncio
from pathlib import Path

from bema.deploy.model.bundle import Bundle
from bema.deploy.model.deployment import Deployment, Rollout, Version
from bema.deploy.orchestrator.build import build, workload_of
from bema.deploy.sources.inspection import inspect
from tests.deploy.platform import Platform

LOCK = """version = 1
requires-python = ">=3.11"

[[package]]
name = "shop"
version = "1"
source = { virtual = "." }

[package.metadata]
requires-dist = [{ name = "six" }]

[[package]]
name = "six"
version = "1.17.0"
source = { registry = "https://pypi.org/simple" }
"""
FILES = {
    "src/shop.py": b"import words\napp = words.app\n",
    "src/words.py": b"app = 1\n",
    "pyproject.toml": b'[project]\nname = "shop"\nversion = "1"\ndependencies = ["six"]\n'
    b'[tool.bema]\nentry_file = "src/shop.py"\nentry = "app"\n',
    "uv.lock": LOCK.encode(),
}


def test_a_tree_is_built_by_its_lock_and_laid_out_whole(tmp_path: Path):
    async def story() -> None:
        platform = Platform(tmp_path)
        bundle = Bundle(FILES, "src/shop.py")
        found = await inspect(bundle, platform.parts.pythons)
        version = Version(number=1, digest=bundle.digest, entry=found.entry, dependencies=found.metadata.dependencies)
        deployment = Deployment(id="1", name="shop", owner="ada", versions=(version,), created=0, updated=0)
        await platform.store.create(deployment, bundle)
        made = await build(Rollout(deployment), version, platform.parts)
        assert (made.state, made.fault) == ("done", None)
        (wanted,) = platform.environments.made
        assert wanted.dependencies == ("six",)
        assert 'requirements = [{ "name" = "six" }]' in wanted.lock
        assert b'dependencies = ["six"]' in wanted.code
        for _ in range(2):
            workload = await workload_of(Rollout(deployment), version, 0, platform.parts)
            script = Path(workload.script)
            assert script.read_bytes() == FILES["src/shop.py"]
            assert script.with_name("words.py").read_bytes() == FILES["src/words.py"]

    asyncio.run(story())
