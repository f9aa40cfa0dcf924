"""Memory that a program frees and needs again at once."""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # mallopt(3), of the GNU C library


def keep_freed_memory() -> bool:
    """Lets this process keep the memory it frees, where the C library is GNU's; for programs that compute on a CPU.

    XLA frees what a call works in when the call ends. Above 32 MB the C library gives it back to the system, which
    hands it out again page by page in the next call: up to an eighth of the time of a batch of 8 images. What is kept
    is held until the process ends. In the environment, `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` does as much.

    Returns:
        Whether it was done; otherwise nothing has changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(MMAP_MAX, 0) and mallopt(TRIM_THRESHOLD, 2**31 - 1))


def return_freed_memory() -> bool:
    """Gives the memory that this process has freed back to the system, where the C library is GNU's.

    What XLA takes to compile a network it frees in pieces, which the C library holds: 200 MB and more, that later
    allocations, larger than the pieces, come on top of. Meant for after compiling; it takes some 50 ms.

    Returns:
        Whether there was any.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    return bool(trim and trim(0))
