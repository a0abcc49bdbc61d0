"""Install the servers that Sluice is compared with, each in an environment of its own.

    python -m loadtests.peers install                   # all of them, about 1.4 GB
    python -m loadtests.peers install mlserver bentoml
    python -m loadtests.peers list                      # which are installed, and their versions

They land in .venv-peers/ beside the checkout's other environments; removing that folder removes
them. `python loadtests/compare.py` then measures them with the rest.
"""

import argparse
import subprocess
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Final

# `python -m loadtests.peers` does not put the folder above on the path; the comparison does.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from peers.catalogue import MARK, PEERS, Peer, installed, version_of

BY_NAME: Final = {peer.name: peer for peer in PEERS}
SHOWN_LINES: Final = 15


def install(peer: Peer) -> bool:
    """Make a peer's environment; False if that failed, and why is printed."""
    print(f"installing {peer.title} into {peer.folder}", flush=True)
    mark = peer.folder / MARK
    mark.unlink(missing_ok=True)
    pip = [peer.folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-m", "venv", peer.folder],
        [*pip, "--quiet", "install", "-r", peer.requirements],
    ):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()[-SHOWN_LINES:]
            print(f"{peer.title} cannot be installed here:", *said, sep="\n  ", file=sys.stderr)
            return False
    mark.touch()
    print(f"installed {version_of(peer)}", flush=True)
    return True


def main() -> int:
    """Read the command line; 1 if something could not be installed."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", choices=("install", "list"), help="what to do")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(BY_NAME)} (all)")
    options = parser.parse_args()
    for name in options.names:
        if name not in BY_NAME:
            near = get_close_matches(name, BY_NAME, 1)
            hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(BY_NAME)}"
            parser.error(f"there is no peer {name}; {hint}")
    chosen = [BY_NAME[name] for name in options.names] or list(PEERS)
    if options.verb == "list":
        for peer in chosen:
            print(f"{peer.name:10}{installed(peer) or version_of(peer)}")
        return 0
    return 0 if all([install(peer) for peer in chosen]) else 1  # noqa: C419 - try all


if __name__ == "__main__":
    sys.exit(main())
