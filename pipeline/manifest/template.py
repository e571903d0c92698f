"""Prompt templates: a text as it is, or one that Jinja2 renders for each item (``sandbox.py``)."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from pipeline.errors import ItemError, UsageError
from pipeline.manifest.rendered import Rendered, bounded
from pipeline.records import Json

if TYPE_CHECKING:
    from pipeline.manifest.sandbox import Compiled

_LINE_END: Final = re.compile(r"\r\n?")


class Template:
    """A template, ready to render; ``name`` is what result lines call it, None for one given in place.

    Raises ``UsageError`` where ``source`` is not a template.
    """

    def __init__(self, source: str, name: str | None = None) -> None:
        self.name = name
        self.constant: Rendered | None = None
        """The same for every item, where it is."""
        self._compiled: Compiled | None = None
        called = f"template {name!r}" if name else "the prompt given"
        try:
            source.encode()
            if "{" not in source:  # nothing for Jinja, whose import alone takes a tenth of a run's start
                self.constant = Rendered(bounded(_LINE_END.sub("\n", source), "the prompt"))
                return
            from pipeline.manifest.sandbox import compiled

            self._compiled = compiled(source, called)
            self.constant = self._compiled.render({}) if self._compiled.is_constant else None
        except UnicodeEncodeError:
            raise UsageError(f"{called} is not valid UTF-8") from None
        except ItemError as error:
            raise UsageError(f"{called}: {error}") from None

    def render(self, variables: Mapping[str, Json], media: Sequence[Mapping[str, Json]] = ()) -> Rendered:
        """The prompt, and labels where there is more than one medium and the template makes them.

        Raises ``ItemError`` of kind template_error.
        """
        if self.constant is not None:
            return self.constant
        assert self._compiled is not None  # noqa: S101 - it is one or the other
        return self._compiled.render(variables, media)
