"""The small functions behind it all: what makes text printable, takes a key out of it, and applies a schema."""

import base64
import io
import json
import re
import unicodedata
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import json_schema
from pipeline.commands.run import sentences
from pipeline.commands.tell import tell
from pipeline.events import CallSent, DrainBegan, GateClosed, Warned
from pipeline.gemini.api import Route
from pipeline.plain_text import printable, printable_json, printable_lines
from pipeline.redaction import Redaction
from pipeline.report.progress import Progress
from pipeline.report.summary import Counting
from tests.security.hostile import COMMANDS_TERMINAL, ESCAPES
from tests.security.traces import CANARY, traces
from tests.security.wire import stranger
from tests.support.builders import NOW

ANY_TEXT = st.text(st.characters())
"""Lone surrogates too."""


@given(ANY_TEXT)
def test_printable_text_is_plain(text: str) -> None:
    """Nothing is left that commands a terminal, and what is plain already stays as it is."""
    shown = printable(text)
    assert all(c.isprintable() or unicodedata.category(c) == "Zs" for c in shown)
    shown.encode()
    assert printable(shown) == shown
    assert len(printable_lines(text).split("\n")) == len(text.split("\n"))


@given(st.recursive(ANY_TEXT, lambda inner: st.dictionaries(ANY_TEXT, inner) | st.lists(inner)))
def test_printable_json_is_the_same_json(value: object) -> None:
    """Only its spelling changes."""
    shown = printable_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(shown) == value
    assert not COMMANDS_TERMINAL.search(shown)
    assert len(shown.splitlines()) <= 1


@given(st.text(max_size=9).map(str.encode), st.text(max_size=9).map(str.encode))
def test_a_key_is_found_in_all_its_forms(before: bytes, after: bytes) -> None:
    """Plain, in a URL, in JSON and in base64, whatever stands beside it."""
    raw = before + CANARY.encode() + after
    spelt = [
        raw,
        quote(raw).encode(),
        quote(raw, safe="").encode(),
        json.dumps(CANARY).encode(),
        base64.b64encode(raw),
        base64.urlsafe_b64encode(raw),
    ]
    redaction = Redaction(CANARY)
    for data in spelt:
        assert b"[key]" in redaction.data(data)
        assert traces(redaction.data(data)) == []
        assert traces(redaction.text(data.decode()).encode()) == []


def test_short_secrets_are_left_in() -> None:
    """Anything so short would be cut out of words that are no secret."""
    assert Redaction("any", None, "").text("many") == "many"


def test_progress_shows_no_control_character() -> None:
    """Warnings, closed gates and drains may hold what a server said."""
    stream = io.StringIO()
    progress = Progress(quiet=False, stream=stream)
    progress.notify(Warned(message=ESCAPES))
    progress.notify(GateClosed(cause="x", wait_seconds=1, message=ESCAPES))
    progress.notify(CallSent(route=Route.GENERATE, subject="a"))
    progress.notify(DrainBegan(reason=ESCAPES))
    assert len(stream.getvalue().splitlines()) == 3
    assert not COMMANDS_TERMINAL.search(stream.getvalue())


def test_commands_print_in_one_place() -> None:
    """What is printed elsewhere would not be made printable."""
    printing = re.compile(r"click\.s?echo|\bprint\(|sys\.std(out|err)\b")
    commands = Path(tell.__code__.co_filename).parent
    assert [path.name for path in commands.glob("*.py") if printing.search(path.read_text("utf-8"))] == ["tell.py"]


def test_the_sentences_of_a_summary_can_be_shown() -> None:
    """Kinds of errors come from answers, the reason from anywhere."""
    counting = Counting()
    counting.errors[ESCAPES] = 1
    summary = counting.summary(
        source=ESCAPES,
        output=ESCAPES,
        backend="x",
        model="x",
        in_doubt=[],
        removed=0,
        started_at=NOW,
        finished_at=NOW,
    )
    summary.reason = ESCAPES
    assert any("\x1b" in sentence for sentence in sentences(summary)), "nothing to be made printable"
    assert not [shown for shown in map(printable, sentences(summary)) if COMMANDS_TERMINAL.search(shown)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_schema_fetches_nothing() -> None:
    """A reference to another place is refused beforehand, and not followed when it comes to an answer."""
    with stranger() as other:
        schema = {"properties": {"a": {"$ref": f"{other.url}/schema.json"}}}
        assert other.url in (json_schema.problem(schema) or "")
        assert json_schema.violation({"a": 1}, schema)
        assert json_schema.violation({"a": 1}, {"$id": f"{other.url}/", "$ref": "schema.json"})
    assert other.listener.connections == 0


@pytest.mark.parametrize(
    "schema", [{"$ref": "file:///etc/passwd"}, {"type": 5}, {"pattern": "("}, {"properties": 5}, {"$schema": [1]}]
)
def test_schemas_that_are_none(schema: dict[str, object]) -> None:
    """Each is told of in one plain sentence, and does not raise where it is used all the same."""
    assert (json_schema.problem(schema) or "\n").isprintable()
    json_schema.violation({"a": "b"}, schema)


def test_schemas_that_refer_to_themselves() -> None:
    """References within are what they are for; one without end is a violation, not a crash."""
    tree = {"$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}, "$ref": "#/$defs/tree"}
    assert json_schema.problem(tree) is None
    assert json_schema.violation([[], [[]]], tree) is None
    assert json_schema.violation([[], [[5]]], tree)
    assert json_schema.violation([], {"$ref": "#"})
