"""Stands in for the gateway: answers every connection to the data listener with its pid."""

import json
import os
import selectors
import socket
import sys


def main() -> None:
    channel = socket.socket(fileno=int(os.environ["BEMA_CHANNEL"]))
    init = json.loads(channel.makefile().readline())
    if "refuse" in init.get("settings", {}):
        print(init["settings"]["refuse"], file=sys.stderr)
        sys.exit(1)
    data = socket.socket(fileno=init["listen_fds"]["data"])
    channel.sendall(json.dumps({"op": "announce", "listen": "", "endpoints": []}).encode() + b"\n")
    print(init.get("settings", {}).get("say", ""), end="", flush=True)
    selector = selectors.DefaultSelector()
    for end in (channel, data):
        selector.register(end, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is channel:
                sys.exit(0)
            client, _ = data.accept()
            client.sendall(str(os.getpid()).encode())
            client.close()


main()
