"""The File API on the wire: resumable protocol, states, expiry, storage, names and pages."""

import base64
import hashlib
import re

import pytest
from emulator_http import MEDIA, Http

from pipeline.emulator import Plan
from pipeline.limits import Limits

CHUNK = 8 * 1024 * 1024
STATUS, RECEIVED = "X-Goog-Upload-Status", "X-Goog-Upload-Size-Received"


def test_chunked_upload_follows_the_protocol(api):
    """Start, chunk, query and finalize carry the documented headers, and the final reply wraps the file."""
    content = bytes(range(256)) * (CHUNK // 256) + b"tail"
    started = api.start({"display_name": "big"}, len(content), "image/png")
    assert (started.status, started.body) == (200, b"")
    assert started.headers[STATUS] == "active"
    assert started.headers["X-Goog-Upload-Chunk-Granularity"] == "8388608"
    url = started.headers["X-Goog-Upload-URL"]
    assert url.startswith(f"{api.base_url}/upload/v1beta/files?upload_id=")
    assert url.endswith("&upload_protocol=resumable")
    first = api.send(url, "upload", 0, content[:CHUNK])
    assert (first.status, first.headers[STATUS], first.body) == (200, "active", b"")
    queried = api.send(url, "query")
    assert (queried.headers[STATUS], queried.headers[RECEIVED]) == ("active", str(CHUNK))
    last = api.send(url, "upload, finalize", CHUNK, content[CHUNK:])
    assert last.headers[STATUS] == "final"
    file = last.json["file"]
    assert base64.b64decode(file["sha256Hash"]).decode() == hashlib.sha256(content).hexdigest()
    assert file["sizeBytes"] == str(len(content))
    again = api.send(url, "query")
    assert (again.headers[STATUS], again.json["file"]["name"]) == ("final", file["name"])
    dead = api.send(url, "upload", CHUNK, b"")
    assert (dead.status, dead.body) == (400, b"Upload has already been terminated.")
    assert dead.headers["Content-Type"].startswith("text/plain")


def test_bare_finalize_closes_an_upload(api):
    """Finalize without bytes makes the file of what was received."""
    url = api.start({}, CHUNK).headers["X-Goog-Upload-URL"]
    api.send(url, "upload", 0, bytes(CHUNK))
    assert api.send(url, "finalize").json["file"]["sizeBytes"] == str(CHUNK)


@pytest.mark.parametrize(
    ("offset", "size", "text"),
    [
        (0, 821333, "The client sent 821333 bytes, which is not a multiple of the 8388608 byte chunk granularity."),
        (5, CHUNK, "Upload offset 5 does not match the 0 bytes received."),
    ],
)
def test_wrong_chunks_are_refused_in_plain_text(api, offset, size, text):
    """A chunk of the wrong size or at the wrong place is a 400 that says so, and changes nothing."""
    url = api.start({}, 2 * CHUNK).headers["X-Goog-Upload-URL"]
    refused = api.send(url, "upload", offset, bytes(size))
    assert (refused.status, refused.body.decode(), refused.headers[STATUS]) == (400, text, "active")
    assert api.send(url, "query").headers[RECEIVED] == "0"


def test_sizes_that_differ_from_the_start_are_refused(api):
    """Finalizing fewer bytes than were announced makes no file."""
    url = api.start({}, 10).headers["X-Goog-Upload-URL"]
    assert api.send(url, "upload, finalize", 0, b"nine").status == 400
    assert api("GET", "/v1beta/files").json == {}


def test_cancel_ends_a_session_and_frees_its_name(api):
    """A cancelled upload says so to every later request, and its name can be used again."""
    url = api.start({"name": "files/mine"}, 4).headers["X-Goog-Upload-URL"]
    assert api.start({"name": "files/mine"}, 4).status == 409
    assert api.send(url, "cancel").headers[STATUS] == "cancelled"
    assert api.send(url, "query").headers[STATUS] == "cancelled"
    assert api.send(url, "upload, finalize", 0, b"1234").status == 400
    assert api.start({"name": "files/mine"}, 4).status == 200


def test_unknown_session_is_a_404_without_a_body(api):
    """A dead upload URL is a 404 that carries neither a body nor the protocol's header."""
    answer = api.send("/upload/v1beta/files?upload_id=none", "query")
    assert (answer.status, answer.body, answer.headers[STATUS]) == (404, b"", None)


def test_resource_has_the_services_shapes(api):
    """Bare on get, int64 as a string, nanosecond expiry under 48 hours, no displayName when unset."""
    uploaded = api.upload((MEDIA / "coffee.png").read_bytes())
    file = api("GET", f"/v1/{uploaded['name']}").json
    assert file == uploaded
    assert "displayName" not in file
    assert re.fullmatch(r"files/[a-z0-9]{12}", file["name"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", file["createTime"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", file["expirationTime"])
    assert len(file["sha256Hash"]) == 88
    assert (file["state"], file["source"]) == ("ACTIVE", "UPLOADED")


def test_multipart_upload_makes_a_file(api):
    """Metadata and bytes in one multipart/related request, bytes that hold newlines included."""
    content = b"\x89PNG\r\n\r\n--not the boundary\r\n"
    body = (
        b'--B\r\nContent-Type: application/json; charset=utf-8\r\n\r\n{"file": {"displayName": "cat"}}\r\n'
        b"--B\r\nContent-Type: image/png\r\n\r\n" + content + b"\r\n--B--\r\n"
    )
    headers = {"X-Goog-Upload-Protocol": "multipart", "Content-Type": "multipart/related; boundary=B"}
    file = api("POST", "/upload/v1/files", body, headers).json["file"]
    assert (file["displayName"], file["mimeType"], file["sizeBytes"]) == ("cat", "image/png", str(len(content)))
    assert base64.b64decode(file["sha256Hash"]).decode() == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("name", ["files/-a", "files/a-", "files/" + "a" * 41, "files/UPPER", "files/a_b"])
def test_chosen_names_are_checked(api, name):
    """Names outside the documented pattern are refused with 400."""
    assert api.start({"name": name}, 4).status == 400


def test_taken_names_are_409_and_long_ones_cannot_be_deleted(api):
    """A name in use is ALREADY_EXISTS; deleting an over-long one fails validation before lookup."""
    assert api.upload(b"x", name="files/u-1")["name"] == "files/u-1"
    taken = api.start({"name": "files/u-1"}, 4)
    assert (taken.status, taken.json["error"]["status"]) == (409, "ALREADY_EXISTS")
    assert api("DELETE", "/v1beta/files/" + "a" * 42).status == 400


def test_pages_are_newest_first_and_end_without_a_token(api):
    """Ten a page by default, 100 at most, and a token that survives deletions."""
    names = [api.upload(b"x%d" % number)["name"] for number in range(12)]
    page = api("GET", "/v1beta/files").json
    assert [file["name"] for file in page["files"]] == names[:1:-1]
    api("DELETE", f"/v1beta/{names[2]}")
    rest = api("GET", f"/v1beta/files?pageToken={page['nextPageToken']}").json
    assert [file["name"] for file in rest["files"]] == names[1::-1]
    assert "nextPageToken" not in rest
    assert api("GET", "/v1beta/files?pageSize=101").status == 400
    assert api("GET", "/v1beta/files?pageToken=%21").status == 400


def test_files_expire_on_the_virtual_clock(api, gemini_emulator):
    """48 hours later a file is the 403 that stands for every reason it cannot be had."""
    name = api.upload(b"x")["name"]
    gemini_emulator.advance(48 * 3600 - 60)
    assert api("GET", f"/v1beta/{name}").status == 200
    gemini_emulator.advance(60)
    gone = api("GET", f"/v1beta/{name}")
    identifier = name.removeprefix("files/")
    assert gone.status == 403
    assert gone.json["error"]["message"] == (
        f"You do not have permission to access the File {identifier} or it may not exist."
    )


def test_files_belong_to_their_key(api):
    """Another key sees neither the file nor its place in the list."""
    name = api.upload(b"x")["name"]
    assert api("GET", f"/v1beta/{name}", key="other").status == 403
    assert api("GET", "/v1beta/files", key="other").json == {}


def test_full_storage_is_a_429_that_waiting_does_not_cure(gemini_emulator_factory):
    """The quota's name, its value as a string and int64-max seconds, until a file is deleted."""
    plan = Plan(limits=Limits(project_storage_bytes=10))
    api = Http(gemini_emulator_factory(plan).base_url)
    name = api.upload(b"12345678")["name"]
    full = api.start({}, 3)
    failure, retry = full.json["error"]["details"]
    assert full.status == 429
    assert failure["violations"][0]["quotaId"] == "FileStorageBytesPerProject"
    assert failure["violations"][0]["quotaValue"] == "10"
    assert retry["retryDelay"] == "9223372036854775807s"
    assert api("DELETE", f"/v1beta/{name}").json == {}
    assert api.start({}, 3).status == 200


def test_processing_ends_on_the_clock_and_is_refused_before(gemini_emulator_factory):
    """A video used while PROCESSING is a FAILED_PRECONDITION; once ACTIVE it tells its duration."""
    emulator = gemini_emulator_factory(Plan(processing_seconds={"video/*": 60.0}))
    api = Http(emulator.base_url)
    video = api.upload((MEDIA / "coffee_zoom.mp4").read_bytes(), "video/mp4")
    assert video["state"] == "PROCESSING"
    part = {"file_data": {"file_uri": video["uri"]}}
    early = api.generate(part)
    assert (early.status, early.json["error"]["status"]) == (400, "FAILED_PRECONDITION")
    assert "is not in an ACTIVE state and usage is not allowed." in early.json["error"]["message"]
    emulator.advance(61)
    assert api("GET", f"/v1beta/{video['name']}").json["videoMetadata"] == {"videoDuration": "4s"}
    assert api.generate(part).status == 200
