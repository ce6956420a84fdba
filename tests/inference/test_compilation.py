"""Compiled programs are kept in the user's cache folder."""

from pathlib import Path

import jax
import pytest

from popk.inference.compilation import cache_folder, keep_compiled


@pytest.fixture
def undecided():
    """Let JAX be as if nobody had chosen a folder, and put the choice back after the test."""
    chosen = jax.config.jax_compilation_cache_dir
    seconds = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", chosen)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)


def test_the_folder_is_the_one_that_the_environment_names(monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/somewhere/else")
    assert cache_folder() == Path("/somewhere/else")


def test_the_folder_is_the_user_s_cache_otherwise(monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    assert cache_folder().parts[-2:] == ("popk", "jax")


def test_jax_is_told_the_folder(undecided, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    keep_compiled()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path)


def test_a_folder_that_the_user_has_chosen_stays(undecided, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    keep_compiled()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
