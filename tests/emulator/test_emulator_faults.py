"""Every kind of fault does on the wire what its name says, and plans strike the same requests every time."""

import gzip
import json
import socket
import time
import urllib.parse

import pytest
from emulator_http import MODEL, Http

from pipeline.emulator import Fault

TEXT = {"text": "a prompt"}
RAW_BODY = json.dumps({"contents": [{"parts": [TEXT]}]}).encode()
CHUNK = 8 * 1024 * 1024


def raw(api: Http, seconds: float = 5.0) -> tuple[bytes, str]:
    """Every byte of a generate answer up to the connection's end, and how it ended."""
    parts = urllib.parse.urlsplit(api.base_url)
    head = (
        f"POST /v1beta/models/{MODEL}:generateContent?key=k HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Connection: close\r\nContent-Length: {len(RAW_BODY)}\r\n\r\n"
    )
    received, ends = b"", time.monotonic() + seconds
    with socket.create_connection((parts.hostname, parts.port), timeout=seconds) as connection:
        connection.sendall(head.encode() + RAW_BODY)
        try:
            while block := connection.recv(65536):
                received += block
                connection.settimeout(max(0.01, ends - time.monotonic()))
        except ConnectionResetError:
            return received, "reset"
        except TimeoutError:
            return received, "open"
    return received, "closed"


@pytest.mark.parametrize(
    ("kind", "status", "text"),
    [
        ("429_rpm", 429, "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"),
        ("429_tpm", 429, "GenerateContentInputTokensPerModelPerMinute-FreeTier"),
        ("429_rpd", 429, "GenerateRequestsPerDayPerProjectPerModel-FreeTier"),
        ("429_rpd_short_delay", 429, '"retryDelay":"34s"'),
        ("429_rpd_and_rpm", 429, "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"),
        ("429_plain", 429, "Resource has been exhausted (e.g. check quota)."),
        ("429_prepaid", 429, "Your prepayment credits are depleted."),
        ("429_limit_zero", 429, f"limit: 0, model: {MODEL}"),
        ("500", 500, "INTERNAL"),
        ("502_html", 502, "<!DOCTYPE html>"),
        ("503", 503, "UNAVAILABLE"),
        ("503_empty", 503, ""),
        ("504", 504, "Deadline expired before operation could complete."),
        ("499", 499, "The operation was cancelled."),
        ("408", 408, "timed out"),
        ("401", 401, "UNAUTHENTICATED"),
        ("403_leaked", 403, "reported as leaked"),
        ("403_service_disabled", 403, "SERVICE_DISABLED"),
        ("400_key_invalid", 400, "API_KEY_INVALID"),
        ("400_key_expired", 400, "API key expired. Please renew the API key."),
        ("400_location", 400, "User location is not supported for the API use."),
        ("400_generic", 400, "Request contains an invalid argument."),
        ("400_not_active", 400, "is not in an ACTIVE state and usage is not allowed."),
        ("400_mime", 400, "Unsupported MIME type"),
        ("400_tokens", 400, "The input token count (1200293) exceeds"),
        ("404_model", 404, f"models/{MODEL} is not found for API version v1beta"),
        ("404_empty", 404, ""),
        ("413", 413, "Too Large"),
        ("list_wrapped", 503, '[{"error"'),
        ("redirect", 307, ""),
    ],
)
def test_refusals_answer_as_documented_and_do_no_work(api_with, kind, status, text):
    """The status and the telling part of the body are right, and nothing is paid."""
    api = api_with(Fault(kind=kind, route="generate"))
    answer = api.generate(TEXT)
    assert answer.status == status
    assert text in answer.body.decode()
    assert bool(text) == bool(answer.body)
    assert api.emulator.ledger()["paid_answers"] == 0


@pytest.mark.parametrize("delay", ["9223372036854775807s", "-1s", "NaNs", "53.016342224s"])
def test_retry_delays_can_be_absurd(api_with, delay):
    """retry_info replaces the delay, whatever it says."""
    api = api_with(Fault(kind="429_rpm", route="generate", retry_info=delay, quota_value=7))
    details = api.generate(TEXT).json["error"]["details"]
    assert details[2]["retryDelay"] == delay
    assert details[1]["violations"][0]["quotaValue"] == "7"


@pytest.mark.parametrize(
    ("kind", "parts", "reason"),
    [
        ("no_parts", None, "STOP"),
        ("max_tokens", 1, "MAX_TOKENS"),
        ("unknown_finish", 1, "REASON_OF_TOMORROW"),
        ("finish", 1, "RECITATION"),
        ("not_json_output", 1, "STOP"),
        ("invalid_json_output", 1, "STOP"),
        ("only_thoughts", 1, "STOP"),
        ("two_candidates", 1, "STOP"),
    ],
)
def test_spoilt_answers_are_200_and_paid(api_with, kind, parts, reason):
    """The candidate is spoilt as the kind says, the usage stays, and the answer counts as paid."""
    api = api_with(Fault(kind=kind, reason="RECITATION" if kind == "finish" else ""))
    answer = api.generate(TEXT)
    candidate = answer.json["candidates"][0]
    assert (answer.status, candidate["finishReason"]) == (200, reason)
    assert len(candidate["content"].get("parts", [])) == (parts or 0)
    assert answer.json["usageMetadata"]["promptTokenCount"] == 2
    assert api.emulator.ledger()["paid_answers"] == 1


