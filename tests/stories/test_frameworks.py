"""Programs as the documentation of their frameworks writes them answer below the gateway's prefix."""

from __future__ import annotations

import time

import httpx2
import pytest

from tests.stories.frameworks import HERE, ask
from tests.stories.harness import Platform, processes_of, until

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", [name for name in HERE if name != "mcp"])
def test_a_program_finds_its_paths_redirects_and_cookies(running: Platform, name: str) -> None:
    ask(running, name)


def test_a_low_level_mcp_server_is_served(running: Platform) -> None:
    ask(running, "mcp")


SIDE_FIRST = """
import http.server, os, threading, time

def answering(text):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text)
    return Handler

side = http.server.HTTPServer(("127.0.0.1", 0), answering(b"side"))
threading.Thread(target=side.serve_forever, daemon=True).start()
time.sleep(4)
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), answering(b"main")).serve_forever()
"""


def test_a_side_listener_that_came_first_is_given_up_for_the_port(running: Platform) -> None:
    made = running.deploy("side-first", SIDE_FIRST)
    with httpx2.Client(timeout=30, trust_env=False) as client:
        until("PORT answers", lambda: client.get(made["url"]).text == "main", 20)


NO_APP = (
    SIDE_FIRST.replace("side = http", "app = 'no app'\nside = http")
    .replace("time.sleep(4)", "time.sleep(3)")
    .replace(
        'http.server.HTTPServer(("127.0.0.1", int',
        'if __name__ == "__main__":\n    http.server.HTTPServer(("127.0.0.1", int',
    )
)


def test_a_program_that_was_taken_for_an_app_is_followed_to_its_port_and_ends_when_asked(running: Platform) -> None:
    made = running.deploy("no-app", NO_APP)
    with httpx2.Client(timeout=30, trust_env=False) as client:
        until("PORT answers", lambda: client.get(made["url"]).text == "main", 20)
    began = time.monotonic()
    with running.http() as api:
        api.delete(f"/faas/python/{made['id']}").raise_for_status()
    until("its instance is gone", lambda: made["instance"]["pid"] not in processes_of(running.state), 20)
    assert time.monotonic() - began < 10


CLOSING = """
import http.server, os, threading

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        if self.path == "/close":
            threading.Thread(target=close).start()

def close():
    server.shutdown()
    server.server_close()

server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
server.serve_forever()
threading.Event().wait()
"""


def test_a_program_that_closes_its_listener_is_no_longer_ready(running: Platform) -> None:
    made = running.deploy("closing", CLOSING)
    assert httpx2.get(made["url"].rstrip("/") + "/close", trust_env=False).status_code == 200
    running.reach(made["id"], "starting", 20)
