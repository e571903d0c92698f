"""What a template makes of an item, and what every such text must be."""

from typing import Final

from pipeline.errors import ItemError
from pipeline.manifest.entry import failed

RENDERED_CHARACTERS: Final = 1024 * 1024
"""Longest prompt, or label, that a template may render."""

EDGES: Final = " \t\r\n"
"""What is taken off at both ends."""


class Rendered:
    """A prompt and one label a medium, from one rendering."""

    __slots__ = ("labels", "prompt")

    def __init__(self, prompt: str, labels: tuple[str, ...] = ()) -> None:
        """Without their edges. Raises ``ItemError`` where nothing is left, and ``UnicodeEncodeError``."""
        self.prompt = prompt.strip(EDGES)
        self.labels = tuple(label.strip(EDGES) for label in labels)
        for text in (self.prompt, *self.labels):
            text.encode()
        if not self.prompt:
            raise failed("template_error", "the template renders to nothing")


def bounded(text: str, what: str) -> str:
    """``text``, which a template made for ``what``. Raises ``ItemError`` where it is too long."""
    if len(text) > RENDERED_CHARACTERS:
        raise too_long(what)
    return text


def too_long(what: str) -> ItemError:
    """The item's failure where its ``what`` is."""
    return failed("template_error", f"{what} would be longer than {RENDERED_CHARACTERS:,} characters")
