"""The only place where commands print: nothing told commands the terminal, whatever it quotes, or holds the key."""

import sys

import click
import msgspec

from pipeline.config import KEY_VARIABLES, environment
from pipeline.errors import StopForHuman
from pipeline.plain_text import printable, printable_json, printable_lines
from pipeline.redaction import Redaction
from pipeline.standard_streams import let_go


def tell(sentence: str, *, err: bool = False) -> None:
    """One line, on stdout or stderr."""
    _show(printable(_redaction().text(sentence)), err=err)


def tell_lines(lines: str) -> None:
    """Several lines on stderr, such as a traceback."""
    _show(printable_lines(_redaction().text(lines)), err=True)


def tell_json(value: object) -> None:
    """One JSON object on one line of stdout."""
    _show(printable_json(_redaction().text(msgspec.json.encode(value).decode())))


def _show(text: str, *, err: bool = False) -> None:
    """Whoever no longer listens changes no exit code; only a full stdout is worth one."""
    try:
        click.echo(text, err=err)
    except OSError as error:
        let_go(sys.stderr if err else sys.stdout)
        if not err and not isinstance(error, BrokenPipeError):
            raise StopForHuman(f"stdout can't be written ({error.strerror}); all else is done") from None


def _redaction() -> Redaction:
    """Of every key that the environment holds."""
    return Redaction(*(environment().get(name) for name in KEY_VARIABLES))
