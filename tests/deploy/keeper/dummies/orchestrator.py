"""Stands in for the orchestrator: carries lines between the keeper's link and whoever connects to `settings.relay`.

Who connects is given the socket for descriptors itself.
"""

import json
import os
import selectors
import socket
import sys


def main() -> None:
    channel = socket.socket(fileno=int(os.environ["BEMA_CHANNEL"]))
    link = socket.socket(fileno=int(os.environ["BEMA_KEEPER"]))
    descriptors = int(os.environ["BEMA_KEEPER_DESCRIPTORS"])
    init = json.loads(channel.makefile().readline())
    path = init["settings"]["relay"]
    if os.path.exists(path):
        os.unlink(path)
    relay = socket.socket(socket.AF_UNIX)
    relay.bind(path)
    relay.listen()
    channel.sendall(json.dumps({"op": "announce", "listen": path, "endpoints": []}).encode() + b"\n")
    selector = selectors.DefaultSelector()
    for end in (channel, relay):
        selector.register(end, selectors.EVENT_READ)
    test: socket.socket | None = None
    while True:
        for key, _ in selector.select():
            if key.fileobj is channel:
                sys.exit(0)  # Stop, or the keeper's end
            elif key.fileobj is relay:
                if test is not None:
                    selector.unregister(test)
                    test.close()
                else:
                    selector.register(link, selectors.EVENT_READ)
                test, _ = relay.accept()
                socket.send_fds(test, [b"!"], [descriptors])
                selector.register(test, selectors.EVENT_READ)
            elif key.fileobj is link:
                data = link.recv(65536)
                if not data:
                    sys.exit(1)
                assert test
                test.sendall(data)
            else:
                assert test
                data = test.recv(65536)
                if data:
                    link.sendall(data)
                else:
                    selector.unregister(test)
                    selector.unregister(link)
                    test.close()
                    test = None


main()
