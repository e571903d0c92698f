"""Prompt templates: Jinja2 in its immutable sandbox, where values are data and are never rendered twice.

Templates are the operator's; values come from anywhere. So what a value can be multiplied into is bounded, and
nothing that is not the same every night (``random``, ``lipsum``) is there. A template may define a macro
``label(medium)``: its text then precedes each medium of a series.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from jinja2 import StrictUndefined, TemplateError, UndefinedError, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.errors import ItemError, UsageError
from pipeline.manifest.entry import failed
from pipeline.records import Json

RENDERED_CHARACTERS: Final = 1024 * 1024
"""Longest prompt, or label, that a template may render."""

_EDGES: Final = " \t\r\n"
_WIDTH: Final = 1000
_RANGE: Final = 10_000
_POWER_BITS: Final = 4096
_BIG_NUMBER: Final = re.compile(r"\d{5,}")
_NO_FILTERS: Final = ("random", "xmlattr", "urlize", "pprint", "attr")
_NO_STRING_METHODS: Final = frozenset(
    {
        "center",
        "expandtabs",
        "format",
        "format_map",
        "ljust",
        "rjust",
        "zfill",
        "replace",
        "join",
        "translate",
        "encode",
    }
)


class Rendered:
    """A prompt and one label a medium, from one rendering."""

    __slots__ = ("labels", "prompt")

    def __init__(self, prompt: str, labels: tuple[str, ...] = ()) -> None:
        self.prompt = prompt
        self.labels = labels


class Template:
    """A compiled template; ``name`` is what result lines call it, None for one given in place.

    Raises ``UsageError`` where ``source`` is not a template.
    """

    def __init__(self, source: str, name: str | None = None) -> None:
        self.name = name
        called = f"template {name!r}" if name else "the prompt given"
        try:
            source.encode()
            tree = _ENVIRONMENT.parse(source)
            self._template = _ENVIRONMENT.from_string(source)
            self._globals = dict(self._template.globals)
        except UnicodeEncodeError:
            raise UsageError(f"{called} is not valid UTF-8") from None
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            raise UsageError(f"{called}{f', line {line}' if line else ''}: {error}") from None
        except RecursionError:
            raise UsageError(f"{called} is nested too deeply") from None
        self.constant: Rendered | None = None
        if all(isinstance(node, nodes.Output | nodes.TemplateData) for node in tree.find_all(nodes.Node)):
            try:
                self.constant = self.render({})
            except ItemError as error:
                raise UsageError(f"{called}: {error}") from None

    def render(self, variables: Mapping[str, Json], media: Sequence[Mapping[str, Json]] = ()) -> Rendered:
        """The prompt, and labels where there is more than one medium and the template makes them.

        Raises ``ItemError`` of kind template_error.
        """
        if self.constant is not None:
            return self.constant
        try:
            return self._render(variables, media)
        except ItemError:
            raise
        except UnicodeEncodeError:
            raise failed("template_error", "the template makes text that is not valid Unicode") from None
        except (MemoryError, RecursionError):
            raise failed("template_error", "the template does not end") from None
        except UndefinedError as error:
            what = "the template asks for what this item doesn't have"
            raise failed("template_error", f"{what}: {error}"[:500]) from None
        except Exception as error:  # noqa: BLE001 - Jinja lets through whatever an expression raises
            raise failed("template_error", f"{type(error).__name__}: {error}"[:500]) from None

    def _render(self, variables: Mapping[str, Json], media: Sequence[Mapping[str, Json]]) -> Rendered:
        # "shared": the names of Jinja's own are in there already, which spares a walk over them for each item
        context = self._template.new_context({**self._globals, **variables}, shared=True)
        pieces: list[str] = []
        room = RENDERED_CHARACTERS
        for piece in self._template.root_render_func(context):
            room -= len(piece)
            if room < 0:
                raise _too_long("the prompt")
            pieces.append(piece)
        macro = context.get_exported().get("label")
        labels: tuple[str, ...] = ()
        if len(media) > 1 and isinstance(macro, Macro):
            labels = tuple(_bounded(str(macro(medium))).strip(_EDGES) for medium in media)
        prompt = "".join(pieces).strip(_EDGES)
        for text in (prompt, *labels):
            text.encode()
        if not prompt:
            raise failed("template_error", "the template renders to nothing")
        return Rendered(prompt, labels)


def _too_long(what: str) -> ItemError:
    return failed("template_error", f"{what} would be longer than {RENDERED_CHARACTERS:,} characters")


def _bounded(text: str) -> str:
    if len(text) > RENDERED_CHARACTERS:
        raise _too_long("a label")
    return text


def _within(number: Any, most: int) -> None:
    if isinstance(number, int | float) and abs(number) > most:
        raise SecurityError(f"{number} is more than {most:,}")


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with what multiplies text or numbers bounded."""

    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            for sized, times in ((left, right), (right, left)):
                if isinstance(sized, str | list | tuple) and isinstance(times, int):
                    _within(len(sized) * times, RENDERED_CHARACTERS)
        if operator in {"*", "**"} and isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
            _within(bits, _POWER_BITS)
        if operator == "+" and isinstance(left, str | list) and isinstance(right, str | list):
            _within(len(left) + len(right), RENDERED_CHARACTERS)
        if operator == "%" and isinstance(left, str):
            _check_format(left)
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr in _NO_STRING_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Leave ``str.format`` to ``is_safe_attribute``, which refuses it: a width in it is not bounded."""


def _check_format(text: str) -> None:
    if "*" in text or _BIG_NUMBER.search(text):
        raise SecurityError("a width in a format is too large")


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    _within(len(numbers), _RANGE)
    return numbers


def _environment() -> _Sandbox:
    environment = _Sandbox(
        undefined=StrictUndefined, loader=None, autoescape=False, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals = {"range": _range}
    plain = dict(environment.filters)
    for name in _NO_FILTERS:
        del environment.filters[name]

    def center(value: str, width: int = 80) -> str:
        _within(width, _WIDTH)
        return str(plain["center"](value, width))

    def indent(value: str, width: int = 4, *, first: bool = False, blank: bool = False) -> str:
        _within(width, _WIDTH) if isinstance(width, int) else _within(len(width), _WIDTH)
        return str(plain["indent"](value, width, first, blank))

    def format_text(value: str, *args: Any, **named: Any) -> str:
        _check_format(value)
        return str(plain["format"](value, *args, **named))

    def replace(value: Any, old: str, new: str, count: int = -1) -> str:
        text = str(value)
        times = text.count(old)
        _within(len(text) + times * len(new), RENDERED_CHARACTERS)
        return text.replace(old, new, count)

    environment.filters.update(center=center, indent=indent, format=format_text, replace=replace)
    return environment


_ENVIRONMENT: Final = _environment()
