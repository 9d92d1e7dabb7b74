"""What a file turns out to be decides how it is served, whatever it was taken for when it was read."""

import signal
import socket
import time

import httpx2
import pytest

NO_APP = {
    "command": "class Command:\n    def __call__(self, *args, **kwargs): ...\napp = Command()\n",
    "text": "app = 'shop'\n",
    "class": "class app:\n    def __call__(self, scope, receive, send): ...\n",
    "function": "def app(): ...\n",
    "coroutine": "async def app(): ...\n",
    "module": "import logging as app\n",
}

SERVER = """
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(__name__.encode())

def serve(port):
    http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
GUARDED = SERVER + "if __name__ == '__main__':\n    serve(int(os.environ['PORT']))\n"


def where(said):
    (address,) = said["addresses"]["http"]
    return address.replace("tcp:", "http://")


def asked(said, path="/"):
    return httpx2.get(where(said) + path, trust_env=False, timeout=20).text


@pytest.mark.parametrize("name", NO_APP)
def test_a_file_whose_app_is_no_app_runs_as_a_program(launch, name):
    running = launch(NO_APP[name] + GUARDED)
    said = running.start().hear()
    assert (said["op"], said["kind"], said["instance"]) == ("announce", "main", running.init["instance"])
    assert asked(said) == "__main__"
    running.say({"op": "shutdown", "deadline_ms": 2000})
    assert running.ended()[0] == -signal.SIGTERM


def test_the_end_of_the_channel_ends_a_program_that_was_taken_for_an_app(launch):
    running = launch("app = 1\n" + GUARDED)
    running.start().hear()
    running.channel.shutdown(1)
    assert running.ended()[0] == -signal.SIGTERM


def test_a_program_that_was_taken_for_an_app_keeps_its_lease_and_passes_it_to_nobody(launch):
    running = launch(
        "import subprocess\napp = 1\n"
        "if __name__ == '__main__':\n"
        "    print(len(subprocess.run(['ls', '/proc/self/fd'], close_fds=False, capture_output=True).stdout.split()))\n"
        "    import os; print(os.path.exists(f'/proc/self/fd/{LEASE}'))\n".replace(
            "{LEASE}", "' + os.environ['LEASE'] + '"
        ),
    )
    running.init["env"] = {"LEASE": str(running.lease)}
    assert running.start().ended()[:2] == (0, "4\nTrue\n")


FIXED = (
    SERVER + "import socket\nwith socket.socket() as s:\n    s.bind(('127.0.0.1', 0))\n    free = s.getsockname()[1]\n"
)


@pytest.mark.parametrize("port", ["int(os.environ['PORT'])", "free"])
def test_a_file_that_serves_while_it_is_imported_is_served_where_it_listens(launch, port):
    running = launch(FIXED + f"app = object()\nserve({port})\n")
    assert asked(running.start().hear()) == "given"
    assert running.stop() in (0, -signal.SIGTERM)


def test_an_unguarded_uvicorn_is_served_and_stops_in_order(launch):
    running = launch(
        "import socket, uvicorn\n"
        "async def app(scope, receive, send):\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': b'uvicorn'})\n"
        "uvicorn.run(app, port=0)\n"
    )
    assert asked(running.start().hear()) == "uvicorn"
    assert running.stop() in (0, -signal.SIGTERM)


def test_a_side_listener_of_a_slow_import_is_not_taken_for_the_program(launch):
    running = launch(
        SERVER + "import threading, time\n"
        "side = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)\n"
        "threading.Thread(target=side.serve_forever, daemon=True).start()\n"
        "time.sleep(3.5)\n"
        "async def app(scope, receive, send): ...\n"
    )
    assert running.start().hear()["kind"] == "asgi"
    assert running.stop() == 0


POOL = """
import concurrent.futures, multiprocessing, os, pickle

class Sum:
    def __init__(self, a, b):
        self.value = a + b

def add(pair):
    return Sum(*pair)

def pooled(method):
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        return [one.value for one in pool.map(add, [(1, 2), (3, 4)])]
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_pools_work_in_a_program(launch, method):
    code, out, err = (
        launch(POOL + f"if __name__ == '__main__':\n    print(pooled({method!r}))\n", "main").start().ended()
    )
    assert (code, out) == (0, "[3, 7]\n"), err


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_pools_work_in_an_app(launch, method):
    running = launch(
        POOL + "import asyncio\n"
        "async def app(scope, receive, send):\n"
        "    if scope['type'] != 'http':\n"
        "        raise NotImplementedError\n"
        f"    said = await asyncio.to_thread(pooled, {method!r})\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': str((said, pickle.loads(pickle.dumps(Sum(1, 1))).value)).encode()})\n"
    ).serving()
    assert running.get("/").text == "([3, 7], 2)"
    assert running.stop() == 0


