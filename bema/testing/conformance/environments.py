"""The laws of Environments: what could be made can run, and what could not be made is told in the resolver's words.

`make` gives a `Trial`: the environments, one thing that can be made and has a dependency, and one that cannot.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from bema.core.errors import Failed
from bema.deploy.build.environments import Environments, Wanted
from bema.testing.conformance.frame import Make, Suite

SUITE = Suite("environments")


class EnvironmentsTrial(NamedTuple):
    environments: Environments
    possible: Wanted
    impossible: Wanted


@SUITE.law()
async def nothing_is_needed_for_nothing(make: Make) -> None:
    """What depends on nothing runs on the interpreter it asked for."""
    trial = await make()
    plain = Wanted(b"", (), trial.possible.python)
    assert (await trial.environments.make(plain)).python == plain.python.path


@SUITE.law()
async def made_twice_is_made_alike(make: Make) -> None:
    """What is wanted again, with the lock of the first time, is the same environment under the same lock."""
    trial = await make()
    first = await trial.environments.make(trial.possible)
    assert first.key and first.lock and first.python
    again = await trial.environments.make(msgspec.structs.replace(trial.possible, lock=first.lock))
    assert (again.key, again.lock, again.python) == (first.key, first.lock, first.python)
    assert set(first.phases) == {"lock", "install"}


@SUITE.law()
async def what_cannot_be_made_is_told(make: Make) -> None:
    """What cannot be made is Failed as build_failed, with the resolver's text as its detail; others are made."""
    trial = await make()
    try:
        await trial.environments.make(trial.impossible)
    except Failed as error:
        assert error.code == "build_failed" and error.details["detail"]
    else:
        raise AssertionError("it was made")
    assert (await trial.environments.make(trial.possible)).key