def test_spoilt_answers_differ_in_the_way_they_say(api_with):
    """A block has no candidates, thoughts are marked, and the two JSON faults break at different depths."""
    config = {
        "responseMimeType": "application/json",
        "responseSchema": {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}},
    }

    def text_of(kind):
        answer = api_with(Fault(kind=kind)).generate(TEXT, generationConfig=config).json
        return answer["candidates"][0]["content"]["parts"][0]

    assert isinstance(json.loads(text_of("invalid_json_output")["text"]), list)
    with pytest.raises(json.JSONDecodeError):
        json.loads(text_of("not_json_output")["text"])
    assert text_of("only_thoughts")["thought"] is True
    blocked = api_with(Fault(kind="block_prompt", reason="SAFETY")).generate(TEXT).json
    assert blocked["promptFeedback"] == {"blockReason": "SAFETY"}
    assert "candidates" not in blocked
    assert "candidates" not in api_with(Fault(kind="no_candidates")).generate(TEXT).json
    assert len(api_with(Fault(kind="two_candidates")).generate(TEXT).json["candidates"]) == 2
    silent = api_with(Fault(kind="finish", reason="SAFETY", text=False)).generate(TEXT).json
    assert silent["candidates"][0]["content"] == {"role": "model"}


@pytest.mark.parametrize(
    ("kind", "some_bytes", "ending", "paid"),
    [
        ("reset_before", False, "reset", 0),
        ("reset_after", False, "reset", 1),
        ("reset_during", True, "reset", 1),
    ],
)
def test_resets_break_the_connection_and_tell_whether_it_was_paid(api_with, kind, some_bytes, ending, paid):
    """A RST before the answer, after the work, or in the middle of the body."""
    api = api_with(Fault(kind=kind, route="generate"))
    received, ended = raw(api)
    assert (bool(received), ended) == (some_bytes, ending)
    ledger = api.emulator.ledger()
    assert (ledger["calls"], ledger["paid_answers"]) == ({"generate": {"reset": 1}}, paid)


@pytest.mark.parametrize(
    ("framing", "header"),
    [
        ("content_length", b"Content-Length:"),
        ("chunked", b"Transfer-Encoding: chunked"),
        ("close", b"Connection: close"),
    ],
)
def test_truncated_bodies_keep_their_framing(api_with, framing, header):
    """Half of the JSON arrives under each framing, and the connection ends without a reset."""
    received, ended = raw(api_with(Fault(kind="truncated_json", route="generate", framing=framing)))
    head, _, body = received.partition(b"\r\n\r\n")
    assert ended == "closed"
    assert header in head
    assert b'"candidates"' in body
    assert b"responseId" not in body
    assert not body.endswith(b"0\r\n\r\n")


def test_bodies_of_the_wrong_kind(api_with):
    """HTML with 200, nothing at all, and a small body that unpacks to a large one; each was paid."""
    html = api_with(Fault(kind="html_200", route="generate"))
    answer = html.generate(TEXT)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=UTF-8")
    assert html.emulator.ledger()["paid_answers"] == 1
    empty = api_with(Fault(kind="empty_body", route="generate")).generate(TEXT)
    assert (empty.status, empty.body) == (200, b"")
    bomb = api_with(Fault(kind="gzip_bomb", route="generate", mebibytes=4)).generate(TEXT)
    assert bomb.headers["Content-Encoding"] == "gzip"
    assert len(bomb.body) < 40_000
    assert len(gzip.decompress(bomb.body)) == 4 * 1024 * 1024


def test_slow_answers_take_their_time_and_hung_ones_never_come(api_with):
    """slow waits its seconds, slow_loris drips single bytes, hang lasts until the client leaves, which is noted."""
    began = time.monotonic()
    assert api_with(Fault(kind="slow", route="generate", seconds=0.2)).generate(TEXT).status == 200
    assert time.monotonic() - began >= 0.2
    received, ended = raw(api_with(Fault(kind="slow_loris", route="generate")), seconds=0.4)
    assert ended == "open"
    assert len(received.partition(b"\r\n\r\n")[2]) in {1, 2}
    hung = api_with(Fault(kind="hang", route="generate"))
    assert raw(hung, seconds=0.2) == (b"", "open")
    while not hung.emulator.ledger()["calls"]:
        time.sleep(0.01)
    assert hung.emulator.ledger()["calls"] == {"generate": {"client_left": 1}}


def test_redirects_lead_to_the_host_they_name(api_with):
    """The Location is the fault's host with the request's path."""
    answer = api_with(Fault(kind="redirect", host="https://elsewhere.example.com")).generate(TEXT)
    assert answer.headers["Location"] == f"https://elsewhere.example.com/v1beta/models/{MODEL}:generateContent"
