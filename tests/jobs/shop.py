"""The service whose processes the stories kill: `python shop.py [SECONDS]`, which its second step takes."""

import asyncio
import os
import sys
from pathlib import Path

import bema
from bema import Call, depends, endpoint, service

LOG = Path(os.environ["SHOP_LOG"])
SLOW = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0


def note(what: str) -> None:
    with LOG.open("a") as log:
        log.write(f"{what}\n")


async def charge(number: int) -> str:
    note(f"charge {number}")
    return f"receipt {number}"


async def ship(receipt: str) -> str:
    note(f"ship {receipt}")
    await asyncio.sleep(SLOW)
    return f"{receipt}, shipped"


async def thank(order: str) -> str:
    note(f"thank {order}")
    return f"thanks for {order}"


@service(name="shop", namespace="demo")
class Shop:
    @endpoint(durable=True)
    async def order(self, number: int, call: Call) -> str:
        receipt = await call.step(charge, number)
        shipped = await call.step(ship, receipt)
        return await call.step(thank, shipped)

    @endpoint(durable=True)
    async def approve(self, what: str, call: Call) -> str:
        return f"{what}: {'yes' if await call.ask(bool, f'{what}?') else 'no'}"

    @endpoint(durable=True)
    async def hurry(self, call: Call) -> None:
        async with call.timeout(0.01):
            await call.ask(bool)

    @endpoint()
    async def plain(self, call: Call) -> None:
        await call.step(charge, 1)


@service(name="boss", namespace="demo")
class Boss:
    shop: Shop = depends(Shop, wait=20)

    @endpoint(durable=True)
    async def morning(self, number: int, call: Call) -> str:
        note(f"morning {number}")
        return f"the boss: {await call.child(self.shop.order, number)}"


if __name__ == "__main__":
    asyncio.run(bema.serve(Boss if sys.argv[2:] == ["boss"] else Shop))
