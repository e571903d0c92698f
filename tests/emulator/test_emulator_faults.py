"""Every kind of fault does on the wire what its name says, and plans strike the same requests every time."""

import gzip
import http.client
import json
import socket
import threading
import time
import urllib.parse

import pytest
from emulator_http import MEDIA, MODEL, Http

from pipeline.emulator import Fault, Plan
from pipeline.emulator.fault_kinds import KINDS
from pipeline.emulator.faults import draw
from pipeline.emulator.routing import ROUTES

TEXT = {"text": "a prompt"}
RAW_BODY = json.dumps({"contents": [{"parts": [TEXT]}]}).encode()
CHUNK = 8 * 1024 * 1024


@pytest.fixture
def api_with(gemini_emulator_factory):
    def start(*faults: Fault, **plan) -> Http:
        emulator = gemini_emulator_factory(Plan(fault=list(faults), describe="brief", **plan))
        api = Http(emulator.base_url)
        api.emulator = emulator
        return api

    return start


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


@pytest.mark.parametrize(("durable", "kept"), [(True, 4 * 1024 * 1024), (False, 0)])
def test_cut_chunks_can_be_resumed_from_what_is_durable(api_with, durable, kept):
    """A chunk is cut in the middle; the query tells what was kept, and the file made of the rest is right."""
    api = api_with(Fault(kind="cut_upload", first=1, durable=durable))
    content = bytes(range(256)) * (CHUNK // 256)
    url = api.start({"display_name": "cut"}, CHUNK).headers["X-Goog-Upload-URL"]
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        api.send(url, "upload, finalize", 0, content)
    assert int(api.send(url, "query").headers["X-Goog-Upload-Size-Received"]) == kept
    if not kept:
        assert api.send(url, "upload, finalize", kept, content[kept:]).status == 200
        return
    file = api.send(url, "upload, finalize", kept, content[kept:]).json["file"]
    assert file["sha256Hash"] == api_with().upload(content)["sha256Hash"]


def test_lost_finalize_leaves_a_file_that_a_query_finds(api_with):
    """The connection is reset after the file was made."""
    api = api_with(Fault(kind="lost_finalize"))
    url = api.start({}, 1).headers["X-Goog-Upload-URL"]
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        api.send(url, "upload, finalize", 0, b"x")
    assert len(api("GET", "/v1beta/files").json["files"]) == 1
    assert api.send(url, "query").json["file"]["sizeBytes"] == "1"


def test_upload_urls_can_be_missing_or_foreign(api_with):
    """A start without its URL, and one that points elsewhere with the session still in it."""
    assert api_with(Fault(kind="upload_no_url")).start().headers["X-Goog-Upload-URL"] is None
    foreign = api_with(Fault(kind="upload_foreign_url", host="http://192.0.2.1:8000")).start()
    assert foreign.headers["X-Goog-Upload-URL"].startswith("http://192.0.2.1:8000/upload/v1beta/files?upload_id=")


def test_redirects_lead_to_the_host_they_name(api_with):
    """The Location is the fault's host with the request's path."""
    answer = api_with(Fault(kind="redirect", host="https://elsewhere.example.com")).generate(TEXT)
    assert answer.headers["Location"] == f"https://elsewhere.example.com/v1beta/models/{MODEL}:generateContent"


def test_vanished_files_are_403_and_gone(api_with):
    """The file is deleted just before generate sees it."""
    api = api_with(Fault(kind="vanish", attempt=1))
    file = api.upload(b"x", display_name="soon gone")
    part = {"fileData": {"fileUri": file["uri"]}}
    assert api.generate(part, part).status == 403
    assert api("GET", f"/v1beta/{file['name']}").status == 403


def test_files_can_fail_or_never_be_ready(api_with):
    """FAILED carries an error and is not usable; a stuck file is PROCESSING even days later."""
    failed = api_with(Fault(kind="fail_processing", message="bad codec"))
    file = failed.upload(b"x")
    assert (file["state"], file["error"]) == ("FAILED", {"code": 13, "message": "bad codec"})
    assert failed.generate({"fileData": {"fileUri": file["uri"]}}).status == 400
    stuck = api_with(Fault(kind="stuck_processing"))
    name = stuck.upload(b"x")["name"]
    stuck.emulator.advance(40 * 3600)
    assert stuck("GET", f"/v1beta/{name}").json["state"] == "PROCESSING"


@pytest.mark.parametrize(
    ("kind", "field"),
    [("hash_wrong", "sha256Hash"), ("size_wrong", "sizeBytes"), ("mime_wrong", "mimeType"), ("unknown_state", "state")],
)
def test_finished_files_can_be_told_wrongly(api_with, kind, field):
    """One field differs from an honest answer, in the finalize reply and in files.get."""
    honest, api = api_with().upload(b"x"), api_with(Fault(kind=kind))
    file = api.upload(b"x")
    assert {name for name in ("sha256Hash", "sizeBytes", "mimeType", "state") if file[name] != honest[name]} == {field}
    assert api("GET", f"/v1beta/{file['name']}").json == file


def test_upload_faults_have_their_bodies(api_with):
    """A full storage names its quota at the start of an upload, and a taken name is a 409."""
    full = api_with(Fault(kind="429_storage", retry_info="1s")).start()
    assert full.json["error"]["details"][0]["violations"][0]["quotaId"] == "FileStorageBytesPerProject"
    assert full.json["error"]["details"][1]["retryDelay"] == "1s"
    assert api_with(Fault(kind="409_exists")).start().status == 409


def test_injected_errors_lack_the_status_header(api_with):
    """A 5xx in an upload is not the upload server talking; afterwards the session goes on."""
    api = api_with(Fault(kind="503_empty", route="upload_chunk", attempt=1))
    url = api.start({}, 1).headers["X-Goog-Upload-URL"]
    broken = api.send(url, "upload, finalize", 0, b"x")
    assert (broken.status, broken.headers["X-Goog-Upload-Status"]) == (503, None)
    assert api.send(url, "upload, finalize", 0, b"x").status == 200


def statuses(api: Http, prompts: list[str], parallel: bool) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {prompt: [] for prompt in prompts}

    def ask(prompt: str) -> None:
        found[prompt] += [api.generate({"text": prompt}).status for _ in range(2)]

    if not parallel:
        for prompt in prompts:
            ask(prompt)
        return found
    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in reversed(prompts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_a_plan_strikes_the_same_requests_in_any_order(api_with):
    """With a rate, the same prompts and attempts fail whether asked one by one or all at once in reverse."""
    faults = [Fault(kind="503", route="generate", rate=0.3), Fault(kind="500", route="*", rate=0.2)]
    prompts = [f"prompt {number}" for number in range(40)]
    first = statuses(api_with(*faults, seed=5), prompts, parallel=False)
    assert statuses(api_with(*faults, seed=5), prompts, parallel=True) == first
    assert statuses(api_with(*faults, seed=6), prompts, parallel=False) != first
    seen = [status for pair in first.values() for status in pair]
    assert set(seen) == {200, 500, 503}
    assert 10 < seen.count(503) < 40


def test_draws_are_even():
    """The share of identities under a rate is the rate."""
    hits = sum(draw(1, 0, "generate", str(number), 1) < 0.25 for number in range(4000))
    assert 900 < hits < 1100


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"attempt": 2}, [200, 500, 200, 200]),
        ({"attempt": [1, 3]}, [500, 200, 500, 200]),
        ({"first": 1}, [500, 200, 200, 200]),
        ({"after": 1}, [200, 500, 500, 500]),
        ({"until": 2}, [500, 500, 200, 200]),
        ({"after": 1, "until": 2}, [200, 500, 200, 200]),
        ({"match": "prompt"}, [500] * 4),
        ({"match": "another"}, [200] * 4),
        ({"rate": 0.0}, [200] * 4),
        ({"until_seconds": 60}, [500] * 4),
        ({"after_seconds": 60}, [200] * 4),
        ({"route": "count_tokens"}, [200] * 4),
        ({"route": ["generate", "file_get"]}, [500] * 4),
    ],
)
def test_faults_select_by_attempt_count_time_text_and_route(api_with, selection, expected):
    """Each way of selecting hits exactly the requests it says."""
    api = api_with(Fault(kind="500", **{"route": "generate", **selection}))
    assert [api.generate(TEXT).status for _ in range(4)] == expected


