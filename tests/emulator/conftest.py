"""What the emulator's tests share: its own fixtures and a raw HTTP client."""

import pytest
from emulator_http import Http

# Imported, so that the tests also run from a tree that is not installed.
from pipeline.emulator.fixture import gemini_emulator, gemini_emulator_factory

__all__ = ["gemini_emulator", "gemini_emulator_factory"]


@pytest.fixture
def api(gemini_emulator) -> Http:
    return Http(gemini_emulator.base_url)
