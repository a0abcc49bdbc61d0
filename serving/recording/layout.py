"""Where the prediction log keeps what.

```
LOG/segments/<node>/<writer>/ledger                 counts of one writer, locked while it lives
LOG/segments/<node>/<writer>/seal                   asks the writer to seal what it is writing
LOG/segments/<node>/<writer>/<model>~<version>~<n>.open      a segment being written
LOG/segments/<node>/<writer>/<model>~<version>~<n>.arrows    one that is whole
LOG/parquet/model=<model>/hour=<YYYY-MM-DDTHH>/<writer>~<version>~<n>.parquet
LOG/parquet/model=<model>/hour=<YYYY-MM-DDTHH>/merged-<digest>.parquet
LOG/hash.key                                        for fields whose policy is `hash`
LOG/lock                                            readers share it; who moves files has it alone
```
"""

import os
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

__all__ = ["SEAL", "LogFolder", "SegmentName", "hour_of"]

SEAL: Final = "seal"
"""A file of this name in a writer's folder makes it seal its segments, and remove the file."""

_SEGMENT: Final = re.compile(
    r"(?P<model>[^~/]+)~(?P<version>[^~/]*)~(?P<number>\d+)\.(?P<state>open|arrows)\Z"
)
_KEY_BYTES: Final = 32


class SegmentName(msgspec.Struct, frozen=True):
    """A segment by its path. `number` counts those of one writer."""

    path: Path
    model: str
    version: str
    number: int
    sealed: bool

    @classmethod
    def parse(cls, path: Path) -> "SegmentName | None":
        """Read a path; None for a file that is no segment."""
        found = _SEGMENT.match(path.name)
        if found is None:
            return None
        return cls(
            path, found["model"], found["version"], int(found["number"]), found["state"] == "arrows"
        )

    @property
    def identity(self) -> str:
        """What its Parquet files are named after, whatever state it was in."""
        return f"{self.path.parent.name}~{self.version}~{self.number}"


class LogFolder:
    """The paths of one prediction log."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.segments = root / "segments"
        self.parquet = root / "parquet"
        self.lock = root / "lock"

    def writer(self, node: str, name: str) -> Path:
        """The folder of one writer."""
        return self.segments / node / name

    def hour(self, model: str, hour: str) -> Path:
        """Where the Parquet files of one model and hour are."""
        return self.parquet / f"model={model}" / f"hour={hour}"

    def models(self) -> list[str]:
        """Every model with a row, in order."""
        names = {path.name.partition("=")[2] for path in self.parquet.glob("model=*")}
        names |= {segment.model for segment in self.live()}
        return sorted(names)

    def live(self, model: str | None = None) -> list[SegmentName]:
        """Segments that are not Parquet yet, in order of their paths."""
        found = []
        for path in sorted(self.segments.glob("*/*/*~*~*")):
            name = SegmentName.parse(path)
            if name is not None and model in (None, name.model):
                found.append(name)
        return found

    def hash_key(self) -> bytes:
        """The key of hashed fields; made when first asked for. Raises OSError."""
        path = self.root / "hash.key"
        try:
            return path.read_bytes()
        except FileNotFoundError:
            self.root.mkdir(parents=True, exist_ok=True)
        made = path.with_name(f".hash.key.{secrets.token_hex(4)}")
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            os.fsync(descriptor)
        try:
            os.link(made, path)  # another process may have been faster: its key counts
        except FileExistsError:
            pass
        finally:
            made.unlink(missing_ok=True)
        return path.read_bytes()


def hour_of(seconds: float) -> str:
    """The name of an hour: UTC, such as `2026-11-29T19`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H")
