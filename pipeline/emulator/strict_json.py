"""Reads JSON the way the API does: both spellings, both base64 alphabets, and nothing it does not know.

The wording of the refusals is the service's (zed-industries/zed#44875, mnfst/llm-gateway#1858).
"""

import base64
import binascii
import functools
import re
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec

from pipeline.emulator import api_errors
from pipeline.emulator.messages import Message, Seconds
from pipeline.emulator.reply import Refusal

M = TypeVar("M", bound=Message)
Violations = list[tuple[str, str]]
Reader = Callable[[Any, str, Violations], Any]

_TYPE_URL = "type.googleapis.com/google.ai.generativelanguage.v1beta"
_DURATION = re.compile(r"-?\d{1,12}(\.\d{1,9})?s")
# The front end takes single quotes too, and the guide's own upload sample writes {'file': {'display_name': ...}}.
_SINGLE_QUOTED = re.compile(rb"""\"(?:[^"\\]|\\.)*"|'(?P<single>(?:[^'\\]|\\.)*)'""", re.DOTALL)
_URL_SAFE = str.maketrans("-_", "+/")
_QUOTED_CHARACTERS = 100


def read(kind: type[M], raw: bytes) -> M:
    """``raw`` as a ``kind``; refused with every violation in one 400."""
    value = _decode(raw) if raw else {}
    violations: Violations = []
    if isinstance(value, dict):
        message: M = _message_reader(kind)(value, "", violations)
    else:
        violations.append(("", "Invalid JSON payload received. Expected an object at the root."))
    if violations:
        raise Refusal(api_errors.bad_fields(violations))
    return message


