"""What a gateway pod does before it ends: `python drain.py DATA --pause 5 --wait 33`.

Kubernetes takes an ending pod out of its Services and calls this at the same moment. So the workers
first go on as before, because new connections still arrive; then each of them finishes what it
has, answers with `Connection: close`, and ends. (Its replica starts another, which nobody reaches.)

Only the standard library: it has to start fast.
"""

import argparse
import contextlib
import socket
import struct
import sys
import time
from pathlib import Path

_ASK_SECONDS = 2.0


def ask_to_drain(path: Path) -> int:
    """Tell one worker to drain; its pid, or 0 if nobody listens there."""
    request = b"POST /drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ASK_SECONDS)
        connection.connect(str(path))
        # Who listens, from the kernel: (pid, uid, gid), see unix(7).
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        connection.sendall(request)
        if connection.recv(4096).startswith(b"HTTP/1.1 200 "):
            return int(struct.unpack("3i", peer)[0])
    return 0


def main(argv: list[str] | None = None) -> int:
    """Drain every worker of a data directory. 1: some of them still had work at the end."""
    parser = argparse.ArgumentParser(description="Drain the workers of a data directory.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--pause", type=float, default=5.0, help="seconds before it begins")
    parser.add_argument("--wait", type=float, default=33.0, help="seconds until it gives up")
    arguments = parser.parse_args(argv)
    time.sleep(arguments.pause)
    until = time.monotonic() + arguments.wait
    pids = {ask_to_drain(path) for path in arguments.data.glob("run/worker-*.sock")} - {0}
    while pids and time.monotonic() < until:
        time.sleep(0.1)
        pids = {pid for pid in pids if Path(f"/proc/{pid}").exists()}
    if pids:
        print(f"{len(pids)} workers did not finish within {arguments.wait:g} s", file=sys.stderr)
    return 1 if pids else 0


if __name__ == "__main__":
    sys.exit(main())
