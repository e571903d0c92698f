"""Fixtures of the rooms."""

import shutil
from pathlib import Path

import pytest

from tests.rooms.night import SAMPLES


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A folder with three small media."""
    for name in ("coffee.jpg", "rocket.jpg", "coffee_zoom.mp4"):
        shutil.copy(SAMPLES / "media" / name, tmp_path / name)
    return tmp_path
