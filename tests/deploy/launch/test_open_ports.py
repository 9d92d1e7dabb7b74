"""Where a program listens is found by its sockets, whatever it was asked to use."""

import asyncio
import os
import subprocess
import sys

import pytest

from bema.deploy.launch import open_ports

PROGRAM = """
import os, socket, sys, subprocess
kind, *rest = sys.argv[1:]
if kind == "child":
    sys.exit(subprocess.call([sys.executable, __file__, *rest]))
if kind == "unix":
    s = socket.socket(socket.AF_UNIX); s.bind(rest[0])
elif kind == "six":
    s = socket.socket(socket.AF_INET6); s.bind(("::1", 0))
else:
    s = socket.socket(); s.bind((kind, int(rest[0])))
s.listen()
print(s.getsockname()[1] if kind != "unix" else "", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def program(tmp_path):
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, str(file), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.communicate(timeout=10)


def found(process, port=None):
    return asyncio.run(asyncio.wait_for(open_ports.listener_of(process.pid, port), 10))


@pytest.mark.parametrize(
    ("arguments", "address"),
    [
        (("127.0.0.1", 0), "tcp:127.0.0.1:{}"),
        (("0.0.0.0", 0), "tcp:127.0.0.1:{}"),
        (("child", "127.0.0.1", 0), "tcp:127.0.0.1:{}"),
        (("six",), "tcp:[::1]:{}"),
    ],
)
def test_a_tcp_listener_is_found(program, arguments, address):
    process = program(*arguments)
    assert found(process) == address.format(process.stdout.readline().strip())


def test_the_port_it_was_asked_to_use_is_taken(program):
    port = open_ports.free_port()
    assert found(program("127.0.0.1", port), port) == f"tcp:127.0.0.1:{port}"


SIDE = """
import http.server, os, socket, sys, threading
class Answer(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()
kind, port = sys.argv[1], int(os.environ["PORT"])
if kind == "silent":
    side = socket.create_server(("127.0.0.1", 0))
else:
    side = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=side.serve_forever, daemon=True).start()
print(side.getsockname()[1] if kind == "silent" else side.server_port, flush=True)
sys.stdin.readline()
main = http.server.HTTPServer(("127.0.0.1", port), Answer)
threading.Thread(target=main.serve_forever, daemon=True).start()
sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["silent", "http"])
def test_the_port_wins_over_a_side_listener_that_came_first(tmp_path, kind):
    (tmp_path / "side.py").write_text(SIDE)
    port = open_ports.free_port()
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "side.py"), kind],
        env={**os.environ, "PORT": str(port)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    go, side = process.stdin, process.stdout.readline().strip()

    async def story():
        early = asyncio.ensure_future(open_ports.listener_of(process.pid, port))
        if kind == "silent":  # nobody was found in it, however long it was there
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(early), 2.5)
        else:  # it may be all there is: taken, and given up
            assert await early == f"tcp:127.0.0.1:{side}"
        later = open_ports.moves(process.pid, port, f"tcp:127.0.0.1:{side}")
        go.write("go\n")
        go.flush()
        assert await anext(later) == (f"tcp:127.0.0.1:{port}", True)
        if kind == "silent":
            assert await early == f"tcp:127.0.0.1:{port}"

    try:
        asyncio.run(asyncio.wait_for(story(), 30))
    finally:
        process.communicate(timeout=10)


CLOSING = """
import socket, sys
held = socket.create_server(("127.0.0.1", 0))
port = held.getsockname()[1]
print(port, flush=True)
for line in sys.stdin:
    if line == "close\\n":
        held.close()
    else:
        held = socket.create_server(("127.0.0.1", port))
"""


def test_a_listener_that_is_closed_and_opened_again_is_seen(tmp_path):
    (tmp_path / "closing.py").write_text(CLOSING)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "closing.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    told = process.stdin
    address = f"tcp:127.0.0.1:{process.stdout.readline().strip()}"

    async def story():
        seen = open_ports.moves(process.pid, None, address)
        for word, accepts in (("close", False), ("open", True)):
            told.write(f"{word}\n")
            told.flush()
            assert await anext(seen) == (address, accepts)

    try:
        asyncio.run(asyncio.wait_for(story(), 30))
    finally:
        process.communicate(timeout=10)


def test_a_unix_listener_is_found(program, tmp_path):
    assert found(program("unix", tmp_path / "s.sock")) == f"unix:{tmp_path}/s.sock"


def test_the_sockets_of_a_deployment_are_short_and_one_for_each_slot_of_a_version():
    id = "5f0c2a44-7d0e-4f0e-9c55-7a6c3f1f1b11"
    paths = {open_ports.socket_of(id, version, slot) for version in ("v1", "v11") for slot in (0, 1, 11)}
    assert len(paths) == 6
    assert {path.name[:13] for path in paths} == {"5f0c2a447d0e4"}
    assert max(len(str(path)) for path in paths) <= 107
