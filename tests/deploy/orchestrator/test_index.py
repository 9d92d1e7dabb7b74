"""The index says of each owner what a look over everything would say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bema.core.access import LOCAL_ADMIN, Kind, holder
from bema.deploy.model.deployment import Deployment, ScriptEntry, Version
from bema.deploy.orchestrator.index import DeploymentIndex, cursor

VERSION = Version(number=1, digest="0", entry=ScriptEntry())


def deployment(number: int, owner: str, created: int) -> Deployment:
    return Deployment(
        id=f"id-{number}", name=f"n{number}", owner=owner, versions=(VERSION,), created=created, updated=created
    )


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3)), max_size=20), st.data())
def test_pages_are_what_a_look_over_everything_gives(rows, data):
    every = [deployment(number, *row) for number, row in enumerate(rows)]
    kept = data.draw(st.lists(st.sampled_from(every), unique_by=lambda d: d.id) if every else st.just([]))
    count = data.draw(st.integers(1, 5))
    index = DeploymentIndex(every[: len(every) // 2])
    for one in every[len(every) // 2 :]:
        index.add(one)
    for one in every:
        if one not in kept:
            index.remove(one)
            index.remove(one)
    for principal in (LOCAL_ADMIN, *(holder(Kind.USER, owner) for owner in "abc")):
        found, following = index.page(principal, "", count)
        while following is not None:
            ids, following = index.page(principal, following, count)
            assert 0 < len(ids) <= count
            found += ids
        assert found == [d.id for d in sorted(kept, key=cursor) if principal.sees(d.owner)]
    for one in every:
        assert index.named(one.owner, one.name) == (one.id if one in kept else None)
