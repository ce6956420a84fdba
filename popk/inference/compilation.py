"""What a process keeps between calls: compiled programs on disk, and the memory that they work in."""

import ctypes
import os
import sys
from pathlib import Path

import jax
import platformdirs


def cache_folder() -> Path:
    """Return where compiled programs are kept: JAX_COMPILATION_CACHE_DIR, or the user's cache."""
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("popk")) / "jax"


#: glibc's names of what `keep_memory` sets, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_memory() -> None:
    """Let the process keep memory that it has freed, unless the user has said what malloc should do.

    A log-density of 1,000 subjects works in 10 MB. Where the C library gives these back to the
    system after each call, as glibc may, the next call waits for the system to clear them again:
    that was 20 ms where the arithmetic takes 3. Other C libraries are left alone.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)  # not from blocks of their own, which are always given back
        mallopt(_TRIM_THRESHOLD, 2**30)
        mallopt(_TOP_PAD, 2**26)


def keep_compiled() -> None:
    """Let JAX keep what it compiles, unless the user has decided that already, and its memory."""
    keep_memory()
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
