"""Memory that is freed stays with the process."""

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, pathlib, resource, sys
from flaxapps.runtime.process import keep_freed_memory

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


PIECES = """
import pathlib, re
from flaxapps.runtime.process import return_freed_memory

def resident_bytes():
    return 1024 * int(re.search(r"VmRSS:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])

pieces = [bytes(10_000) for _ in range(10_000)]
del pieces[:-1]  # the last one holds the end of the heap, and all before it
before = resident_bytes()
assert return_freed_memory()
print(before - resident_bytes())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a function of the GNU C library")
def test_freed_pieces_go_back():
    found = subprocess.run([sys.executable, "-c", PIECES], capture_output=True, text=True, check=True)
    assert int(found.stdout) > 90_000_000


def test_elsewhere_nothing_is_done(monkeypatch):
    from flaxapps.runtime.process import keep_freed_memory, return_freed_memory

    monkeypatch.setattr("sys.platform", "darwin")
    assert not keep_freed_memory()
    assert not return_freed_memory()
