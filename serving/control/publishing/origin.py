"""Where a configuration comes from: what its files are, and which commit they are of.

git is asked, not read: its own program knows every layout of a work tree. It gets two seconds, no
terminal, no hooks and no lock; where it is not installed, or the directory is in no work tree, only
the digest is known.
"""

import os
import subprocess
from pathlib import Path
from typing import Final

import msgspec

__all__ = ["Origin", "origin_of"]

_SECONDS: Final = 2.0
_LONGEST: Final = 200
"""Characters of an author that are kept."""

_GIT: Final = (
    "git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null",
)  # fmt: skip
_ALONE: Final = {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """`digest` is of the YAML files (`serving.config.load.content_digest`).

    `commit` is what is checked out there and `author` whose it is, empty where no git work tree is;
    `dirty` says that files of the directory differ from it.
    """

    digest: str
    commit: str = ""
    author: str = ""
    dirty: bool = False

    def __str__(self) -> str:
        """`commit 1a2b3c4d5e6f by Ada <ada@example> with changes`, or the digest."""
        if not self.commit:
            return f"files {self.digest[:12]}"
        return f"commit {self.commit[:12]} by {self.author}{' with changes' if self.dirty else ''}"


def origin_of(directory: Path, digest: str) -> Origin:
    """Ask git about a directory. Blocks, for four seconds at most; never fails."""
    said = _git(directory, "log", "-1", "--no-show-signature", "--format=%H%x00%an <%ae>")
    commit, _, author = (said or "").strip().partition("\0")
    if not commit:
        return Origin(digest=digest)
    # State that a gateway keeps in the directory itself is no change of its configuration.
    changed = _git(directory, "status", "--porcelain", "--", ".", ":(exclude,glob)**/.sluice/**")
    return Origin(
        digest=digest,
        commit=commit,
        author="".join(c for c in author if c.isprintable())[:_LONGEST],
        dirty=changed is None or bool(changed.strip()),
    )


def _git(directory: Path, *arguments: str) -> str | None:
    """What git prints; None if it is not there, is too slow or refuses."""
    # Variables that a hook sets would name another repository than the directory's.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            [*_GIT, "-C", str(directory), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            env={**kept, **_ALONE},
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
