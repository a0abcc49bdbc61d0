"""What the checking process is told, and what it answers: one JSON object a line."""

import msgspec

from serving.types import Signature

__all__ = ["Begun", "Candidate", "CheckLimits", "Order", "Passed", "Refused", "Report"]


class CheckLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one model file may cost while it is checked."""

    max_file_bytes: int = 2 << 30
    """Largest file. Protocol Buffers, which ONNX is written in, end at 2 GiB anyway."""

    memory_bytes: int = 4 << 30
    """Address space the check may take beyond what the bare checker occupies."""

    cpu_seconds: int = 60
    """Processor time for one file."""

    wall_seconds: float = 60.0
    """Time for one file by the clock."""

    start_seconds: float = 30.0
    """Time the checker itself may take to start."""


class Candidate(msgspec.Struct, frozen=True):
    """A file to check: its absolute path, the digest its bytes must have, and golden examples.

    The latter are the text of their file, empty for none; see `serving.models.golden`.
    """

    path: str
    sha256: str
    golden: str = ""


class Order(msgspec.Struct, frozen=True):
    """Everything the checker reads from its standard input. `parent` is who must be alive."""

    parent: int
    limits: CheckLimits
    candidates: list[Candidate]


class Begun(msgspec.Struct, frozen=True, tag="begun"):
    """The candidate of this index is about to be opened."""

    index: int


class Passed(msgspec.Struct, frozen=True, tag="passed"):
    """It may be served."""

    index: int
    signature: Signature


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """It must not be served, for this reason."""

    index: int
    reason: str


Report = Begun | Passed | Refused
