"""Faults in the life of a file, from the start of its upload to its use."""

import http.client

import pytest
from emulator_http import MEDIA

from pipeline.emulator import Fault

CHUNK = 8 * 1024 * 1024


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
