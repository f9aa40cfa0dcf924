"""Memory that is freed stays with the process."""

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, pathlib, resource, sys
from flaxapps.allocation import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
if sys.argv[1] == "kept":
    assert keep_freed_memory()

def use():
    address = libc.malloc(100_000_000)
    ctypes.memset(address, 1, 100_000_000)
    libc.free(address)

use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="an option of the GNU C library")
def test_the_second_use_of_memory_faults_no_pages():
    faults = {
        how: int(
            subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True).stdout
        )
        for how in ("kept", "as always")
    }
    assert faults["kept"] < faults["as always"] / 10


def test_elsewhere_nothing_is_done(monkeypatch):
    from flaxapps.allocation import keep_freed_memory

    monkeypatch.setattr("sys.platform", "darwin")
    assert not keep_freed_memory()
