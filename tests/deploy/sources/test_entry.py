"""What is in a script is decided once, by reading it."""

import json
import subprocess
import sys

import pytest

from bema.deploy.sources import entry
from bema.deploy.sources.entry import inspect

SERVICE = "from bema import service\n@service(name='w')\nclass Worker: ...\n"


@pytest.mark.parametrize(
    ("code", "kind", "name"),
    [
        ("print('hi')", "main", "__main__"),
        ("", "main", "__main__"),
        (SERVICE, "service", "Worker"),
        ("import bema\n@bema.service(name='w')\nclass Worker: ...", "service", "Worker"),
        ("from bema import service as mark\n@mark\nclass Worker: ...", "service", "Worker"),
        ("from fastapi import FastAPI\napp = FastAPI()", "app", "app"),
        ("from fastapi import FastAPI\nweb: FastAPI = FastAPI()", "app", "web"),
        ("import flask\nsite = flask.Flask(__name__)", "app", "site"),
        ("from fastapi import FastAPI\nadmin = FastAPI()\napp = FastAPI()", "app", "app"),
        ("from django.core.wsgi import get_wsgi_application\nx = get_wsgi_application()", "app", "x"),
        ("async def app(scope, receive, send): ...", "app", "app"),
        ("def application(environ, start): ...", "app", "application"),
        ("try:\n    from fastapi import FastAPI\n    app = FastAPI()\nexcept ImportError:\n    raise", "app", "app"),
        ("from mcp.server.fastmcp import FastMCP\nmcp = FastMCP('x')", "mcp", "mcp"),
        ("from mcp.server import MCPServer\nserver = MCPServer('x')", "mcp", "server"),
        ("from mcp.server.lowlevel import Server\napp = Server('x')", "mcp", "app"),
        ("from fastmcp import FastMCP\nmcp = FastMCP('x')\napp = mcp.http_app()", "app", "app"),
        ("from fastmcp import FastMCP\nsub = FastMCP('s')\nhub = FastMCP('h')\nhub.mount(sub)", "mcp", "hub"),
        (
            "from fastmcp import FastMCP\nsub = FastMCP('s')\nhub = FastMCP('h')\nhub.mount('/s', server=sub)",
            "mcp",
            "hub",
        ),
        (
            "from fastmcp import FastMCP\nsub = FastMCP('s')\nhub = FastMCP('h')\nif __name__ == '__main__':\n    hub.run()",
            "mcp",
            "hub",
        ),
        ("from fasthtml.common import fast_app\napp, rt = fast_app()", "app", "app"),
        ("from uvicorn import Server\nserver = Server(None)", "main", "__main__"),
        ("if __name__ == '__main__':\n    app = 1", "main", "__main__"),
        ("def f():\n    app = 1", "main", "__main__"),
        (SERVICE + "app = Worker()", "service", "Worker"),
        ("import http.server\nhttp.server.HTTPServer(('', 0), None).serve_forever()", "main", "__main__"),
    ],
)
def test_what_a_script_holds(code: str, kind: str, name: str):
    assert inspect(code.encode()) == {"kind": kind, "name": name}


TWO = SERVICE + "@service(name='r')\nclass Router: ...\n"


def test_of_two_services_the_one_the_script_starts_is_served():
    assert inspect(
        (TWO + "if __name__ == '__main__':\n    import asyncio\n    asyncio.run(Router.start())").encode()
    ) == {
        "kind": "service",
        "name": "Router",
    }
    assert inspect((TWO + "if '__main__' == '__main__':\n    pass").encode())["error"] == "entry_ambiguous"
    served = inspect((TWO + "import bema\nif __name__ == '__main__':\n    bema.serve(Worker)").encode())
    assert served["name"] == "Worker"


def test_of_two_services_none_is_guessed():
    found = inspect(TWO.encode())
    assert (found["error"], found["names"]) == ("entry_ambiguous", ["Worker", "Router"])
    assert inspect(TWO.encode(), "Router") == {"kind": "service", "name": "Router"}


@pytest.mark.parametrize(
    ("code", "wanted", "kind"),
    [
        ("from fastapi import FastAPI\napp = FastAPI()\nother = FastAPI()", "other", "app"),
        ("from mcp.server.fastmcp import FastMCP\nm = FastMCP('x')\napp = 1", "m", "mcp"),
        ("class Plain: ...", "Plain", "service"),
        ("from mine import site", "site", "app"),
        ("app = 1", "__main__", "main"),
    ],
)
def test_the_block_may_name_the_entry(code: str, wanted: str, kind: str):
    assert inspect(code.encode(), wanted) == {"kind": kind, "name": wanted}


def test_an_entry_the_script_does_not_have():
    found = inspect(b"api = 1\n_hidden = 2", "app")
    assert (found["error"], found["names"]) == ("entry_not_found", ["api"])


def test_a_syntax_error_has_line_and_column():
    found = inspect(b"x = 1\ndef f(:\n    pass\n")
    assert (found["error"], found["line"], found["column"]) == ("syntax_error", 2, 7)


@pytest.mark.parametrize("code", ["return 1", "x = 1\0", "-" * 100_000 + "1", "(" * 5000, "nonlocal x"])
def test_what_only_the_compiler_refuses(code: str):
    assert inspect(code.encode())["error"] == "syntax_error"


def test_a_bad_escape_is_a_warning_to_its_author_not_to_us():
    assert inspect(rb"x = '\d'")["kind"] == "main"


def test_it_runs_alone_by_path():
    done = subprocess.run(
        [sys.executable, "-I", "-S", entry.__file__, "app"], input=b"app = 1", capture_output=True, check=True
    )
    assert json.loads(done.stdout) == {"kind": "app", "name": "app"}


def test_several_mcp_servers_are_refused_with_the_line_that_chooses():
    refused = inspect(b"from fastmcp import FastMCP\nsub = FastMCP('s')\nhub = FastMCP('h')\n")
    assert (refused["error"], refused["names"]) == ("entry_ambiguous", ["sub", "hub"])
    assert '# entry = "sub"' in refused["message"]
