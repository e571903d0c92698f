"""The models that are served; changes when Google publishes or retires one.

Names, limits and methods: ai.google.dev/gemini-api/docs/models and /changelog, November 2026.
"""

from dataclasses import dataclass
from typing import Any, Literal

INPUT_TOKEN_LIMIT = 1_048_576
OUTPUT_TOKEN_LIMIT = 65_536

Family = Literal["2.5", "3"]


@dataclass(frozen=True, slots=True)
class Model:
    """One model."""

    name: str
    display_name: str
    family: Family = "3"
    takes_minimal_thinking: bool = True

    def render(self) -> dict[str, Any]:
        """The model as models.get answers it."""
        return {
            "name": f"models/{self.name}",
            "baseModelId": self.name,
            "version": "emulated",
            "displayName": self.display_name,
            "description": "Answered by the local emulator; no model is behind it.",
            "inputTokenLimit": INPUT_TOKEN_LIMIT,
            "outputTokenLimit": OUTPUT_TOKEN_LIMIT,
            "supportedGenerationMethods": ["generateContent", "countTokens"],
            "temperature": 1,
            "topP": 0.95,
            "topK": 64,
            "maxTemperature": 2,
            "thinking": True,
        }


PUBLISHED = (
    Model("gemini-3.8-flash", "Gemini 3.8 Flash", takes_minimal_thinking=False),
    Model("gemini-3.7-flash", "Gemini 3.7 Flash", takes_minimal_thinking=False),
    Model("gemini-3.6-flash", "Gemini 3.6 Flash"),
    Model("gemini-3.5-flash", "Gemini 3.5 Flash"),
    Model("gemini-3.5-flash-lite", "Gemini 3.5 Flash-Lite"),
    Model("gemini-3.1-flash-lite", "Gemini 3.1 Flash-Lite"),
    Model("gemini-3.1-pro-preview", "Gemini 3.1 Pro Preview"),
    Model("gemini-3-flash-preview", "Gemini 3 Flash Preview"),
    Model("gemini-2.5-pro", "Gemini 2.5 Pro", family="2.5"),
    Model("gemini-2.5-flash", "Gemini 2.5 Flash", family="2.5"),
    Model("gemini-2.5-flash-lite", "Gemini 2.5 Flash-Lite", family="2.5"),
)


def served(more: list[str]) -> dict[str, Model]:
    """Every served model by name; ``more`` come from the plan."""
    models = [*PUBLISHED, *(Model(name, name) for name in more)]
    return {model.name: model for model in models}