def _decode(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        try:
            return msgspec.json.decode(_SINGLE_QUOTED.sub(_double_quoted, raw))
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Refusal(api_errors.invalid_argument(f"Invalid JSON payload received. {problem}")) from problem


def _double_quoted(match: re.Match[bytes]) -> bytes:
    if match["single"] is None:
        return match[0]
    return b'"' + match["single"].replace(b"\\'", b"'").replace(b'"', b'\\"') + b'"'


def camel(name: str) -> str:
    """``mime_type`` as ``mimeType``."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _unknown(name: str, path: str, why: str = "Cannot find field.") -> tuple[str, str]:
    place = f" at '{path}'" if path else ""
    return path, f'Invalid JSON payload received. Unknown name "{name}"{place}: {why}'


def _invalid(path: str, type_name: str, value: Any, why: str = "") -> tuple[str, str]:
    shown = msgspec.json.encode(value).decode()
    if len(shown) > _QUOTED_CHARACTERS:
        shown = shown[:_QUOTED_CHARACTERS] + "..."
    return path, f"Invalid value at '{path}' ({type_name}), {why}{shown}"


def _last(path: str) -> tuple[str, str]:
    parent, _, name = path.rpartition(".")
    return name, parent


@functools.cache
def _fields(kind: type[Message]) -> dict[str, tuple[str, Reader]]:
    """Both spellings of each field's name, with its attribute and its reader; late, because a Schema holds Schemas."""
    table: dict[str, tuple[str, Reader]] = {}
    for name, hint in typing.get_type_hints(kind).items():
        table[name] = table[camel(name)] = (name, _reader(hint))
    return table


@functools.cache
def _message_reader(kind: type[M]) -> Reader:
    def reader(value: Any, path: str, violations: Violations) -> M | None:
        if not isinstance(value, dict):
            violations.append(_wrong(value, path, f"{_TYPE_URL}.{kind.__name__}"))
            return None
        fields = _fields(kind)
        found: dict[str, Any] = {}
        for name, item in value.items():
            field = fields.get(name)
            if field is None:
                violations.append(_unknown(name, path))
                continue
            attribute, read_field = field
            if attribute in found:
                violations.append(_unknown(name, path, "Field is set twice, in both spellings."))
            elif item is not None:
                inner = f"{path}.{attribute}" if path else attribute
                found[attribute] = read_field(item, inner, violations)
        return kind(**found)

    return reader


def _wrong(value: Any, path: str, type_name: str) -> tuple[str, str]:
    name, parent = _last(path)
    if isinstance(value, list):
        return _unknown(name, parent, "Proto field is not repeating, cannot start list.")
    if isinstance(value, dict):
        return _unknown(name, parent, "Starting an object on a scalar field.")
    return _invalid(path, type_name, value)


def _reader(hint: Any) -> Reader:
    """The reader of one field's type."""
    if hint in _SCALARS:
        return _SCALARS[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _reader(next(argument for argument in arguments if argument is not types.NoneType))
    if origin is Literal:
        return _enum_reader(arguments)
    if origin is list:
        return _list_reader(_reader(arguments[0]))
    if origin is dict:
        return _map_reader(_reader(arguments[1]))
    return _message_reader(hint)


def _list_reader(item_reader: Reader) -> Reader:
    def reader(value: Any, path: str, violations: Violations) -> list[Any]:
        # One object stands for a list of one: the guide's own samples write "parts": {"text": ...}.
        items = value if isinstance(value, list) else [value]
        return [item_reader(item, f"{path}[{index}]", violations) for index, item in enumerate(items)]

    return reader


def _map_reader(item_reader: Reader) -> Reader:
    def reader(value: Any, path: str, violations: Violations) -> dict[str, Any]:
        if not isinstance(value, dict):
            violations.append(_wrong(value, path, "TYPE_MESSAGE"))
            return {}
        return {name: item_reader(item, f"{path}[{name}]", violations) for name, item in value.items()}

    return reader


def _enum_reader(names: tuple[str, ...]) -> Reader:
    known = frozenset(names)

    def reader(value: Any, path: str, violations: Violations) -> str:
        # The front end ignores the case of enum names ("type": "object").
        upper = value.upper() if isinstance(value, str) else ""
        if upper not in known:
            violations.append(_wrong(value, path, "TYPE_ENUM"))
        return upper

    return reader


def _string(value: Any, path: str, violations: Violations) -> str:
    if not isinstance(value, str):
        violations.append(_wrong(value, path, "TYPE_STRING"))
        return ""
    return value


def _boolean(value: Any, path: str, violations: Violations) -> bool:
    if not isinstance(value, bool):
        violations.append(_wrong(value, path, "TYPE_BOOL"))
    return bool(value)


def _number(value: Any, path: str, violations: Violations) -> float:
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    violations.append(_wrong(value, path, "TYPE_DOUBLE"))
    return 0.0


def _integer(value: Any, path: str, violations: Violations) -> int:
    number: Any = value
    if isinstance(value, str):
        number = int(value) if re.fullmatch(r"-?\d{1,19}", value) else None
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    if not isinstance(number, int) or isinstance(number, bool):
        violations.append(_wrong(value, path, "TYPE_INT64"))
        return 0
    return number


def _duration(value: Any, path: str, violations: Violations) -> Seconds:
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        violations.append(_invalid(path, "type.googleapis.com/google.protobuf.Duration", value))
        return Seconds(0.0)
    return Seconds(float(value[:-1]))


def _bytes(value: Any, path: str, violations: Violations) -> bytes:
    if not isinstance(value, str):
        violations.append(_wrong(value, path, "TYPE_BYTES"))
        return b""
    try:
        # Standard and URL-safe alphabet, with or without padding, as in proto3 JSON.
        unpadded = value.rstrip("=").translate(_URL_SAFE) if "-" in value or "_" in value else value.rstrip("=")
        return base64.b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True)
    except (binascii.Error, ValueError):
        violations.append(_invalid(path, "TYPE_BYTES", value, "Base64 decoding failed for "))
        return b""


def _anything(value: Any, path: str, violations: Violations) -> Any:  # noqa: ARG001 - a reader's signature
    return value


_SCALARS: dict[Any, Reader] = {
    str: _string,
    bool: _boolean,
    int: _integer,
    float: _number,
    bytes: _bytes,
    Seconds: _duration,
    Any: _anything,
}
