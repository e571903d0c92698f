"""Rows of a manifest as they stand: JSONL, CSV or Parquet, streamed, each good or bad by itself."""

import csv
import json
import math
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from pipeline.errors import UsageError
from pipeline.manifest.lines import LINE_BYTES, Line
from pipeline.nesting import DEPTH, is_deep
from pipeline.records import Json

OBJECT_COLUMNS: Final = frozenset({"vars", "generation", "schema", "safety"})
_PARQUET_ROWS: Final = 256


class RawRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row: its fields, or what is wrong with it. ``line`` is where it starts, from 1 on."""

    line: int
    fields: dict[str, Json] = {}
    problem: str | None = None


def jsonl_rows(lines: Iterator[Line | None]) -> Iterator[RawRow | None]:
    """One object a line; blank lines are passed over. None while the stream has nothing yet."""
    for line in lines:
        if line is None:
            yield None
            continue
        number, content = line
        if content is None:
            yield RawRow(line=number, problem=_TOO_LONG)
        elif content := content.strip(b" \t\r"):
            yield _json_row(number, content)


def strict_json(content: bytes) -> Json:
    """Decode JSON that has but one meaning. Raises ``ValueError``, with one sentence, for anything else."""
    try:
        value = msgspec.json.decode(content)
    except UnicodeDecodeError:
        raise ValueError("not valid UTF-8") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise ValueError(f"not valid JSON: {error}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if content.count(b"{") + content.count(b"[") > DEPTH and is_deep(value):
        raise ValueError(_TOO_DEEP)
    # each key has its colon: as many colons as distinct keys leave no room for a repeated one
    if _count_keys(value) != content.count(b":"):
        json.loads(content, object_pairs_hook=_without_repeats)
    return value


_TOO_LONG: Final = f"the line is longer than {LINE_BYTES // 1024 // 1024} MiB"
_TOO_DEEP: Final = f"nested deeper than {DEPTH} levels"


def _json_row(number: int, content: bytes) -> RawRow:
    try:
        value = strict_json(content)
    except ValueError as error:
        return RawRow(line=number, problem=str(error))
    if not isinstance(value, dict):
        return RawRow(line=number, problem="not a JSON object")
    return RawRow(line=number, fields=value)


def _without_repeats(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {repeated!r} stands there twice")
    return found


def _count_keys(value: Json) -> int:
    count = 0
    if isinstance(value, dict):
        count = len(value)
        value = value.values()
    elif not isinstance(value, list):
        return 0
    for inner in value:
        if isinstance(inner, (dict, list)):
            count += _count_keys(inner)
    return count


class _TooLongError(Exception):
    """A line of a CSV file is longer than the cap."""


class _CsvLines:
    """Lines as the csv module wants them; a class, because a generator would not outlive an error."""

    def __init__(self, lines: Iterator[Line | None]) -> None:
        self._lines = lines
        self.number = 0

    def __iter__(self) -> "_CsvLines":
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        while line is None:
            line = next(self._lines)
        self.number, content = line
        if content is None:
            raise _TooLongError(_TOO_LONG)
        # undecodable bytes are told of when their row is whole
        return content.removesuffix(b"\r").decode(errors="surrogateescape") + "\n"


def csv_rows(lines: Iterator[Line | None]) -> Iterator[RawRow]:
    """A header row, then one item a row; an empty cell is absent. Raises ``UsageError`` for an unusable header."""
    csv.field_size_limit(LINE_BYTES)
    source = _CsvLines(lines)
    table = csv.reader(source, strict=True)
    header = _csv_header(table)
    while True:
        line = source.number + 1
        try:
            cells = next(table)
        except StopIteration:
            return
        except (csv.Error, _TooLongError) as error:
            yield RawRow(line=line, problem=f"not valid CSV: {error}")
        else:
            if cells:
                yield _csv_row(line, header, cells)


def _csv_header(table: Iterator[list[str]]) -> list[str]:
    try:
        header = [name.strip() for name in next(table, [])]
    except (csv.Error, _TooLongError) as error:
        raise UsageError(f"the manifest's header row can't be read: {error}") from None
    names = [name for name in header if name]
    if any(_undecodable(name) for name in names):
        raise UsageError("the manifest's header row is not valid UTF-8")
    if len(set(names)) != len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"the manifest's header row has the column {repeated!r} twice")
    if len(names) == 1 and any(separator in names[0] for separator in ";\t"):
        raise UsageError("the manifest's columns must be separated by commas")
    return header


def _csv_row(line: int, header: list[str], cells: list[str]) -> RawRow:
    given = {name: cell for name, cell in zip(header, cells, strict=False) if name and cell}
    if any(_undecodable(cell) for cell in cells):
        return RawRow(line=line, problem="not valid UTF-8")
    named: dict[str, Json] = {name: given[name] for name in ("key", "id") if name in given}  # a wrong row keeps its key
    if len(cells) > len(header):
        return RawRow(line=line, fields=named, problem=f"{len(cells)} cells under {len(header)} columns")
    try:
        fields = {name: _csv_cell(name, cell) for name, cell in given.items()}
    except ValueError as error:
        return RawRow(line=line, fields=named, problem=str(error))
    return RawRow(line=line, fields=fields)


def _csv_cell(name: str, cell: str) -> Json:
    if name in OBJECT_COLUMNS:
        return _json_column(name, cell)
    if name != "media":
        return cell
    if cell.lstrip()[:1] in {"{", "["}:
        try:
            return strict_json(cell.encode())
        except ValueError:
            pass  # a file's name may start like that
    parts = [part.strip() for part in cell.split("|")]
    return [part for part in parts if part] if len(parts) > 1 else cell


def _json_column(name: str, cell: str) -> Json:
    try:
        return strict_json(cell.encode())
    except ValueError as error:
        raise ValueError(f"the column {name!r} holds no JSON: {error}") from None


def _undecodable(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def parquet_rows(path: Path, check_cancelled: Callable[[], None]) -> Iterator[RawRow]:
    """Rows of a Parquet file, numbered from 1 on; a null is absent. Raises ``UsageError`` where it is none."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UsageError("a Parquet manifest needs pyarrow: pip install 'gemini-media-pipeline[parquet]'") from None
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                check_cancelled()
                for row in batch.to_pylist():
                    number += 1
                    yield _parquet_row(number, row)
    except (ArrowException, OSError, ValueError) as error:
        raise UsageError(f"the manifest {path} can't be read after row {number}: {error}") from None


def _parquet_row(number: int, row: dict[str, Any]) -> RawRow:
    try:
        fields = {name: _plain(value) for name, value in row.items() if value is not None}
        for name in OBJECT_COLUMNS & fields.keys():
            if isinstance(fields[name], str):
                fields[name] = _json_column(name, fields[name])
    except ValueError as error:
        return RawRow(line=number, problem=str(error))
    return RawRow(line=number, fields=fields)


def _plain(value: Any) -> Json:
    """A Parquet value as JSON has it. Raises ``ValueError`` for what JSON has not."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is not finite (NaN or infinity)")
    if isinstance(value, str | int | float | bool):
        return value
    raise ValueError(f"a column holds {type(value).__name__}, which has no JSON form")
