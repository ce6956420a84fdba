"""Compiled programs are kept in the user's cache folder, so that a second process starts sooner."""

import os
from pathlib import Path

import jax
import platformdirs


def cache_folder() -> Path:
    """Return where compiled programs are kept: JAX_COMPILATION_CACHE_DIR, or the user's cache."""
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("popk")) / "jax"


def keep_compiled() -> None:
    """Let JAX keep what it compiles, unless the user has decided that already."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
