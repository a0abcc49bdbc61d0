"""Instructions that this process has executed, counted by callgrind around it.

Valgrind runs a program on a synthetic processor and counts what it executes; a program talks to
the tool by an instruction sequence that does nothing on a real processor ("client requests",
valgrind's manual, section 3.1; the numbers are those of `valgrind/callgrind.h`). Here that
sequence is written as machine code, so that neither a compiler nor a header is needed.

The same program counts the same on every run, whatever else the machine does. Only what the main
thread executes is counted.
"""

import ctypes
import mmap
import platform
import re
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final

__all__ = ["Callgrind", "InstructionClock", "Unsupported", "arguments"]

_RUNNING_ON_VALGRIND: Final = 0x1001
_DUMP_STATS, _ZERO_STATS = 0x43540000, 0x43540001
_START_INSTRUMENTATION, _STOP_INSTRUMENTATION = 0x43540004, 0x43540005

# rax = the address of six words (the request and its arguments), rdx = what to return where there
# is no valgrind; then the sequence that valgrind knows, and its answer to rax.
_X86_64: Final = bytes.fromhex(
    "4889f8"  # mov rax, rdi
    "4889f2"  # mov rdx, rsi
    "48c1c703" "48c1c70d" "48c1c73d" "48c1c733"  # rol rdi by 3, 13, 61 and 51: 128 in all
    "4887db"  # xchg rbx, rbx
    "4889d0"  # mov rax, rdx
    "c3"  # ret
)  # fmt: skip

_TOTAL: Final = re.compile(rb"^totals: (\d+)", re.MULTILINE)


class Unsupported(Exception):
    """This processor, or a process that valgrind does not run."""


def arguments(output: Path) -> list[str]:
    """The command that runs a program under callgrind; `output` is where it writes counts."""
    return [
        "valgrind",
        "--tool=callgrind",
        "--instr-atstart=no",  # what comes before is run, not counted, and ten times faster
        f"--callgrind-out-file={output}",
        "--dump-line=no",
        "--separate-threads=yes",  # libraries have some, and they wake when they like
        "--quiet",
    ]


class Callgrind:
    """Counts between `begin` and `end`.

    Args:
        output: as given to `arguments`.

    Raises:
        Unsupported: no valgrind around, or not an x86-64.
    """

    def __init__(self, output: Path) -> None:
        if platform.machine() not in ("x86_64", "AMD64"):
            raise Unsupported(f"instructions are counted on x86-64 only, not {platform.machine()}")
        self._output = output
        self._parts = 0
        self._code = mmap.mmap(
            -1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        )
        self._code.write(_X86_64)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._code))
        call = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t)(address)
        words = {
            number: (ctypes.c_size_t * 6)(number)
            for number in (
                _RUNNING_ON_VALGRIND,
                _DUMP_STATS,
                _ZERO_STATS,
                _START_INSTRUMENTATION,
                _STOP_INSTRUMENTATION,
            )
        }
        self._words = words
        self._call = call
        self._dump = ctypes.addressof(words[_DUMP_STATS])
        self._zero = ctypes.addressof(words[_ZERO_STATS])
        if not self._ask(_RUNNING_ON_VALGRIND):
            raise Unsupported("this program counts nothing by itself; start it under callgrind")

    def _ask(self, number: int) -> int:
        answer: int = self._call(ctypes.addressof(self._words[number]), 0)
        return answer

    def start(self) -> None:
        """Begin to instrument: from here on the program runs fifty times slower."""
        self._ask(_START_INSTRUMENTATION)

    def stop(self) -> None:
        """Run at the speed of before."""
        self._ask(_STOP_INSTRUMENTATION)

    def begin(self) -> None:
        """Count from zero."""
        self._call(self._zero, 0)

    def end(self) -> int:
        """Instructions since `begin`, or since the last `end`."""
        self._call(self._dump, 0)
        self._parts += 1
        # Of the main thread; libraries have threads of their own, which sleep.
        part = self._output.with_name(f"{self._output.name}.{self._parts}-01")
        found = _TOTAL.search(part.read_bytes())
        part.unlink()
        assert found is not None, "callgrind has written no total"
        return int(found[1])


class InstructionClock:
    """A `Clock` whose seconds are instructions, while it is told to count; else it hardly moves.

    Given to a worker, it makes the worker's own station times say how many instructions each
    station took. Reading it costs some itself, which `calibrate` measures and no reading contains.
    """

    SECONDS_PER_INSTRUCTION: Final = 1e-12
    """Far less than a real processor takes: no run is ever long enough to leave the loop for a
    thread, no deadline passes."""

    _SECONDS_PER_READING: Final = SECONDS_PER_INSTRUCTION
    """Not nothing: a run that took no time would count as one that was never measured."""

    def __init__(self, callgrind: Callgrind, wall: float) -> None:
        self._callgrind = callgrind
        self._wall = wall
        self._seconds = 1_000.0
        self._own = 0
        self._counting = False

    def calibrate(self) -> int:
        """Measure what a reading costs: what usually lies between two in a row."""
        self._own = 0
        self.count()
        readings = [self.monotonic() for _ in range(6)]
        self.rest()
        usual = median(after - before for before, after in pairwise(readings))
        self._own = round(usual / self.SECONDS_PER_INSTRUCTION)
        return self._own

    def count(self) -> None:
        """Have `monotonic` move by instructions."""
        self._counting = True
        self._callgrind.begin()

    def rest(self) -> None:
        """Have `monotonic` move by one for each reading again."""
        self._counting = False

    def instructions(self) -> int:
        """Read as a count."""
        return round((self.monotonic() - 1_000.0) / self.SECONDS_PER_INSTRUCTION)

    def monotonic(self) -> float:
        """Seconds."""
        if not self._counting:
            self._seconds += self._SECONDS_PER_READING
            return self._seconds
        spent = self._callgrind.end() - self._own
        self._seconds += spent * self.SECONDS_PER_INSTRUCTION
        self._callgrind.begin()
        return self._seconds

    def thread_time(self) -> float:
        """Stands still: a run that looks long, being counted, is not too long for the loop."""
        return self._wall

    def wall(self) -> float:
        """Seconds since 1970; they stand still."""
        return self._wall
