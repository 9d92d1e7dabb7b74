"""Stands in for a deployed script: announces, answers every connection with its pid, and misbehaves as `MODE` says."""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from typing import NoReturn


def on_stdio() -> NoReturn:
    """A module written elsewhere: lines come in on stdin, go out on stdout, and there is no channel."""
    assert "BEMA_CHANNEL" not in os.environ
    print("stderr of the module", file=sys.stderr, flush=True)
    for line in sys.stdin:
        print(json.dumps({"op": "announce", "heard": json.loads(line)}), flush=True)
    sys.exit(3)  # it is stopped by a signal; this is the end of stdin


def operate(descriptor: int) -> None:
    with socket.socket(fileno=descriptor) as end:
        for line in end.makefile("rb"):
            end.sendall(b"heard " + line)


def main() -> None:
    if os.environ.get("MODE") == "stdio":
        on_stdio()
    channel = socket.socket(fileno=int(os.environ["BEMA_CHANNEL"]))
    init = json.loads(channel.makefile().readline())
    mode = os.environ.get("MODE", "serve")
    if mode == "crash":
        print("about to fail")
        sys.exit("no such table: users")
    if mode == "flood":
        block = b"x" * (1 << 20)
        for _ in range(64):
            os.write(1, block)
        os.write(1, b"\nafter the flood\n")
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if mode == "parent":
        # one that stays in the group, one that leaves session and group
        for own_session in (False, True):
            child = subprocess.Popen(["sleep", "600"], start_new_session=own_session)
            print(child.pid, flush=True)
    if mode == "strays":
        strays = [sys.executable, "-I", os.path.join(os.path.dirname(__file__), "strays.py"), os.environ["TAG"]]
        subprocess.Popen(strays, env={}, start_new_session=True)
    if mode == "nonsense":
        channel.sendall(b"this is not JSON\n" + b"y" * (3 << 20) + b"\n")
    if mode == "moody":
        channel.sendall(b'{"op": "status", "ready": false}\n')
    if mode == "asking":
        channel.sendall(b'{"op": "get_secret", "name": "DATABASE_URL"}\n')
    if mode == "operating":
        threading.Thread(target=operate, args=(init["operations_fd"],), daemon=True).start()
    listener = socket.socket(fileno=init["listen_fd"])
    held = {"environment": sorted(os.environ), "descriptors": sorted(int(fd) for fd in os.listdir("/proc/self/fd"))}
    channel.sendall(
        json.dumps({"op": "announce", "listen": init["listen"], "endpoints": [], "held": held}).encode() + b"\n"
    )
    moods = iter((b'"perhaps"', b"false"))
    selector = selectors.DefaultSelector()
    for end in (channel, listener):
        selector.register(end, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is channel:
                line = channel.recv(65536)
                if mode == "stubborn":
                    selector.unregister(channel)
                    continue
                if mode == "echo" and line:
                    channel.sendall(line)
                    continue
                sys.exit(0)
            client, _ = listener.accept()
            if mode == "moody":
                for number in range(1000):
                    channel.sendall(json.dumps({"op": "status", "data": {"number": number}}).encode() + b"\n")
            if mode == "mad":
                channel.sendall(b'{"op": "status", "ready": %b}\n' % next(moods))
            if mode == "parting":
                channel.sendall(b'{"op": "status", "ready": true}\n{"op": "status", "ready": false}\n')
                sys.exit(0)
            client.sendall(str(os.getpid()).encode())
            client.close()


main()
