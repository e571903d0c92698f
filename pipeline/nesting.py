"""How deep JSON values are nested: what one decoder manages can be too much for what comes after it."""

from collections.abc import Iterable
from typing import Final

from pipeline.records import Json

DEPTH: Final = 100
"""Deepest nesting of a manifest's row, and of the data in an answer."""


def is_deep(value: Json, most: int = DEPTH) -> bool:
    """Whether ``value`` has more than ``most`` levels of objects and lists."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(most):
        level = [inner for outer in level for inner in _inside(outer) if isinstance(inner, dict | list)]
        if not level:
            return False
    return bool(level)


def _inside(container: Json) -> Iterable[Json]:
    return container.values() if isinstance(container, dict) else container
