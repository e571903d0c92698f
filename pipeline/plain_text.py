"""Text from elsewhere (names, answers, a server's messages) made fit to be shown; pure."""

import re
import unicodedata

MESSAGE_CHARACTERS = 500
"""How much of a foreign message is kept."""


def printable(text: str) -> str:
    r"""``text`` with every character that could command a terminal, or that it can't show, written as ``\x1b``."""
    return text if text.isprintable() else "".join(c if _is_harmless(c) else _escape(c) for c in text)


def printable_lines(text: str) -> str:
    r"""As ``printable`` for text that has several lines, such as a traceback."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(encoded: str) -> str:
    r"""The same JSON with such characters written as ``\u001b``: one line for whatever counts lines."""
    return encoded if encoded.isprintable() else _NOT_PLAIN.sub(_escape_in_json, encoded)


def one_line(text: str, limit: int = MESSAGE_CHARACTERS) -> str:
    """``text`` as a short message: no control or direction characters, no line ends, no runs of blanks."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * limit]).split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


_NOT_PLAIN = re.compile(r"[^\x20-\x7e]")


def _is_harmless(character: str) -> bool:
    """A blank of any width is; what has no shape, turns the direction or ends a line is not."""
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _escape_in_json(found: re.Match[str]) -> str:
    character = found[0]
    if _is_harmless(character):
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
