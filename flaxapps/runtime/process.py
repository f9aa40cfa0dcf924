"""Settings of a process: memory allocation and the compilation cache."""

import ctypes
import os
import sys
from typing import Any

from flaxapps.runtime.keras_settings import keras_home

TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8  # mallopt(3), of the GNU C library


def keep_freed_memory() -> bool:
    """Stops glibc from returning freed memory to the system. For programs that compute on CPU.

    XLA frees its buffers after every call. glibc returns those above 32 MB to the system, and the next call faults them
    in again page by page, which takes up to an eighth of the time of a batch of 8 images. Memory is then held until
    the process ends. The environment variable `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` has the same effect.

    Returns:
        Whether the setting was changed; False without glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt: Any = getattr(ctypes.CDLL(None), "mallopt", None)
    # One arena: freed memory of the arenas of threads goes back to the system whatever the threshold.
    settings = {ARENA_MAX: 1, MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1}
    return bool(mallopt) and all(mallopt(*setting) for setting in settings.items())


def return_freed_memory() -> bool:
    """Returns freed memory to the system, once, with glibc. For use after compiling; takes about 50 ms.

    XLA frees the memory of a compilation, 200 MB and more, in pieces that glibc keeps. Later allocations are larger
    than the pieces and would come on top.

    Returns:
        Whether memory was returned; False without glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    return bool(trim and trim(0))


SHORTEST_KEPT = 0.1  # seconds of compilation; JAX's default of 1.0 would not cache small networks


def keep_compilations() -> None:
    """Sets JAX's persistent compilation cache to a folder in `keras_home()`. For programs, not for libraries.

    Changes nothing if the user has set one (`JAX_COMPILATION_CACHE_DIR`, which may be empty for no cache), or if the
    folder cannot be created.
    """
    import jax

    known: Any = jax.config  # JAX defines its options without types
    if known.jax_compilation_cache_dir is not None or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = keras_home() / "flaxapps" / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST_KEPT)
