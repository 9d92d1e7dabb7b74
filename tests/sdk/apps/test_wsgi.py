"""A WSGI app's threads are free again when its clients have left."""

import asyncio
import threading
import time

from bema.sdk.apps import adapt


def test_a_stream_whose_client_left_is_closed_and_its_thread_answers_again():
    closed = threading.Semaphore(0)

    def app(environ, start_response):
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/once":
            return [b"once"]
        return endless()

    def endless():
        try:
            while True:
                yield b"x"
                time.sleep(0.01)
        finally:
            closed.release()

    served = adapt(app, "app").app
    many = 60  # more than there are threads

    async def ask(path, left=None):
        said = []
        given = iter([{"type": "http.request", "body": b"", "more_body": False}])
        begun = asyncio.Event()

        async def receive():
            message = next(given, None)
            if message is None:
                if left is None:
                    await asyncio.get_running_loop().create_future()
                await begun.wait()
                return {"type": "http.disconnect"}
            return message

        async def send(message):
            said.append(message.get("body", b""))
            if message.get("body"):
                begun.set()

        scope = {
            "type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [], "http_version": "1.1",
        }  # fmt: skip
        await served(scope, receive, send)
        return b"".join(said)

    async def story():
        await asyncio.gather(*(ask("/endless", left=True) for _ in range(many)))
        assert await ask("/once") == b"once"

    asyncio.run(asyncio.wait_for(story(), 20))
    assert all(closed.acquire(timeout=5) for _ in range(many))


def test_a_body_reaches_the_app_whole():
    def app(environ, start_response):
        start_response("200 OK", [])
        return [environ["wsgi.input"].read()]

    served = adapt(app, "app").app
    said = []

    async def story():
        given = iter([{"type": "http.request", "body": b"%d" % n, "more_body": n < 5} for n in range(6)])

        async def receive():
            message = next(given, None)
            if message is None:
                await asyncio.get_running_loop().create_future()
            return message

        async def send(message):
            said.append(message.get("body", b""))

        scope = {
            "type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": [], "http_version": "1.1",
        }  # fmt: skip
        await served(scope, receive, send)

    asyncio.run(asyncio.wait_for(story(), 20))
    assert b"".join(said) == b"012345"
