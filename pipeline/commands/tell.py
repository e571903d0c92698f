"""The only place where commands print: nothing that a name, an answer or a server holds commands the terminal."""

import click
import msgspec

from pipeline.plain_text import printable, printable_json


def tell(sentence: str, *, err: bool = False) -> None:
    """One line, on stdout or stderr."""
    click.echo(printable(sentence), err=err)


def tell_json(value: object) -> None:
    """One JSON object on one line of stdout."""
    click.echo(printable_json(msgspec.json.encode(value).decode()))
