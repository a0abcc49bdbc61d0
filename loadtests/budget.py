"""Instructions per request, against a budget: the guard that the hot path does not grow unseen.

    python loadtests/budget.py                # compare with loadtests/budget.yaml; exit 1 if dearer
    python loadtests/budget.py --update       # accept what is counted now
    python loadtests/budget.py --burden 0.15  # show that it notices 15 % more work in one station

The gateway's own objects, from the bytes of a request to the bytes of its answer, and the floor of
`bench.py` are run under valgrind, which counts the instructions of both. Counts do not depend on
what else the machine does; ratios to the floor hardly on the machine. Takes about a minute.
Needs valgrind (`apt-get install -y valgrind`), x86-64 and no network.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Final

import budget_callgrind
import budget_cases
import msgspec
import yaml
from budget_verdict import Budget, LoadCounts, judge, ratios, table, words

__all__ = ["BUDGET", "NoValgrind", "NothingCounted", "count", "counted_with", "read", "write"]

BUDGET: Final = Path(__file__).with_name("budget.yaml")
_PROGRAM: Final = Path(__file__).with_name("budget_counting.py")
_PATIENCE_SECONDS: Final = 600
_LIBRARIES: Final = (
    "httptools",
    "hiredis",
    "msgspec",
    "numpy",
    "onnxruntime",
    "orjson",
    "protobuf",
    "uvloop",
)
_HEAD: Final = """\
# What a request may cost, in multiples of the floor's instructions: written by
# `python loadtests/budget.py --update`, held by tests/integration/test_budget.py.
# docs/operations.md, "The instruction budget", says what to do when it is exceeded.
"""


class NothingCounted(Exception):
    """The counted program failed."""


class NoValgrind(NothingCounted):
    """Valgrind is not installed; says how to."""


def counted_with() -> dict[str, str]:
    """Versions of what is counted beside our own code."""
    return {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}


def count(burden: float = 0.0) -> list[LoadCounts]:
    """Count every case; with a `burden`, the first once more with so much more work in `admit`.

    Raises:
        NoValgrind: there is none on the path.
        NothingCounted: the counted program failed; with what it said.
    """
    if shutil.which("valgrind") is None:
        raise NoValgrind(
            "instructions are counted by valgrind, which is not on the path;"
            " install it: apt-get install -y valgrind"
        )
    with tempfile.TemporaryDirectory(prefix="sluice-budget-") as name:
        folder = Path(name)
        loads, output, result = folder / "loads", folder / "callgrind", folder / "result"
        loads.write_bytes(msgspec.msgpack.encode(budget_cases.build(folder)))
        command = [
            *budget_callgrind.arguments(output),
            sys.executable,
            str(_PROGRAM),
            *(loads, output, result),
            f"--burden={burden}",
        ]
        try:
            done = subprocess.run(
                command,
                env=_environment(),
                stderr=subprocess.PIPE,
                text=True,
                timeout=_PATIENCE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise NothingCounted(
                f"the counted program did not end in {_PATIENCE_SECONDS:.0f} s; it has one thread, "
                "so look for something that now waits for another (a model run in a thread?)"
            ) from error
        if done.returncode:
            raise NothingCounted(
                f"the counted program ended with {done.returncode}:\n{done.stderr}"
            )
        return msgspec.json.decode(result.read_bytes(), type=list[LoadCounts])


def _environment() -> dict[str, str]:
    """Nothing of ours that would be counted (coverage, debugging), and nothing random."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return kept | {
        "HOME": "/nonexistent",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
    }


def read(path: Path = BUDGET) -> Budget:
    """Read a budget.

    Raises:
        msgspec.ValidationError: it is not of this shape; the message names the place.
    """
    return msgspec.convert(yaml.safe_load(path.read_text()), Budget)


def write(budget: Budget, path: Path = BUDGET) -> None:
    """Write a budget for people and for git."""
    document = yaml.safe_dump(msgspec.to_builtins(budget), sort_keys=False)
    path.write_text(_HEAD + document)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--update", action="store_true", help="accept what is counted now")
    parser.add_argument("--json", action="store_true", help="print the ratios as JSON, no table")
    parser.add_argument(
        "--burden",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="add so much useless work to a request's `admit`, as a share of its cost",
    )
    options = parser.parse_args()
    if options.burden < 0:
        parser.error("--burden is a share of a request's cost, such as 0.15")
    if options.update and options.burden:
        parser.error("--update would take the burden into the budget; leave one out")
    return options


def main() -> int:
    """Count, print, judge; 1 if a request became dearer than the budget allows."""
    options = _options()
    try:
        loads = count(options.burden)
    except NothingCounted as error:
        sys.exit(f"nothing was counted: {error}")
    now = ratios(loads, burdened=options.burden > 0)
    known = read() if BUDGET.exists() else Budget(counted_with={}, cases={})
    if options.json:
        print(json.dumps(msgspec.to_builtins(now), indent=2))
    else:
        floors = ", ".join(f"{one.name} {one.floor:,.0f}" for one in loads)
        print(f"floor, instructions per request: {floors}")
        print("\n".join(table(known, now)))
    if options.update:
        write(Budget(counted_with(), now, known.tolerance))
        print(f"written: {BUDGET.name}", file=sys.stderr)
        return 0
    for line in words(known, now, counted_with()):
        print(line, file=sys.stderr)
    return 1 if judge(known, now) else 0


if __name__ == "__main__":
    sys.exit(main())
