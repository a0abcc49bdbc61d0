"""An engine over stand-ins in a process of its own, so that it can be killed.

    engine.py HOME WORKERS

Prints one line of JSON (the addresses) when ready and stops on SIGTERM.
"""

import asyncio
import signal
import sys
from pathlib import Path

import msgspec
from running_engine import running


async def main(home: Path, workers: int) -> None:
    """Run until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with running(home, workers=workers) as engine:
        sys.stdout.write(msgspec.json.encode(engine.addresses).decode() + "\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
