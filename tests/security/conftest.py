"""Fixtures of the security tests."""

from pathlib import Path

import pytest

from tests.support import generated


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Three pictures."""
    return generated.pictures(tmp_path / "media", 3)
