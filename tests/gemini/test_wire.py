"""Decoders of the wire: they take anything, never raise, and read the API's own spellings rightly."""

import base64
import hashlib
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.gemini.api import Reply
from pipeline.gemini.file_resource import decode_file, decode_sha256, decode_time
from pipeline.gemini.origins import checked_base_url, may_upload_to, origin
from pipeline.gemini.wire import decode_error, decode_json, may_be_billed, parse_delay, parse_seconds
from pipeline.plain_text import one_line
from pipeline.records import FileState

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("34.07s", 34.07),
        ("1s", 1.0),
        (5, 5.0),
        (2.5, 2.5),
        ({"seconds": "3", "nanos": 500_000_000}, 3.5),
        ("9223372036854775807s", 9223372036854775807.0),
        ("-1s", -1.0),
        ("NaNs", None),
        ("", None),
        (None, None),
        (True, None),
        ([], None),
        ("1e9s", None),
        ("٣s", None),
    ],
)
def test_duration_spellings(value: object, seconds: float | None) -> None:
    """Each spelling of a Duration that was seen has its seconds, anything else none."""
    assert parse_seconds(value) == seconds


@pytest.mark.parametrize(
    ("value", "seconds", "absurd"),
    [("9223372036854775807s", 120.0, True), ("-1s", None, True), ("NaNs", None, True), ("120s", 120.0, False)],
)
def test_retry_delay_is_clamped(value: str, seconds: float | None, absurd: bool) -> None:
    """A delay beyond belief is cut to two minutes or dropped, and said to be absurd."""
    delay = parse_delay(value)
    assert (delay.seconds, delay.absurd) == (seconds, absurd)


@given(JSON | st.floats(allow_nan=True) | st.integers())
def test_delay_is_always_believable(value: object) -> None:
    """Whatever stands in retryDelay, the wait is None or between 0 and 120 seconds."""
    seconds = parse_delay(value).seconds
    assert seconds is None or 0 <= seconds <= 120


@given(st.binary(max_size=300))
def test_error_body_takes_any_bytes(body: bytes) -> None:
    """No error body makes its decoder raise, and its message is fit for one line."""
    assert "\n" not in decode_error(body).message


@given(JSON)
def test_error_body_takes_any_json(value: object) -> None:
    """The API's shape filled with anything is read without raising."""
    details = [value, {"@type": "x.QuotaFailure", "violations": value}, {"retryDelay": value, "reason": value}]
    body = msgspec.json.encode({"error": {"message": value, "status": value, "details": details}})
    assert decode_error(body).recognised


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", ""),
        (b"Upload has already been terminated.", "Upload has already been terminated."),
        (b"<html><title>502\nBad Gateway</title>", "502 Bad Gateway"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b'[{"error":{"message":"m","code":500}}]', "m"),
        (b'{"error":{"message":"a\\u001b[31mb\\u202ec"}}', "a [31mb c"),
        (b'{"error":"plain"}', '{"error":"plain"}'),
    ],
)
def test_error_body_shapes(body: bytes, message: str) -> None:
    """An object, a list, text, HTML, nothing and garbage all give a message."""
    assert decode_error(body).message == message


