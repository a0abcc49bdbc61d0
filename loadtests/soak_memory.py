"""What the processes of a gateway hold: read from /proc and from the probe in each of them."""

import json
import socket
import time
from pathlib import Path
from typing import Any, Final

import msgspec

__all__ = ["Held", "ask", "look"]

_PATIENCE_SECONDS: Final = 60.0
_LOOKS: Final = 5
_APART_SECONDS: Final = 0.13


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """One process at one time. Bytes; `blocks` are Python's small ones in use, after a collection.

    `pid` tells it from one that was started in its place under the same name.
    `pss` shares out pages that several processes have (proc_pid_smaps(5)). `heap` is what the C
    heap has given out, `free` what it keeps for later. The last three are 0 without a probe.
    """

    pid: int
    rss: int
    pss: int
    blocks: int = 0
    heap: int = 0
    free: int = 0


def ask(folder: Path, pid: int, order: str) -> Any:
    """What the probe of a process answers (`soak_probe/sitecustomize.py`).

    Raises:
        OSError: it has none, or has ended.
    """
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(_PATIENCE_SECONDS)
        caller.connect(str(folder / f"{pid}.sock"))
        caller.sendall(f"{order}\n".encode())
        parts = []
        while part := caller.recv(1 << 16):
            parts.append(part)
    return json.loads(b"".join(parts))


def look(folder: Path, pid: int) -> Held:
    """What a process holds now, after a collection of its garbage.

    Work that is under way holds blocks for a moment (control adds up all metrics every second):
    of several looks the least counts.

    Raises:
        OSError: it has ended.
    """
    counts = [{"blocks": 0, "heap_bytes": 0, "free_bytes": 0}]
    if (folder / f"{pid}.sock").exists():
        counts.clear()
        for _ in range(_LOOKS):
            counts.append(ask(folder, pid, "count"))
            time.sleep(_APART_SECONDS)
    sizes = _rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())
    return Held(
        pid=pid,
        rss=sizes["Rss"],
        pss=sizes["Pss"],
        blocks=min(one["blocks"] for one in counts),
        heap=min(one["heap_bytes"] for one in counts),
        free=counts[-1]["free_bytes"],
    )


def _rollup(text: str) -> dict[str, int]:
    """Bytes by name."""
    lines = (line.split() for line in text.splitlines()[1:])
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1] == "kB"}
