"""What the processes of a gateway hold: read from /proc and from the probe in each of them."""

import json
import socket
from pathlib import Path
from typing import Any, Final

import msgspec

__all__ = ["Held", "ask", "look"]

_PATIENCE_SECONDS: Final = 60.0


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """One process at one time. Bytes; `blocks` are Python's small ones in use, after a collection.

    `pss` shares out pages that several processes have (proc_pid_smaps(5)). `heap` is what the C
    heap has given out, `free` what it keeps for later. The last three are 0 without a probe.
    """

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

    Raises:
        OSError: it has ended.
    """
    counted = ask(folder, pid, "count") if (folder / f"{pid}.sock").exists() else {}
    sizes = _rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())
    return Held(
        rss=sizes["Rss"],
        pss=sizes["Pss"],
        blocks=counted.get("blocks", 0),
        heap=counted.get("heap_bytes", 0),
        free=counted.get("free_bytes", 0),
    )


def _rollup(text: str) -> dict[str, int]:
    """Bytes by name."""
    lines = (line.split() for line in text.splitlines()[1:])
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1] == "kB"}
