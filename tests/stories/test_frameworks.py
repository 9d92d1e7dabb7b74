"""Programs as the documentation of their frameworks writes them answer below the gateway's prefix."""

from __future__ import annotations

import httpx2
import pytest

from tests.stories.frameworks import HERE, ask
from tests.stories.harness import Platform, until

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", HERE)
def test_a_program_finds_its_paths_redirects_and_cookies(running: Platform, name: str) -> None:
    ask(running, name)


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
