"""Both ends of test_lab.py's connections: `serve`, `ping ADDRESS`, `send ADDRESS BYTES`."""

from __future__ import annotations

import json
import socket
import sys
import time

PORT = 5000


def serve() -> None:
    with socket.create_server(("0.0.0.0", PORT)) as listener:
        print("ready", flush=True)
        while True:
            caller, _ = listener.accept()
            with caller:
                got = 0
                while piece := caller.recv(1 << 16):
                    got += len(piece)
                caller.sendall(str(got).encode())


def talk(address: str, count: int) -> dict[str, float]:
    """The time of a connect (ping), or of `count` bytes until all have arrived."""
    began_s = time.monotonic()
    with socket.create_connection((address, PORT), timeout=60) as connection:
        if count == 0:
            return {"seconds": time.monotonic() - began_s}
        began_s = time.monotonic()
        connection.sendall(bytes(count))
        connection.shutdown(socket.SHUT_WR)
        got = int(connection.recv(64))
    return {"seconds": time.monotonic() - began_s, "bytes": got}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]:
            serve()
        case ["ping", where]:
            print(json.dumps(talk(where, 0)))
        case ["send", where, length]:
            print(json.dumps(talk(where, int(length))))
