"""Errors of a service's own, as its callers see them."""

import asyncio

import pytest

from bema import endpoint, service
from bema.core.errors import BadDeclaration, RemoteError
from bema.testing import System


class OutOfTea(Exception):
    def __init__(self, left: int) -> None:
        super().__init__(f"{left} bags left")
        self.left = left


class Spill(Exception):
    pass


@service(name="kitchen", namespace="raises")
class Kitchen:
    @endpoint(raises=OutOfTea)
    async def tea(self, cups: int) -> str:
        if cups > 2:
            raise OutOfTea(2)
        raise Spill("on the floor")

    @endpoint(raises=[OutOfTea, Spill])
    async def pots(self):
        yield 1
        raise Spill("again")


def test_a_declared_exception_is_itself_and_another_is_named():
    async def story():
        async with System(Kitchen) as system:
            kitchen = system.client(Kitchen)
            with pytest.raises(OutOfTea, match="2 bags left") as own:
                await kitchen.tea(3)
            assert own.value.left == 2
            assert "in tea" in vars(own.value)["remote_traceback"]
            with pytest.raises(RemoteError, match="Spill: on the floor") as other:
                await kitchen.tea(1)
            assert other.value.type == "Spill"
            got = []
            with pytest.raises(Spill, match="again"):
                async for pot in kitchen.pots():
                    got.append(pot)
            assert got == [1]

    asyncio.run(story())


@pytest.mark.parametrize("wrong", [int, ["OutOfTea"], KeyboardInterrupt])
def test_only_exception_types_are_declared(wrong):
    with pytest.raises(BadDeclaration, match="exception types"):
        endpoint(raises=wrong)
