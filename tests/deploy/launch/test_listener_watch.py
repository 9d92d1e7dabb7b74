"""The watch over programs' listeners, on sockets of this process."""

import asyncio
import socket

from bema.deploy.launch.listener_watch import ListenerWatch, accepted


def test_whoever_accepts_is_in_the_tables(tmp_path):
    path = str(tmp_path / "x.sock")
    with (
        socket.create_server(("127.0.0.1", 0)) as ipv4,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket() as bound,
    ):
        unix.bind(path)
        unix.listen()
        bound.bind(("127.0.0.1", 0))
        there = accepted()
        assert {f"tcp:{ipv4.getsockname()[1]}", f"unix:{path}"} <= there
        assert f"tcp:{bound.getsockname()[1]}" not in there
    assert f"unix:{path}" not in accepted()


def test_one_that_goes_and_comes_back_is_told_twice(tmp_path):
    async def story():
        told: asyncio.Queue[tuple[int, bool]] = asyncio.Queue()
        watch = ListenerWatch(lambda instance, there: told.put_nowait((instance, there)), period=0.01)
        stays, goes = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
        port = goes.getsockname()[1]
        watch.watch(1, f"tcp:127.0.0.1:{stays.getsockname()[1]}")
        watch.watch(2, f"tcp:127.0.0.1:{port}")
        goes.close()
        assert await asyncio.wait_for(told.get(), 10) == (2, False)
        with socket.create_server(("127.0.0.1", port)):
            assert await asyncio.wait_for(told.get(), 10) == (2, True)
        watch.forget(2)
        stays.close()
        assert await asyncio.wait_for(told.get(), 10) == (1, False)
        await watch.close()

    asyncio.run(story())
