"""Stands in for a deployed script: announces, answers every connection with its pid, and misbehaves as `MODE` says."""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys


def main() -> None:
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
    if mode == "nonsense":
        channel.sendall(b"this is not JSON\n" + b"y" * (3 << 20) + b"\n")
    if mode == "moody":
        channel.sendall(b'{"op": "status", "ready": false}\n')
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
