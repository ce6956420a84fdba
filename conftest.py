"""Doctests of popk read data/theophylline.csv, so they run at the root of the repository."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _doctests_run_at_the_root(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(Path(__file__).parent)
