"""What the emulator's tests share: its own fixtures and a raw HTTP client."""

import pytest
from emulator_http import Http

from pipeline.emulator import Fault, Plan

# Imported, so that the tests also run from a tree that is not installed.
from pipeline.emulator.fixture import gemini_emulator, gemini_emulator_factory

__all__ = ["gemini_emulator", "gemini_emulator_factory"]


@pytest.fixture
def api(gemini_emulator) -> Http:
    return Http(gemini_emulator.base_url)


@pytest.fixture
def api_with(gemini_emulator_factory):
    def start(*faults: Fault, **plan) -> Http:
        emulator = gemini_emulator_factory(Plan(fault=list(faults), describe="brief", **plan))
        api = Http(emulator.base_url)
        api.emulator = emulator
        return api

    return start