def test_faults_follow_the_virtual_clock_and_file_names(api_with):
    """A span in seconds opens when the clock is moved, and a display name selects an upload's requests."""
    api = api_with(
        Fault(kind="503", route="generate", after_seconds=300, until_seconds=600),
        Fault(kind="500", route="upload_start", match="bad"),
    )
    seen = []
    for seconds in (0, 301, 300):
        api.emulator.advance(seconds)
        seen.append(api.generate(TEXT).status)
    assert seen == [200, 503, 200]
    assert [api.start({"display_name": name}).status for name in ("good", "bad one")] == [200, 500]


def test_every_kind_strikes_only_routes_that_exist():
    """The table of kinds names known routes, and holds every kind of the classification."""
    assert len(KINDS) >= 55
    assert all(kind.routes <= ROUTES for kind in KINDS.values())


def test_a_whole_video_upload_survives_a_stormy_plan(api_with):
    """Faults on every step in turn still leave a file whose bytes are right."""
    api = api_with(
        Fault(kind="503", route="upload_start", attempt=1),
        Fault(kind="cut_upload", attempt=1),
        Fault(kind="500", route="query", attempt=1),
    )
    content = (MEDIA / "coffee_zoom.mp4").read_bytes()
    assert api.start({"display_name": "v"}, len(content), "video/mp4").status == 503
    url = api.start({"display_name": "v"}, len(content), "video/mp4").headers["X-Goog-Upload-URL"]
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        api.send(url, "upload, finalize", 0, content)
    assert [api.send(url, "query").status for _ in range(2)] == [500, 200]
    assert api.send(url, "upload, finalize", 0, content).json["file"]["sizeBytes"] == str(len(content))
    assert api.emulator.ledger()["faults"] == {"503": 1, "cut_upload": 1, "500": 1}
