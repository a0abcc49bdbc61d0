"""What becomes of a large block of the C heap when it is freed."""

import ctypes
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, sys
from serving.heap import give_back_large_blocks

class Mallinfo(ctypes.Structure):  # mallinfo(3)
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.mallinfo2.restype = ctypes.c_void_p, Mallinfo
if sys.argv[1] == "bounded":
    give_back_large_blocks()
libc.free(ctypes.c_void_p(libc.malloc(8 << 20)))
before = libc.mallinfo2().hblkhd
kept = libc.malloc(4 << 20)
print(libc.mallinfo2().hblkhd - before >= 4 << 20)
"""


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="the C library is not glibc 2.33 or later"
)
@pytest.mark.parametrize(("heap", "of_the_kernel"), [("bounded", "True"), ("as it is", "False")])
def test_a_large_block_is_the_kernels_also_after_a_larger_one_was_freed(
    heap: str, of_the_kernel: str
) -> None:
    """Freed, it goes back at once. By itself glibc takes it from its heap, which keeps it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, heap], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == of_the_kernel
