"""The pure decisions of an upload."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.gemini.api import Reply
from pipeline.gemini.upload_plan import (
    Chunk,
    chunk_bytes,
    chunk_seconds,
    display_name,
    mismatch,
    next_chunk,
    read_standing,
)
from pipeline.gemini.wire import decode_json
from pipeline.records import FileState, RemoteFile
from tests.support.builders import media

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("told", "bytes_"),
    [
        ("8388608", 8 * MIB),
        ("262144", 8 * MIB),
        ("3000000", 6_000_000),
        ("16777216", 16 * MIB),
        (None, 8 * MIB),
        ("0", 8 * MIB),
        ("-5", 8 * MIB),
        ("x", 8 * MIB),
        ("²", 8 * MIB),
    ],
)
def test_chunk_is_a_multiple_of_the_granularity_near_eight_mebibytes(told: str | None, bytes_: int) -> None:
    """A cut costs one chunk; a granularity above that is obeyed, nonsense is not."""
    assert chunk_bytes(told) == bytes_


@given(
    size=st.integers(min_value=0, max_value=100 * MIB),
    unit=st.integers(min_value=1, max_value=8).map(lambda n: n * MIB),
    start=st.integers(min_value=0, max_value=100 * MIB),
)
def test_chunks_cover_the_rest_exactly_and_only_the_last_is_odd(size: int, unit: int, start: int) -> None:
    """From any offset that a query may tell, lengths are whole units but for the last, which finalizes."""
    offset = min(start, size)
    while True:
        chunk = next_chunk(offset, size, unit)
        assert chunk.final or chunk.length == unit
        offset += chunk.length
        if chunk.final:
            break
    assert offset == size


def test_commands() -> None:
    """Bytes, last bytes, and nothing left but to close."""
    assert [Chunk(0, 5, final).command for final in (False, True)] == ["upload", "upload, finalize"]
    assert next_chunk(10, 10, 5).command == "finalize"


def test_time_of_a_chunk_grows_with_it() -> None:
    """Eight mebibytes at 64 KiB a second and a minute on top, unless a time-out is configured."""
    assert chunk_seconds(8 * MIB, None) == 60 + 128
    assert chunk_seconds(8 * MIB, 5.0) == 5.0


@pytest.mark.parametrize(
    ("headers", "body", "standing"),
    [
        ({"x-goog-upload-status": "active", "x-goog-upload-size-received": "7"}, b"", ("active", 7, False)),
        ({"x-goog-upload-status": "active"}, b"", ("active", None, False)),
        ({"x-goog-upload-status": "final"}, b"", ("final", None, False)),
        ({"x-goog-upload-status": "cancelled"}, b"", ("cancelled", None, False)),
        ({}, b'{"file":{"name":"files/a"}}', ("final", None, True)),
        ({"x-goog-upload-status": "active", "x-goog-upload-size-received": "-1"}, b"", ("active", None, False)),
    ],
)
def test_standing(headers: dict[str, str], body: bytes, standing: tuple[str, int | None, bool]) -> None:
    """Status, bytes received and the file are read from headers and body."""
    read = read_standing(Reply(status=200, headers=headers, body=body, value=decode_json(body)))
    assert (read.status, read.received, read.file is not None) == standing


def test_mismatch_names_what_is_wrong() -> None:
    """Size, type, hash and uri are compared; an untold hash proves nothing."""
    one = media()
    right = {
        "name": "files/a",
        "uri": "u",
        "mime_type": one.mime_type,
        "size_bytes": one.size_bytes,
        "state": FileState.ACTIVE,
        "sha256": one.sha256,
    }
    assert mismatch(RemoteFile(**right), one) is None
    assert mismatch(RemoteFile(**{**right, "sha256": None}), one) is None
    for field, wrong in (("size_bytes", 1), ("mime_type", ""), ("sha256", "00"), ("uri", "")):
        assert mismatch(RemoteFile(**{**right, field: wrong}), one)


@given(st.text(max_size=600).filter(lambda name: "/" not in name) | st.just("\udcff.jpg"))
def test_display_name_fits_and_encodes(name: str) -> None:
    """Any file name gives at most 512 characters that UTF-8 can carry."""
    shown = display_name(media(f"folder/{name}"))
    assert len(shown) <= 512
    shown.encode()
