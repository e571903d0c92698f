"""The parsers of foreign bytes, each as a function of bytes that checks what must hold of whatever comes out."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from zlib import crc32

import msgspec

from pipeline.gemini.api import Reply, Route
from pipeline.gemini.classify import classify
from pipeline.gemini.file_resource import decode_file
from pipeline.gemini.upload_plan import chunk_bytes, read_standing
from pipeline.gemini.wire import RETRY_DELAY_MAX_SECONDS, decode_error, decode_json, parse_delay
from pipeline.generation.response import judge
from pipeline.manifest.lines import lines
from pipeline.manifest.paths import Confinement
from pipeline.manifest.row import RowReader
from pipeline.manifest.rows import RawRow, csv_rows, jsonl_rows
from pipeline.plain_text import printable, printable_json
from pipeline.records import Outcome, Status
from pipeline.results.record import encode, line_of, mark_of
from pipeline.results.recovery import DamagedLine, Scan
from tests.support.builders import NOW, item

CORPUS = Path(__file__).parent / "corpus"
STATUSES = (200, 302, 400, 403, 404, 429, 503)
NOWHERE = Path("/nonexistent")
PLAIN = item("plain")
WITH_JSON = item("json", generation={"responseMimeType": "application/json"})
WITH_SCHEMA = item("schema", schema={"type": "object", "properties": {"a": {"type": "string", "pattern": "^a"}}})


def duration(data: bytes) -> None:
    """``RetryInfo.retryDelay``: a believable number of seconds or none, from any JSON and from any text."""
    for value in (decode_json(data), data.decode("utf-8", "replace")):
        delay = parse_delay(value)
        assert delay.seconds is None or 0 <= delay.seconds <= RETRY_DELAY_MAX_SECONDS
        assert delay.absurd or delay.seconds is not None


def error_body(data: bytes) -> None:
    """An error reply: a short printable message, and a row of the table for whichever route and status."""
    error = decode_error(data)
    assert error.message.isprintable()
    assert len(error.message) <= 1000
    headers = {
        "x-goog-upload-status": data[:9].decode("latin-1"),
        "location": data[:99].decode("utf-8", "surrogateescape"),
    }
    headers |= {"x-goog-upload-size-received": data[:50].decode("latin-1")}
    chance = Random(crc32(data))
    for route in chance.sample(list(Route), 2):
        reply = Reply(status=chance.choice(STATUSES), headers=headers, body=data)
        verdict = classify(route, reply)
        assert verdict.rule
        assert verdict.message.isprintable()
    read_standing(Reply(status=200, headers=headers, body=data))
    assert chunk_bytes(headers["location"]) > 0
    decode_file(decode_json(data))


def candidates(data: bytes) -> None:
    """A 200 answer: one judgement, and one line that is read back and shows as it is."""
    text = {"candidates": [{"content": {"parts": [{"text": data.decode("utf-8", "replace")}]}}]}
    value = decode_json(data)
    body = value if isinstance(value, dict) and value else text
    for asked in (PLAIN, WITH_JSON, WITH_SCHEMA):
        judgement = judge(body, asked)
        assert (judgement.failure is None) == (judgement.status is Status.SUCCEEDED)
        assert judgement.kind.isprintable()
        outcome = Outcome(
            subject=asked,
            status=judgement.status,
            answer=judgement.answer,
            failure=judgement.failure,
            started_at=NOW,
            finished_at=NOW,
        )
        line = encode(line_of(outcome, "gemini"))
        assert line.count(b"\n") == 1
        assert mark_of(line[:-1], 0).status is judgement.status
        shown = printable_json(line[:-1].decode())
        assert printable(shown) == shown
        json.loads(shown)


def _read(rows: list[RawRow | None]) -> None:
    warned: list[str] = []
    reader = RowReader(Confinement(NOWHERE, (), most_files=10), most_files=10, warn=warned.append)
    for position, row in enumerate(filter(None, rows)):
        entry = reader.entry(row, position)
        assert 0 < len(entry.key) <= 4096
        msgspec.json.encode(entry)  # what can't be encoded can't be kept


def _whole(data: bytes) -> Callable[[], bytes]:
    pieces = iter((data[: len(data) // 2], data[len(data) // 2 :]))
    return lambda: next((piece for piece in pieces if piece), b"")


def row_jsonl(data: bytes) -> None:
    """A JSONL manifest: an entry or a failed row for each line, with a key that can be kept."""
    _read(list(jsonl_rows(lines(_whole(data)))))


def row_csv(data: bytes) -> None:
    """A CSV manifest with a good header."""
    _read(list(csv_rows(lines(_whole(b"key,media,prompt,vars,generation,schema,safety,x\n" + data)))))


_GOOD = encode(line_of(Outcome(subject=PLAIN, status=Status.BLOCKED, started_at=NOW, finished_at=NOW), "gemini"))


class Keyed(msgspec.Struct):
    """All of a line that its mark must agree with."""

    key: str


def tail(data: bytes) -> None:
    """results.jsonl as anything may have left it: whole lines are known, a bad end is told, a bad middle is refused."""
    for content in (data, _GOOD + data, _GOOD + data + _GOOD):
        scan = Scan(iter((content[:7], content[7:])))
        try:
            marks = list(scan.marks())
        except DamagedLine:
            continue
        assert scan.good_end <= len(content)
        assert content[: scan.good_end].count(b"\n") == len(marks)
        assert sum(mark.size_bytes for mark in marks) == scan.good_end
        for mark in marks:
            line = content[mark.offset :][: mark.size_bytes]
            assert line.count(b"\n") == 1
            assert msgspec.json.decode(line, type=Keyed).key == mark.key
        assert scan.unterminated is None or not content.endswith(b"\n")


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (duration, error_body, candidates, row_jsonl, row_csv, tail)
}
