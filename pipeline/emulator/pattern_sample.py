"""Makes a string that a regular expression matches; changes when schemas need more of the syntax."""

import re
import string

# The parser of the standard library has no public name.
from re import _parser  # type: ignore[attr-defined]
from typing import Any

REPEATS_MAX = 64
_CATEGORIES = {
    "CATEGORY_DIGIT": string.digits,
    "CATEGORY_WORD": string.ascii_letters + string.digits + "_",
    "CATEGORY_SPACE": " ",
    "CATEGORY_NOT_DIGIT": "x",
    "CATEGORY_NOT_WORD": "-",
    "CATEGORY_NOT_SPACE": "x",
}
_PRINTABLE = string.ascii_lowercase + string.ascii_uppercase + string.digits + string.punctuation + " "


def sample_pattern(pattern: str) -> str:
    """The shortest simple string that ``pattern`` finds; ``pattern`` itself where none is found."""
    try:
        text = _sequence(_parser.parse(pattern))
    except (re.error, NotImplementedError):
        return pattern
    return text if re.search(pattern, text) else pattern


def _sequence(items: Any) -> str:
    return "".join(_one(str(operation), argument) for operation, argument in items)


def _one(operation: str, argument: Any) -> str:
    if operation == "LITERAL":
        return chr(argument)
    if operation == "AT":
        return ""
    if operation == "ANY":
        return "x"
    if operation == "NOT_LITERAL":
        return next(letter for letter in _PRINTABLE if ord(letter) != argument)
    if operation == "IN":
        return _member(argument)
    if operation == "SUBPATTERN":
        return _sequence(argument[-1])
    if operation == "BRANCH":
        return _sequence(argument[1][0])
    if operation in {"MAX_REPEAT", "MIN_REPEAT"}:
        low, _, inner = argument
        repeats: int = min(low, REPEATS_MAX)
        return _sequence(inner) * repeats
    raise NotImplementedError(operation)


def _member(choices: Any) -> str:
    negated = str(choices[0][0]) == "NEGATE"
    allowed: str = ""
    for operation, argument in choices[1 if negated else 0 :]:
        if str(operation) == "LITERAL":
            allowed += chr(argument)
        elif str(operation) == "RANGE":
            allowed += chr(argument[0]) if not negated else "".join(map(chr, range(argument[0], argument[1] + 1)))
        elif str(operation) == "CATEGORY":
            allowed += _CATEGORIES[str(argument)]
    if negated:
        return next(letter for letter in _PRINTABLE if letter not in allowed)
    return allowed[:1]