@pytest.mark.parametrize("named", ["given:app", "my_shop:app", "main:app", "my_shop:create"])
def test_a_server_imports_the_file_by_the_name_that_its_author_gave(launch, tmp_path, named):
    (tmp_path / "tmp").mkdir()
    factory = named.endswith("create")
    running = launch(
        "import os, uvicorn\n"
        "async def web(scope, receive, send):\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': __name__.encode()})\n"
        "def create():\n"
        "    return web\n"
        "app = web\n"
        "if __name__ == '__main__':\n"
        f"    uvicorn.run({named!r}, port=int(os.environ['PORT']), factory={factory})\n",
        "main",
        "",
        listen=f"127.0.0.1:{free()}",
        name="my-shop",
        env={"TMPDIR": str(tmp_path / "tmp")},
    )
    running.start()
    url = "http://" + running.init["listen"]
    assert answered(url) == named.partition(":")[0]


@pytest.mark.parametrize("name", ["json", "uvicorn"])
def test_a_file_called_like_a_library_does_not_stand_in_its_way(launch, tmp_path, name):
    running = launch(
        f"import {name}; print({name}.__file__.endswith('__init__.py'))",
        "main",
        "",
        name=name,
        env={"TMPDIR": str(tmp_path)},
    )
    assert running.start().ended() == (0, "True\n", "")


def test_a_text_that_only_looks_like_an_app_gives_no_name_to_the_file(launch, tmp_path):
    running = launch(
        "key = dict(at='sidecar:main', other='nothing:here')\n"
        "import importlib.util; print(importlib.util.find_spec('sidecar'), importlib.util.find_spec('nothing'))",
        "main",
        "",
        env={"TMPDIR": str(tmp_path)},
    )
    assert running.start().ended() == (0, "None None\n", "")


@pytest.mark.parametrize("more", ["workers=2", "reload=True"])
def test_the_children_of_a_server_import_the_file_too(launch, tmp_path, more):
    listen = f"127.0.0.1:{free()}"
    running = launch(
        "import os, uvicorn\n"
        "async def app(scope, receive, send):\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': __name__.encode()})\n"
        "if __name__ == '__main__':\n"
        f"    uvicorn.run('shop:app', port=int(os.environ['PORT']), {more})\n",
        "main",
        "",
        listen=listen,
        env={"TMPDIR": str(tmp_path)},
    )
    running.start()
    assert answered("http://" + listen) == "shop"


RELOADING = {
    "argv": "os.execv(sys.executable, [sys.executable, *sys.argv])",
    "orig_argv": "os.execv(sys.executable, sys.orig_argv)",
    "child": "raise SystemExit(subprocess.call([sys.executable, *sys.orig_argv[1:]]))",
}


@pytest.mark.parametrize("kind", ["main", "app"])
@pytest.mark.parametrize("how", RELOADING)
def test_a_reloader_that_starts_the_command_line_again_starts_the_script(launch, how, kind):
    running = launch(
        "import os, subprocess, sys\n"
        "if 'AGAIN' not in os.environ:\n"
        "    os.environ['AGAIN'] = '1'\n"
        f"    {RELOADING[how]}\n"
        "print(__name__, os.environ['PORT'].isdecimal())\n",
        kind,
    )
    assert running.start().ended()[:2] == (0, "__main__ True\n")


def test_flask_in_debug_mode_and_unguarded_is_served(launch):
    running = launch(
        f"import flask\napp = flask.Flask(__name__)\n@app.get('/')\ndef hello():\n    return 'debug'\napp.run(debug=True, port={free()})\n"
    )
    assert asked(running.start().hear()) == "debug"
    running.say({"op": "shutdown", "deadline_ms": 2000})
    running.ended()


def free():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answered(url):
    end = time.monotonic() + 20
    while True:
        try:
            return httpx2.get(url, trust_env=False, timeout=20).text
        except httpx2.TransportError:
            assert time.monotonic() < end, f"nothing answers at {url}"
            time.sleep(0.02)
