"""Rows of JSONL, CSV and Parquet: streamed, and each good or bad by itself."""

import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.manifest.lines import Line, lines, reader
from pipeline.manifest.rows import RawRow, csv_rows, jsonl_rows, parquet_rows, strict_json


def stream(content: bytes, chunk_bytes: int = 7) -> Iterator[Line | None]:
    chunks = [content[at : at + chunk_bytes] for at in range(0, len(content), chunk_bytes)]
    return lines(iter([*chunks, b""]).__next__, most_bytes=1000)


def jsonl(content: bytes) -> list[RawRow]:
    return [row for row in jsonl_rows(stream(content)) if row]


def table(content: bytes) -> list[RawRow]:
    return list(csv_rows(stream(content)))


def brief(rows: list[RawRow]) -> list[tuple[int, dict[str, Any] | None]]:
    return [(row.line, None if row.problem else row.fields) for row in rows]


def test_jsonl_rows() -> None:
    """BOM, CRLF, blank lines and a missing last newline are taken as they come; lines are counted as an editor does."""
    content = b'\xef\xbb\xbf{"key": "a"}\r\n\n  \r\n{"key": "b"}\n\n{"key": "c"}'
    assert brief(jsonl(content)) == [(1, {"key": "a"}), (4, {"key": "b"}), (6, {"key": "c"})]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"key": "a", "key": "b"}', "'key' stands there twice"),
        (b'{"vars": {"x": 1, "x": 1}}', "'x' stands there twice"),
        (b'{"vars": [{"x": "a:b", "x": 1}]}', "twice"),
        (b'{"x": NaN}', "not valid JSON"),
        (b'{"x": Infinity}', "not valid JSON"),
        (b'{"x": 1e999}', "not valid JSON"),
        (b'{"x": "\xff"}', "UTF-8"),
        (b'{"x": "\xed\xa0\x80"}', "UTF-8"),
        (b'{"x": "\\ud800"}', "not valid JSON"),
        (b'{"x": "a\x00b"}', "not valid JSON"),
        (b'\x00{"x": 1}', "not valid JSON"),
        (b'{"x": 1', "not valid JSON"),
        (b'{"x": 1} {"x": 2}', "not valid JSON"),
        (b"{'x': 1}", "not valid JSON"),
        (b"[1]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b'{"x": ' + b"[" * 120 + b"]" * 120 + b"}", "nested deeper"),
        (b'{"x": ' * 120 + b"1" + b"}" * 120, "nested deeper"),
        (b'{"x": "' + b"y" * 1000 + b'"}', "longer than"),
    ],
)
def test_hostile_jsonl_rows(line: bytes, reason: str) -> None:
    """Each is one bad row that says why, and the next row is read."""
    rows = jsonl(line + b'\n{"key": "next"}\n')
    assert reason in (rows[0].problem or "")
    assert brief(rows[1:]) == [(2, {"key": "next"})]


def test_very_deep_json_is_refused() -> None:
    """A megabyte of brackets overruns no stack."""
    with pytest.raises(ValueError, match="nested deeper"):
        strict_json(b"[" * 500_000 + b"]" * 500_000)


def test_colons_in_text_are_no_repeated_keys() -> None:
    """The quick test for repeated keys only ever sends a row to the slow one."""
    assert strict_json(b'{"a:b": "c:d", "e": {"f": ["g:h"]}}') == {"a:b": "c:d", "e": {"f": ["g:h"]}}


def test_a_huge_line_is_not_held() -> None:
    """A hundred megabytes without a newline keep no more than the cap, and the next row is read."""
    held = 0
    chunk = b"x" * 1_000_000

    def read() -> Iterator[bytes]:
        yield from (chunk for _ in range(100))
        yield b'\n{"key": "next"}\n'
        yield b""

    import tracemalloc

    tracemalloc.start()
    rows = list(jsonl_rows(lines(read().__next__)))
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(row.line, bool(row.problem)) for row in rows if row] == [(1, True), (2, False)]
    assert held < 40_000_000


