"""All processes' numbers together, the dead ones' included; totals never go back.

Every process leaves a file `<process>-<pid>-<start>.metrics` in the folder, and when that was
full another, `…-2.metrics` and so on. Those of the dead are folded into `retired.json`, which
holds their sum and the names of the files in it. Folding writes that file whole (write, flush,
rename) and only then deletes what it folded, and a reader leaves out files that are named in it.
So a crash between the steps neither loses a number nor counts one twice. One process folds
(control); any may read.

Gauges describe a process and die with it; those that hold a moment (`…_timestamp_seconds`)
stay true, and are kept.
"""

import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from serving.files import write_whole
from serving.metric_families import FAMILIES
from serving.metrics import MAGIC, Samples, read, total

__all__ = ["RETIRED", "fitting", "fold", "is_owned", "outliving", "totals"]

RETIRED: Final = "retired.json"
_PATTERN: Final = "*.metrics"


class _Sample(msgspec.Struct):
    name: str
    labels: tuple[str, ...]
    slots: list[float]


class _Retired(msgspec.Struct):
    folded: list[str] = []
    samples: list[_Sample] = []

    def as_samples(self) -> Samples:
        """The sums, without families that this version no longer knows the shape of."""
        return {
            (sample.name, sample.labels): sample.slots
            for sample in self.samples
            if _fits(sample.name, sample.slots)
        }


def _fits(name: str, slots: list[float]) -> bool:
    family = FAMILIES.get(name)
    if family is None:
        return False
    return len(slots) == (len(family.buckets) + 2 if family.kind == "histogram" else 1)


def _outlives(name: str) -> bool:
    """Whether a number stays true when its process is gone."""
    return FAMILIES[name].kind != "gauge" or name.endswith("_timestamp_seconds")


def outliving(samples: Samples) -> Samples:
    """What stays true of processes that are gone."""
    return {key: slots for key, slots in samples.items() if _outlives(key[0])}


def _read_retired(folder: Path) -> _Retired:
    try:
        return msgspec.json.decode((folder / RETIRED).read_bytes(), type=_Retired)
    except FileNotFoundError:
        return _Retired()


def totals(folder: Path) -> Samples:
    """Add up the living and the dead.

    Files are read before the retired sums: what is folded in between is then found twice and
    left out once, never missed.
    """
    found: dict[str, Samples] = {}
    for path in folder.glob(_PATTERN):
        try:
            found[path.name] = read(path)
        except FileNotFoundError:  # folded and deleted since it was listed: it is in the sums
            continue
    retired = _read_retired(folder)
    folded = set(retired.folded)
    living = [fitting(samples) for name, samples in found.items() if name not in folded]
    return total([retired.as_samples(), *living])


def fitting(samples: Samples) -> Samples:
    """Those of a family and a shape that this release knows."""
    return {key: slots for key, slots in samples.items() if _fits(key[0], slots)}


def fold(folder: Path, owned: Callable[[Path], bool] | None = None) -> int:
    """Move the numbers of dead processes into the sums and delete their files.

    Args:
        folder: holds the metrics files.
        owned: says whether a file's process still runs; by default `is_owned`.

    Returns:
        How many files were folded. Call it from one process only, from time to time.
    """
    owned = owned or is_owned
    retired = _read_retired(folder)
    files = {path.name: path for path in folder.glob(_PATTERN)}
    for name in retired.folded:  # a crash left it behind: counted already, only delete
        if path := files.pop(name, None):
            path.unlink(missing_ok=True)
    dead = {name: path for name, path in files.items() if not owned(path)}
    if not dead:
        return 0
    last_words = [
        {
            key: slots
            for key, slots in read(path).items()
            if _fits(key[0], slots) and _outlives(key[0])
        }
        for path in dead.values()
    ]
    summed = total([retired.as_samples(), *last_words])
    write_whole(
        folder / RETIRED,
        msgspec.json.encode(
            _Retired(
                folded=sorted(dead),
                samples=[_Sample(name, labels, slots) for (name, labels), slots in summed.items()],
            )
        ),
    )
    for path in dead.values():
        path.unlink(missing_ok=True)
    return len(dead)


def is_owned(path: Path) -> bool:
    """Whether the process that made the file still runs, or is just making it.

    `MetricsFile` holds a lock for as long as its process lives. A pid would not do: pids are
    used again, and comparing start times fails when somebody sets the clock.
    """
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return file.read(len(MAGIC)) != MAGIC
