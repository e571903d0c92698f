"""The only place where commands print: nothing told commands the terminal, whatever it quotes, or holds the key."""

import click
import msgspec

from pipeline.config import KEY_VARIABLES, environment
from pipeline.plain_text import printable, printable_json, printable_lines
from pipeline.redaction import Redaction


def tell(sentence: str, *, err: bool = False) -> None:
    """One line, on stdout or stderr."""
    click.echo(printable(_redaction().text(sentence)), err=err)


def tell_lines(lines: str) -> None:
    """Several lines on stderr, such as a traceback."""
    click.echo(printable_lines(_redaction().text(lines)), err=True)


def tell_json(value: object) -> None:
    """One JSON object on one line of stdout."""
    click.echo(printable_json(_redaction().text(msgspec.json.encode(value).decode())))


def _redaction() -> Redaction:
    """Of every key that the environment holds."""
    return Redaction(*(environment().get(name) for name in KEY_VARIABLES))
