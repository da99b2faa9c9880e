"""Runs a command where there is no network but a name server that knows nothing; prints the names it was asked for.

To be started by `unshare --map-root-user --net --mount`: python offline_probe.py SECONDS COMMAND...
The command is ended by SIGINT after so many seconds, unless it has ended before.
"""

from __future__ import annotations

import fcntl
import json
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def bring_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", _IFF_UP, b""))


def name_in(query: bytes) -> str:
    labels, position = [], 12
    while position < len(query) and query[position]:
        length = query[position]
        labels.append(query[position + 1 : position + 1 + length].decode("ascii", "replace"))
        position += 1 + length
    return ".".join(labels)


def serve_names(server: socket.socket, asked: list[str]) -> None:
    while True:
        query, address = server.recvfrom(4096)
        asked.append(name_in(query))
        server.sendto(query[:2] + b"\x81\x83" + query[4:6] + bytes(6) + query[12:], address)  # no such name


def main() -> None:
    seconds, command = float(sys.argv[1]), sys.argv[2:]
    bring_loopback_up()
    with tempfile.NamedTemporaryFile("w") as resolver:
        resolver.write("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        resolver.flush()
        subprocess.run(["mount", "--bind", resolver.name, "/etc/resolv.conf"], check=True)
        asked: list[str] = []
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 53))
        threading.Thread(target=serve_names, args=(server, asked), daemon=True).start()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=60)
        print(json.dumps({"asked": sorted(set(asked)), "code": process.returncode, "output": output[-3000:]}))


if __name__ == "__main__":
    main()