def test_answer_with_lone_surrogate_nan_and_bad_utf8_is_kept() -> None:
    """A paid answer is not thrown away for a character that JSON forbids."""
    assert decode_json(b'{"a": "x\\ud800y", "b": NaN, "c": "\xff"}') == {"a": "x\ufffdy", "b": None, "c": "\ufffd"}


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"a": ', b"[" * 100_000, b'{"a":1}{'])
def test_what_is_no_json_is_none(body: bytes) -> None:
    """Cut, nested without end, or no JSON at all: None, no exception."""
    assert decode_json(body) is None


def test_one_line_is_short_and_printable() -> None:
    """Control and direction characters, line ends and length are taken away."""
    assert one_line("a\r\n\x00b\u2028c") == "a b c"
    assert len(one_line("x" * 9999)) == 500


HEX = hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize(
    "value",
    [
        base64.b64encode(HEX.encode()).decode(),
        base64.b64encode(bytes.fromhex(HEX)).decode(),
        base64.urlsafe_b64encode(bytes.fromhex(HEX)).decode().rstrip("="),
        HEX.upper(),
    ],
)
def test_sha256_encodings(value: str) -> None:
    """Base64 of the hex text, of the bytes, URL-safe and plain hex all give the same digest."""
    assert decode_sha256(value) == HEX


def test_real_file_resource() -> None:
    """The object recorded in googleapis/js-genai#381 is read to the last field, wrapped or bare."""
    bare = {
        "name": "files/29zm2ddgh73v",
        "mimeType": "image/png",
        "sizeBytes": "120474",
        "createTime": "2025-03-29T12:39:16.599879Z",
        "expirationTime": "2025-03-31T12:39:16.139536164Z",
        "sha256Hash": "MTgzNjUwZTJkZWY2MzcxMmRlNzg1YjY0MTk3MzIzNWIxZDhjNzIxMjM0NGIwYjM2Y2E2OTcyYmZiNmUxNWE4ZQ==",
        "uri": "https://generativelanguage.googleapis.com/v1beta/files/29zm2ddgh73v",
        "state": "ACTIVE",
    }
    file = decode_file(bare)
    assert file is not None
    assert file == decode_file({"file": bare})
    assert (file.size_bytes, file.state) == (120474, FileState.ACTIVE)
    assert file.sha256 == "183650e2def63712de785b641973235b1d8c7212344b0b36ca6972bfb6e15a8e"
    assert file.expires_at == datetime(2025, 3, 31, 12, 39, 16, 139536, tzinfo=UTC)


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ({}, FileState.ACTIVE),
        ({"state": None}, FileState.ACTIVE),
        ({"state": 0}, FileState.ACTIVE),
        ({"state": "STATE_UNSPECIFIED"}, FileState.ACTIVE),
        ({"state": "PROCESSING"}, FileState.PROCESSING),
        ({"state": 1}, FileState.PROCESSING),
        ({"state": "FAILED"}, FileState.FAILED),
        ({"state": "QUARANTINED"}, FileState.STATE_UNSPECIFIED),
        ({"state": 7}, FileState.STATE_UNSPECIFIED),
    ],
)
def test_a_state_that_is_not_told_is_the_callers(told: dict[str, object], state: FileState) -> None:
    """Only where none is told; one that nobody knows yet is none of the known ones."""
    file = decode_file({"name": "files/a", **told}, untold=FileState.ACTIVE)
    assert file is not None
    assert file.state is state


@given(JSON)
def test_file_resource_takes_anything(value: object) -> None:
    """Any JSON in any field of a File is survived."""
    fields = ("mimeType", "sizeBytes", "createTime", "expirationTime", "sha256Hash", "uri", "state", "error")
    decode_file(value)
    assert decode_file({"name": "files/a", **dict.fromkeys(fields, value)}) is not None


@pytest.mark.parametrize("name", ["files/../models", "files/", "models/x", "files/a?key=b", 7])
def test_file_of_a_strange_name_is_no_file(name: object) -> None:
    """A name goes into later URLs, so only a plain one is taken."""
    assert decode_file({"name": name}) is None


@pytest.mark.parametrize("value", ["2025-13-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "x", 5, None])
def test_impossible_times_are_none(value: object) -> None:
    """A time that can't be is no time, not an exception."""
    assert decode_time(value) is None


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://gateway.example.com/upload?id=1", True),
        ("https://gateway.example.com:443/upload", True),
        ("https://generativelanguage.googleapis.com/upload?upload_id=1", True),
        ("http://generativelanguage.googleapis.com/upload", False),
        ("https://generativelanguage.googleapis.com:8443/upload", False),
        ("https://googleapis.com.evil.example.com/", False),
        ("https://evilgoogleapis.com/", False),
        ("https://generativelanguage.googleapis.com@evil.example.com/", False),
        ("https://evil.example.com\\.googleapis.com/", False),
        ("https://gateway.example.com:444/", False),
        ("//gateway.example.com/", False),
        ("", False),
    ],
)
def test_upload_hosts(url: str, allowed: bool) -> None:
    """Bytes go to the base URL's origin or to Google's API hosts by https, nowhere else."""
    assert may_upload_to(url, "https://gateway.example.com/gemini") is allowed


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080", "http://localhost/", "http://[::1]:1", "https://a.example.com/b"]
)
def test_base_urls_taken(url: str) -> None:
    """Https anywhere, plain http to this machine."""
    assert checked_base_url(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "ftp://x",
        "https://u:p@x.example.com",
        "https://x/?key=1",
        "x",
        "http://127.0.0.1.evil.example.com",
        "https://x:99999",
    ],
)
def test_base_urls_refused(url: str) -> None:
    """The key never travels unencrypted, nor to what can't be read."""
    with pytest.raises(UsageError):
        checked_base_url(url)


@given(st.text(max_size=40))
def test_origin_takes_any_text(url: str) -> None:
    """An upload URL is foreign input."""
    found = origin(url)
    assert found is None or found.startswith(("http://", "https://"))


@pytest.mark.parametrize(
    ("status", "billed"), [(200, True), (202, True), (206, True), (302, False), (400, False), (429, False), (504, True)]
)
def test_any_2xx_may_be_billed(status: int, billed: bool) -> None:
    """The table takes every 2xx for an answer, so its intent stays open until the line is durable."""
    assert may_be_billed(Reply(status=status, headers={}, body=b"")) is billed