@given(st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")), max_size=8), st.integers(1, 9))
def test_lines_are_split_alike_whatever_the_chunks(contents: list[bytes], chunk_bytes: int) -> None:
    """Chunk borders leave no trace."""
    whole = b"".join(content + b"\n" for content in contents)
    expected = [(n, c.removeprefix(b"\xef\xbb\xbf") if n == 1 else c) for n, c in enumerate(contents, 1)]
    assert list(stream(whole, chunk_bytes)) == expected


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_readers(content: bytes) -> None:
    """Any bytes give rows or bad rows; a CSV may also be refused by its header."""
    for row in jsonl(content):
        json.dumps(row.fields).encode()
    try:
        rows = table(b"key,media\n" + content)
        table(content)
    except UsageError:
        return
    for row in rows:
        json.dumps(row.fields, ensure_ascii=False).encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_good_rows_come_back(row: dict[str, Any]) -> None:
    """What any JSON writer writes is read as it was."""
    assert strict_json(json.dumps(row).encode()) == row
    assert strict_json(json.dumps(row, ensure_ascii=False).encode()) == row


def test_csv_rows() -> None:
    """Quoted cells may hold newlines, empty cells are absent, and the line is where the row begins."""
    content = (
        b"\xef\xbb\xbfkey,media,vars,color,\r\n"
        b'a,"x.jpg|y.jpg","{""n"": 1}",red,\r\n'
        b"\r\n"
        b'b,x.jpg,,"two\r\nlines",\r\n'
        b"c,,,,\r\n"
        b"d\n"
    )
    assert brief(table(content)) == [
        (2, {"key": "a", "media": ["x.jpg", "y.jpg"], "vars": {"n": 1}, "color": "red"}),
        (4, {"key": "b", "media": "x.jpg", "color": "two\nlines"}),
        (6, {"key": "c"}),
        (7, {"key": "d"}),
    ]


def test_csv_media_objects() -> None:
    """A media cell may hold JSON; a file's name that only looks like it stays a name."""
    rows = table(b'media\n"{""path"": ""v.mp4"", ""start"": 1}"\n[1].jpg\n')
    assert [row.fields["media"] for row in rows] == [{"path": "v.mp4", "start": 1}, "[1].jpg"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"a,b,c,d", "4 cells under 3 columns"),
        (b'a,"b" c,', "not valid CSV"),
        (b"\xff,x,", "UTF-8"),
        (b"\xed\xa0\x80,x,", "UTF-8"),
        (b'a,x,"{""n"": 1, ""n"": 2}"', "twice"),
        (b"a,x,{", "no JSON"),
        (b"a,x,{nan}", "no JSON"),
        (b"a," + b"x" * 1001 + b",", "longer than"),
    ],
)
def test_hostile_csv_rows(line: bytes, reason: str) -> None:
    """Each is one bad row with its line number, and the next row is read with its own."""
    rows = table(b"key,media,vars\nfirst,x,\n" + line + b"\nnext,x,\n")
    assert [row.line for row in rows] == [2, 3, 4]
    assert reason in (rows[1].problem or "")
    assert rows[2].fields["key"] == "next"


def test_an_open_quote_is_a_bad_row() -> None:
    """A quote that never closes ends with the file, not with a wrong row."""
    rows = table(b'key,media\na,x\nb,"y\nc,z\n')
    assert [(row.line, bool(row.problem)) for row in rows] == [(2, False), (3, True)]


@pytest.mark.parametrize("header", [b"key,key", b"key;media", b"key\tmedia", b"k\xff", b'"key', b"x" * 2000])
def test_unusable_csv_headers(header: bytes) -> None:
    """A header that can't be meant is a usage error, not a thousand wrong items."""
    with pytest.raises(UsageError):
        table(header + b"\na,b\n")


def test_empty_manifests() -> None:
    """Nothing, a BOM or a header alone hold no rows."""
    for content in (b"", b"\xef\xbb\xbf", b"\n\n"):
        assert jsonl(content) == []
        assert table(content) == []
    assert table(b"key,media\n") == []


def test_a_silent_pipe_lets_go_of_what_came() -> None:
    """Rows from a pipe are handed on while its writer thinks."""
    read_end, write_end = os.pipe()
    os.write(write_end, b'{"key": "a"}\n{"key"')
    rows = jsonl_rows(lines(reader(read_end, lambda: None)))
    assert (next(rows), next(rows)) == (RawRow(line=1, fields={"key": "a"}), None)
    threading.Timer(0.05, lambda: (os.write(write_end, b': "b"}\n'), os.close(write_end))).start()
    assert [row.fields for row in rows if row] == [{"key": "b"}]
    os.close(read_end)


def test_parquet_rows(tmp_path: Path) -> None:
    """Columns of any type become JSON values; nulls are absent; object columns are structs or JSON text."""
    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path / "m.parquet"
    columns = {
        "key": ["a", "b", "c"],
        "media": [["x.jpg", "y.jpg"], None, ["z.jpg"]],
        "vars": ['{"n": 1}', None, "{"],
        "generation": [{"seed": 1, "topK": None}, None, None],
        "taken": [datetime(2026, 1, 2, tzinfo=UTC), None, None],
        "score": [0.5, float("nan"), 1.0],
    }
    parquet.write_table(pa.table(columns), path)
    rows = list(parquet_rows(path, lambda: None))
    assert [row.line for row in rows] == [1, 2, 3]
    assert rows[0].fields == {
        "key": "a",
        "media": ["x.jpg", "y.jpg"],
        "vars": {"n": 1},
        "generation": {"seed": 1},
        "taken": "2026-01-02T00:00:00+00:00",
        "score": 0.5,
    }
    assert "not finite" in (rows[1].problem or "")
    assert "no JSON" in (rows[2].problem or "")


def test_what_is_no_parquet(tmp_path: Path) -> None:
    """A file that only has the suffix is a usage error."""
    (tmp_path / "m.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(UsageError, match=r"m\.parquet"):
        list(parquet_rows(tmp_path / "m.parquet", lambda: None))
