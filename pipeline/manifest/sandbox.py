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
from pipeline.manifest.rendered import RENDERED_CHARACTERS, Rendered, bounded, too_long
from pipeline.records import Json

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


class Compiled:
    """A template that Jinja has compiled; made by ``compiled``."""

    def __init__(self, source: str) -> None:
        """Raises Jinja's ``TemplateError``, and ``RecursionError``."""
        nodes_of_all = _ENVIRONMENT.parse(source).find_all(nodes.Node)
        self.is_constant = all(isinstance(node, nodes.Output | nodes.TemplateData) for node in nodes_of_all)
        self._template = _ENVIRONMENT.from_string(source)
        self._globals = dict(self._template.globals)

    def render(self, variables: Mapping[str, Json], media: Sequence[Mapping[str, Json]] = ()) -> Rendered:
        """As ``Template.render``."""
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
                raise too_long("the prompt")
            pieces.append(piece)
        macro = context.get_exported().get("label")
        labels: tuple[str, ...] = ()
        if len(media) > 1 and isinstance(macro, Macro):
            labels = tuple(bounded(str(macro(medium)), "a label") for medium in media)
        return Rendered("".join(pieces), labels)


def compiled(source: str, called: str) -> Compiled:
    """``source`` compiled. Raises ``UsageError``, which says what it is ``called``, where it is no template."""
    try:
        return Compiled(source)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        raise UsageError(f"{called}{f', line {line}' if line else ''}: {error}") from None
    except RecursionError:
        raise UsageError(f"{called} is nested too deeply") from None


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
