"""A local server of the Gemini API, for work without a key and for tests; nothing heavy is imported before use."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.emulator.plan import Fault, Latency, Lognormal, Plan, Quota, load_plan, parse_plan
    from pipeline.emulator.server import Emulator

_HOMES = {
    "Emulator": "server",
    "Fault": "plan",
    "Latency": "plan",
    "Lognormal": "plan",
    "Plan": "plan",
    "Quota": "plan",
    "load_plan": "plan",
    "parse_plan": "plan",
}

__all__ = ["Emulator", "Fault", "Latency", "Lognormal", "Plan", "Quota", "load_plan", "parse_plan"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
